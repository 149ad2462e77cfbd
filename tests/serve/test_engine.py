"""The contract of every engine, kept by that of one process."""

import pytest

from .engine_bench import Bench, local_opener
from .engine_contract import CONTRACT


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_it_keeps_the_contract(rule, tmp_path):
    with Bench(local_opener, tmp_path) as bench:
        rule(bench)


def test_leaving_its_block_closes_it_whatever_happened(tmp_path):
    with Bench(local_opener, tmp_path) as bench, pytest.raises(ZeroDivisionError), bench.open() as engine:
        assert engine.status()["model"]
        raise ZeroDivisionError
    with Bench(local_opener, tmp_path) as bench:
        assert bench.open().versions()  # the folder was let go
