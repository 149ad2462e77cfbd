"""The hybrid: who answers when, beside a plain loop over the errors of both."""

import pytest
import torch

from everlearn import Batch, FineTune, Learner
from everlearn.core.errors import ArgumentError
from everlearn.core.state import same
from everlearn.learners.forecaster import Forecaster
from everlearn.learners.hybrid import Hybrid
from everlearn.learners.persistence import Persistence
from everlearn.measure.drift import ADWIN
from everlearn.nn.series import CfC
from everlearn.optim.refit import Every


class Off(Learner):
    """Forecasts the newest value and so much beside, as its plan says for each row; counts a fit at the rows that it is told."""

    name = "off"
    gives = ("values",)
    parts = ("rows", "fits")

    def __init__(self, plan, fitted=()):
        self.plan, self.fitted, self.rows, self.fits = plan, fitted, 0, 0

    def predict(self, x):
        return x[:, -1] + self.plan[self.rows]

    def update(self, batch):
        if batch.y is not None:
            self.rows += 1
            self.fits += self.rows in self.fitted
        return {}

    def boundary(self, boundary):
        pass


class At:
    """Alarms at the rows that it is told."""

    name, parts = "at", ("rows", "told")

    def __init__(self, *rows):
        self.rows, self.told, self.seen = list(rows), [], 0

    def update(self, error):
        self.told.append(error)
        return len(self.told) in self.rows


ROW = Batch(torch.full((1, 3, 1), 10.0), torch.full((1, 1), 10.0))


def walk(hybrid, count):
    """Whether the bridge answered each row."""
    found = []
    for _ in range(count):
        found.append(hybrid.bridging)
        inner = hybrid.bridge if hybrid.bridging else hybrid.refitted
        assert torch.equal(hybrid.predict(ROW.x), inner.predict(ROW.x))
        hybrid.update(ROW)
    return found


def test_the_bridge_answers_from_the_alarm_until_the_other_was_fitted_and_is_better():
    """Alarm at row 10; fits at rows 1, 8, 13 and 22. `refitted` is off by 5 from row 9 to 14, by 0.1 then; the bridge by 1 always."""
    refitted = Off([0.5] * 8 + [5.0] * 6 + [0.1] * 30, fitted=(1, 8, 13, 22))
    hybrid = Hybrid(Off([1.0] * 60), refitted, detector=At(9), trailing=4)
    # the detector is told from the first fit on, with row 2 as its first: its ninth is row 10
    found = walk(hybrid, 40)
    # over the last four rows the other is better from row 18 on (0.1 each); a row earlier one error of 5 still counts
    assert found == [False] * 10 + [True] * 8 + [False] * 22
    assert [round(error, 6) for error in hybrid.detector.told[:9]] == [0.05] * 7 + [
        0.5
    ] * 2  # shares of the answers' size, 10


def test_without_a_fit_since_the_alarm_the_bridge_goes_on():
    hybrid = Hybrid(Off([1.0] * 60), Off([0.1] * 60, fitted=(1, 2)), detector=At(9), trailing=4)
    assert walk(hybrid, 40) == [False] * 10 + [True] * 30


def test_an_alarm_while_bridging_begins_anew():
    hybrid = Hybrid(Off([1.0] * 60), Off([0.1] * 60, fitted=(1, 12, 20)), detector=At(9, 11), trailing=4)
    assert walk(hybrid, 40) == [False] * 10 + [True] * 10 + [False] * 20  # the fit at 12 was at the second alarm


def test_the_number_of_trailing_rows_matters():
    plan = [0.5] * 8 + [5.0] * 6 + [0.1] * 30
    short = Hybrid(Off([1.0] * 60), Off(plan, fitted=(1, 13)), detector=At(9), trailing=1)
    assert walk(short, 40) == [False] * 10 + [True] * 5 + [False] * 25


def test_real_forecasters_and_a_load_in_the_middle():
    steps = torch.arange(200.0)
    series = 10 + torch.sin(0.4 * steps)
    series[120:] *= 8
    batches = [Batch(series[None, k : k + 6, None], series[None, k + 6 : k + 7]) for k in range(194)]

    def make():
        refitted = Forecaster(window=6, first=60, epochs=3, refit=Every(20), refit_epochs=3, normalizer="global")
        return Hybrid(Forecaster(CfC(), window=6, first=60, epochs=3), refitted, detector=ADWIN(clock=1, grace=1))

    whole, bridged = make(), []
    for number, batch in enumerate(batches):
        if number == 130:
            other = make()
            other.load_state_dict(whole.state_dict())
        whole.update(batch)
        bridged.append(whole.bridging)
        if number >= 130:
            other.update(batch)
            assert torch.equal(whole.predict(batch.x), other.predict(batch.x))
    assert same(whole.state_dict(), other.state_dict())
    assert not any(bridged[:110]) and any(bridged[114:140])


@pytest.mark.parametrize(
    ("bridge", "refitted", "message"),
    [
        (FineTune(torch.nn.Linear(2, 2)), Forecaster(), "bridge must be a learner of values such as forecaster"),
        (Persistence(), Persistence(), r"refitted must count its fits, as forecaster\(refit=every\(36\)\) does"),
        (Persistence(), None, "refitted must be a learner of values"),
    ],
)
def test_what_cannot_take_turns_is_refused(bridge, refitted, message):
    with pytest.raises(ArgumentError, match=f"hybrid: {message}"):
        Hybrid(bridge, refitted)
