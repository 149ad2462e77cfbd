"""Alarms on errors whose order is known."""

import pytest
import torch

from everlearn import Batch, Learner, Schema, run
from everlearn.core.errors import ArgumentError
from everlearn.measure.drift import ADWIN, Every, PageHinkley
from everlearn.measure.drift_monitor import DriftMonitor


class Zero(Learner):
    """Always answers class 0."""

    name, parts = "zero", ()

    def predict(self, x):
        return torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.int64), 3).float()

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass


def labels(values, size=1, late=False):
    """Events whose labels are the values: 1 is an error of `Zero`."""
    events, answers = [], []
    for start in range(0, len(values), size):
        y = torch.tensor(values[start : start + size])
        x, names = torch.zeros(len(y), 4), tuple(str(start + row) for row in range(len(y)))
        if late:
            events.append(Batch(x, None, id=names))
            answers.append(Batch(x, y, id=names))
        else:
            events.append(Batch(x, y))
    return events + answers


def drift(stream, detectors=None, **arguments):
    return run(Zero(), stream, monitors=[DriftMonitor(detectors, **arguments)]).figures["drift"]


def test_alarms_are_those_of_the_detectors_row_by_row(listed):
    random = torch.Generator().manual_seed(1)
    values = [int(torch.rand(1, generator=random) < (0.1 if index < 400 else 0.7)) for index in range(800)]
    found = drift(listed(labels(values), changes=(400,)))
    for detector in (ADWIN(), PageHinkley(), Every(100)):
        expected = [index for index, value in enumerate(values) if detector.update(float(value))]
        assert found["alarms"][repr(detector)] == expected
    assert found["alarms"][repr(ADWIN())], "the change was meant to be found"
    in_batches = drift(listed(labels(values, size=16), changes=(25,)))
    for name, alarms in found["alarms"].items():
        assert in_batches["alarms"][name] == [alarm // 16 for alarm in alarms]
    assert in_batches["rows"] == 800


def test_scores_by_hand(listed):
    stream = listed(labels([0] * 100, size=2), changes=(10, 30), deployed=0)
    found = drift(stream, [Every(24)], tolerance=4)
    # alarms at rows 23, 47, 71, 95: events 11, 23, 35, 47; the first finds the change at 10, one late; 35 is 5 after 30
    assert found["alarms"] == {"every_n(n=24)": [11, 23, 35, 47]}
    assert found["scores"]["every_n(n=24)"] == {
        "found": 1,
        "changes": 2,
        "delay": 1.0,
        "false_per_1000": 30.0,
        "alarms_per_1000": 40.0,
    }
    wider = drift(stream, [Every(24)], tolerance=5)["scores"]["every_n(n=24)"]
    assert (wider["found"], wider["delay"], wider["false_per_1000"]) == (2, 3.0, 20.0)
    assert drift(stream, [Every(24)])["scores"]["every_n(n=24)"] == wider  # a tenth of 50 events


def test_only_what_comes_after_deployment_is_watched(listed):
    stream = listed(labels([0] * 50 + [1] * 50), changes=(20, 50), deployed=40)
    found = drift(stream, [Every(10)], tolerance=20)
    assert found["rows"] == 60
    assert found["alarms"]["every_n(n=10)"] == [49, 59, 69, 79, 89, 99]
    assert found["scores"]["every_n(n=10)"]["changes"] == 1


def test_late_answers_are_judged_by_the_prediction_of_their_time(listed):
    stream = listed(labels([1, 0] * 20, late=True), deployed=10)
    found = drift(stream, [Every(5)])
    assert found["rows"] == 30  # the ten asked before deployment are left out
    assert found["alarms"]["every_n(n=5)"] == [54, 59, 64, 69, 74, 79]  # answers begin at 40, those of row 10 at 50


def test_what_cannot_be_known_is_none(listed):
    names = ("found", "changes", "delay", "false_per_1000", "alarms_per_1000")
    nothing_watched = drift(listed(labels([0] * 5), changes=(2,), deployed=5), [Every(2)])["scores"]["every_n(n=2)"]
    assert [nothing_watched[name] for name in names] == [0, 0, None, None, None]
    changes_unknown = drift(listed(labels([0] * 8)), [Every(2)])["scores"]["every_n(n=2)"]
    assert [changes_unknown[name] for name in names] == [None, 0, None, None, 500.0]
    changes_over = drift(listed(labels([0] * 8), changes=(2,), deployed=4), [Every(2)])["scores"]["every_n(n=2)"]
    assert [changes_over[name] for name in names] == [0, 0, None, 500.0, 500.0]


def test_wrong_arguments_are_refused():
    for wrong in ([], [ADWIN(), ADWIN()]):
        with pytest.raises(ArgumentError, match="all different"):
            DriftMonitor(wrong)
    with pytest.raises(ArgumentError, match="tolerance"):
        DriftMonitor(tolerance=-1)


def test_of_forecasts_how_far_they_are_off_is_watched(listed):
    """|f - y| / max(|f|, |y|) by row: forecasts of 0 are wholly off wherever y is not 0, as a wrong class is."""

    class Echo(Learner):
        name = "echo"
        gives = ("values",)
        parts = ()

        def predict(self, x):
            return x[:, -1]

        def update(self, batch):
            return {}

        def boundary(self, boundary):
            pass

    random = torch.Generator().manual_seed(2)
    off = [[float(v) for v in 0.2 * torch.rand(2, generator=random) + (0.0 if row < 300 else 0.5)] for row in range(600)]
    events = [Batch(torch.tensor([[[1.0, 10.0]]]), torch.tensor([[1 / (1 - a), 10.0 * (1 - b)]])) for a, b in off]
    stream = listed(events, changes=(300,))
    stream.schema = Schema((1, 2), torch.float32, (), ("a", "b"), targets=("a", "b"))
    found = run(Echo(), stream, monitors=[DriftMonitor([ADWIN()])]).figures["drift"]
    detector = ADWIN()
    assert found["alarms"][repr(ADWIN())] == [row for row, pair in enumerate(off) if detector.update(sum(pair) / 2)] != []
    nothing = listed([Batch(torch.zeros(3, 1, 2), torch.zeros(3, 2))])
    nothing.schema = stream.schema
    assert run(Echo(), nothing, monitors=[DriftMonitor([Every(1)])]).figures["drift"]["rows"] == 3
