"""What a bandit is shown and told: forms of observations, and refusals with the row and what is allowed."""

from types import SimpleNamespace

import pytest
import torch

from everlearn.agents.observing import Seen, observed, period_of, told
from everlearn.core.errors import InputError

RULES = SimpleNamespace(actions=3, bounded=True, weights="none", train_on="all", gate=False)


def test_three_forms_of_an_observation():
    x = torch.randn(4, 2)
    mask = torch.tensor([[1, 0, 1]] * 4)
    plain = observed(x, 3, False, 0)
    named = observed({"x": x, "offered": mask.bool()}, 3, False, 2)
    behind = observed(torch.cat([x, mask.float()], 1), 3, True, 2)
    assert plain.offered.all() and plain.offered.shape == (3, 4)
    for seen in (named, behind):
        assert (seen.offered == mask.bool().T.numpy()).all() and (seen.x == x.numpy()).all()


@pytest.mark.parametrize(
    ("given", "masked", "message"),
    [
        (torch.zeros(3), False, r"x must be a tensor \(rows, columns\), got shape \(3,\)"),
        ({"x": torch.zeros(1, 2)}, False, "an observation as a dict holds x and offered, got"),
        (
            {"x": torch.zeros(1, 2), "offered": torch.ones(1, 3)},
            False,
            r"offered must be a bool tensor \(1, 3\), got torch.float32",
        ),
        (
            {"x": torch.zeros(2, 2), "offered": torch.tensor([[True] * 3, [False] * 3])},
            False,
            r"row 1 has no action on offer",
        ),
        (torch.tensor([[0.0, 1.0], [0.0, float("nan")]]), False, "row 1 of x holds NaN or infinite values"),
        (torch.zeros(1, 5), False, "x has 5 columns; it learned from 2"),
        (torch.full((1, 5), 0.5), True, r"the last 3 columns of x must be 0 or 1, got \[0.5, 0.5, 0.5\]"),
        (torch.ones(1, 3), True, "the last 3 columns say what is on offer; x has no others"),
    ],
    ids=str,
)
def test_what_cannot_be_seen_is_refused(given, masked, message):
    with pytest.raises(InputError, match=message):
        observed(given, 3, masked, 2)


def test_large_finite_values_pass():
    assert observed(torch.full((2, 2), 3e38), 3, False, 0).x.shape == (2, 2)  # their sum is infinite, and they are not


def test_what_cannot_have_happened_is_refused():
    seen = observed(
        {"x": torch.zeros(2, 1), "offered": torch.tensor([[True, True, True], [True, False, True]])}, 3, False, 0
    )
    assert told(RULES, 2, 1, None, seen, 1)[:2] == (2, 1.0) and told(RULES, 0, 0.5, 1.0 + 1e-9, seen) == (0, 0.5, 1.0)
    for wrong, message in (
        ((3, 1.0, 0.5), r"row 1: action must be an int in 0\.\.2, got 3"),
        ((1, 1.0, 0.5), r"row 1: action 1 was not on offer; allowed: \[0, 2\]"),
        ((0, 1.5, 0.5), r"row 1: reward must lie in \[0, 1\], got 1.5"),
        ((0, float("nan"), 0.5), "row 1: reward must be a finite number, got nan"),
        ((0, 1.0, 0.0), r"row 1: propensity must be above 0 and at most 1, got 0\.0"),
        ((0, 1.0, float("nan")), "propensity must be above 0"),
    ):
        with pytest.raises(InputError, match=message):
            told(RULES, *wrong, seen, 1)
    loose = SimpleNamespace(actions=3, bounded=False, weights="ips", train_on="all", gate=False)
    assert told(loose, 0, 7.5, 0.5, seen) == (0, 7.5, 0.5)
    with pytest.raises(InputError, match="need a propensity, got None"):
        told(loose, 0, 1.0, None, Seen(seen.x, seen.offered))


def test_a_period_is_a_count():
    assert (period_of(None), period_of(3)) == (None, 3)
    for wrong in (-1, 1.0, True, "2"):
        with pytest.raises(InputError, match="row 4: generation must be an int >= 0, or None, got"):
            period_of(wrong, 4)
