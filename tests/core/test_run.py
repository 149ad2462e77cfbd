"""The fold: what reaches learner and monitors, what a run leaves, and that it goes on after whatever stops it."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

from everlearn import Adapter, Batch, Boundary, Budget, Feedback, FineTune, Learner, Monitor, run
from everlearn.core import run as module
from everlearn.core.errors import ArgumentError, BudgetError, InputError, StateError
from everlearn.core.events import to_device
from everlearn.core.guard import Guard
from everlearn.core.run import Fold, environment
from everlearn.core.state import load_snapshot, newest_snapshot, same

HERE = Path(__file__).parent


def outcome(result):
    """Everything that two runs must agree on."""
    return result.figures, result.curve, result.used, result.events, result.sha256


# ---- the fold --------------------------------------------------------------------------------------------------------------


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


# ---- bad input -------------------------------------------------------------------------------------------------------------


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


# ---- what a run leaves -----------------------------------------------------------------------------------------------------


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


# ---- going on --------------------------------------------------------------------------------------------------------------


class Interrupted(Monitor):
    """Presses Ctrl-C at one event."""

    name = "tally"
    parts = ("inner",)

    def __init__(self, inner, at):
        self.inner, self.at = inner, at

    def start(self, learner, stream):
        self.inner.start(learner, stream)

    def wants_prediction(self, event):
        return self.inner.wants_prediction(event)

    def observe(self, step, learner):
        self.inner.observe(step, learner)
        if step.position == self.at:
            signal.raise_signal(signal.SIGINT)

    def judge(self, *given):
        self.inner.judge(*given)

    def record(self, learner):
        return self.inner.record(learner)

    def figures(self):
        return self.inner.figures()


@pytest.fixture
def hears_ctrl_c():
    """A shell's background job is deaf to Ctrl-C, and so is all that it starts; here it is heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("at", [0, 6, 7, 19, 33, 39])
def test_ctrl_c_and_the_same_call_go_on_to_the_same_bits(clouds, replay, tally, tmp_path, at, hears_ctrl_c):
    stream = clouds(40, boundaries=True, late=1)
    expected = run(replay(), stream, monitors=[Interrupted(tally(), None)])
    with pytest.raises(KeyboardInterrupt):
        run(replay(), stream, monitors=[Interrupted(tally(), at)], folder=tmp_path, snapshot_every=7)
    result = run(replay(), stream, monitors=[Interrupted(tally(), None)], folder=tmp_path, snapshot_every=7)
    assert outcome(result) == outcome(expected)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == expected.curve


def test_a_crash_at_any_rename_goes_on_to_the_same_bits(clouds, replay, tally, tmp_path, monkeypatch):
    """The moment between two files of a snapshot is where half a snapshot could come from."""
    stream = clouds(12)
    expected = run(replay(), stream, monitors=[tally()])
    real, crashes = os.replace, 0

    class Crash(BaseException):
        pass

    for place in range(100):
        folder, left = tmp_path / str(place), [place]

        def rename(source, target, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            real(source, target)

        monkeypatch.setattr(os, "replace", rename)
        try:
            run(replay(), stream, monitors=[tally()], folder=folder, snapshot_every=4)
        except Crash:
            crashes += 1
        else:
            break
        finally:
            monkeypatch.setattr(os, "replace", real)
        assert outcome(run(replay(), stream, monitors=[tally()], folder=folder, snapshot_every=4)) == outcome(expected)
    assert crashes == 9  # config, curve, 3 snapshots of two files, result


def killed(tmp_path, kills, seed):
    program = [sys.executable, str(HERE / "kills.py"), str(tmp_path), str(kills), str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, timeout=580, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found["kills"]) >= kills
    return found["undisturbed"], found["killed"]


@pytest.mark.slow
def test_six_kills_change_nothing(tmp_path):
    undisturbed, records = killed(tmp_path, kills=6, seed=0)
    assert records and all(record == undisturbed for record in records)
    assert undisturbed["events"] == 180 and len(undisturbed["curve"]) == 180
    assert undisturbed["figures"]["memory"]["stored"] == 40


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_kills_change_nothing(tmp_path):
    undisturbed, records = killed(tmp_path, kills=50, seed=1)
    assert records and all(record == undisturbed for record in records)


def test_a_finished_run_called_again_learns_nothing_and_says_the_same(clouds, replay, tally, tmp_path, monkeypatch):
    first = run(replay(), clouds(30), monitors=[tally()], folder=tmp_path)
    again = replay()
    monkeypatch.setattr(again, "update", None)
    monkeypatch.setattr(again, "predict", None)
    second = run(again, clouds(30), monitors=[tally()], folder=tmp_path)
    assert outcome(second) == outcome(first)
    assert same(second.learner.state_dict(), first.learner.state_dict())


def test_without_resume_a_folder_starts_anew(clouds, fine_tune, replay, tally, tmp_path):
    run(replay(), clouds(30), monitors=[tally()], folder=tmp_path)
    watch = tally()
    result = run(fine_tune(), clouds(20), monitors=[watch], folder=tmp_path, resume=False)
    assert watch.events == 20 and len(watch.log) == 21
    assert outcome(result) == outcome(run(fine_tune(), clouds(20), monitors=[tally()]))
    assert {path.stem for path in (tmp_path / "snapshots").glob("*.json")} == {"000000018", "000000020"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"budget": Budget(labels=10)}, r"budget: 'budget\(\)' there, 'budget\(labels=10\)' now"),
        ({"monitors": []}, r"monitors: \['tally'\] there, \[\] now"),
        ({"config": {"note": 2}}, "note: 1 there, 2 now"),
        ({"seed": 1}, "initial_state: "),
        ({"length": 31}, r"stream: 'clouds\(length=30, seed=0\)' there, 'clouds\(length=31, seed=0\)' now"),
    ],
)
def test_a_folder_of_another_configuration_is_refused_with_the_difference(clouds, fine_tune, tally, tmp_path, change, named):
    settings = {"monitors": [tally()], "config": {"note": 1}, "seed": 0, "length": 30, "budget": None}

    def call(seed, length, **rest):
        return run(fine_tune(seed), clouds(length), folder=tmp_path, **rest)

    call(**settings)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(StateError, match=f"another configuration.*{named}.*--no-resume"):
        call(**{**settings, **change})
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("text", ["learner: [", "", "- 1\n- 2\n", "\x00\x01", b"\xff\xfe\x00"])
def test_a_garbled_configuration_is_refused(clouds, fine_tune, tmp_path, text):
    run(fine_tune(), clouds(10), folder=tmp_path)
    (tmp_path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StateError, match=r"config\.yaml (cannot be read|is not the configuration)"):
        run(fine_tune(), clouds(10), folder=tmp_path)


def test_snapshots_of_nobody_are_not_taken_over(clouds, fine_tune, replay, tmp_path):
    run(replay(), clouds(10), folder=tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(StateError, match=r"holds snapshots, and no config\.yaml"):
        run(fine_tune(), clouds(10), folder=tmp_path)
    assert outcome(run(fine_tune(), clouds(10), folder=tmp_path, resume=False)) == outcome(run(fine_tune(), clouds(10)))


def spoil(path, way):
    data = path.read_bytes()
    if way == "gone":
        path.unlink()
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "cut short":
        path.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


@pytest.mark.parametrize("way", ["gone", "empty", "cut short", "one bit"])
@pytest.mark.parametrize("kind", ["json", "safetensors"])
def test_a_garbled_newest_snapshot_is_passed_over(clouds, replay, tmp_path, kind, way):
    stream = clouds(30)
    expected = outcome(run(replay(), stream))
    with pytest.raises(KeyboardInterrupt):
        run(replay(), stream, folder=tmp_path, snapshot_every=5, progress=_interrupt(23))
    newest = sorted((tmp_path / "snapshots").glob(f"*.{kind}"))[-1]
    assert newest.stem == "000000020"
    spoil(newest, way)
    assert newest_snapshot(tmp_path / "snapshots")[0] == 15
    assert outcome(run(replay(), stream, folder=tmp_path, snapshot_every=5)) == expected


def _interrupt(at):
    def progress(done, total):
        if done == at:
            raise KeyboardInterrupt

    return progress


def test_where_every_snapshot_is_garbled_nothing_is_started_silently(clouds, fine_tune, tmp_path):
    run(fine_tune(), clouds(20), folder=tmp_path)
    for path in (tmp_path / "snapshots").glob("*.safetensors"):
        spoil(path, "one bit")
    with pytest.raises(StateError, match=r"no usable snapshot.*sha256 does not match.*--no-resume"):
        run(fine_tune(), clouds(20), folder=tmp_path)
    assert outcome(run(fine_tune(), clouds(20), folder=tmp_path, resume=False)) == outcome(run(fine_tune(), clouds(20)))


def test_snapshots_of_a_future_that_was_given_up_are_removed(clouds, fine_tune, tmp_path):
    """A garbled snapshot 20 must not count among the newest two while the run goes on from 10 in smaller steps."""
    stream = clouds(40)
    with pytest.raises(KeyboardInterrupt):
        run(fine_tune(), stream, folder=tmp_path, snapshot_every=10, progress=_interrupt(25))
    spoil(tmp_path / "snapshots" / "000000020.safetensors", "one bit")
    with pytest.raises(KeyboardInterrupt):
        run(fine_tune(), stream, folder=tmp_path, snapshot_every=3, progress=_interrupt(16))
    assert [path.stem for path in sorted((tmp_path / "snapshots").iterdir())] == 2 * ["000000012"] + 2 * ["000000015"]


def test_what_a_killed_process_half_wrote_is_swept(clouds, fine_tune, tmp_path):
    stream = clouds(20)
    with pytest.raises(KeyboardInterrupt):
        run(fine_tune(), stream, folder=tmp_path, progress=_interrupt(12))
    (tmp_path / ".result.json.123").write_text("{")
    (tmp_path / "snapshots" / ".000000014.json.99").write_text("{")
    (tmp_path / "snapshots" / "000000014.safetensors").write_bytes(b"half")
    run(fine_tune(), stream, folder=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".") or path.stem == "000000014"]


def test_a_folder_that_is_a_file_is_refused(clouds, fine_tune, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StateError, match="cannot make the run folder"):
        run(fine_tune(), clouds(5), folder=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# ---- a full disk -----------------------------------------------------------------------------------------------------------


def mountable():
    """Whether this process may mount a small file system of its own."""
    if os.geteuid() != 0:
        return False
    place = tempfile.mkdtemp()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True, check=False)
    if mounted.returncode == 0:
        subprocess.run(["umount", place], check=True)
    os.rmdir(place)
    return mounted.returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def check_full_disk(clouds, replay, folder, fill, free):
    """A memory that grows makes each snapshot larger than the last, until one does not fit."""
    stream = clouds(500)
    expected = outcome(run(replay(capacity=4000), stream))
    fill()
    with pytest.raises(StateError, match=r"cannot write .*\.(safetensors|json).*earlier files stand"):
        run(replay(capacity=4000), stream, folder=folder, snapshot_every=50)
    free()
    left = sorted(path.name for path in (folder / "snapshots").iterdir())
    assert [name.split(".")[1] for name in left] == 2 * ["json", "safetensors"]
    number, _ = newest_snapshot(folder / "snapshots")
    assert 0 < number < 500
    assert not list(folder.glob(".*")) and not (folder / "result.json").exists()
    assert outcome(run(replay(capacity=4000), stream, folder=folder, snapshot_every=50)) == expected


def test_a_limit_on_file_sizes_leaves_the_earlier_snapshots(clouds, replay, tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    try:
        check_full_disk(
            clouds,
            replay,
            tmp_path / "run",
            fill=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard)),
            free=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


if mountable():

    def test_a_full_disk_leaves_the_earlier_snapshots(clouds, replay, small_disk):
        block = small_disk / "block"
        check_full_disk(
            clouds, replay, small_disk / "run", fill=lambda: block.write_bytes(bytes(700_000)), free=lambda: block.unlink()
        )


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("place", range(10))
def test_any_write_that_fails_is_one_error_and_goes_on(clouds, fine_tune, tally, tmp_path, monkeypatch, call, place):
    stream = clouds(12)
    expected = outcome(run(fine_tune(), stream, monitors=[tally()]))
    real, left = getattr(os, call), [place]

    def fail(*given):
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*given)

    monkeypatch.setattr(os, call, fail)
    try:
        run(fine_tune(), stream, monitors=[tally()], folder=tmp_path, snapshot_every=4)
    except StateError as error:
        assert "No space left on device" in str(error)
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
        for path in (tmp_path / "snapshots").glob("*.json"):
            assert load_snapshot(path)[0] == int(path.stem)
    else:
        assert left[0] >= 0
    monkeypatch.setattr(os, call, real)
    assert outcome(run(fine_tune(), stream, monitors=[tally()], folder=tmp_path, snapshot_every=4)) == expected


def test_a_curve_that_cannot_be_written_is_one_error(clouds, fine_tune, tally, tmp_path, monkeypatch):
    import builtins

    real = builtins.open

    def refuse(path, mode="r", *given, **named):
        if str(path).endswith("metrics.jsonl") and mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, mode, *given, **named)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(StateError, match=r"cannot write .*metrics\.jsonl: No space left"):
        run(fine_tune(), clouds(12), monitors=[tally()], folder=tmp_path)


# ---- devices ---------------------------------------------------------------------------------------------------------------


def test_errors_of_a_budget_come_out_of_the_run(clouds, fine_tune):
    with pytest.raises(BudgetError, match="one update keeps"):
        run(fine_tune(), clouds(5), budget=Budget(activation_bytes=10))
