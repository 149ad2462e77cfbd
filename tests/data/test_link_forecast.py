"""Link loads as a stream: windows and answers by hand, nothing before its time, and a slow walk that gives the same events."""

import time

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError, InputError
from everlearn.core.events import Batch, Boundary
from everlearn.core.run import run
from everlearn.core.spec import build, parse
from everlearn.data.demands import Traffic, abilene, sine_demands
from everlearn.data.folders import roots
from everlearn.data.link_forecast import link_forecast
from everlearn.data.link_loads import CHANGES, LinkDown, LinkUp, link_loads
from everlearn.data.network import Network, both_ways

SQUARE = Network("square", tuple("abcd"), both_ways([(0, 1), (0, 2), (1, 3), (2, 3)]), (1.0,) * 8, (4.0,) * 8)
FAILURE = (LinkDown(40, ("a", "b")), LinkUp(60, ("a", "b")))


@pytest.fixture(scope="module")
def square():
    demands = sine_demands(SQUARE, 120, mass=[1, 2, 3, 4], total=100.0, seed=1)
    return Traffic("square", SQUARE, demands, 5.0)


def batches(stream):
    return [event for event in stream if isinstance(event, Batch)]


def loads_of(event):
    return event.x["loads"] if isinstance(event.x, dict) else event.x


def minutes(events):
    return torch.cat([event.time for event in events])


def test_windows_and_answers_by_hand(square):
    """One event per matrix from the end of the first window on; x is the loads up to then, y the next ones."""
    loads = link_loads(SQUARE, square.demands, FAILURE).loads.float()
    stream = link_forecast(square, changes=FAILURE, window=6, test=None)
    assert len(stream) == 120 - 6 and stream.schema.shape == (6, 8) and stream.schema.targets == SQUARE.link_names
    for index in (0, 33, 113, -1):
        event, end = stream[index], (index % 114) + 5
        assert torch.equal(event.x, loads[None, end - 5 : end + 1]) and torch.equal(event.y, loads[None, end + 1])
        assert event.time.tolist() == [end * 5.0] and event.id is None
    with pytest.raises(IndexError):
        stream[114]


def test_links_and_what_is_observed_are_chosen(square):
    loads = link_loads(SQUARE, square.demands).loads.float()
    links = (("d", "b"), (0, 1))
    columns = [SQUARE.link(*ends) for ends in links]
    few = link_forecast(square, links=links, window=3, horizon=1, test=None)
    assert few.schema.targets == few.schema.features == ("d>b", "a>b")
    assert torch.equal(few[4].x[0], loads[4:7, columns]) and torch.equal(few[4].y[0], loads[7, columns])
    every = link_forecast(square, links=links, observe="all", window=3, test=None)
    assert torch.equal(every[4].x[0], loads[4:7]) and torch.equal(every[4].y, few[4].y)
    assert every.schema.features == SQUARE.link_names


OPTIONS = [
    {},
    {"horizon": 5},
    {"horizon": 5, "batch": 4, "boundaries": True},
    {"batch": 7, "missing": 0.3, "boundaries": True},
    {"horizon": 3, "batch": 2, "missing": 0.2, "converge_delay": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nothing_is_told_before_its_time(square, options):
    """When a window is asked for, every answer and change told so far was known at its end."""
    stream = link_forecast(square, changes=FAILURE, window=6, test=None, **options)
    told, horizon = -1.0, options.get("horizon", 1)
    starts = [span.start * 5.0 for span in stream.network_loads.spans]
    announced = iter(starts)
    for index, event in enumerate(stream):
        if isinstance(event, Boundary):
            at = next(announced)
            after = next(
                later for later in list(stream)[index:] if isinstance(later, Batch) and (later.y is None or not stream.late)
            )
            assert float(after.time[0]) >= at
            continue
        if event.y is None or not stream.late:
            assert told <= float(event.time[0])
        if event.y is not None:
            told = max(told, float(event.time[-1]) + 5.0 * horizon)
    asked = [event for event in batches(stream) if event.y is None or not stream.late]
    assert minutes(asked).tolist() == sorted(set(minutes(asked).tolist()))


def test_late_answers_come_as_soon_as_they_may_and_once(square):
    """horizon=5: the answer of a window comes just before the window that ends at its time."""
    stream = link_forecast(square, window=6, horizon=5, test=None)
    asked = {event.id: index for index, event in enumerate(stream) if event.y is None}
    answered = {event.id: index for index, event in enumerate(stream) if event.y is not None}
    assert stream.late and set(asked) == set(answered) and len(asked) == 120 - 6 - 5 + 1
    assert asked[("5",)] == 0 and answered[("5",)] == asked[("10",)] - 1
    assert torch.equal(stream[answered[("20",)]].x, stream[asked[("20",)]].x)
    assert not link_forecast(square, window=6, test=None).late


def test_a_control_that_answers_at_once_would_tell_too_early(square):
    """The same check on events that carry the answer of five matrices ahead at once."""
    told, early = -1.0, 0
    for event in link_forecast(square, window=6, horizon=5, test=None):
        if event.y is None:
            early += told > float(event.time[0])
            told = float(event.time[-1]) + 25.0
    assert early > 100


def test_changes_are_where_answers_change_and_boundaries_where_they_are_known(square):
    """The failure at 40 is in the answer of the window that ends at 39, event 34, and is known at 40, event 35."""
    plain = link_forecast(square, changes=FAILURE, window=6, test=None)
    assert plain.changes == (34, 54) and not plain.boundaries
    told = link_forecast(square, changes=FAILURE, window=6, test=None, boundaries=True)
    places = [index for index, event in enumerate(told) if isinstance(event, Boundary)]
    assert [told[index].task for index in places] == [0, 1, 0]
    assert [told[index + 1].time.tolist() for index in places] == [[25.0], [200.0], [300.0]]
    assert all(torch.equal(a.x, b.x) for a, b in zip(batches(plain), batches(told), strict=True))


def test_batches_do_not_reach_over_a_change(square):
    stream = link_forecast(square, changes=FAILURE, window=6, batch=10, test=None)
    ends = [(event.time / 5).tolist() for event in stream]
    assert [len(rows) for rows in ends] == [10, 10, 10, 5, 10, 10, 10, 10, 10, 10, 10, 9]
    assert [end for rows in ends for end in rows] == [float(end) for end in range(5, 119)]


def test_lost_samples_are_told_by_the_time_between(square):
    loads = link_loads(SQUARE, square.demands).loads.float()
    stream = link_forecast(square, window=6, missing=0.3, test=None, seed=4)
    lost = 0
    for event in stream:
        end = int(event.time[0] / 5)
        shown = end - torch.cat([event.x["dt"][0, 1:].flip(0).cumsum(0).flip(0), torch.zeros(1)]).long()
        assert torch.equal(event.x["loads"][0], loads[shown]) and torch.equal(event.y[0], loads[end + 1])
        lost += int(event.x["dt"].max()) > 1
    assert lost > 20 and len(stream) < 80
    other = link_forecast(square, window=6, missing=0.3, test=None, seed=5)
    assert minutes(list(other)).tolist() != minutes(list(stream)).tolist()
    again = link_forecast(square, window=6, missing=0.3, test=None, seed=4)
    assert minutes(list(again)).tolist() == minutes(list(stream)).tolist()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_event_is_made_without_those_before_it(square, options):
    forward = list(link_forecast(square, changes=FAILURE, window=6, **options))
    stream = link_forecast(square, changes=FAILURE, window=6, **options)
    for index in reversed(range(len(stream))):
        one, other = stream[index], forward[index]
        assert type(one) is type(other)
        if isinstance(one, Batch):
            assert torch.equal(loads_of(one), loads_of(other)) and one.id == other.id and torch.equal(one.time, other.time)
            assert (one.y is None) == (other.y is None) and (one.y is None or torch.equal(one.y, other.y))


def test_held_out_sets_are_the_last_matrices_under_every_lasting_state(square):
    stream = link_forecast(square, changes=FAILURE, window=6, converge_delay=3, test=0.25)
    assert [held.name for held in stream.held_out] == ["0: whole network", "2: without a>b, b>a"]
    rest = square.demands[90:]
    for held, changes in zip(stream.held_out, ((), (LinkDown(0, ("a", "b")),)), strict=True):
        loads = link_loads(SQUARE, rest, changes).loads.float()
        assert torch.equal(held.x[0], loads[:6]) and torch.equal(held.y, loads[6:])
    assert max(float(event.time[-1]) for event in batches(stream)) == 5.0 * (90 - 1 - 1)
    assert stream.checkpoints == (35, 38, 58, 84) == (40 - 5, 43 - 5, 63 - 5, len(stream))
    assert link_forecast(square, test=None).held_out == () and link_forecast(square, test=None).checkpoints == ()


def test_deployment_begins_where_it_is_asked_for(square):
    stream = link_forecast(square, window=6, deployed=0.5, test=None)
    assert float(stream[stream.deployed].time[0]) == 60 * 5.0
    assert link_forecast(square, window=6, deployed=0.0, test=None).deployed == 0
    assert link_forecast(square, window=6, deployed=1.0, test=None).deployed == len(stream) - 1


def test_routing_switches_reach_the_loads(square):
    plain = link_forecast(square, changes=FAILURE, window=6, test=None).network_loads.loads
    for options in ({"ecmp": True}, {"converge_delay": 4}):
        assert not torch.equal(
            plain, link_forecast(square, changes=FAILURE, window=6, test=None, **options).network_loads.loads
        )


def test_what_a_stream_is_called_can_be_typed(square):
    stream = link_forecast(square, changes=FAILURE[:1], links=(("a", "b"),), horizon=2, test=None)
    names = {**CHANGES, "square": square, "link_forecast": link_forecast}
    again = build(parse(stream.name), names)
    assert again.name == stream.name and torch.equal(again[9].x, stream[9].x)


def test_learners_of_classes_refuse_its_answers_in_one_sentence(square):
    from everlearn.learners.fine_tune import FineTune

    learner = FineTune(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 8)))
    with pytest.raises(InputError, match=r"y must be an int64 tensor of class numbers, got torch.float32"):
        run(learner, link_forecast(square, window=6, test=None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be an int >= 1"),
        ({"horizon": 0}, "horizon must be an int >= 1"),
        ({"batch": 0}, "batch must be an int >= 1"),
        ({"missing": 1.0}, "missing must be a number between 0 and 0.9"),
        ({"deployed": 2}, "deployed must be a number between 0 and 1"),
        ({"observe": "none"}, "observe must be 'targets' or 'all', got 'none'"),
        ({"links": ()}, "links must be pairs of nodes"),
        ({"links": ("a", "b")}, "links must be pairs of nodes"),
        ({"links": (("a", "d"),)}, "unknown link 'a>d'"),
        ({"links": (("a", "b"), (0, 1))}, "a link stands twice"),
        ({"test": 0.1, "window": 30}, r"test=0.1 holds out 12 of 120 matrices; a window and its answer need 31"),
        ({"test": 1.0}, "Raise test, or use test=None"),
    ],
)
def test_wrong_arguments_are_refused(square, options, message):
    with pytest.raises(ArgumentError, match=message):
        link_forecast(square, **{"window": 6} | options)


def test_too_few_matrices_are_refused(square):
    with pytest.raises(ArgumentError, match="first argument must be traffic such as abilene, got square"):
        link_forecast(SQUARE)
    with pytest.raises(DataError, match="has 120 matrices to learn from; window=120 and horizon=1 need 121"):
        link_forecast(square, window=120, test=None)
    with pytest.raises(DataError, match="no window of 60 has its answer among them"):
        link_forecast(square, window=60, missing=0.8, test=None)


def test_two_weeks_of_abilene_are_a_stream_in_less_than_a_second():
    """And the failure of Denver - Kansas City is where the loads jump."""
    if not any((root / "abilene_tm").is_dir() for root in roots()):
        pytest.skip("EVERLEARN_DATA has no abilene_tm")
    data = abilene()
    started = time.process_time()
    stream = link_forecast(
        data, changes=(LinkDown(2160, ("DNVRng", "KSCYng")),), links=(("HSTNng", "KSCYng"),), window=24, test=None
    )
    events = list(stream)
    assert time.process_time() - started < 1.0 and len(events) == 4032 - 24
    jump = events[stream.changes[0]]
    assert float(jump.time[0]) == 2159 * 5.0 and float(jump.y) > 5 * float(jump.x.max())
