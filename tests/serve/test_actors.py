"""The owner and its replicas, here in one process: what Ray would carry between them is passed on by a handle of the test."""

import asyncio
import os
from pathlib import Path

import pytest

from everlearn.core.errors import ContractError, InputError, ServeError, StateError
from everlearn.core.random import derive
from everlearn.core.state import digest
from everlearn.serve.actors import TRIES, Outcome, Owner, Recipe, Replica
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told

from .engine_bench import MODELS, go, row, settle


class Handle:
    """Stands for the handle of an actor: `handle.method.remote(...)` is awaited. `instead` answers in the place of a method."""

    def __init__(self, actor, **instead):
        self._actor, self._instead, self.calls = actor, instead, []

    def __getattr__(self, name):
        handle = self

        class Method:
            async def remote(self, *given):
                handle.calls.append(name)
                if name in handle._instead:
                    return handle._instead[name](*given)
                return await getattr(handle._actor, name)(*given)

        return Method()


@pytest.fixture
def place(tmp_path):
    """Opens owners on one folder, and closes them."""
    opened = []

    def open(model="classes", grace=0.0, **options):
        settings = Options(**({"batch": 4, "every": 2, "wait": None, "guard": False} | options))
        served = MODELS[model]
        owner = Owner(served.make, served.spec, tmp_path / "one", settings, replicas=1, grace=grace)
        opened.append(owner)
        if owner.engine is not None:
            owner.engine.wait_ready()
        return owner

    yield open
    for owner in opened:
        if owner.engine is not None:
            owner.engine.close()


def replica_of(owner, model="classes", **instead):
    """(a replica, the handle by which it reaches its owner)."""
    handle = Handle(owner, **instead)
    return Replica(handle, MODELS[model].make, owner.spec, owner.folder, 1), handle


def asked(numbers, prefix="r"):
    return [Ask(f"{prefix}{number}", row(number)[0]) for number in numbers]


def answers(replica, *groups):
    """Outcomes of requests, each a list of rows."""
    return asyncio.run(replica.predict(list(groups)))


@pytest.mark.parametrize(
    "error",
    [
        ServeError("overloaded", "full", 429, retry_after=2.0),
        ServeError("invalid_request", "bad", 422, errors=[{"at": "x", "detail": "no"}]),
        StateError("broken"),
        InputError("NaN"),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error):
    with pytest.raises(type(error)) as caught:
        Outcome.of(error).get()
    assert str(caught.value) == str(error) and vars(caught.value) == vars(error)


def test_a_fault_of_foreign_code_becomes_a_breach_of_contract_in_words():
    with pytest.raises(ContractError, match="ZeroDivisionError: by nought"):
        Outcome.of(ZeroDivisionError("by nought")).get()
    assert Outcome(7).get() == 7 and Outcome(7).error is None


def test_a_recipe_builds_the_same_learner_everywhere():
    first, again, other = (Recipe("replay(capacity=20)", "split(digits)", "mlp(hidden=(8,))", seed)() for seed in (1, 1, 2))
    assert repr(first).startswith("replay(capacity=20")
    assert digest(first.state_dict()) == digest(again.state_dict()) != digest(other.state_dict())


def test_a_replica_answers_as_the_owner_would_and_its_rows_are_in_the_log(place):
    owner = place()
    replica, handle = replica_of(owner)
    first, second = answers(replica, asked([1, 2]), asked([3]))
    assert [item.id for item in first.get()] == ["r1", "r2"] and [item.seq for item in second.get()] == [3]
    assert handle.calls == ["service", "record"]
    own = owner.engine.predict(asked([1, 2, 3], "own")).result()
    assert [item.output for item in first.get() + second.get()] == [item.output for item in own]
    again = answers(replica, asked([2]))[0].get()[0]
    assert again.duplicate and again.seq == 2 and again.output == first.get()[1].output
    counts = owner.engine.status()["counts"]
    assert (counts["inputs"], counts["duplicates"]) == (6, 1) and owner.engine.predicting.waiting == 0


def test_a_row_told_otherwise_is_a_conflict_of_its_request_alone(place):
    owner = place()
    replica, _ = replica_of(owner)
    answers(replica, asked([1]))
    good, bad = answers(replica, asked([2]), [Ask("r1", row(9)[0])])
    assert good.get()[0].seq == 2
    assert (bad.error.code, bad.error.status) == ("conflict", 422)


def test_a_row_that_cannot_be_computed_fails_its_request_alone(place):
    owner = place()
    replica, _ = replica_of(owner)
    bad, good = answers(replica, [Ask("short", b"123")], asked([1]))
    assert isinstance(bad.error, ContractError) and good.get()[0].seq == 1
    assert owner.engine.status()["counts"]["inputs"] == 1


def test_nothing_is_logged_under_a_version_that_does_not_serve(place):
    owner = place()
    go(owner.engine, range(8))
    assert owner.engine.status()["version"] == 1
    rows = [[(ask, {"answer": "ant"}) for ask in asked([50])]]
    before = owner.engine.status()["last_seq"]
    assert asyncio.run(owner.record(rows, 0)) == (1, None)
    assert owner.engine.status()["last_seq"] == before
    service, outcomes = asyncio.run(owner.record(rows, 1))
    assert service == 1 and outcomes[0].get()[0].version == 1


def test_a_replica_follows_a_promotion_and_a_rollback_at_once(place):
    owner = place()
    replica, handle = replica_of(owner)
    assert answers(replica, asked([90]))[0].get()[0].version == 0
    go(owner.engine, range(16))
    later = answers(replica, asked([91]))[0].get()[0]
    assert later.version == owner.engine.status()["version"] == 2
    assert later.output == owner.engine.predict(asked([91], "own")).result()[0].output
    owner.engine.rollback(1, "doubt")
    assert answers(replica, asked([92]))[0].get()[0].version == 1
    assert "learner_state" not in handle.calls


def test_within_the_grace_the_version_before_still_answers_while_the_next_is_read(place):
    owner = place(grace=60.0)
    replica, _ = replica_of(owner)

    async def story():
        await replica.predict([asked([90])])
        await asyncio.to_thread(go, owner.engine, range(8))
        old = (await replica.predict([asked([91])]))[0].get()[0].version
        await asyncio.gather(*replica._later)
        return old, (await replica.predict([asked([92])]))[0].get()[0].version

    assert asyncio.run(story()) == (0, 1)
    go(owner.engine, range(8, 16))
    rows = [[(ask, {"answer": "ant"}) for ask in asked([50])]]
    assert asyncio.run(owner.record(rows, 0)) == (2, None)  # two versions behind
    owner.engine.rollback(0, "doubt")
    assert asyncio.run(owner.record(rows, 2)) == (0, None)  # withdrawn


@pytest.mark.parametrize("harm", ["garbled", "gone"])
def test_a_version_that_cannot_be_read_comes_through_the_owner(place, harm):
    owner = place()
    go(owner.engine, range(8))
    files = Path(owner.folder) / "versions" / "000000001.safetensors"
    files.write_bytes(b"nothing") if harm == "garbled" else files.unlink()
    replica, handle = replica_of(owner)
    answer = answers(replica, asked([90]))[0].get()[0]
    assert answer.version == 1 and "learner_state" in handle.calls
    assert answer.output == owner.engine.predict(asked([90], "own")).result()[0].output
    fresh, handle = replica_of(owner)  # the owner has mended the files
    answers(fresh, asked([91]))
    assert "learner_state" not in handle.calls


def test_a_replica_that_cannot_keep_up_leaves_the_answer_to_the_owner(place):
    owner = place()
    replica, handle = replica_of(owner, record=lambda rows, version: (0, None))
    assert answers(replica, asked([1]))[0].get()[0].seq == 1
    assert handle.calls.count("record") == TRIES and handle.calls[-1] == "predict"


def test_an_agent_decides_by_the_id_wherever_it_is_asked(place):
    owner = place("actions")
    replica, _ = replica_of(owner, "actions")
    here = [item.output for item in answers(replica, asked(range(12)))[0].get()]
    predictor = MODELS["actions"].make()
    spec = MODELS["actions"].spec
    there = [spec.decided(predictor.act(spec.tensor([ask.x]), derive(0, ask.id))) for ask in asked(range(12))]
    assert here == there and len({str(output) for output in here}) > 1
    assert owner.engine.status()["propensity"]["least"] == pytest.approx(1 / 3)


def test_a_full_queue_is_an_outcome_of_overload(place):
    owner = place(queue=1)
    owner.engine.predicting.admit()
    replica, _ = replica_of(owner)
    error = answers(replica, asked([1]))[0].error
    assert (error.code, error.status, error.retry_after) == ("overloaded", 429, 1.0)
    told = asyncio.run(owner.feedback([[Told("r1", 1)]]))[0]
    assert told.error.code == "overloaded"
    assert owner.engine.status()["counts"]["inputs"] == 0 and owner.engine.predicting.waiting == 1


def test_feedback_and_commands_reach_the_engine(place):
    owner = place()
    asyncio.run(owner.predict([asked([1]), asked([2])]))
    good, bad, other = asyncio.run(owner.feedback([[Told("r1", 0)], [Told("r1", 2)], [Told("r2", 1)]]))
    assert good.get()[0].joined and bad.error.code == "conflict" and other.get()[0].joined
    assert asyncio.run(owner.call("status", (), {})).get()["counts"]["answers"] == 2
    missing = asyncio.run(owner.call("rollback", (77, "x"), {"after": "skip"}))
    assert missing.error.code == "unknown_version"
    settle(owner.engine)


def test_a_fault_of_the_start_is_told_by_every_method(place, tmp_path):
    place()
    other = place()  # the folder is served by the first
    about = asyncio.run(other.about())
    assert isinstance(about.error, StateError) and "another process serves" in str(about.error)
    assert asyncio.run(other.predict([asked([1])]))[0].error.exit_code == about.error.exit_code
    assert asyncio.run(other.record([asked([1])], 0))[1][0].fault == about.fault
    assert asyncio.run(other.call("status", (), {})).fault == about.fault
    replica, _ = replica_of(other)
    assert answers(replica, asked([1]), asked([2]))[1].fault == about.fault


def test_processes_and_settings_are_told(place):
    owner = place(queue=17)
    about = asyncio.run(owner.about()).get()
    assert about["pid"] == os.getpid() and about["options"].queue == 17 and about["replicas"] == 1
    replica, _ = replica_of(owner)
    assert asyncio.run(replica.about()).get()["version"] is None
    answers(replica, asked([1]))
    assert asyncio.run(replica.about()).get()["version"] == 0
