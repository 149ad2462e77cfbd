"""Versions on disk: whole, or as if they were not there."""

import pytest
import torch

from everlearn.core.errors import StateError
from everlearn.core.state import same
from everlearn.serve.snapshots import Snapshots

STATE = {"weights": torch.arange(6.0).reshape(2, 3), "number": 4, "names": ["a", None]}


@pytest.fixture
def snapshots(tmp_path):
    return Snapshots(tmp_path / "versions")


def files(snapshots):
    return sorted(path.name for path in snapshots.folder.iterdir())


def test_a_version_is_read_as_it_was_written(snapshots):
    size = snapshots.save(12, STATE)
    assert same(snapshots.load(12), STATE)
    assert files(snapshots) == ["000000012.json", "000000012.safetensors"]
    assert size == sum(path.stat().st_size for path in snapshots.folder.iterdir())


def test_others_stand_beside_it_until_they_are_removed(snapshots):
    for version in range(5):
        snapshots.save(version, STATE)
    snapshots.remove(2)
    assert [snapshots.load(version) is not None for version in range(6)] == [True, True, False, True, True, False]
    snapshots.remove(2)  # once more does no harm


@pytest.mark.parametrize("ending", ["json", "safetensors"])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_version_that_was_harmed_is_none(snapshots, ending, harm):
    snapshots.save(1, STATE)
    path = snapshots.folder / f"000000001.{ending}"
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] if harm == "cut" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert snapshots.load(1) is None


def test_files_of_another_version_under_its_name_are_none(snapshots):
    snapshots.save(1, STATE)
    for ending in ("json", "safetensors"):
        (snapshots.folder / f"000000001.{ending}").rename(snapshots.folder / f"000000002.{ending}")
    assert snapshots.load(2) is None


def test_what_was_half_written_is_tidied_away(snapshots):
    snapshots.save(1, STATE)
    (snapshots.folder / "000000002.safetensors").write_bytes(b"half")
    (snapshots.folder / ".000000003.json.77").write_bytes(b"half")
    snapshots.tidy()
    assert files(snapshots) == ["000000001.json", "000000001.safetensors"]


def test_a_version_that_cannot_be_written_leaves_nothing(snapshots, monkeypatch):
    snapshots.save(1, STATE)

    def full(path, data):
        if path.suffix == ".json":
            raise StateError("no space")
        path.write_bytes(data)

    monkeypatch.setattr("everlearn.core.state.write_atomic", full)
    with pytest.raises(StateError, match="no space"):
        snapshots.save(2, STATE)
    assert files(snapshots) == ["000000001.json", "000000001.safetensors"]
