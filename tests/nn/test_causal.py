"""Causal models from a folder: whole, looking back alone, tied as they were, through training, snapshots, copies and delivery."""

import sys

import pytest
import torch

from everlearn.comparison.pretraining_parts import build_network, deliver, delivered
from everlearn.core.errors import ArgumentError, DataError, MissingExtraError
from everlearn.core.state import load_snapshot, same, save_snapshot
from everlearn.data.pretraining import TextDomain
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss
from everlearn.nn.causal import causal_model
from everlearn.nn.pretext import NextToken
from everlearn.optim.schedules import Infinite

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 20, "n_positions": 8, "n_embd": 12, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}


def gpt2(**arguments):
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES | arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    gpt2().save_pretrained(place)
    return place


def text():
    return TextDomain("counting", torch.arange(1000) % 20, window=8)


def line(folder, **arguments):
    return ContinualPretrainer(causal_model(folder), schedule=Infinite(0.01, 2, 4), batch=8, **arguments)


def tied(model):
    return model.lm_head.weight is model.transformer.wte.weight


def test_it_is_the_model_of_the_folder_and_next_token_takes_its_scores(folder):
    model, source = causal_model(folder), gpt2().eval()
    assert same(dict(model.state_dict()), dict(source.state_dict())) and tied(model)
    rows = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    with torch.no_grad():
        chances = source(rows[:, :-1]).logits.log_softmax(-1)
        said = -sum(chances[row, place, rows[row, place + 1]] for row in range(2) for place in range(3)) / 6
        assert float(NextToken().loss(model, rows.to(torch.uint8))) == pytest.approx(float(said), abs=1e-6)


def test_half_a_precision_is_loaded_as_a_whole_one(tmp_path):
    source = gpt2().bfloat16()
    source.save_pretrained(tmp_path)
    model = causal_model(tmp_path)
    weights = model.state_dict()
    assert {weight.dtype for weight in weights.values()} == {torch.float32} and tied(model)
    assert all(torch.equal(weights[key], weight.float()) for key, weight in source.state_dict().items())


@pytest.mark.parametrize("tie", [True, False])
def test_snapshots_put_tied_weights_back_tied(tie, tmp_path):
    gpt2(tie_word_embeddings=tie).save_pretrained(tmp_path / "model")
    whole = line(tmp_path / "model")
    whole.phase(text(), 6)
    path = save_snapshot(tmp_path / "state", 6, whole.state_dict())
    losses = whole.phase(text(), 6)
    resumed = line(tmp_path / "model")
    resumed.load_state_dict(load_snapshot(path)[1])
    assert tied(resumed.model) is tie
    assert torch.equal(resumed.phase(text(), 6), losses)
    assert same(resumed.state_dict(), whole.state_dict()) and tied(resumed.model) is tie
    weights = resumed.model.state_dict()
    assert torch.equal(weights["lm_head.weight"], weights["transformer.wte.weight"]) is tie
    counted = sum(len(group["params"]) for group in resumed.optimizer.param_groups)
    assert counted == len(weights) - tie  # a weight with two names is learned once


def test_delivery_leaves_the_main_line_as_it_was_and_gives_a_model_with_ties_of_its_own(folder):
    main, control = line(folder), line(folder)
    for trainer in (main, control):
        trainer.phase(text(), 8)
    before = main.state_dict()
    model = main.deliver(6)
    assert same(main.state_dict(), before) and tied(main.model)
    assert tied(model) and model.transformer.wte.weight is not main.model.transformer.wte.weight and not model.training
    assert not torch.equal(model.lm_head.weight, main.model.lm_head.weight)
    assert torch.equal(
        main.phase(text(), 4), control.phase(text(), 4)
    )  # dropout too goes on as if nothing had been handed out


def test_what_is_delivered_loads_as_any_model_of_the_library(folder, tmp_path):
    trainer = line(folder)
    trainer.phase(text(), 8)
    model = trainer.deliver(4)
    shape = {"vocabulary": 20, "window": 8}
    deliver(model, tmp_path / "out", text=f"hub({str(folder)!r})", shape=shape)
    assert (tmp_path / "out/model.safetensors").is_file()
    for again in (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out"), delivered(tmp_path / "out")):
        assert same(dict(again.state_dict()), dict(model.state_dict())) and tied(again) and not again.training
    told = held_out_loss(delivered(tmp_path / "out"), NextToken(), text())
    assert told == held_out_loss(model, NextToken(), text()) < held_out_loss(causal_model(folder), NextToken(), text())
    assert tied(build_network(f"hub({str(tmp_path / 'out')!r})", shape))


def test_a_model_that_looks_ahead_is_refused(tmp_path):
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20}
    for causal in (False, True):
        config = transformers.BertConfig(**sizes, is_decoder=causal)
        transformers.BertLMHeadModel(config).save_pretrained(tmp_path / str(causal))
    assert causal_model(tmp_path / "True").config.vocab_size == 20
    with pytest.raises(DataError, match=r"BertLMHeadModel in .*False' sees the tokens that it is to tell"):
        causal_model(tmp_path / "False")


def test_folders_without_a_whole_model_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="there is no folder 'nowhere'"):
        causal_model("nowhere")
    with pytest.raises(DataError, match="no causal language model can be loaded from"):
        causal_model(tmp_path)
    transformers.GPT2Model(transformers.GPT2Config(**SIZES, tie_word_embeddings=False)).save_pretrained(
        tmp_path / "headless"
    )
    with pytest.raises(DataError, match=r"headless lacks 1 of the weights of GPT2LMHeadModel, such as lm_head.weight"):
        causal_model(tmp_path / "headless")


def test_more_tokens_than_the_model_takes_are_refused(folder):
    assert causal_model(folder, vocabulary=20, window=8)
    with pytest.raises(
        ArgumentError, match=r"tokenizer has 21 tokens, and GPT2LMHeadModel was made for 20; .*embeddings\(21\)"
    ):
        causal_model(folder, vocabulary=21)
    with pytest.raises(ArgumentError, match="takes 8 tokens at once, fewer than window=9"):
        build_network(f"hub({str(folder)!r})", {"vocabulary": 20, "window": 9})


def test_the_library_that_is_missing_is_named(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        MissingExtraError, match=r"a causal language model needs the library 'transformers'.*everlearn\[hub\]"
    ):
        causal_model(folder)
