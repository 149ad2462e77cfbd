"""Ray: the same records as in this process, on a local cluster of two workers."""

import sys

import pytest

from everlearn.comparison.engines import inline
from everlearn.comparison.job import Job
from everlearn.comparison.ray_engine import on_ray
from everlearn.core.budget import Budget
from everlearn.core.errors import MissingExtraError, SpecError

STREAM = "split(digits, experiences=5, batch=64)"


def jobs(*learners):
    return [Job(number, learner, learner, STREAM, "auto", 0, Budget(), None) for number, learner in enumerate(learners)]


def plain(record):
    """What does not depend on the clock."""
    return record["label"], record["sha256"], record["figures"]["matrix"], record["used"]


@pytest.mark.slow
def test_two_workers_give_the_records_of_one_process():
    seen = []
    records = list(on_ray(None)(jobs("fine_tune", "replay(capacity=20)"), 2, lambda *at: seen.append(at)))
    here = list(inline(jobs("fine_tune", "replay(capacity=20)"), 1, lambda *at: None))
    assert sorted(map(plain, records)) == sorted(map(plain, here))
    assert sorted(seen) == [(0, 1.0), (1, 1.0)]


@pytest.mark.slow
def test_an_error_in_a_worker_arrives_as_itself():
    with pytest.raises(SpecError, match="did you mean 'capacity'"):
        list(on_ray(None)(jobs("replay(capactiy=5)"), 1, lambda *at: None))


def test_without_ray_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"everlearn\[ray\]"):
        list(on_ray(None)(jobs("fine_tune"), 1, lambda *at: None))
