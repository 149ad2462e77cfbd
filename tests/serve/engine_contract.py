"""What every engine keeps, whatever runs it and wherever its log is.

    opener(model, folder, options) -> an Engine; `MODELS[model]` has `make()`, which builds the learner, and `spec`

    @pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
    def test_it_keeps_the_contract(rule, tmp_path):
        with Bench(opener, tmp_path) as bench:
            rule(bench)

Rules use nothing but the face of `Engine`. `wait=None` makes steps a function of seq, so weights can be compared with a fold made here.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from everlearn.core.errors import ServeError
from everlearn.core.events import Feedback
from everlearn.core.state import digest
from everlearn.serve.records import Ask, Told

from .engine_bench import (
    CLASSES,
    MODELS,
    PATIENCE,
    agent,
    ask,
    flood,
    folded,
    go,
    refused,
    row,
    settle,
    tell,
    until,
    weights,
)

# ---- what is asked -----------------------------------------------------------------------------------------------------------


def a_prediction_is_kept_and_answered_alike_for_ever(bench):
    engine = bench.open()
    first, second = ask(engine, 1), ask(engine, 2)
    assert (first.id, first.version, first.duplicate) == ("r1", 0, False)
    assert first.output["answer"] in CLASSES and abs(sum(first.output["probabilities"]) - 1) < 1e-4
    assert second.seq > first.seq > 0
    go(engine, range(10, 30))
    assert engine.status()["version"] > 0
    again = ask(engine, 1)
    assert again.duplicate and (again.output, again.version, again.seq) == (first.output, 0, first.seq)
    bench.shut(engine)
    engine = bench.open()
    again = ask(engine, 1)
    assert again.duplicate and (again.output, again.version, again.seq) == (first.output, 0, first.seq)


def the_same_id_with_another_row_is_refused_and_nothing_of_the_request_stays(bench):
    engine = bench.open()
    ask(engine, 1)
    before = engine.status()
    asks = [Ask("new", row(2)[0]), Ask("r1", row(3)[0])]
    assert "'r1'" in str(refused("conflict", 422, engine.predict, asks))
    refused("conflict", 422, engine.predict, [Ask("twice", row(2)[0]), Ask("twice", row(3)[0])])
    after = engine.status()
    assert after["last_seq"] == before["last_seq"] and after["counts"]["inputs"] == before["counts"]["inputs"] == 1
    assert not ask(engine, 9, id="new").duplicate and not ask(engine, 9, id="twice").duplicate


def rows_asked_together_are_answered_in_order(bench):
    engine = bench.open()
    answered = engine.predict([Ask(f"r{n}", row(n)[0]) for n in (5, 3, 5, 4)]).result(PATIENCE)
    assert [item.id for item in answered] == ["r5", "r3", "r5", "r4"]
    assert [item.duplicate for item in answered] == [False, False, True, False]
    assert answered[0].seq == answered[2].seq < answered[1].seq < answered[3].seq
    assert answered[0].output == ask(engine, 5, id="alone").output  # whoever else is asked in the same pass


# ---- what is told ------------------------------------------------------------------------------------------------------------


def an_answer_is_taken_once_and_corrected_by_a_higher_revision(bench):
    engine = bench.open()
    asked = ask(engine, 1)
    told = tell(engine, 1, 0)
    assert told.joined and not told.duplicate and told.seq > asked.seq
    again = tell(engine, 1, 0)
    assert again.duplicate and again.seq == told.seq
    assert "higher revision" in str(refused("conflict", 422, tell, engine, 1, 2))
    corrected = tell(engine, 1, 2, revision=1)
    assert corrected.joined and not corrected.duplicate and corrected.seq > told.seq
    assert tell(engine, 1, 0).duplicate and tell(engine, 1, 2, revision=1).duplicate
    counts = engine.status()["counts"]
    assert (counts["inputs"], counts["answers"], counts["duplicates"]) == (1, 2, 3)


def answers_told_together_are_taken_all_or_none(bench):
    engine = bench.open()
    for number in range(3):
        ask(engine, number)
    tell(engine, 1, 0)
    before = engine.status()["last_seq"]
    refused("conflict", 422, engine.feedback, [Told("r0", 1), Told("r1", 2)])
    refused("conflict", 422, engine.feedback, [Told("r0", 1), Told("r0", 2)])
    refused("conflict", 422, engine.feedback, [Told("unseen", 1), Told("unseen", 2)])
    status = engine.status()
    assert (status["last_seq"], status["counts"]["answers"], status["counts"]["early_waiting"]) == (before, 1, 0)
    receipts = engine.feedback([Told("r0", 1), Told("r1", 0), Told("r0", 1), Told("unseen", 2)]).result(PATIENCE)
    assert [(item.duplicate, item.joined) for item in receipts] == [
        (False, True),
        (True, True),
        (True, True),
        (False, False),
    ]


def an_early_answer_waits_for_its_prediction(bench):
    engine = bench.open()
    early = tell(engine, 1, 2)
    assert not early.joined and not early.duplicate and early.seq is None
    assert tell(engine, 1, 2).duplicate
    refused("conflict", 422, tell, engine, 1, 0)
    tell(engine, 1, 1, revision=1)
    assert engine.status()["counts"]["early_waiting"] == 2 and engine.status()["last_seq"] == 0
    bench.shut(engine)
    engine = bench.open()
    asked = ask(engine, 1)
    status = engine.status()
    assert (status["counts"]["early_waiting"], status["counts"]["answers"], status["last_seq"]) == (0, 2, asked.seq + 2)
    late = tell(engine, 1, 2)
    assert late.duplicate and late.seq == asked.seq + 1
    refused("conflict", 422, tell, engine, 1, 0)


def an_answer_after_the_horizon_is_refused(bench):
    engine = bench.open(horizon=0.3)
    ask(engine, 1)
    ask(engine, 2)
    told = tell(engine, 1, 1)
    time.sleep(0.4)
    assert "0.3 s" in str(refused("horizon_passed", 410, tell, engine, 2, 1))
    assert "horizon" in str(refused("horizon_passed", 410, tell, engine, 1, 1, revision=1))
    again = tell(engine, 1, 1)
    assert again.duplicate and again.seq == told.seq
    until(lambda: engine.status()["counts"]["unanswered"] == 1)
    assert engine.status()["counts"]["answers"] == 1


def nobody_answered_gives_the_default(bench):
    engine = bench.open("actions", horizon=0.3, default=-1.0, batch=1)
    ask(engine, 1)
    ask(engine, 2)
    tell(engine, 1, 0.5)
    until(lambda: engine.status()["counts"]["defaulted"] == 1)
    refused("horizon_passed", 410, tell, engine, 2, -1.0)
    refused("horizon_passed", 410, tell, engine, 2, 1.0)
    settle(engine)
    assert engine.status()["counts"]["answers"] == 2
    assert engine.status()["score"] == {"rows": 2, "value": -0.25}


# ---- what is learned ---------------------------------------------------------------------------------------------------------


def learning_changes_answers_and_the_weights_are_those_of_the_fold(bench):
    engine = bench.open()
    before = ask(engine, 500, id="before")
    bench.shut(engine)
    engine = bench.open(place="two")
    go(engine, range(42))
    status = engine.status()
    assert (status["applied_seq"], status["last_seq"], status["lag"]["answers"]) == (80, 84, 2)
    assert (status["counts"]["steps"], status["version"]) == (10, 5)
    assert weights(engine) == folded("classes", range(40))
    after = ask(engine, 500, id="before")
    assert after.version == 5 and after.output != before.output


def numbers_are_learned(bench):
    engine = bench.open("values")
    go(engine, range(24), y=lambda number: [float(number % 5)])
    assert weights(engine) == folded("values", range(24), y=lambda number: [float(number % 5)])
    answer = ask(engine, 99).output["answer"]
    assert len(answer) == 1 and answer != [0.0]


def rewards_are_learned(bench):
    engine = bench.open("actions")
    twin = agent()
    for number in range(16):
        given = ask(engine, number).output
        assert given["propensity"] == pytest.approx(1 / 3)
        tell(engine, number, number / 8)
        x = MODELS["actions"].spec.tensor([row(number)[0]])
        twin.update(Feedback(f"r{number}", x, given["answer"], given["propensity"], number / 8))
    settle(engine)
    assert weights(engine) == digest(twin.state_dict())
    assert engine.status()["propensity"]["least"] == pytest.approx(1 / 3)


def a_restart_changes_nothing(bench):
    engine = bench.open()
    go(engine, range(10))
    tell(engine, 77, 1)
    before = engine.status()
    bench.shut(engine)
    engine = bench.open()
    after = engine.status()
    for key in ("version", "branch", "applied_seq", "last_seq", "score"):
        assert after[key] == before[key], key
    for key in ("inputs", "answers", "early_waiting", "steps"):
        assert after["counts"][key] == before["counts"][key], key
    go(engine, range(10, 24))
    bench.shut(engine)
    engine = bench.open()
    assert weights(engine) == folded("classes", range(24))


def versions_form_a_tree_and_one_serves(bench):
    engine = bench.open()
    go(engine, range(30))
    versions = engine.versions()
    numbers = [version["version"] for version in versions]
    assert numbers == list(range(len(versions) - 1, -1, -1)) and versions[-1]["parent"] is None
    assert all(version["parent"] in numbers for version in versions[:-1])
    assert all(version["parent"] < version["version"] for version in versions[:-1])
    active = [version for version in versions if version["state"] == "active"]
    assert [version["version"] for version in active] == [engine.status()["version"]]
    assert [decision["action"] for decision in engine.decisions()] == ["promote"] * (len(versions) - 1)
    assert len({version["sha256"] for version in versions}) == len(versions)


def the_guard_keeps_a_worse_candidate_out_of_service(bench):
    settings = {"least": 16, "window": 40, "every": 4, "batch": 8, "margin": 0.0}
    engine, careless = bench.open(guard=True, **settings), bench.open(place="careless", **settings)
    for server in (engine, careless):
        flood(server, range(200))
        flood(server, range(200, 232), y=lambda number: (row(number)[1] + 1) % 3)
        flood(server, range(232, 264))
    assert engine.status()["version"] > 0
    refusals = [version for version in engine.versions() if version["state"] == "refused"]
    assert refusals and all(version["reason"] for version in refusals)
    assert not [version for version in careless.versions() if version["state"] == "refused"]


# ---- what an operator does ---------------------------------------------------------------------------------------------------


def a_rollback_serves_the_version_and_sets_later_feedback_aside(bench):
    engine = bench.open()
    go(engine, range(40))
    target = engine.versions()[-3]
    assert target["version"] == 2 and target["applied_seq"] == 32
    before = ask(engine, 500)
    decision = engine.rollback(2, "a bad label", who="ann")
    assert (decision["action"], decision["after"], decision["who"]) == ("rollback", 2, "ann")
    assert decision["before"] == before.version and "a bad label" in decision["reason"]
    assert engine.decisions(1)[0]["action"] == "rollback"
    until(lambda: engine.status()["version"] == 2)
    after = ask(engine, 501)
    assert after.version == 2
    states = {version["version"]: version["state"] for version in engine.versions()}
    assert states[2] == "active" and all(state == "withdrawn" for number, state in states.items() if number > 2)
    go(engine, range(100, 108))
    bench.shut(engine)
    engine = bench.open()
    assert weights(engine) == folded("classes", [*range(16), *range(100, 108)])


def a_replay_learns_again_what_came_after(bench):
    engine = bench.open()
    go(engine, range(24))
    whole = weights(engine)
    engine.rollback(1, "look again", "replay")
    settle(engine)
    until(lambda: engine.status()["applied_seq"] == 48)
    bench.shut(engine)
    engine = bench.open()
    assert weights(engine) == whole == folded("classes", range(24))
    assert engine.status()["branch"] == 1


def what_was_set_aside_is_learned_once_when_it_is_released(bench):
    engine = bench.open()
    go(engine, range(24))
    engine.rollback(1, "doubt", "quarantine", first=17, last=32)
    settle(engine)
    until(lambda: engine.status()["applied_seq"] == 48)
    engine.release(17, 32, "they were good")
    refused("nothing_set_aside", 409, engine.release, 17, 32, "twice")
    bench.shut(engine)
    engine = bench.open()
    assert weights(engine) == folded("classes", [*range(8), *range(16, 24), *range(8, 16)])


def what_was_skipped_stays_out(bench):
    engine = bench.open()
    go(engine, range(24))
    engine.rollback(1, "spam", "skip", first=17, last=32)
    settle(engine)
    until(lambda: engine.status()["applied_seq"] == 48)
    refused("nothing_set_aside", 409, engine.release, 17, 32, "no")
    bench.shut(engine)
    engine = bench.open()
    assert weights(engine) == folded("classes", [*range(8), *range(16, 24)])


def impossible_commands_are_refused(bench):
    engine = bench.open(keep=1)
    go(engine, range(64))
    refused("unknown_version", 404, engine.rollback, 1000, "x")
    pruned = [version["version"] for version in engine.versions() if version["state"] == "pruned"]
    assert pruned
    refused("version_pruned", 409, engine.rollback, pruned[0], "x")
    refused("nothing_set_aside", 409, engine.release, 1, 10, "x")
    refused("unknown_id", 404, engine.erase, "nobody")
    refused("invalid_request", 422, engine.rollback, 0, "x", "forget")
    assert [decision["action"] for decision in engine.decisions()].count("rollback") == 0


def a_pause_lasts_over_a_restart_and_loses_nothing(bench):
    engine = bench.open()
    go(engine, range(8))
    assert engine.pause("lunch", "ann")["action"] == "pause"
    for number in range(8, 24):
        ask(engine, number)
        tell(engine, number)
    assert engine.status()["learning"] == "paused" and engine.status()["applied_seq"] == 16
    bench.shut(engine)
    engine = bench.open()
    assert engine.status()["learning"] == "paused" and engine.status()["applied_seq"] == 16
    assert engine.resume("back", "ann")["action"] == "resume"
    until(lambda: engine.status()["applied_seq"] == 48)
    bench.shut(engine)
    engine = bench.open()
    assert weights(engine) == folded("classes", range(24))


def an_erased_row_is_gone_and_the_weights_stand(bench):
    engine = bench.open()
    go(engine, range(10))
    tell(engine, 55, 1)
    before = engine.status()["applied_seq"]
    assert engine.erase("r3", reason="asked to")["removed"] == 2
    assert engine.erase("r55")["removed"] == 1
    refused("unknown_id", 404, engine.erase, "r3")
    counts = engine.status()["counts"]
    assert (counts["inputs"], counts["answers"], counts["early_waiting"]) == (9, 9, 0)
    bench.shut(engine)
    engine = bench.open()
    assert engine.status()["applied_seq"] == before
    go(engine, range(10, 24))
    bench.shut(engine)
    engine = bench.open()
    assert weights(engine) == folded("classes", range(24))


def an_erased_row_is_unlearned_when_asked_for(bench):
    engine = bench.open()
    go(engine, range(24))
    given = engine.erase("r9", relearn=True, reason="asked to")
    assert given["relearned"] and given["removed"] == 2
    settle(engine)
    until(lambda: engine.status()["applied_seq"] >= 42)
    bench.shut(engine)
    engine = bench.open()
    without = [number for number in range(24) if number != 9]
    assert weights(engine) == folded("classes", without[:20])
    assert all(version["state"] == "pruned" for version in engine.versions() if version["version"] in (2, 3))


# ---- many at once ------------------------------------------------------------------------------------------------------------


def requests_beyond_the_queue_are_refused_and_the_others_kept(bench):
    engine = bench.open(queue=4)
    accepted, turned_away, lock = [], [], threading.Lock()

    def client(offset):
        for number in range(offset, offset + 40):
            try:
                future = engine.predict([Ask(f"r{number}", row(number)[0])])
            except ServeError as refusal:
                assert (refusal.code, refusal.status) == ("overloaded", 429) and refusal.retry_after > 0
                with lock:
                    turned_away.append(number)
                continue
            with lock:
                accepted.append((number, future))

    threads = [threading.Thread(target=client, args=(1000 * part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, future in accepted:
        assert future.result(PATIENCE)[0].id == f"r{number}"
    assert turned_away and accepted
    until(lambda: engine.status()["queue"]["waiting"] == 0)
    assert engine.status()["counts"]["inputs"] == len(accepted)
    assert not ask(engine, turned_away[0]).duplicate


def clients_that_overlap_lose_nothing_and_double_nothing(bench):
    engine = bench.open()

    def client(part):
        taken = []
        for number in range(60):
            for _ in range(5000):
                try:
                    taken.append((number, ask(engine, number), tell(engine, number)))
                    break
                except ServeError as refusal:
                    assert refusal.code == "in_progress" and refusal.status == 409
                    time.sleep(0.002)
        return taken

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(client, range(4)))
    assert all(len(part) == 60 for part in parts)
    for number in range(60):
        asked = {part[number][1].seq for part in parts}
        told = {part[number][2].seq for part in parts}
        assert len(asked) == len(told) == 1
        assert sum(not part[number][1].duplicate for part in parts) == 1
        assert sum(not part[number][2].duplicate for part in parts) == 1
    settle(engine)
    counts = engine.status()["counts"]
    assert (counts["inputs"], counts["answers"], counts["steps"]) == (60, 60, 15)


def the_status_names_everything(bench):
    engine = bench.open()
    go(engine, range(8))
    status = engine.status()
    assert set(status) >= {
        "model", "kind", "engine", "measure", "version", "branch", "applied_seq", "last_seq", "lag", "queue", "learning", "fault",
        "ready", "counts", "score", "unanswered_share", "propensity", "guard", "alarms", "durability", "fsync_ms", "started",
        "time", "options",
    }  # fmt: skip
    assert set(status["counts"]) >= {
        "inputs", "answers", "duplicates", "early_waiting", "early_expired", "unanswered", "defaulted", "steps", "versions", "alarms",
    }  # fmt: skip
    assert (status["kind"], status["measure"], status["ready"], status["fault"]) == ("classes", "accuracy", True, None)
    assert status["score"]["rows"] == 8 and 0.0 <= status["score"]["value"] <= 1.0
    assert status["model"].startswith("replay(") and status["options"]["batch"] == 4


def a_closed_engine_takes_nothing(bench):
    engine = bench.open()
    ask(engine, 1)
    engine.close()
    refused("not_ready", 503, engine.predict, [Ask("r2", row(2)[0])])
    refused("not_ready", 503, engine.feedback, [Told("r1", 1)])


CONTRACT = [
    a_prediction_is_kept_and_answered_alike_for_ever,
    the_same_id_with_another_row_is_refused_and_nothing_of_the_request_stays,
    rows_asked_together_are_answered_in_order,
    an_answer_is_taken_once_and_corrected_by_a_higher_revision,
    answers_told_together_are_taken_all_or_none,
    an_early_answer_waits_for_its_prediction,
    an_answer_after_the_horizon_is_refused,
    nobody_answered_gives_the_default,
    learning_changes_answers_and_the_weights_are_those_of_the_fold,
    numbers_are_learned,
    rewards_are_learned,
    a_restart_changes_nothing,
    versions_form_a_tree_and_one_serves,
    the_guard_keeps_a_worse_candidate_out_of_service,
    a_rollback_serves_the_version_and_sets_later_feedback_aside,
    a_replay_learns_again_what_came_after,
    what_was_set_aside_is_learned_once_when_it_is_released,
    what_was_skipped_stays_out,
    impossible_commands_are_refused,
    a_pause_lasts_over_a_restart_and_loses_nothing,
    an_erased_row_is_gone_and_the_weights_stand,
    an_erased_row_is_unlearned_when_asked_for,
    requests_beyond_the_queue_are_refused_and_the_others_kept,
    clients_that_overlap_lose_nothing_and_double_nothing,
    the_status_names_everything,
    a_closed_engine_takes_nothing,
]
