"""The disk fails: versions are garbled, the end of the log is cut off or spoiled, space runs out. What was committed stands."""

import json
import shutil
import sqlite3

import pytest

from everlearn.core.errors import StateError
from everlearn.serve.local_engine import LocalEngine

from .crash_child import Counting, spec_of
from .nursery import Nursery, Twins, hold

EARLY = ("after the row of a version", 2)  # where a life ends: before any command, after the first rollback, near the end
MIDDLE = ("after the row of a branch", 1)
LATE = ("after the row of a version", 11)


@pytest.fixture(scope="module")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def twin(nursery, tmp_path_factory):
    return Twins(nursery, tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module")
def killed(nursery, tmp_path_factory):
    """A copy of a server that was killed at a point."""
    made = {}

    def of(where, target):
        if where not in made:
            made[where] = tmp_path_factory.mktemp("killed") / "one"
            assert nursery.life(made[where], "counting", point=where[0], nth=where[1])
        shutil.copytree(made[where], target)
        return target

    return of


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def spoil(path, how):
    """Spoil the files of a version."""
    tensors = path.with_suffix(".safetensors")
    {
        "garbled": lambda: flip(path),
        "cut": lambda: tensors.write_bytes(tensors.read_bytes()[:20]),
        "without its JSON": path.unlink,
        "another version's": lambda: path.write_bytes(path.with_name("000000000.json").read_bytes()),
    }[how]()


def finished(nursery, folder):
    while nursery.life(folder, "counting"):
        pass
    return nursery.report(folder)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["garbled", "cut", "without its JSON", "another version's"])
def test_the_newest_version_is_spoiled(how, killed, nursery, twin, tmp_path):
    folder = killed(MIDDLE, tmp_path / "one")
    newest = sorted((folder / "versions").glob("*.json"))[-1]
    spoil(newest, how)
    hold(folder, finished(nursery, folder), twin("counting"))


@pytest.mark.parametrize("which", ["the two newest", "version 0", "the one in service", "all"])
@pytest.mark.parametrize("where", [EARLY, MIDDLE, LATE], ids=["early", "middle", "late"])
def test_versions_are_garbled(which, where, killed, nursery, twin, tmp_path):
    folder = killed(where, tmp_path / "one")
    paths = sorted((folder / "versions").glob("*.json"))
    connection = sqlite3.connect(folder / "log.sqlite")
    service = connection.execute("SELECT version FROM version WHERE state = 'active'").fetchone()[0]
    connection.close()
    chosen = {
        "the two newest": paths[-2:],
        "version 0": paths[:1],
        "the one in service": [folder / "versions" / f"{service:09d}.json"],
        "all": paths,
    }[which]
    for path in chosen:
        flip(path)
    hold(folder, finished(nursery, folder), twin("counting"))


# ---- the end of the log ------------------------------------------------------------------------------------------------------


def events(folder):
    connection = sqlite3.connect(folder / "log.sqlite")
    found = connection.execute("SELECT seq, kind, id, revision, y FROM event ORDER BY seq").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("how", ["cut", "garbled"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.999])
def test_the_end_of_the_log_is_lost(how, share, killed, nursery, twin, tmp_path):
    """A prefix survives, versions that are ahead of it are not believed, and told again everything is as it was."""
    folder = killed(EARLY, tmp_path / "one")
    shutil.copytree(folder, tmp_path / "whole")
    whole = events(tmp_path / "whole")
    wal = folder / "log.sqlite-wal"
    content = bytearray(wal.read_bytes())
    place = int(len(content) * share)
    if how == "cut":
        del content[place:]
    else:
        content[place] ^= 0x01
    wal.write_bytes(content)
    shutil.copytree(folder, tmp_path / "looked at")
    left = events(tmp_path / "looked at")
    assert left == whole[: len(left)]  # numbers rise by one, so the last is their count
    assert len(left) < len(whole) or share > 0.9
    (folder / "acknowledged").unlink()  # the client tells all of it again
    report = finished(nursery, folder)
    hold(folder, report, twin("counting"))
    lost = [alarm for alarm in report["alarms"] if "lost its end" in alarm["message"]]
    ahead = max(applied for applied in applied_by_versions(tmp_path / "whole"))
    expected = [("fault", float(ahead), float(len(left)))] if ahead > len(left) else []
    assert [(alarm["kind"], alarm["value"], alarm["limit"]) for alarm in lost] == expected
    assert bool(lost) == (share < 0.9)


def applied_by_versions(folder):
    return [
        json.loads(json.loads(path.read_text())["state"])["applied_seq"] for path in (folder / "versions").glob("*.json")
    ]


def test_a_log_that_is_no_database_is_refused_and_let_go(killed, tmp_path):
    folder = killed(EARLY, tmp_path / "one")
    (folder / "log.sqlite-wal").unlink()
    (folder / "log.sqlite").write_bytes(b"This is no database, and never was one." * 100)
    for _ in range(2):  # the second time shows that the first has let go of the folder
        with pytest.raises(StateError, match="not a database"):
            LocalEngine(Counting(), spec_of("counting"), folder)


def test_a_log_of_another_format_is_refused(killed, tmp_path):
    folder = killed(EARLY, tmp_path / "one")
    connection = sqlite3.connect(folder / "log.sqlite")
    connection.execute("UPDATE setting SET value = '99' WHERE name = 'format'")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match="format '99'"):
        LocalEngine(Counting(), spec_of("counting"), folder)


# ---- no space ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1024, 60_000])
def test_the_disk_is_full_every_now_and_then(limit, nursery, twin, tmp_path):
    """With 60,000 bytes versions can still be kept when the log cannot be written."""
    folder = tmp_path / "one"
    assert not nursery.life(folder, "counting", flaky={"limit": limit, "seconds": 0.3})
    report = nursery.report(folder)
    assert report["refusals"] > 10
    hold(folder, report, twin("counting"))


def test_a_server_does_not_start_on_a_full_disk(killed, tmp_path, monkeypatch):
    folder = killed(EARLY, tmp_path / "one")

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("everlearn.serve.local_engine.os.fsync", full)
    with pytest.raises(StateError, match="No space left on device"):
        LocalEngine(Counting(), spec_of("counting"), folder)
    monkeypatch.undo()
    LocalEngine(Counting(), spec_of("counting"), folder).close()
    assert not list(folder.glob(".fsync*"))
