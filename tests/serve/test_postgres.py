"""The log in Postgres keeps what SQLite keeps, and says clearly why a database cannot be used."""

import itertools

import pytest

from everlearn.serve.engine import LocalEngine
from everlearn.serve.postgres import Postgres

from .engine_contract import CONTRACT, MODELS, Bench
from .postgres_server import server  # noqa: F401

NAMES = (f"model_{number}" for number in itertools.count())


@pytest.fixture
def opener(server):  # noqa: F811
    names = {}

    def open_engine(model, folder, options):
        name = names.setdefault(folder, next(NAMES))
        database = Postgres(server.url(), options.durability, name=name)
        return LocalEngine(MODELS[model].make(), MODELS[model].spec, folder, options, database=database)

    return open_engine


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_it_keeps_the_contract_of_every_engine(rule, opener, tmp_path):
    with Bench(opener, tmp_path) as bench:
        rule(bench)
