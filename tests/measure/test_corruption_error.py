"""Errors counted by hand, in a run of which every answer is known; the same after a restart in the middle."""

import copy
import json
from statistics import fmean

import pytest
import torch
from torch import nn

from everlearn import FineTune, run
from everlearn.core.state import capture, restore
from everlearn.data.corruption_stream import corruptions
from everlearn.data.dataset import Data
from everlearn.data.prefix import prefix
from everlearn.data.prequential import iid
from everlearn.measure.corruption_error import CorruptionError, corruptions_in
from everlearn.measure.monitors import standard
from everlearn.measure.prequential import Prequential


class First(nn.Module):
    """Class 1 where the mean is above a half: right on what follows until images are brighter or darker."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([0.5 - mean, mean - 0.5], dim=1) + 0.0 * self.shift


@pytest.fixture(scope="module")
def stream():
    """Images of class 0 are 0.3 throughout, of class 1 they are 0.7. Brightness 5 makes the first 0.6: always taken for the second."""
    y = torch.arange(80) % 2
    x = (0.3 + 0.4 * y.float()).view(-1, 1, 1, 1).expand(-1, 1, 12, 12).contiguous()
    data = Data("flat", x, y, ("dark", "light"))
    types = ("brightness", "contrast")
    return corruptions(data, types=types, order="gradual", rounds=2, batch=8, test=0.5, held_out=0.2, epochs=1)


def folded(stream, monitors):
    return run(FineTune(First()), stream, monitors=monitors)


def test_errors_by_type_severity_and_round(stream):
    figures = folded(stream, [CorruptionError(), Prequential()]).figures
    found = figures["corruption"]
    # 0.3 + 0.05, 0.1, 0.15 stay below a half; 0.2 makes it a half, a tie, which is class 0; 0.3 makes it 0.6
    assert found["by_severity"]["brightness"] == {"1": 0.0, "2": 0.0, "3": 0.0, "4": pytest.approx(0.0), "5": 0.5}
    assert set(found["by_severity"]["contrast"].values()) == {0.0}
    assert found["by_type"] == {"brightness": pytest.approx(0.5 / 9), "contrast": 0.0}
    assert found["mean_error"] == pytest.approx(0.25 / 9)
    assert found["by_round"] == [{"brightness": 0.5 / 9, "contrast": 0.0, "mean": pytest.approx(0.25 / 9)}] * 2
    assert found["clean"] == [0.0] * 3 and found["clean_before"] == found["clean_after"] == 0.0
    assert found["held_out"] == {"brightness": [0.5] * 3, "contrast": [0.0] * 3}
    assert found["rows"] == 2 * 2 * 9 * 32 == figures["prequential"]["scored"]
    assert 1.0 - figures["prequential"]["accuracy"] == pytest.approx(found["mean_error"])
    json.dumps(found)


def test_the_curve_adds_up(stream):
    monitor = CorruptionError()
    curve = folded(stream, [monitor]).curve
    errors = [point["corruption"]["error"] for point in curve if "corruption" in point]
    assert len(errors) == len(stream) - stream.deployed and monitor.record(None) == {}  # one for each event of 8 rows
    assert fmean(errors) == pytest.approx(0.25 / 9)


def test_state_survives_a_restart(stream):
    monitor = CorruptionError()
    folded(stream, [monitor])
    other = CorruptionError()
    other.start(None, stream)
    restore(other, copy.deepcopy(capture(monitor)))
    assert other.figures() == monitor.figures()


def test_it_watches_streams_of_corruptions_and_beginnings_of_them(stream):
    assert corruptions_in(stream) is stream and corruptions_in(prefix(stream, 5)) is stream
    assert "corruption" in [monitor.name for monitor in standard(stream)]
    other = iid(Data("flat", torch.zeros(20, 1, 12, 12), torch.arange(20) % 2, ("a", "b")))
    assert corruptions_in(other) is None and "corruption" not in [monitor.name for monitor in standard(other)]
    found = folded(other, [CorruptionError()]).figures["corruption"]
    assert found["mean_error"] is None and found["by_type"] == {} and found["rows"] == 0


def test_with_answers_the_errors_are_the_same(stream):
    """labelled=True: the answers come with the inputs, and what was predicted before them counts."""
    options = {"types": ("brightness",), "batch": 8, "test": 0.5, "held_out": 0.2, "severity": 5}
    errors = []
    for labelled in (False, True):
        view = corruptions(stream.source._data, labelled=labelled, **options)
        learner = FineTune(First())
        errors.append(run(learner, view, monitors=[CorruptionError(), Prequential()]).figures["corruption"]["mean_error"])
    assert errors == [0.5, 0.5]
