"""The order of time, and the control without drift."""

import pytest
import torch
from scipy.stats import kstest

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.prequential import iid, prequential


def test_rows_come_as_they_stand(numbered):
    stream = prequential(numbered([30, 33, 40]), batch=10)
    assert torch.cat([event.time for event in stream]).tolist() == list(range(103))
    assert [len(event) for event in stream] == [10] * 10 + [3]
    assert (stream.headline, stream.checkpoints, stream.changes, len(stream.held_out)) == ("prequential", (), (), 0)


@pytest.mark.parametrize(("fraction", "events"), [(0.0, 0), (0.1, 2), (0.5, 10), (1.0, 19)])
def test_the_first_part_is_the_first_training(numbered, fraction, events):
    """Of 20 events; one is always left to be judged on."""
    assert prequential(numbered([100, 100]), batch=10, deployed=fraction).deployed == events


def test_a_test_part_is_held_out_in_addition(numbered):
    stream = prequential(numbered([100, 100]), batch=8, test=0.25)
    times = torch.cat([event.time for event in stream]).tolist()
    assert times == sorted(times) and len(times) == 150
    assert stream.held_out[0].name == "test"
    assert not set(times) & set(stream.held_out[0].x[:, 0].tolist())
    assert stream.checkpoints[-1] == len(stream) and len(stream.checkpoints) == 10
    other = prequential(numbered([100, 100]), batch=8, test=0.25, seed=1)
    assert set(other.held_out[0].x[:, 0].tolist()) != set(stream.held_out[0].x[:, 0].tolist())


def test_iid_has_no_drift(numbered):
    """Places of class 0 are uniform over the stream (Kolmogorov-Smirnov); in sorted data, the control, they are not."""
    data = numbered([400, 400])
    data = data.take(torch.sort(data.y, stable=True).indices)
    for stream, uniform in ((iid(data), True), (prequential(data), False)):
        y = torch.cat([event.y for event in stream])
        places = (y == 0).nonzero().flatten() / len(y)
        assert (kstest(places.numpy(), "uniform").pvalue > 0.001) == uniform


def test_iid_is_judged_along_the_way_and_deployed_halfway(digits):
    stream = iid(digits)
    assert stream.deployed == len(stream) // 2
    assert stream.checkpoints[-1] == len(stream)
    assert stream.changes == () and not stream.boundaries
    assert iid(digits, deployed=0.1).deployed == round(0.1 * len(stream))
    assert stream.name == "iid(digits)"


def test_short_streams(numbered):
    stream = prequential(numbered([3, 3]), batch=100)
    assert len(stream) == 1 and stream.deployed == 0
    assert iid(numbered([5, 5]), batch=100).checkpoints == (1,)


@pytest.mark.parametrize("scenario", [prequential, iid], ids=lambda item: item.__name__)
def test_wrong_arguments_are_refused(digits, scenario):
    name = scenario.__name__
    for options in ({"batch": 0}, {"batch": 2.0}, {"deployed": 1.5}, {"test": 0}, {"test": float("nan")}):
        with pytest.raises(ArgumentError, match=f"{name}: {next(iter(options))} must"):
            scenario(digits, **options)
    with pytest.raises(DataError, match="at least two classes"):
        scenario(digits.take(digits.y == 0))
