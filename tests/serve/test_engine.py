"""The engine of one process: the contract of every engine, and what is its own."""

import pytest

from everlearn.serve.engine import LocalEngine

from .engine_contract import CONTRACT, MODELS, Bench


def opener(model, folder, options, **named):
    served = MODELS[model]
    return LocalEngine(served.make(), served.spec, folder, options, **named)


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_it_keeps_the_contract(rule, tmp_path):
    with Bench(opener, tmp_path) as bench:
        rule(bench)
