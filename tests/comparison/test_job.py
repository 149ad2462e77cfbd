"""One cell: its record, when it is used again, and where it lies."""

import json

import pytest

from everlearn.comparison.building import build_stream
from everlearn.comparison.job import Job, fingerprint_of, run_folder, run_job, slug
from everlearn.core.budget import Budget
from everlearn.core.errors import StateError

STREAM = "split(digits, experiences=5, batch=64)"


def job(folder=None, **changes):
    settings = {"learner": "fine_tune", "stream": STREAM, "model": "auto", "seed": 0, "budget": Budget(), "folder": folder}
    settings |= changes
    return Job(0, "fine_tune", **settings)


def test_labels_that_differ_have_folders_that_differ():
    assert slug("replay(capacity=5)") != slug("replay(capacity=50)")
    assert slug("replay(a='x/../y')").count("/") == 0


def test_the_fingerprint_follows_data_and_seed():
    prints = {
        fingerprint_of(build_stream(text, seed))
        for text, seed in [(STREAM, 0), (STREAM, 1), ("split(wine, experiences=3)", 0)]
    }
    assert len(prints) == 3
    assert fingerprint_of(build_stream(STREAM, 0)) in prints


def test_a_finished_cell_is_read_and_not_run(tmp_path):
    first = run_job(job(str(tmp_path)))
    path = run_folder(job(str(tmp_path))) / "record.json"
    path.write_text(json.dumps(first | {"sha256": "from the file"}))
    assert run_job(job(str(tmp_path)))["sha256"] == "from the file"


def test_a_cell_on_other_events_is_refused(tmp_path):
    run_job(job(str(tmp_path)))
    with pytest.raises(StateError, match="another configuration"):
        run_job(job(str(tmp_path), stream="split(digits, experiences=2, batch=64)"))
    run_job(job(str(tmp_path), stream="split(digits, experiences=2, batch=64)", resume=False))


def test_an_unreadable_record_is_named(tmp_path):
    run_job(job(str(tmp_path)))
    path = run_folder(job(str(tmp_path))) / "record.json"
    path.write_text("{")
    with pytest.raises(StateError, match=r"record\.json cannot be read"):
        run_job(job(str(tmp_path)))
