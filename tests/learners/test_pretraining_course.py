"""A course of pre-training: what it does phase by phase, what it measures, and that a kill anywhere changes no bit."""

import json
from itertools import count

import pytest
import torch
from safetensors.torch import load_file

from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.state import same
from everlearn.data.pretraining import TextDomain
from everlearn.data.replay_mix import ReplayMix
from everlearn.learners.pretrainer import ContinualPretrainer, held_out_loss
from everlearn.learners.pretraining_course import Course, rewarming, summary
from everlearn.nn.tiny_gpt import TinyGPT
from everlearn.optim.schedules import Infinite, RepeatedCosine

INFINITE = Infinite(0.01, warmup=2, cooldown_end=4)
COSINE = RepeatedCosine(0.01, steps=10, warmup=2)


def text(name, seed):
    drawn = torch.randint(7, (600,), generator=torch.Generator().manual_seed(seed))
    return TextDomain(name, drawn, window=6)


DOMAINS = [text("first", 0), text("second one", 1), text("third", 2)]


def line(schedule=INFINITE, **changes):
    return ContinualPretrainer(TinyGPT(7, dim=8, depth=1, heads=2, length=6), schedule=schedule, batch=4, **changes)


def course(folder=None, schedule=INFINITE, domains=DOMAINS, **changes):
    settings = {"steps": 10, "anneal": 3 if schedule is INFINITE else 0, "folder": folder, **changes}
    return Course(line(schedule, replay=ReplayMix(0.5, keep=0.1)), domains, **settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "run"
    ticks = count()
    made = course(folder, snapshot_every=4, clock=lambda: float(next(ticks)))
    return made.run(), made, folder


def test_phases_by_hand(whole):
    """The same phases, deliveries and measurements, one call after the other."""
    record, made, folder = whole
    trained = line(replay=ReplayMix(0.5, keep=0.1))
    for number, domain in enumerate(DOMAINS):
        trained.phase(domain, steps=7)
        model = trained.deliver(3)
        losses = [held_out_loss(model, trained.objective, other, most=1024) for other in DOMAINS]
        assert losses == record["delivered"][number]
        stored = load_file(folder / "delivered" / f"0{number + 1}-{domain.name.replace(' ', '-')}" / "model.safetensors")
        assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    assert same(made.line.state_dict(), trained.state_dict())
    assert (made.line.steps, record["updates"], record["rows"]) == (21, 30, 120)


def test_the_record_says_what_happened_when(whole):
    record, _, folder = whole
    curve = record["curve"]
    assert [point["update"] for point in curve] == list(range(1, 31))
    assert [point["fork"] for point in curve] == ([False] * 7 + [True] * 3) * 3
    assert [point["step"] for point in curve[5:12]] == [6, 7, 8, 9, 10, 8, 9]
    annealed = [Infinite(0.01, 2, 4, anneal_start=7, anneal_end=10)(step) for step in (7, 8, 9)]
    assert [point["lr"] for point in curve[7:10]] == pytest.approx(annealed, rel=1e-12)
    assert [point["update"] for point in curve if point.get("delivered")] == [10, 20, 30]
    assert set(curve[9]["held_out"]) == {"first", "second one", "third"}
    trained = line(replay=ReplayMix(0.5, keep=0.1))
    trained.phase(DOMAINS[0], steps=5)  # the line is measured on the way
    assert curve[4]["held_out"] == {other.name: held_out_loss(trained.model, trained.objective, other) for other in DOMAINS}
    assert [point["update"] for point in curve if "held_out" in point] == [5, 10, 15, 20, 25, 30]
    assert [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()] == curve
    assert json.loads((folder / "result.json").read_text()) == record
    assert (record["rows_per_second"], record["tokens_per_second"]) == (4.0, 24.0)  # a tick for each update of four rows


@pytest.mark.parametrize("stop", [1, 4, 7, 8, 9, 10, 11, 15, 18, 20, 25, 29, 30])
def test_killed_anywhere_it_ends_in_the_same_bits(whole, tmp_path, stop):
    record, made, _ = whole

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == stop:
            raise Killed

    with pytest.raises(Killed):
        course(tmp_path / "run", snapshot_every=4).run(kill)
    resumed = course(tmp_path / "run", snapshot_every=4)
    assert resumed.progress.updates == (stop - 1) // 4 * 4
    again = resumed.run()
    assert same(resumed.line.state_dict(), made.line.state_dict())
    for key in ("delivered", "curve", "forgetting", "updates"):
        assert again[key] == record[key]


def test_killed_between_two_points_of_the_curve_it_ends_in_the_same_curve(tmp_path):
    """Of 120 updates every third is a point; a snapshot after each fourth one falls between two."""

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 9:
            raise Killed

    given = {"domains": DOMAINS[:1], "steps": 120, "anneal": 3, "snapshot_every": 4}
    with pytest.raises(Killed):
        course(tmp_path / "run", **given).run(kill)
    resumed = course(tmp_path / "run", **given)
    assert resumed.progress.updates == 8 and len(resumed.progress.losses) == 2
    assert resumed.run()["curve"] == course(tmp_path / "whole", **given).run()["curve"]


def test_a_finished_course_is_told_again_without_training(whole):
    record, _, folder = whole
    again = course(folder, snapshot_every=4)
    told = []
    assert again.finished and again.run(lambda done, total: told.append((done, total))) == record
    assert told == [(30, 30)]
    (folder / "result.json").unlink()
    found = course(folder, snapshot_every=4).run()
    assert found["delivered"] == record["delivered"] and found["curve"] == record["curve"]


def test_of_a_large_domain_some_rows_are_measured():
    made = course(domains=DOMAINS[:1], most=2)
    assert made.run()["delivered"] != course(domains=DOMAINS[:1]).run()["delivered"]
    trained = line(replay=ReplayMix(0.5, keep=0.1))
    trained.phase(DOMAINS[0], steps=7)
    assert made.record()["delivered"] == [[held_out_loss(trained.deliver(3), trained.objective, DOMAINS[0], most=2)]]


def test_without_an_annealing_the_line_itself_is_delivered(tmp_path):
    made = course(tmp_path / "run", COSINE)
    record = made.run()
    last = load_file(tmp_path / "run" / "delivered" / "03-third" / "model.safetensors")
    assert torch.equal(last["table"], made.line.model.table) and made.line.steps == 30
    assert [point["lr"] for point in record["curve"]] == [COSINE(step) for step in range(30)]


def test_another_course_does_not_go_on_in_the_folder(whole):
    _, _, folder = whole
    with pytest.raises(StateError, match="anneal: 3 there, 2 now"):
        course(folder, anneal=2)
    with pytest.raises(StateError, match="another configuration"):
        course(folder, config={"batch": 4})


def test_no_resume_starts_anew(tmp_path):
    course(tmp_path / "run", snapshot_every=4).run()
    fresh = course(tmp_path / "run", resume=False, snapshot_every=4)
    assert fresh.progress.updates == 0 and not (tmp_path / "run" / "result.json").exists()


def test_the_summary_by_hand():
    told = summary([[2.0, 4.0, 5.0], [2.5, 3.0, 4.5], [2.25, 3.5, 2.0]], [])
    assert told["forgetting"] == [0.25, 0.5, 0.0]
    assert told["learning"] == [None, 1.0, 2.5]
    assert told["final"] == pytest.approx(7.75 / 3)


def test_rewarming_counts_rises_of_the_main_line_in_later_phases_only():
    def point(phase, held, fork=False, **more):
        return {"phase": phase, "fork": fork, "held_out": {"a": held}, **more}

    begun = [point(0, 9.0), point(0, 2.0, fork=True, delivered=True)]
    assert rewarming(begun) is None
    assert rewarming([*begun, point(1, 2.5), point(1, 7.0, fork=True), point(1, 2.25)]) == 0.5
    assert rewarming([*begun, point(1, 1.5)]) == 0.0
    later = [*begun, point(1, 2.5), point(1, 4.0, fork=True, delivered=True), point(2, 4.25)]
    assert rewarming(later) == 0.5


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ArgumentError, match="anneal=10 and steps=10"):
        course(anneal=10)
    with pytest.raises(ArgumentError, match="names of their own, got first, first"):
        course(domains=[DOMAINS[0], DOMAINS[0]])
    with pytest.raises(ArgumentError, match="got none"):
        course(domains=[])
    with pytest.raises(ArgumentError, match="snapshot_every"):
        course(snapshot_every=0)
