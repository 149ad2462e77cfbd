"""The fold: what reaches learner and monitors, what a run leaves, and that it goes on after whatever stops it."""

import json

import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

from everlearn import Adapter, Batch, Boundary, Budget, Feedback, FineTune, Learner, run
from everlearn.core import run as module
from everlearn.core.errors import ArgumentError, BudgetError, InputError
from everlearn.core.events import to_device
from everlearn.core.guard import Guard
from everlearn.core.run import Fold, environment
from everlearn.core.state import newest_snapshot, same

from .runs import outcome

# ---- the fold ----------------------------------------------------------------------------------------------------------------


def test_a_run_is_the_bare_loop(clouds, network):
    """Fine-tuning through `run` gives the weights of the loop that anyone would write, to the bit."""
    stream, model = clouds(30), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    model.train()
    for batch in stream:
        optimizer.zero_grad()
        cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()
    from everlearn.optim.optimizers import SGD

    result = run(FineTune(network(), optimizer=SGD(0.1, momentum=0.9)), stream)
    assert same(dict(model.state_dict()), dict(result.learner.descent.model.state_dict()))
    assert result.events == 30 and result.used == {"labels": 180, "updates": 30, "closed": "", "activation_bytes": 0}


def test_monitors_see_every_event_with_the_answer_given_before_learning(clouds, fine_tune, tally):
    stream, watch, learner = clouds(5), tally(), fine_tune()
    run(learner, stream, monitors=[watch])
    assert watch.log[0] == "start"
    steps = watch.log[1:]
    assert [step.position for step in steps] == list(range(5))
    twin = fine_tune()
    for step, event in zip(steps, stream, strict=True):
        assert torch.equal(step.event.x, event.x)
        assert torch.equal(step.prediction, twin.predict(event.x))
        assert step.metrics["loss"] == twin.update(event)["loss"]
        assert step.predict_seconds > 0 and step.update_seconds > 0


def test_nothing_is_predicted_that_no_monitor_asks_for(clouds, tally):
    class Shy(Learner):
        name = "shy"
        parts = ()

        def predict(self, x):
            raise AssertionError("nobody asked")

        def update(self, batch):
            return {}

        def boundary(self, boundary):
            """Nothing."""

    run(Shy(), clouds(4))
    with pytest.raises(AssertionError):
        run(Shy(), clouds(4), monitors=[tally()])


def test_held_out_sets_are_judged_at_every_checkpoint_by_the_learner_of_that_moment(clouds, fine_tune, tally):
    stream, watch, learner = clouds(8), tally(), fine_tune()
    assert stream.checkpoints == (4, 8)
    run(learner, stream, monitors=[watch])
    twin, expected = fine_tune(), []
    for number, event in enumerate(stream, start=1):
        twin.update(event)
        if number in (4, 8):
            for index, held_out in enumerate(stream.held_out):
                right = (twin.predict(held_out.x).argmax(1) == held_out.y).double().mean()
                expected.append([number // 4 - 1, index, held_out.name, float(right)])
    assert watch.judged == expected


def test_held_out_sets_are_judged_in_parts_as_in_one(clouds, fine_tune, tally, monkeypatch):
    whole = run(fine_tune(), clouds(8), monitors=[tally()])
    monkeypatch.setattr(module, "JUDGE_ROWS", 3)
    assert run(fine_tune(), clouds(8), monitors=[tally()]).figures == whole.figures


def test_the_curve_has_at_most_200_points_and_every_checkpoint(clouds, fine_tune, tally):
    few = run(fine_tune(), clouds(7), monitors=[tally()]).curve
    assert [point["event"] for point in few] == [1, 2, 3, 4, 5, 6, 7]
    many = run(fine_tune(), clouds(901), monitors=[tally()]).curve
    assert [point["event"] for point in many] == sorted({*range(4, 901, 4), 450, 901})
    assert many[-1]["tally"]["rows"] == 901 * 6


class Mover(Adapter):
    """Moves a bias to what it sees; counts how it was told."""

    name = "mover"
    parts = ("bias", "told")

    def __init__(self):
        self.bias = torch.zeros(4)
        self.told = []
        self.guard = Guard(self.name, 4)

    def predict(self, x):
        self.told.append("predict")
        return x[:, :4] - self.bias

    def adapt(self, x):
        self.told.append("adapt")
        self.bias = x[:, :4].mean(0)
        return x[:, :4] - self.bias

    def update(self, batch):
        self.told.append("update")
        return {}

    def boundary(self, boundary):
        self.told.append("boundary")


def test_adapters_adapt_on_inputs_without_answers_and_the_budget_counts_it(clouds, tally):
    stream = clouds(8, late=1, boundaries=True)
    learner = Mover()
    result = run(learner, stream, monitors=[tally()])
    assert learner.told[:6] == ["boundary", "predict", "update", "adapt", "predict", "update"]
    assert learner.told.count("adapt") == 3
    assert result.used["updates"] == 3 + 4  # adapted, and learned from
    limited = Mover()
    result = run(limited, clouds(8, late=1, boundaries=True), budget=Budget(updates=2))
    assert limited.told == ["boundary", "update", "adapt"]
    assert result.used["closed"] == "updates"


def test_hidden_answers_reach_monitors_and_no_learner(clouds, fine_tune, tally):
    """Batches without y: what was predicted is scored, by adapters and by learners that pass such a batch over."""
    stream = clouds(6)
    plain = type(stream).__getitem__

    class Silent(type(stream)):
        def __getitem__(self, index):
            event = plain(self, index)
            return event if index < 2 else Batch(event.x)

        def hidden_answers(self, index):
            return None if index < 2 else plain(self, index).y

    class Asked(tally):
        def wants_prediction(self, event):
            return False

    silent = Silent(6)
    for learner, told in ((Mover(), ["update"] * 2 + ["adapt"] * 4), (fine_tune(), None)):
        watch = Asked()
        run(learner, silent, monitors=[watch])
        steps = watch.log[1:]
        assert [step.answers is None for step in steps] == [True] * 2 + [False] * 4
        assert all(torch.equal(step.answers, plain(silent, step.position).y) for step in steps[2:])
        assert all(step.event.y is None and step.prediction is not None for step in steps[2:])
        if told:
            assert [word for word in learner.told if word != "predict"] == told
    twin = fine_tune()
    for index in range(2):
        twin.update(silent[index])
    assert same(twin.state_dict(), learner.state_dict())  # answers that are hidden teach nothing
    assert stream.hidden_answers(0) is None


def test_an_open_ended_stream_needs_no_run(clouds, fine_tune, tally):
    """`Fold.step` is all that a server calls; it ends where `run` ends."""
    stream, learner = clouds(12), fine_tune()
    fold = Fold(learner, stream, Budget(), [tally()])
    for event in stream:
        fold.step(event)
    assert same(learner.state_dict(), run(fine_tune(), stream).learner.state_dict())


def test_events_are_moved_with_all_their_rows():
    batch = Batch({"a": torch.zeros(2), "b": torch.ones(2)}, torch.zeros(2, dtype=torch.int64), time=torch.zeros(2))
    moved = to_device(Boundary(1, (0,), batch), "meta")
    assert moved.data.y.device.type == moved.data.x["b"].device.type == "meta"
    assert to_device(batch, "meta").x["a"].device.type == "meta"
    told = Feedback("1", torch.zeros(1, 2), 0, None, 1.0)
    assert to_device(told, "meta") is told and to_device(Boundary(1), "meta") == Boundary(1)


# ---- bad input ---------------------------------------------------------------------------------------------------------------


def test_an_empty_stream_is_refused(clouds, fine_tune):
    with pytest.raises(InputError, match=r"clouds\(length=0, seed=0\) is empty"):
        run(fine_tune(), clouds(0))


def test_a_learner_that_needs_boundaries_is_refused_where_there_are_none(clouds, network, tmp_path):
    from everlearn import OnlineEWC

    with pytest.raises(InputError, match=r"online_ewc needs announced boundaries, and clouds.* has none"):
        run(OnlineEWC(network()), clouds(5), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run(OnlineEWC(network()), clouds(25, boundaries=True))


@pytest.mark.parametrize("every", [0, -3, 2.5, True])
def test_a_senseless_distance_of_snapshots_is_refused(clouds, fine_tune, every):
    with pytest.raises(ArgumentError, match="snapshot_every must be an int >= 1"):
        run(fine_tune(), clouds(5), snapshot_every=every)


def test_bad_rows_in_the_middle_stop_the_run_and_leave_the_snapshots(clouds, fine_tune, tmp_path):
    stream = clouds(40)
    broken = stream[25]
    broken.x[2, 3] = torch.nan
    whole = type(stream).__getitem__
    faulty = clouds(40)
    faulty.__class__ = type(
        "Faulty", (type(stream),), {"__getitem__": lambda self, i: broken if i == 25 else whole(self, i)}
    )
    with pytest.raises(InputError, match=r"x holds nan at \(2, 3\)"):
        run(fine_tune(), faulty, folder=tmp_path, snapshot_every=10)
    assert newest_snapshot(tmp_path / "snapshots")[0] == 20
    result = run(fine_tune(), stream, folder=tmp_path, snapshot_every=10)
    assert outcome(result) == outcome(run(fine_tune(), stream))


# ---- what a run leaves -------------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_the_result_says(clouds, fine_tune, tally, tmp_path):
    result = run(fine_tune(), clouds(50), monitors=[tally()], budget=Budget(labels=100), folder=tmp_path, config={"note": 3})
    settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert settings["note"] == 3 and settings["monitors"] == ["tally"]
    assert settings["learner"] == "fine_tune(optimizer=sgd(momentum=0.9))" and settings["budget"] == "budget(labels=100)"
    assert settings["stream"] == "clouds(length=50, seed=0)" and len(settings["initial_state"]) == 64
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == result.curve
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["figures"] == json.loads(json.dumps(result.figures)) and record["sha256"] == result.sha256
    assert record["environment"] == environment()
    assert {"torch", "python", "device", "threads", "commit", "everlearn"} <= set(record["environment"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "metrics.jsonl", "result.json", "snapshots"]
    assert [path.stem for path in sorted((tmp_path / "snapshots").glob("*.json"))] == ["000000045", "000000050"]


def test_snapshots_come_as_often_as_asked(clouds, fine_tune, tmp_path, monkeypatch):
    numbers = []
    monkeypatch.setattr(module, "save_snapshot", lambda folder, number, state: numbers.append(number))
    run(fine_tune(), clouds(50), folder=tmp_path / "a")
    run(fine_tune(), clouds(50), folder=tmp_path / "b", snapshot_every=20)
    assert numbers == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 20, 40, 50]


def test_progress_is_told(clouds, fine_tune, tmp_path):
    told = []
    run(fine_tune(), clouds(401), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (401, 401) and told[:2] == [(2, 401), (4, 401)] and len(told) == 201


# ---- devices -----------------------------------------------------------------------------------------------------------------


def test_errors_of_a_budget_come_out_of_the_run(clouds, fine_tune):
    with pytest.raises(BudgetError, match="one update keeps"):
        run(fine_tune(), clouds(5), budget=Budget(activation_bytes=10))
