"""Engines by name."""

import pytest

from everlearn.comparison.engines import engine_named, inline, process
from everlearn.core.errors import ArgumentError


def test_engines_are_found_by_name():
    assert engine_named("inline") is inline
    assert engine_named("process") is process
    assert callable(engine_named("ray"))
    assert callable(engine_named("ray://head:10001"))


def test_an_unknown_engine_is_refused():
    with pytest.raises(ArgumentError, match="'dask'"):
        engine_named("dask")
