"""Lessons: each is one call on the state before it, nothing before it is lost, and what cannot be taught is refused."""

import fcntl
import json
import time
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from PIL import Image

from everlearn import FewShot, load
from everlearn.comparison.building import build_learner, build_stream
from everlearn.comparison.job import Job, run_folder, run_job
from everlearn.core.budget import Budget
from everlearn.core.errors import ArgumentError, DataError, InputError, SpecError, StateError
from everlearn.core.state import digest, load_snapshot, newest_snapshot, write_snapshot
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told
from everlearn.serve.source import settle, source_of
from everlearn.serve.teach import sentences, teach

STREAM = "few_shot(digits, base_classes=5, way=1, shot=5, sessions=1, epochs=1)"
MODEL = "mlp(hidden=(16,))"


def trained(folder, learner="few_shot", stream=STREAM):
    job = Job(0, learner, learner, stream, MODEL, 0, Budget(), str(folder))
    record = run_job(job)
    assert record["error"] is None
    return run_folder(job)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(original, tmp_path):
    """A copy of a run of few_shot that knows six of the ten digits."""
    place = tmp_path / "run"
    (place / "snapshots").mkdir(parents=True)
    for file in [original / "config.yaml", *(original / "snapshots").iterdir()]:
        (place / file.relative_to(original)).write_bytes(file.read_bytes())
    return place


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture
def rows(digits, tmp_path):
    """rows("3") gives an npz file with five rows of a class, rows("3", 7, 9) with others."""

    def write(name, first=0, last=5):
        path = tmp_path / f"{name}-{first}.npz"
        numpy.savez(path, x=digits.x[digits.y == digits.classes.index(name)][first:last].numpy())
        return path

    return write


def by_hand(folder):
    """The learner of a run, with its classes named."""
    learner = build_learner("few_shot", build_stream(STREAM, 0), MODEL, 0)
    learner.load_state_dict(newest_snapshot(folder / "snapshots")[1]["learner"])
    learner.end_base()
    learner.call(load("digits").classes)
    return learner


def not_known(folder):
    learner = by_hand(folder)
    return [name for number, name in enumerate(load("digits").classes) if number not in learner.answers.known]


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_lesson_is_one_call_on_the_state_before_it(folder, rows, digits):
    """The same learner taught by hand ends in the same sha256; its older prototypes are what they were, to the bit."""
    name = not_known(folder)[0]
    found = teach(folder, add=name, files=[rows(name)])
    twin = by_hand(folder)
    old = {number: twin.answers.classifier.means[place].clone() for place, number in enumerate(twin.answers.known)}
    number = digits.classes.index(name)
    assert twin.add_class(digits.x[digits.y == number][:5], name) == number == found["number"]
    state = newest_snapshot(folder / "taught/snapshots")[1]
    assert found["sha256"] == digest(twin.state_dict()) == digest(state["learner"])
    for place, known in enumerate(twin.answers.known[:-1]):
        assert torch.equal(twin.answers.classifier.means[place], old[known])
    assert found["classes"][-1] == name and len(found["classes"]) == 7
    assert found["before"] and name not in found["before"] and sum(found["after"].values()) == found["rows"] == 5
    told = [digits.classes[label] for label in twin.predict(digits.x[digits.y == number][:5]).argmax(1)]
    assert found["after"] == {one: told.count(one) for one in told} and found["after"][name] > 0
    assert found["encoder"] == "as it was" and found["accuracy"] is None


def test_nothing_before_a_lesson_is_lost(folder, rows):
    before, known = tree(folder), by_hand(folder).answers.known
    names = not_known(folder)[:3]
    for name in names:
        teach(folder, add=name, files=[rows(name)])
    now = tree(folder)
    assert {path: now[path] for path in before} == before
    states = [load_snapshot(folder / f"taught/snapshots/{number:09d}.json")[1] for number in range(4)]
    first = newest_snapshot(folder / "snapshots")[1]["learner"]
    assert digest(states[0]["learner"]) == digest(first)
    assert [len(state["lessons"]) for state in states] == [0, 1, 2, 3]
    assert [len(state["learner"]["answers"]["known"]) for state in states[1:]] == [len(known) + count for count in (1, 2, 3)]
    assert [lesson["class"] for lesson in states[3]["lessons"]] == names


def test_a_taught_model_is_served_like_a_run(folder, rows, digits):
    name = not_known(folder)[0]
    found = teach(folder, add=name, files=[rows(name)])
    source = source_of(found["folder"])
    assert digest(source.served.state_dict()) == found["sha256"]
    assert isinstance(source.served, FewShot) and source.spec.classes == digits.classes
    assert source_of(str(folder)).served.answers.known == by_hand(folder).answers.known  # the run as it was


def test_a_class_of_a_new_name_is_answered_and_learned_by_a_server_and_after_its_restart(folder, rows, digits, tmp_path):
    name = not_known(folder)[0]
    found = teach(folder, add="okapi", files=[rows(name)])
    x = digits.x[digits.y == digits.classes.index(name)][:5].numpy()
    options = Options(batch=1, every=1, wait=0.01)
    for life in range(2):
        source = source_of(found["folder"] if life == 0 else str(tmp_path / "served"))
        assert source.spec.classes == (*digits.classes, "okapi")
        settle(tmp_path / "served", source, options, None)
        with LocalEngine(source.served, source.spec, tmp_path / "served", options) as engine:
            end = time.monotonic() + 20
            while not engine.status()["ready"] and time.monotonic() < end:
                time.sleep(0.01)
            told = engine.predict([Ask(f"{life}.{row}", source.spec.row(x[row])) for row in range(5)]).result(10)
            answers = [one.output["answer"] for one in told]
            assert {one: answers.count(one) for one in answers} == found["after"]
            assert len(told[0].output["probabilities"]) == 11
            receipt = engine.feedback([Told(f"{life}.0", source.spec.answer("okapi"))]).result(10)
            assert len(receipt) == 1


def test_a_class_of_a_new_name_gets_the_next_column_and_keeps_it(folder, rows, digits):
    other = not_known(folder)[:2]
    first = teach(folder, add="okapi", files=[rows(other[0])])
    second = teach(folder / "taught", add="tapir", files=[rows(other[1])])
    assert (first["number"], second["number"]) == (10, 11) and second["lesson"] == 2
    gone = teach(folder, remove="okapi")
    assert gone["number"] == 10 and "okapi" not in gone["classes"] and "tapir" in gone["classes"]
    again = teach(folder, add="okapi", files=[rows(other[0])])
    assert again["number"] == 10 and again["lesson"] == 4
    assert again["after"] == teach(folder, refresh="okapi", files=[rows(other[0])])["after"]
    state = newest_snapshot(folder / "taught/snapshots")[1]
    assert state["classes"] == [*digits.classes, "okapi", "tapir"]


def test_a_class_that_is_taken_away_is_never_the_answer(folder, digits):
    known = by_hand(folder).answers.known
    name = digits.classes[known[0]]
    found = teach(folder, remove=name)
    learner = build_learner("few_shot", build_stream(STREAM, 0), MODEL, 0)
    learner.load_state_dict(newest_snapshot(folder / "taught/snapshots")[1]["learner"])
    answers = learner.predict(digits.x).argmax(1)
    assert known[0] in by_hand(folder).predict(digits.x).argmax(1) and known[0] not in answers
    assert (found["rows"], found["before"], found["after"], found["lesson"]) == (0, {}, {}, 1)


def test_a_class_learned_anew_stands_on_the_new_rows_alone(folder, rows, digits):
    """Its prototype is the mean of their features, whatever it was before."""
    learner = by_hand(folder)
    number = learner.answers.known[0]
    name = digits.classes[number]
    teach(folder, refresh=name, files=[rows(name, 20, 24)])
    state = newest_snapshot(folder / "taught/snapshots")[1]["learner"]
    taught = by_hand(folder)
    taught.load_state_dict(state)
    place = list(taught.answers.classifier.labels).index(number)
    features = taught.network.embed(digits.x[digits.y == number][20:24]).double()
    torch.testing.assert_close(taught.answers.classifier.means[place].double(), features.mean(0), atol=1e-6, rtol=1e-6)


def test_other_folders_for_the_lessons(folder, rows, tmp_path):
    one, two = not_known(folder)[:2]
    first = teach(folder, add=one, files=[rows(one)], output=tmp_path / "elsewhere")
    assert first["folder"] == str(tmp_path / "elsewhere") and not (folder / "taught").exists()
    branch = teach(tmp_path / "elsewhere", add=two, files=[rows(two)], output=tmp_path / "branch")
    assert branch["lesson"] == 1 and branch["classes"][-2:] == [one, two]
    state = newest_snapshot(tmp_path / "branch/snapshots")[1]
    assert [lesson["class"] for lesson in state["lessons"]] == [one, two]
    assert newest_snapshot(tmp_path / "elsewhere/snapshots")[0] == 1


def test_lessons_of_a_run_that_was_trained_again_are_not_mixed(folder, rows):
    name = not_known(folder)[0]
    teach(folder, add=name, files=[rows(name)])
    number, state = load_snapshot(folder / "taught/snapshots/000000000.json")
    state["learner"]["session"] += 1
    write_snapshot(folder / "taught/snapshots", number, state)
    with pytest.raises(StateError, match="another state"):
        teach(folder, remove=name)
    assert teach(folder / "taught", remove=name)["lesson"] == 2


def test_killed_between_configuration_and_first_lesson_it_begins_again(folder, rows):
    name = not_known(folder)[0]
    teach(folder, add=name, files=[rows(name)])
    for file in (folder / "taught/snapshots").iterdir():
        file.unlink()
    found = teach(folder, add=name, files=[rows(name)])
    assert found["lesson"] == 1 and newest_snapshot(folder / "taught/snapshots")[0] == 1


def test_tuning_on_the_rows_is_told(tmp_path, rows):
    place = trained(tmp_path / "tuned", "few_shot(finetune=finetune(steps=3))")
    name = not_known_of(place)[0]
    found = teach(place, add=name, files=[rows(name)])
    assert found["encoder"] == "tuned"
    assert any("encoder was tuned" in line for line in sentences(found))
    assert teach(place, refresh=name, files=[rows(name)])["encoder"] == "as it was"


def not_known_of(folder):
    known = source_of(str(folder)).served.answers.known
    return [name for number, name in enumerate(load("digits").classes) if number not in known]


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        ({}, ArgumentError, "name one of --class NAME"),
        ({"add": "a", "remove": "b"}, ArgumentError, "name one of --class NAME"),
        ({"add": " "}, ArgumentError, "printable text"),
        ({"add": "okapi"}, DataError, "no images were named"),
        ({"add": "KNOWN", "files": ["ROWS"]}, InputError, "known already. Learn it anew with --refresh"),
        ({"refresh": "okapi", "files": ["ROWS"]}, InputError, "unknown class 'okapi'"),
        ({"remove": "okapi"}, InputError, "unknown class 'okapi'"),
        ({"remove": "KNOWN", "files": ["ROWS"]}, ArgumentError, "takes no files"),
        ({"add": "okapi", "files": ["nowhere.png"]}, DataError, "nowhere.png: there is no such file"),
        ({"add": "okapi", "files": ["ROWS"], "output": "OTHER"}, StateError, "holds something else"),
    ],
)
def test_what_cannot_be_taught_is_refused_and_nothing_is_written(folder, rows, digits, tmp_path, asked, error, told):
    known = digits.classes[by_hand(folder).answers.known[0]]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    words = {"KNOWN": known, "ROWS": rows(known), "OTHER": tmp_path / "other"}
    asked = {
        key: [words.get(item, item) for item in value] if key == "files" else words.get(value, value)
        for key, value in asked.items()
    }
    before = tree(tmp_path)
    with pytest.raises(error, match=told):
        teach(folder, **asked)
    assert tree(tmp_path) == before and not (folder / "taught").exists()


def test_the_only_class_stays(folder, digits):
    known = [digits.classes[number] for number in by_hand(folder).answers.known]
    for name in known[1:]:
        teach(folder, remove=name)
    with pytest.raises(InputError, match="only class"):
        teach(folder, remove=known[0])


def test_folders_that_hold_no_model_to_teach_are_refused(folder, tmp_path):
    with pytest.raises(StateError, match="no such folder"):
        teach(tmp_path / "nowhere", remove="0")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StateError, match="neither a run"):
        teach(tmp_path / "empty", remove="0")
    settle(tmp_path / "served", source_of(str(folder)), None, None)
    with pytest.raises(StateError, match="server's folder"):
        teach(tmp_path / "served", remove="0")


def test_a_learner_that_cannot_is_refused(tmp_path):
    place = trained(tmp_path / "other", "nearest_class_mean", "split(iris, experiences=3, batch=32)")
    with pytest.raises(ArgumentError, match=r"nearest_class_mean.* cannot be taught .* few_shot can"):
        teach(place, remove="setosa")


def test_two_lessons_at_once_are_refused(folder, rows):
    name = not_known(folder)[0]
    teach(folder, add=name, files=[rows(name)])
    with open(folder / "taught/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="in use by another process"):
            teach(folder, remove=name)
    assert teach(folder, remove=name)["lesson"] == 2


@pytest.mark.slow
def test_of_a_comparison_the_learner_is_named(folder, rows, tmp_path):
    from everlearn import compare

    stream = "few_shot(digits, base_classes=3, way=1, shot=5, sessions=1, batch=256)"
    learners = ["few_shot", "nearest_class_mean"]
    compare(learners, stream, model=MODEL, seeds=1, engine="inline", folder=tmp_path / "cmp", baselines=False)
    with pytest.raises(SpecError, match="did you mean"):
        teach(tmp_path / "cmp", add="okapi", files=[rows("0")], learner="few_shots")
    found = teach(tmp_path / "cmp", add="okapi", files=[rows("0")], learner="few_shot")
    assert found["classes"][-1] == "okapi" and Path(found["folder"]).parent.name == "seed-0"


def test_from_images_as_they_lie_in_a_folder(tmp_path):
    """A model of small pictures, black or white on the left, is taught grey ones from two files."""
    draw = numpy.random.default_rng(0)
    for name, value in (("black", 20), ("white", 230), ("grey", 125)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = draw.integers(0, 255, (4, 4))
            pixels[:, :2] = value
            Image.fromarray(pixels.astype(numpy.uint8), "L").save(tmp_path / "pictures" / name / f"{number}.png")
    stream = f"few_shot(images({str(tmp_path / 'pictures')!r}), base_classes=2, way=1, shot=1, sessions=1, epochs=2)"
    place = trained(tmp_path / "run", stream=stream)
    files = [tmp_path / "pictures/grey/0.png", tmp_path / "pictures/grey/1.png"]
    found = teach(place, add="taupe", files=files)
    assert (found["rows"], found["classes"][-1], found["number"]) == (2, "taupe", 3)
    large = tmp_path / "large.png"
    Image.new("L", (9, 9), 125).save(large)
    with pytest.raises(DataError, match=r"large\.png: is 9x9"):
        teach(place, refresh="taupe", files=[large])
    assert teach(place, refresh="taupe", files=[large], resize=True)["rows"] == 1


def test_in_words_and_as_json(folder, rows):
    name = not_known(folder)[0]
    found = teach(folder, add="okapi", files=[rows(name)])
    assert json.loads(json.dumps(found)) == found
    lines = sentences(found)
    assert lines[0].startswith("learned 'okapi' from 5 rows in ") and lines[0].endswith(" seconds")
    assert lines[1] == f"classes now: 7 ({', '.join(found['classes'])})"
    assert any("accuracy now: not known" in line for line in lines)
    assert lines[-1] == f"serve it: everlearn serve {folder / 'taught'}"
    assert sentences(teach(folder, remove="okapi"))[0] == "'okapi' is no longer an answer"
    config = yaml.safe_load((folder / "taught/config.yaml").read_text())
    assert config == {
        "taught_from": str(folder),
        "learner": "few_shot()",
        "model": MODEL,
        "seed": 0,
        "stream": config["stream"],
    }
    assert build_stream(config["stream"], 0).schema.classes == load("digits").classes
