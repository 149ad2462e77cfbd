"""The Open Bandit Dataset, as its sample and as the CSV of its authors."""

import os
from pathlib import Path

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.decision_files import read_decisions
from everlearn.data.open_bandit import read_open_bandit

CSV = """,timestamp,item_id,position,click,propensity_score,\
user_feature_0,user_feature_1,user-item_affinity_0,user-item_affinity_1,user-item_affinity_2
0,2019-11-24 00:00:02.500000+00:00,2,3,1,0.25,cef3,2d03,0.0,1.0,0.5
1,2019-11-24 00:00:01+00:00,0,1,0,0.5,81ce,2d03,0.0,0.0,2.0
"""


def sample(name):
    for folder in os.environ.get("EVERLEARN_DATA", "").split(":"):
        path = Path(folder) / "open_bandit_sample" / f"{name}.npz"
        if folder and path.is_file():
            return path
    pytest.skip("open_bandit_sample is not in EVERLEARN_DATA")


def test_the_csv_of_the_authors(tmp_path):
    (tmp_path / "men.csv").write_text(CSV)
    (tmp_path / "item_context.csv").write_text("item_id\n0\n1\n2\n")
    log = read_open_bandit(tmp_path)
    assert log.actions == 3 and log.action.tolist() == [0, 2] and log.reward.tolist() == [0.0, 1.0], "by time"
    assert log.propensity.tolist() == [0.5, 0.25] and (log.time[1] - log.time[0]).item() == 1.5
    assert log.x.tolist() == [[1, 0, 1, 1, 0, 0, 0, 0, 2], [0, 1, 1, 0, 0, 1, 0, 1, 0.5]], (
        "user 0, user 1, position, affinity"
    )


@pytest.mark.parametrize(("name", "items", "clicks"), [("men_random", 34, 46), ("women_bts", 46, 46)])
def test_the_samples(name, items, clicks):
    log = read_decisions(sample(name))
    assert len(log) == 10_000 and log.actions == items and int(log.reward.sum()) == clicks
    assert bool((log.time.diff() >= 0).all()) and log.x.shape[1] > items
    if name == "men_random":
        assert torch.allclose(log.propensity, torch.tensor(1 / 34, dtype=torch.float64), rtol=1e-4)


def test_what_is_no_such_file_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="the column 'timestamp' is missing"):
        read_open_bandit(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(CSV.replace("2,3,1", "2,4,1"))
    with pytest.raises(DataError, match=r"b.csv: row 0: the position must lie in 1..3"):
        read_open_bandit(tmp_path / "b.csv")
    with pytest.raises(DataError, match="here are 2"):
        read_open_bandit(tmp_path)
