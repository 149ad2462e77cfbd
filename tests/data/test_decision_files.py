"""Logs of decisions come back from their files as they were, and a damaged line is named."""

import json

import pyarrow.parquet
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.decision_files import read_decisions, write_decisions
from everlearn.data.decision_log import DecisionLog

FIELDS = ("x", "offered", "action", "propensity", "reward", "generation", "time", "probabilities", "weight")


def made(rows=20, actions=4, full=True):
    random = torch.Generator().manual_seed(3)
    offered = torch.rand(rows, actions, generator=random) < 0.6
    offered[:, 0] = True
    spread = torch.rand(rows, actions, generator=random, dtype=torch.float64) * offered
    spread /= spread.sum(dim=1, keepdim=True)
    action = torch.multinomial(spread, 1, generator=random)[:, 0]
    return DecisionLog.of(
        torch.randn(rows, 3, generator=random),
        offered=offered,
        action=action,
        propensity=spread.gather(1, action[:, None])[:, 0],
        reward=torch.rand(rows, generator=random, dtype=torch.float64),
        probabilities=spread if full else None,
        id=tuple(f"d{row}" for row in range(rows)),
        generation=torch.arange(rows) // 7,
        time=torch.arange(rows) + 0.25 if full else None,
        weight=torch.full((rows,), 2.0) if full else None,
    )


def same(left, right):
    """Whether two logs are equal to the bit."""
    pairs = [(getattr(left, name), getattr(right, name)) for name in FIELDS]
    return left.id == right.id and all(
        one is None if other is None else one is not None and torch.equal(one, other) for one, other in pairs
    )


@pytest.mark.parametrize("full", [True, False], ids=["all fields", "the least"])
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_log_comes_back_to_the_bit(tmp_path, ending, full):
    log = made(full=full)
    assert same(read_decisions(write_decisions(log, tmp_path / f"log.{ending}")), log)


def test_the_columns_are_those_that_are_documented(tmp_path):
    log = made(2)
    names = ["id", "x_hash", "x", "mask", "p", "a", "p_a", "reward", "generation", "time", "weight"]
    assert pyarrow.parquet.read_schema(write_decisions(log, tmp_path / "log.parquet")).names == names
    line = json.loads(write_decisions(log, tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert list(line) == names and line["x_hash"] == log.hashes()[0] and line["p_a"] == line["p"][line["a"]]


def test_what_cannot_be_read_is_named(tmp_path):
    path = write_decisions(made(3), tmp_path / "log.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for change, said in [
        ({"p_a": 0.0}, "log.jsonl: decision log: row 1 .*propensity is 0"),
        ({"mask": [False] * 4}, "row 1 .*no action is on offer"),
        ({"reward": None}, "row 1: 'reward' has no value"),
        ({"x": [1.0]}, "the column 'x' holds rows of different length"),
    ]:
        lines = [json.dumps({**row, **(change if number == 1 else {})}) for number, row in enumerate(rows)]
        path.write_text("\n".join(lines))
        with pytest.raises(DataError, match=said):
            read_decisions(path)
    path.write_text(json.dumps(rows[0]) + "\n{broken")
    with pytest.raises(DataError, match="line 2: no JSON"):
        read_decisions(path)
    path.write_text('{"a": 1}')
    with pytest.raises(DataError, match="line 1: 'x' is missing"):
        read_decisions(path)
    with pytest.raises(DataError, match="no such file"):
        read_decisions(tmp_path / "none.parquet")
    with pytest.raises(ArgumentError, match="must end in"):
        write_decisions(made(2), tmp_path / "log.txt")
    damaged = write_decisions(made(3), tmp_path / "log.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(DataError, match="Parquet"):
        read_decisions(damaged)
