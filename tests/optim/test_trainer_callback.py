"""Forgetting and schedules in a `transformers.Trainer`: when, of what, resumed from a checkpoint, and what is refused."""

import importlib.util
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call

from everlearn.core.errors import ArgumentError, MissingExtraError
from everlearn.core.random import isolated
from everlearn.optim.forgetting import Forgetting, Normal, Reset, own_group
from everlearn.optim.fresh_rows import fresh_rows
from everlearn.optim.rates import InfiniteLR, ScheduledLR
from everlearn.optim.schedules import Infinite, Join, RepeatedCosine, Warmup
from everlearn.optim.trainer_callback import forgetting_callback, input_embeddings

WORDS, LENGTH = 30, 8
pytestmark = pytest.mark.slow  # `transformers` takes seconds to import


def gpt2(seed=0):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": WORDS, "n_positions": LENGTH, "n_embd": 16, "n_layer": 1, "n_head": 2}
    with isolated(seed, "network"):
        return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def bert(seed=0):
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with isolated(seed, "network"):
        return BertForMaskedLM(BertConfig(**sizes, vocab_size=WORDS, max_position_embeddings=LENGTH))


MODELS = {"gpt2": (gpt2, "transformer.wte.weight"), "bert": (bert, "bert.embeddings.word_embeddings.weight")}


def rows(count=40):
    ids = torch.randint(1, WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(5))
    return [{"input_ids": row, "labels": row} for row in ids]


def trainer_of(model, folder, *, callbacks=(), optimizers=(None, None), steps=12, **options):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy=options.pop("save_strategy", "no"),
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        **options,
    )
    return Trainer(model, arguments, train_dataset=rows(), callbacks=list(callbacks), optimizers=optimizers)


def watch(table):
    """A callback that keeps a copy of a table at the end of each update, and at the beginning of the next one's passes."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self):
            self.ends, self.begins = {}, {}

        def on_step_end(self, args, state, control, *, model, **others):
            self.ends[state.global_step] = model.get_parameter(table).detach().clone()

        def on_step_begin(self, args, state, control, *, model, optimizer, **others):
            value = model.get_parameter(table)
            moments = [item for item in optimizer.state.get(value, {}).values() if isinstance(item, torch.Tensor)]
            self.begins[state.global_step] = (value.detach().clone(), sum(float(item.abs().sum()) for item in moments))

    return Watch()


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- without a trainer: the protocol ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_callback_is_forgetting_between_two_updates(name):
    """The calls that a trainer makes, by hand, beside `Forgetting.after`."""
    make, table = MODELS[name]
    ours, theirs = make(), make()
    rule = Reset(3, stop=7, init=Normal(0.02), exclude_rows=(0, 4), probability=0.5)
    first, second = (torch.optim.AdamW(model.parameters(), lr=0.01) for model in (ours, theirs))
    callback = forgetting_callback(rule, seed=9)
    forgetting = Forgetting(theirs, [table], second, rule, tied="together", seed=9)
    told = []
    callback.on_train_begin(None, None, None, model=ours, optimizer=first)
    for t in range(1, 11):
        callback.on_step_begin(None, SimpleNamespace(global_step=t - 1), None, model=ours, optimizer=first)
        assert same(weights(ours), weights(theirs))
        for model, optimizer in ((ours, first), (theirs, second)):
            with isolated(t, "dropout"):
                model(input_ids=rows()[t]["input_ids"][None], labels=rows()[t]["labels"][None]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert same(weights(ours), weights(theirs))
        told.append(forgetting.after(t))
    assert callback.reports == [report for report in told if report] and [report.update for report in callback.reports] == [
        3,
        6,
    ]
    assert 0 < callback.reports[0].rows[table] < WORDS - 2


@pytest.mark.parametrize("name", MODELS)
def test_the_table_is_found_whatever_its_name(name):
    make, table = MODELS[name]
    model = make()
    assert input_embeddings(model) == [table]
    assert model.get_output_embeddings().weight is model.get_parameter(table)


def test_tokens_of_one_batch_may_be_fresh_in_a_tied_model():
    """The form for models that are trained already: the table of one pass, in and out, through the model as it is."""
    model = gpt2().eval()
    table, ids = model.get_input_embeddings().weight, rows()[0]["input_ids"][None]
    before, whole = weights(model), model(input_ids=ids).logits

    def scores(probability):
        fresh = fresh_rows(
            table, ids, probability, torch.Generator().manual_seed(1), Normal(0.02), exclude_rows=(int(ids[0, 0]),)
        )
        return functional_call(model, {"transformer.wte.weight": fresh}, kwargs={"input_ids": ids}).logits, fresh

    assert torch.equal(scores(0.0)[0], whole)
    found, fresh = scores(1.0)
    assert not torch.allclose(found, whole)
    with torch.no_grad():
        by_hand = gpt2().eval()
        by_hand.get_input_embeddings().weight.copy_(fresh)
        torch.testing.assert_close(by_hand(input_ids=ids).logits, found.detach(), rtol=1e-5, atol=1e-6)
    found.square().sum().backward()
    still = (table.grad == 0).all(1)
    assert set(still.nonzero().flatten().tolist()) == set(ids.unique().tolist()) - {int(ids[0, 0])}
    assert same(before, weights(model))


def test_what_cannot_be_reset_is_refused():
    model = gpt2()
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ArgumentError, match=r"rule must be a rule such as Reset\(every=1000\), got 1000"):
        forgetting_callback(1000)
    for callback, told in (
        (forgetting_callback(Reset(3), tied=None), r"transformer\.wte\.weight is tied to lm_head\.weight"),
        (forgetting_callback(Reset(3), select="*word*"), "'\\*word\\*' fits no parameter"),
        (forgetting_callback(Reset(3, exclude_rows=(WORDS,))), f"exclude_rows holds {WORDS}"),
    ):
        with pytest.raises(ArgumentError, match=told):
            callback.on_train_begin(None, None, None, model=model, optimizer=optimizer)
    others = torch.optim.AdamW(model.transformer.h.parameters())
    with pytest.raises(ArgumentError, match="is not among the parameters of the optimiser"):
        forgetting_callback(Reset(3)).on_train_begin(None, None, None, model=model, optimizer=others)
    model.set_input_embeddings(nn.Identity())
    with pytest.raises(ArgumentError, match=r"GPT2LMHeadModel\.get_input_embeddings\(\) gives Identity, whose weight"):
        forgetting_callback(Reset(3)).on_train_begin(None, None, None, model=model, optimizer=optimizer)


def test_without_the_library_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("everlearn.core.errors.importlib.import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'everlearn\[hub\]'"):
        forgetting_callback(Reset(3))


def test_importing_it_imports_no_transformers():
    import subprocess
    import sys

    code = "import sys, everlearn.optim.trainer_callback; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


# ---- in a trainer ----------------------------------------------------------------------------------------------------------

in_trainer = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None,
    reason="transformers.Trainer needs accelerate: pip install 'everlearn[hub]'",
)


@in_trainer
@pytest.mark.parametrize("name", MODELS)
def test_a_trainer_forgets_between_its_updates(name, tmp_path):
    make, table = MODELS[name]
    callback, seen = forgetting_callback(Reset(4, stop=12, exclude_rows=(0,))), watch(table)
    model = make()
    trainer_of(model, tmp_path, callbacks=[callback, seen]).train()
    assert [(report.update, report.rows) for report in callback.reports] == [
        (4, {table: WORDS - 1}),
        (8, {table: WORDS - 1}),
    ]
    for t in range(1, 12):
        before, (after, moments) = seen.ends[t], seen.begins[t]
        changed = (before != after).all(1)
        assert changed.tolist() == [t in (4, 8) and row > 0 for row in range(WORDS)]
        assert (moments == 0) == (t in (4, 8))
    assert model.get_output_embeddings().weight is model.get_parameter(table)
    assert float(seen.begins[4][0][1:].std()) == pytest.approx(1.0, rel=5 / math.sqrt(2 * (WORDS - 1) * 16))


@in_trainer
def test_a_model_is_handed_over_as_it_was_trained(tmp_path):
    """Update 12 is due too, and nothing comes after it; measured at the end of an update, no model is one just reset."""
    callback, seen = forgetting_callback(Reset(4)), watch("transformer.wte.weight")
    model = gpt2()
    trainer = trainer_of(model, tmp_path, callbacks=[callback, seen])
    trainer.train()
    assert [report.update for report in callback.reports] == [4, 8]
    assert torch.equal(model.get_parameter("transformer.wte.weight"), seen.ends[12])
    trainer.train()  # a second training counts from the beginning
    assert [report.update for report in callback.reports] == [4, 8]


@in_trainer
def test_resets_count_updates_not_batches(tmp_path):
    callback, seen = forgetting_callback(Reset(2)), watch("transformer.wte.weight")
    trainer_of(gpt2(), tmp_path, callbacks=[callback, seen], steps=6, gradient_accumulation_steps=3).train()
    assert [report.update for report in callback.reports] == [2, 4]
    assert [t for t in range(1, 6) if not torch.equal(seen.ends[t], seen.begins[t][0])] == [2, 4]


@in_trainer
def test_never_due_the_trainer_ends_in_the_same_bits(tmp_path):
    ends = []
    for callbacks in ([], [forgetting_callback(Reset(100))], [forgetting_callback(Reset(4))]):
        model = gpt2()
        trainer_of(model, tmp_path, callbacks=callbacks).train()
        ends.append(weights(model))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


SCHEDULES = {
    "scheduled": (
        lambda optimizer: ScheduledLR(optimizer, RepeatedCosine(0.01, steps=5, warmup=2)),
        RepeatedCosine(0.01, steps=5, warmup=2),
    ),
    "infinite": (lambda optimizer: InfiniteLR(optimizer, 0.01, warmup=3, cooldown_end=8), Infinite(0.01, 3, 8)),
}


def made(kind, folder, **options):
    """A trainer with a schedule of ours and forgetting; (model, trainer)."""
    model = gpt2()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    scheduler = SCHEDULES[kind][0](optimizer)
    callbacks = [forgetting_callback(Reset(3, init=Normal(0.02), probability=0.8))]
    return model, trainer_of(model, folder, callbacks=callbacks, optimizers=(optimizer, scheduler), **options)


@in_trainer
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_trainer_logs_the_rates_of_the_schedule(kind, tmp_path):
    """The log of update t, counted from 1, holds the rate at which it was made: schedule(t - 1)."""
    _, trainer = made(kind, tmp_path)
    trainer.train()
    logged = {entry["step"]: entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry}
    assert logged == {t: SCHEDULES[kind][1](t - 1) for t in range(1, 13)}
    assert len(set(logged.values())) > 3


@in_trainer
@pytest.mark.parametrize("stop", [3, 7])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_trainer_goes_on_from_its_checkpoint_to_the_same_bits(kind, stop, tmp_path):
    """Update 3 is one after which the table is made anew: its checkpoint was written before."""
    whole, trainer = made(kind, tmp_path / "whole", save_strategy="steps", save_steps=stop)
    trainer.train()
    resumed, again = made(kind, tmp_path / "resumed")
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{stop}"))
    assert same(weights(whole), weights(resumed))
    rates = [
        [entry["learning_rate"] for entry in one.state.log_history if "learning_rate" in entry] for one in (trainer, again)
    ]
    assert rates[0] == rates[1]
    assert again.lr_scheduler.state_dict() == trainer.lr_scheduler.state_dict()
    states = [one.optimizer.state_dict()["state"] for one in (trainer, again)]
    assert all(torch.equal(states[0][key][name], states[1][key][name]) for key in states[0] for name in states[0][key])


@in_trainer
def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    from everlearn.core.errors import StateError

    made("infinite", tmp_path, save_strategy="steps", save_steps=6, steps=6)[1].train()
    with pytest.raises(StateError, match="the state of another scheduler"):
        made("scheduled", tmp_path / "other")[1].train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


@in_trainer
def test_a_trainer_restarts_the_rate_of_the_embeddings(tmp_path):
    model, rule = gpt2(), Reset(4, init=Normal(0.02))
    rate = Join(Warmup(0.01, steps=3), 3, RepeatedCosine(0.01, steps=9, min_lr=0.0))
    optimizer = torch.optim.AdamW(own_group(model, "transformer.wte.weight", tied="together"))
    scheduler = ScheduledLR(optimizer, [rate, rule.restarted(rate, steps=12)])
    seen = watch("transformer.wte.weight")
    trainer_of(model, tmp_path, callbacks=[forgetting_callback(rule), seen], optimizers=(optimizer, scheduler)).train()
    moved = [t for t in range(1, 13) if not torch.equal(seen.begins[t - 1][0], seen.ends[t])]
    assert moved == [t for t in range(1, 13) if rate((t - 1) * 3 % 12) > 0] == [2, 3, 4, 6, 7, 8, 10, 11, 12]
    assert [group["lr"] for group in optimizer.param_groups] == [rate(12), rate(0)]
