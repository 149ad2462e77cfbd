"""A run that is stopped goes on: after Ctrl-C and kill -9, on spoiled snapshots, and on a full disk."""

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

from everlearn import Budget, Monitor, run
from everlearn.core.errors import StateError
from everlearn.core.state import load_snapshot, newest_snapshot, same

from .runs import outcome

HERE = Path(__file__).parent


# ---- going on ----------------------------------------------------------------------------------------------------------------


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


# ---- a full disk -------------------------------------------------------------------------------------------------------------


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
