"""Presets: the published conventions, their options, and the table of them."""

import pytest

import everlearn
from everlearn.comparison.catalog import values
from everlearn.core.errors import SpecError
from everlearn.core.spec import build, parse
from everlearn.learners.presets import PRESETS, preset, special_cases
from everlearn.nn.bregman import Quadratic, Squared


def test_every_published_special_case_is_there():
    assert set(PRESETS) >= {
        "finetune",
        "l2sp",
        "ewc",
        "si",
        "mas",
        "lwf",
        "er",
        "der",
        "derpp",
        "icarl",
        "cpr",
        "vcl",
        "ncl",
    }


def test_conventions_of_strengths():
    """The half of EWC is in the quadratic; SI and MAS have none, so their weight is twice the strength; L2 has none."""
    assert preset("ewc", strength=20).weight[0].weight == 20 and preset("ewc").weight[0].potential == Quadratic()
    assert preset("si", strength=0.1).weight[0].weight == 0.2
    assert preset("mas", strength=0.1).weight[0].weight == 0.2
    assert preset("l2sp", strength=3).weight[0].potential == Squared()
    assert preset("lwf", strength=1.0, temperature=2).output[0].weight == 1.0  # no T^2
    assert preset("der").output[0].reduce == "mean"


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("finetune", "replay")])
def test_the_strength_reaches_the_objective(name):
    assert preset(name, strength=0.25) != preset(name, strength=0.5)
    assert build(parse(f"preset({name!r}, strength=0.5)"), values()) == everlearn.preset(name, strength=0.5)


def test_refusals():
    with pytest.raises(SpecError, match="unknown preset 'ewcc'; did you mean 'ewc'"):
        preset("ewcc")
    with pytest.raises(SpecError, match=r"preset\('ewc'\).*strength"):
        preset("ewc", strenght=1)


def test_the_table_of_special_cases_has_a_row_for_each():
    lines = special_cases().splitlines()
    assert len(lines) == 2 + len(PRESETS)
    assert all(line.count(" | ") >= 3 for line in lines[2:])
    assert any(line.startswith("| `cpr` | `output(weight=0.5, potential=negentropy(), view='probs'") for line in lines)
