"""The log as a file: read again, it gives the events that the server's fold saw, and so the weights that it has."""

import json
import time
import tracemalloc

import numpy
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everlearn.agents.uniform import Uniform
from everlearn.comparison.building import build_learner, build_stream
from everlearn.comparison.grid import compare
from everlearn.comparison.stream_text import stream_text
from everlearn.core.errors import SpecError, StateError
from everlearn.core.events import Batch, Feedback
from everlearn.core.run import run
from everlearn.core.state import digest
from everlearn.data.encoder import Categories, Encoder, Numbers
from everlearn.data.scaling import Scale
from everlearn.data.served import served
from everlearn.serve import export as module
from everlearn.serve.export import export
from everlearn.serve.fold import ServedFold, events_of
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Answer, Ask, Input, Moment, Told

PETS = InputSpec("classes", (3,), "float32", ("cat", "dog"), ("weight", "time", "x"))
ABOUT = {"model": "replay(capacity=50)", "seed": 4}


def same(one, other):
    """Whether two events are the same to the bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Feedback):
        return (
            (one.id, one.action, one.propensity, one.reward) == (other.id, other.action, other.propensity, other.reward)
            and type(one.action) is type(other.action)
            and same_tensor(one.observation, other.observation)
        )
    return one.id == other.id and all(same_tensor(getattr(one, key), getattr(other, key)) for key in ("x", "y", "time"))


def same_tensor(one, other):
    if one is None or other is None:
        return one is other
    alike = one.dtype == other.dtype and one.shape == other.shape and one.stride() == other.stride()
    return alike and one.numpy().tobytes() == other.numpy().tobytes()


def folded(moments, spec):
    return [event for moment in moments for event in events_of(moment, spec)]


def pets(steps, rows=8, seed=0, change=None):
    """Steps of a server: rows come, and are answered a step later; from step `change` on the labels are swapped."""
    random = numpy.random.default_rng(seed)
    seq, open_rows = 0, []
    for number in range(1, steps + 1):
        answers = []
        for row, label in open_rows:
            seq += 1
            answers.append(Answer(seq, row.id, row.x, row.output, row.version, label, 0, row.created, row.created + 60.0))
        inputs, open_rows = [], []
        for _ in range(rows):
            seq += 1
            x = random.normal(size=3).astype(numpy.float32)
            label = int(x[0] > 0) ^ int(change is not None and number >= change)
            output = {"answer": "cat", "probabilities": [0.75, 0.25]}
            inputs.append(Input(seq, f"id-{seq}", x.tobytes(), output, number // 5, 1.7e9 + seq / 8))
            open_rows.append((inputs[-1], label))
        yield Moment(0, number, seq - 2 * rows, seq, tuple(inputs), tuple(answers))


# ---- the same events -------------------------------------------------------------------------------------------------------


@st.composite
def logs(draw):
    """(spec, moments) of any kind of server, with branches, corrections, empty steps and holes."""
    kind = draw(st.sampled_from(["classes", "values", "actions"]))
    dtype = draw(st.sampled_from(["float32", "float64", "uint8", "int64", "bool"]))
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 2)]))
    count = int(numpy.prod(shape))
    named = shape == (count,) and draw(st.booleans())
    features = (
        tuple(draw(st.lists(st.sampled_from(["x", "id", "y", "x.y", "a", "ä b"]), min_size=count, max_size=count)))
        if named
        else ()
    )
    targets = draw(st.sampled_from([("price",), ("price", "rent")])) if kind == "values" else ()
    spec = InputSpec(kind, shape, dtype, ("cat", "dog", "c10") if kind == "classes" else (), features, targets)
    random = numpy.random.default_rng(draw(st.integers(0, 10**6)))
    real = st.floats(-1e6, 1e6)
    told = {
        "classes": st.integers(0, 2),
        "values": st.lists(real, min_size=len(targets), max_size=len(targets)),
        "actions": real,
    }[kind]
    action = st.sampled_from([0, 3, "left", [1, 2], 1.5, True])

    def output():
        if kind == "classes":
            return {"answer": draw(st.sampled_from(spec.classes)), "probabilities": [1.0, 0.0, 0.0]}
        if kind == "values":
            return {"answer": draw(told)}
        return {"answer": draw(action), "propensity": draw(st.sampled_from([None, 0.25, 1.0]))}

    moments, seq, asked = [], 0, []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        inputs, answers = [], []
        for _ in range(draw(st.integers(0, 4))):
            seq += 1
            x = (random.random(count) * 200).astype(dtype).tobytes()
            name = draw(st.text(st.characters(exclude_categories=("Cs",)), max_size=6)) + str(seq)
            inputs.append(Input(seq, name, x, output(), number // 2, seq / 3))
        asked += inputs
        for _ in range(draw(st.integers(0, 4)) if asked else 0):
            row, y = draw(st.sampled_from(asked)), draw(told)
            seq += 1
            answers.append(
                Answer(
                    seq, row.id, row.x, row.output, row.version, y, len(answers), row.created, seq / 3, draw(st.booleans())
                )
            )
        moments.append(Moment(number // 3, 1 + number % 3, seq, seq, tuple(inputs), tuple(answers)))
    return spec, moments


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(logs(), st.integers(1, 9))
def test_the_stream_gives_the_events_that_were_folded(tmp_path_factory, log, rows):
    spec, moments = log
    path = tmp_path_factory.mktemp("log") / "deployed.parquet"
    wanted = folded(moments, spec)
    most, module.GROUP_ROWS = module.GROUP_ROWS, rows
    try:
        if not any(map(len, moments)):
            with pytest.raises(StateError, match="the log holds no steps yet, so there is nothing to export"):
                export(moments, path, spec, **ABOUT)
            return
        written = export(iter(moments), path, spec, **ABOUT)
    finally:
        module.GROUP_ROWS = most
    assert (written.steps, written.inputs + written.answers) == (len(moments), sum(map(len, moments)))
    if not wanted:  # an agent that was told no rewards
        return
    stream = served(path)
    assert len(stream) == len(wanted) and all(same(one, other) for one, other in zip(stream, wanted, strict=True))
    assert all(same(stream[index], wanted[index]) for index in reversed(range(len(wanted))))
    assert stream.about == {**ABOUT, "steps": len(moments)} and stream.schema == spec.schema


@pytest.mark.parametrize("text", ["fine_tune", "replay(capacity=20)", "streaming_lda", "retrain"])
def test_a_run_over_the_file_gives_the_weights_of_the_server(tmp_path, text):
    moments = list(pets(25))
    export(moments, tmp_path / "deployed.parquet", PETS, model=text, seed=0)
    stream = served(tmp_path / "deployed.parquet")
    blank = build_learner(text, stream, "mlp(hidden=(8,))", 0)
    server = ServedFold(build_learner(text, stream, "mlp(hidden=(8,))", 0), PETS, Options(guard=False))
    for moment in moments:
        server.apply(moment)
    before = digest(blank.state_dict())
    assert run(blank, stream).sha256 == server.sha256() != before


def test_a_run_over_the_file_gives_the_counts_of_an_agent(tmp_path):
    spec = InputSpec("actions", (1,), "float32")
    agent, moments = Uniform(actions=3, seed=1), []
    for number in range(1, 30):
        x = numpy.float32([number]).tobytes()
        decision = agent.act(spec.tensor([x]), key=number)
        asked = Input(2 * number, str(number), x, {"answer": decision.action, "propensity": decision.propensity}, 0, 1.0)
        told = Answer(2 * number + 1, asked.id, x, asked.output, 0, decision.action - 0.5, 0, 1.0, 2.0)
        moments.append(Moment(0, number, 2 * number, 2 * number + 1, (asked,), (told,)))
    export(moments, tmp_path / "deployed.parquet", spec, model="uniform(actions=3)", seed=1)
    server = ServedFold(Uniform(actions=3, seed=1), spec, Options(guard=False))
    for moment in moments:
        server.apply(moment)
    result = run(Uniform(actions=3, seed=1), served(tmp_path / "deployed.parquet"))
    assert result.sha256 == server.sha256() and int(result.learner.pulls.sum()) == 29


@pytest.mark.parametrize("after", ["none", "skip", "replay"])
def test_a_run_over_the_export_of_a_real_server_gives_its_weights(tmp_path, after):
    """Rows are asked and told over the engine, one is corrected, some are never answered; then it goes back to version 1, or not."""
    rows = build_stream("iid(iris)", 0)
    blank, learner = (build_learner("replay(capacity=30)", rows, "mlp(hidden=(8,))", 0) for _ in range(2))
    spec = InputSpec.of(learner, rows.schema)
    path = tmp_path / "deployed.parquet"
    with LocalEngine(learner, spec, tmp_path / "log", Options(batch=8, every=2, wait=0.01)) as engine:
        until(lambda: engine.status()["ready"])
        for part in range(8):
            live(engine, rows[part], part)
            if part == 4 and after != "none":
                until(lambda: learned(engine))
                engine.rollback(1, "a bad day", after)
        engine.feedback([Told("3.0", 1, revision=1)]).result()
        until(lambda: learned(engine))
        branch = engine.status()["branch"]
    with LocalEngine(learner, spec, tmp_path / "log", Options(batch=8, every=2)) as engine:
        last = engine.versions()[0]
        export(engine.history.lineage(last["version"]), path, spec, model=repr(learner), seed=0)
    assert branch == (0 if after == "none" else 1)
    stream = served(path)
    assert run(blank, stream).sha256 == last["sha256"]
    told = [name for event in stream if event.y is not None for name in event.id]
    assert told.count("3.0") >= 2 or after == "skip"
    assert ("4.0" in told) == (after != "skip") and "7.0" in told and "7.9" not in told


def live(engine, batch, part):
    """Rows are asked, and all but the last answered."""
    names = [f"{part}.{row}" for row in range(len(batch))]
    engine.predict([Ask(name, engine.spec.row(x.numpy())) for name, x in zip(names, batch.x, strict=True)]).result()
    engine.feedback([Told(name, int(y)) for name, y in zip(names[:-1], batch.y[:-1], strict=True)]).result()


def learned(engine):
    status = engine.status()
    return status["applied_seq"] == status["last_seq"]


def until(holds):
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("it took longer than 10 s")


# ---- the file --------------------------------------------------------------------------------------------------------------


def test_any_tool_can_read_the_columns(tmp_path):
    moments = list(pets(3, rows=2))
    written = export(moments, tmp_path / "deployed.parquet", PETS, **ABOUT)
    table = pyarrow.parquet.read_table(tmp_path / "deployed.parquet")
    assert (written.steps, written.inputs, written.answers) == (3, 6, 4)
    assert written.bytes == (tmp_path / "deployed.parquet").stat().st_size and table.num_rows == 10
    columns = table.to_pydict()
    assert columns["step"] == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    assert columns["kind"] == ["input"] * 2 + ["input", "input", "answer", "answer"] * 2
    assert columns["seq"] == [1, 2, 5, 6, 3, 4, 9, 10, 7, 8] and columns["id"][4] == "id-1"
    assert columns["y"][:4] == [None] * 4 and set(columns["y"][4:6]) <= {"cat", "dog"}
    assert columns["answer"] == ["cat"] * 10 and columns["default"] == [False] * 10 and columns["revision"] == [0] * 10
    x = numpy.frombuffer(moments[0].inputs[0].x, numpy.float32)
    assert [columns[name][0] for name in ("weight", "x.time", "x.x")] == x.tolist()
    description = json.loads(pyarrow.parquet.read_metadata(written.path).metadata[b"everlearn"])
    assert description == {"format": 1, "spec": PETS.to_json(), "model": "replay(capacity=50)", "seed": 4, "steps": 3}


def test_steps_count_along_the_lineage(tmp_path):
    """Steps of a branch are numbered from 1 again; in the file they go on, and empty ones count."""
    moments = list(pets(4))
    again = [
        Moment(1, number, moment.first, moment.last, moment.inputs, moment.answers)
        for number, moment in enumerate(moments[2:], 1)
    ]
    export([*moments[:2], Moment(0, 3, 99, 99, (), ()), *again], tmp_path / "deployed.parquet", PETS, **ABOUT)
    steps = pyarrow.parquet.read_table(tmp_path / "deployed.parquet", columns=["step"]).column("step").to_pylist()
    assert sorted(set(steps)) == [1, 2, 4, 5] and served(tmp_path / "deployed.parquet").about["steps"] == 5


def test_the_encoder_goes_with_the_file(tmp_path):
    encoder = Encoder((Numbers("weight", Scale(1.0, 2.0, 1.0)), Categories("fur", ("long", "short"))))
    spec = InputSpec("classes", (3,), "float32", ("cat", "dog"), encoder.features, encoder=encoder.to_json())
    export(pets(3), tmp_path / "deployed.parquet", spec, **ABOUT)
    assert served(tmp_path / "deployed.parquet").schema.encoder == encoder


def test_nothing_is_overwritten_without_force(tmp_path):
    path = tmp_path / "deployed.parquet"
    path.write_text("mine")
    with pytest.raises(StateError, match=r"deployed.parquet exists. Name another file, or replace it with --force"):
        export(pets(3), path, PETS, **ABOUT)
    assert path.read_text() == "mine"
    export(pets(3), path, PETS, force=True, **ABOUT)
    assert len(served(path)) == 5
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "deployed.parquet"

    def moments():
        yield from pets(3)
        path.write_text("mine")

    with pytest.raises(StateError, match="exists"):
        export(moments(), path, PETS, **ABOUT)
    assert path.read_text() == "mine" and sorted(tmp_path.iterdir()) == [path]


def test_a_failure_in_the_middle_leaves_what_stood(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_ROWS", 4)
    path = tmp_path / "deployed.parquet"
    export(pets(3), path, PETS, **ABOUT)
    before = path.read_bytes()

    def broken(error):
        yield from pets(20)
        assert next(item.name for item in tmp_path.iterdir() if item != path).startswith(".deployed.parquet.")
        raise error

    for error, raised in ((OSError(28, "No space left on device"), StateError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with pytest.raises(raised):
            export(broken(error), path, PETS, force=True, **ABOUT)
        assert path.read_bytes() == before and sorted(tmp_path.iterdir()) == [path]


def test_a_damaged_log_is_not_exported(tmp_path):
    moments = list(pets(2))
    wrong = Input(7, "a", b"\0" * 8, {"answer": "cat"}, 0, 1.0)
    with pytest.raises(StateError, match="the log is damaged: x of number 7 has 8 bytes, and a row has 12"):
        export([*moments, Moment(0, 3, 7, 7, (wrong,), ())], tmp_path / "deployed.parquet", PETS, **ABOUT)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_refused(tmp_path):
    for path, words in (
        (tmp_path / "deployed.csv", r"is named otherwise; use .*deployed.parquet"),
        (tmp_path / "nowhere" / "deployed.parquet", "cannot write"),
    ):
        with pytest.raises(StateError, match=words):
            export(pets(2), path, PETS, **ABOUT)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(StateError, match="is a folder"):
        export(pets(2), tmp_path / "folder.parquet", PETS, force=True, **ABOUT)


def test_memory_does_not_grow_with_the_log(tmp_path, monkeypatch):
    """Four times as many steps take no more memory; kept whole they would take four times as much (the control)."""
    monkeypatch.setattr(module, "GROUP_ROWS", 128)

    def peak(work):
        tracemalloc.start()
        work()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    export(pets(5), tmp_path / "warm.parquet", PETS, **ABOUT)
    short, long = (
        peak(lambda steps=steps: export(pets(steps), tmp_path / f"{steps}.parquet", PETS, **ABOUT)) for steps in (60, 240)
    )
    assert long < 1.3 * short
    whole = [
        peak(lambda steps=steps: export(list(pets(steps)), tmp_path / f"{steps}w.parquet", PETS, **ABOUT))
        for steps in (60, 240)
    ]
    assert whole[1] > 2 * whole[0]
    groups = pyarrow.parquet.read_metadata(tmp_path / "240.parquet")
    assert groups.num_row_groups == -(-groups.num_rows // 128) and groups.row_group(0).num_rows == 128


def test_row_groups_are_bounded_in_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_BYTES", 1 << 19)
    spec = InputSpec("classes", (3, 128, 128), "uint8", ("cat", "dog"))
    x = bytes(spec.row_bytes)
    inputs = tuple(Input(seq, str(seq), x, {"answer": "cat"}, 0, 1.0) for seq in range(1, 25))
    export([Moment(0, 1, 1, 24, inputs, ())], tmp_path / "images.parquet", spec, **ABOUT)
    assert (
        pyarrow.parquet.read_metadata(tmp_path / "images.parquet").row_group(0).num_rows == (1 << 19) // spec.row_bytes == 10
    )
    assert served(tmp_path / "images.parquet")[0].x.shape == (24, 3, 128, 128)


# ---- compared --------------------------------------------------------------------------------------------------------------


def test_a_file_of_this_kind_needs_no_target(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(pets(10), "deployed.parquet", PETS, **ABOUT)
    assert stream_text("deployed.parquet") == "served('deployed.parquet')"
    stream = build_stream("prefix(served('deployed.parquet', first=0.5), events=7)", 0)
    assert len(stream) == 7 and isinstance(stream[6], Batch)
    for wrong in ({"target": "y"}, {"time": "time"}):
        with pytest.raises(SpecError, match="is the log of a server, which knows its answers and times"):
            stream_text("deployed.parquet", **wrong)
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), "plain.parquet")
    assert stream_text("plain.parquet", target="a") == "prequential(table('plain.parquet', target='a'))"


def test_learners_of_classes_are_not_offered_other_logs(tmp_path):
    spec = InputSpec("actions", (3,), "float32")
    asked = Input(1, "a", bytes(12), {"answer": 0, "propensity": 1.0}, 0, 1.0)
    told = Answer(2, "a", bytes(12), asked.output, 0, 1.0, 0, 1.0, 2.0)
    export([Moment(0, 1, 1, 2, (asked,), (told,))], tmp_path / "actions.parquet", spec, **ABOUT)
    with pytest.raises(SpecError, match="a server that answers with actions; learners here answer with classes"):
        stream_text(str(tmp_path / "actions.parquet"))


def test_learners_are_compared_on_what_happened_to_a_server(tmp_path):
    """The labels are swapped half-way: who keeps learning is right again soon, who is frozen stays wrong."""
    path = tmp_path / "deployed.parquet"
    export(pets(120, change=60), path, PETS, **ABOUT)
    found = compare(["frozen", "fine_tune"], str(path), model="mlp(hidden=(16,))", seeds=2, engine="inline", baselines=False)
    record = found.record
    assert record["config"]["stream"] == f"served({str(path)!r})" and record["stream"]["events"] == 239
    assert record["stream"]["deployed"] == 48 and record["stream"]["headline"] == "prequential_accuracy"
    frozen, tuned = found.score("frozen")["mean"], found.score("fine_tune")["mean"]
    assert tuned > frozen + 0.1
    figures = record["learners"][0]["runs"][0]["figures"]["prequential"]
    assert figures["scored_all"] == 119 * 8 and figures["pending"] == 8
    none = compare(["frozen", "fine_tune"], str(path), model="mlp(hidden=(16,))", seeds=1, engine="inline", baselines=False)
    assert none.record["learners"][0]["runs"][0]["sha256"] == record["learners"][0]["runs"][0]["sha256"]


def test_the_events_of_an_export_are_contiguous_rows_of_their_own(tmp_path):
    export(pets(4), tmp_path / "deployed.parquet", PETS, **ABOUT)
    stream = served(tmp_path / "deployed.parquet")
    assert all(event.x.is_contiguous() and event.x.storage_offset() == 0 for event in stream)
    assert stream[0].x.untyped_storage().nbytes() == stream[0].x.numel() * 4
    assert stream[2].y.dtype == torch.int64 and stream[2].y.is_contiguous()
