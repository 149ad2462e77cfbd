"""Drift detectors: alarms fixed by index, River's own, slow twins, closed forms; and the score of alarms."""

import json
import random
import time
from math import log, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everlearn.core.errors import ArgumentError, InputError
from everlearn.core.spec import build, parse
from everlearn.core.state import capture, restore
from everlearn.measure.drift import ADWIN, DETECTORS, Every, PageHinkley, score_alarms


def alarms(detector, values):
    return [step for step, value in enumerate(values) if detector.update(value)]


def bernoulli(seed, *pieces):
    """Errors: pieces of (length, rate at the beginning, rate at the end)."""
    source = random.Random(seed)
    return [
        float(source.random() < begin + (end - begin) * step / length)
        for length, begin, end in pieces
        for step in range(length)
    ]


def normal(seed, *pieces):
    """Real values: pieces of (length, mean, spread)."""
    source = random.Random(seed)
    return [mean + spread * source.gauss(0.0, 1.0) for length, mean, spread in pieces for _ in range(length)]


STREAMS = {
    "sudden": bernoulli(1, (2000, 0.1, 0.1), (2000, 0.4, 0.4)),
    "recurring": bernoulli(2, *[(1000, rate, rate) for rate in (0.1, 0.6, 0.1, 0.6)]),
    "gradual": bernoulli(3, (1500, 0.1, 0.1), (2500, 0.1, 0.7)),
    "none": bernoulli(4, (5000, 0.3, 0.3)),
    "real sudden": normal(5, (1500, 0.0, 1.0), (1500, 1.5, 1.0)),
    "real small": normal(6, (1500, 0.001, 0.002), (1500, 0.003, 0.002)),
    "real none": normal(7, (4000, 5.0, 2.0)),
    "wider": normal(8, (1500, 0.0, 1.0), (1500, 0.0, 6.0)),
}
SETTINGS = (
    "adwin()",
    "adwin(delta=0.3)",
    "adwin(delta=0.05, clock=1, min_window=1, grace=1)",
    "adwin(delta=0.1, clock=7, max_buckets=2)",
    "page_hinkley()",
    "page_hinkley(threshold=5.0)",
    "page_hinkley(threshold=4.0, minimum=1, mode='up')",
    "page_hinkley(threshold=8.0, delta=0.05, alpha=0.99, mode='down')",
)


def made(text):
    return build(parse(text), DETECTORS, "detector")


def river_twin(detector):
    """The same detector of River, where it is installed."""
    try:
        from river import drift
    except ModuleNotFoundError:
        pytest.skip("River is not installed: pip install 'everlearn[river]'")
    if isinstance(detector, ADWIN):
        return drift.ADWIN(
            delta=detector.delta,
            clock=detector.clock,
            max_buckets=detector.max_buckets,
            min_window_length=detector.min_window,
            grace_period=detector.grace,
        )
    return drift.PageHinkley(
        min_instances=detector.minimum,
        delta=detector.delta,
        threshold=detector.threshold,
        alpha=detector.alpha,
        mode=detector.mode,
    )


FIXED = {  # computed by River 0.26.1
    ("sudden", "adwin()"): [2047],
    ("recurring", "adwin()"): [1055, 2047, 3039],
    ("gradual", "adwin()"): [2143, 3167],
    ("none", "adwin()"): [],
    ("real sudden", "adwin()"): [1535],
    ("real small", "adwin()"): [],
    ("real none", "adwin()"): [],
    ("wider", "adwin()"): [1567],
    ("sudden", "adwin(delta=0.3)"): [2047],
    ("recurring", "adwin(delta=0.3)"): [1023, 2015, 3039],
    ("gradual", "adwin(delta=0.3)"): [1983, 2911, 3839],
    ("none", "adwin(delta=0.3)"): [],
    ("real sudden", "adwin(delta=0.3)"): [1535, 2719],
    ("real small", "adwin(delta=0.3)"): [],
    ("real none", "adwin(delta=0.3)"): [511, 1567, 2975],
    ("wider", "adwin(delta=0.3)"): [1535, 2463, 2655],
    ("sudden", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [2038],
    ("recurring", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [1028, 2017, 3014],
    ("gradual", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [2044, 2994],
    ("none", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [],
    ("real sudden", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [1507, 2743],
    ("real small", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [],
    ("real none", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [],
    ("wider", "adwin(delta=0.05, clock=1, min_window=1, grace=1)"): [1500],
    ("sudden", "adwin(delta=0.1, clock=7, max_buckets=2)"): [2043],
    ("recurring", "adwin(delta=0.1, clock=7, max_buckets=2)"): [1035, 2022, 3016],
    ("gradual", "adwin(delta=0.1, clock=7, max_buckets=2)"): [2022, 2981],
    ("none", "adwin(delta=0.1, clock=7, max_buckets=2)"): [],
    ("real sudden", "adwin(delta=0.1, clock=7, max_buckets=2)"): [1511],
    ("real small", "adwin(delta=0.1, clock=7, max_buckets=2)"): [],
    ("real none", "adwin(delta=0.1, clock=7, max_buckets=2)"): [],
    ("wider", "adwin(delta=0.1, clock=7, max_buckets=2)"): [1539],
    ("sudden", "page_hinkley()"): [2132],
    ("recurring", "page_hinkley()"): [1098, 2094, 3081],
    ("gradual", "page_hinkley()"): [2224, 3142],
    ("none", "page_hinkley()"): [],
    ("real sudden", "page_hinkley()"): [1508, 2969],
    ("real small", "page_hinkley()"): [],
    ("real small", "page_hinkley(threshold=5.0)"): [],
    ("real small", "page_hinkley(threshold=4.0, minimum=1, mode='up')"): [],
    ("sudden", "page_hinkley(threshold=8.0, delta=0.05, alpha=0.99, mode='down')"): [907, 2294, 2616, 2873, 3339, 3754],
    ("recurring", "page_hinkley(threshold=8.0, delta=0.05, alpha=0.99, mode='down')"): [1362, 2004, 3319, 3818],
    ("gradual", "page_hinkley(threshold=8.0, delta=0.05, alpha=0.99, mode='down')"): [914, 3693, 3879],
    ("none", "page_hinkley(threshold=8.0, delta=0.05, alpha=0.99, mode='down')"): [
        243,
        727,
        1476,
        2097,
        2683,
        3744,
        4173,
        4482,
    ],
    ("real small", "page_hinkley(threshold=8.0, delta=0.05, alpha=0.99, mode='down')"): [],
}


@pytest.mark.parametrize(("stream", "text"), FIXED)
def test_alarms_are_the_fixed_ones(stream, text):
    assert alarms(made(text), STREAMS[stream]) == FIXED[stream, text]


@pytest.mark.parametrize("text", SETTINGS)
@pytest.mark.parametrize("stream", STREAMS)
def test_alarms_are_those_of_river(stream, text):
    detector = made(text)
    twin = river_twin(detector)
    for step, value in enumerate(STREAMS[stream]):
        twin.update(value)
        assert detector.update(value) == twin.drift_detected, step
        if isinstance(detector, ADWIN):
            assert detector.width == twin.width
            assert detector.total == twin.total


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(20, 300), st.floats(-3.0, 3.0), st.floats(0.0, 2.0)), min_size=1, max_size=4),
    st.integers(0, 10**6),
    st.sampled_from(sorted(SETTINGS)),
)
def test_alarms_are_those_of_river_on_any_stream(pieces, seed, text):
    detector = made(text)
    twin = river_twin(detector)
    for value in normal(seed, *pieces):
        twin.update(value)
        assert detector.update(value) == twin.drift_detected


class SlowADWIN:
    """ADWIN as in words: buckets are lists of values, and every figure is counted from the values anew."""

    def __init__(self, like):
        self.like, self.levels, self.tick, self.alarmed = like, [[]], 0, False

    def update(self, value):
        if self.alarmed:
            self.__init__(self.like)
        self.levels[0].append([value])
        for level in range(len(self.levels)):
            if len(self.levels[level]) > self.like.max_buckets:
                if level + 1 == len(self.levels):
                    self.levels.append([])
                first, second, *rest = self.levels[level]
                self.levels[level], self.levels[level + 1] = rest, [*self.levels[level + 1], first + second]
        self.tick += 1
        while self.tick % self.like.clock == 0 and len(self.values()) > self.like.grace and self.differs():
            self.alarmed = True
            self.levels[-1].pop(0)
            if not self.levels[-1]:
                self.levels.pop()
        return self.alarmed

    def buckets(self):
        return [bucket for level in reversed(self.levels) for bucket in level]

    def values(self):
        return [value for bucket in self.buckets() for value in bucket]

    def differs(self):
        values, old = self.values(), 0
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        spread = log(2.0 * log(len(values)) / self.like.delta)
        for bucket in self.buckets()[:-1]:
            old += len(bucket)
            first, second = values[:old], values[old:]
            least = self.like.min_window
            if min(len(first), len(second)) < least:
                continue
            scale = 1.0 / (len(first) - least + 1) + 1.0 / (len(second) - least + 1)
            bound = sqrt(2.0 * scale * variance * spread) + 2.0 / 3.0 * spread * scale
            if abs(sum(first) / len(first) - sum(second) / len(second)) > bound:
                return True
        return False


@pytest.mark.parametrize("stream", ["sudden", "recurring", "none", "real sudden", "wider"])
@pytest.mark.parametrize("text", ["adwin()", "adwin(delta=0.2, clock=16, max_buckets=3, min_window=2)"])
def test_adwin_is_its_slow_twin(stream, text):
    values = STREAMS[stream][500:2500]
    assert alarms(made(text), values) == alarms(SlowADWIN(made(text)), values)


def test_adwin_alarms_where_its_bound_says_so():
    """Without merges and with a check at each step, n zeros and k ones alarm at the first k whose best cut exceeds the bound."""
    zeros = 40
    detector = ADWIN(0.01, clock=1, max_buckets=1000, min_window=1, grace=1)

    def exceeds(ones):
        n = zeros + ones
        variance = (ones / n) * (zeros / n)
        spread = log(2.0 * log(n) / 0.01)

        def cut(old):
            mean_old, mean_new = max(0, old - zeros) / old, min(ones, n - old) / (n - old)
            scale = 1.0 / old + 1.0 / (n - old)
            return abs(mean_old - mean_new) > sqrt(2.0 * scale * variance * spread) + 2.0 / 3.0 * spread * scale

        return any(cut(old) for old in range(1, n))

    first = next(ones for ones in range(1, 100) if exceeds(ones))
    assert alarms(detector, [0.0] * zeros + [1.0] * first) == [zeros + first - 1]


def test_adwin_keeps_few_numbers_and_its_window_is_the_stream_without_change():
    detector, source = ADWIN(1e-12), random.Random(0)
    values = [source.random() for _ in range(20_000)]
    assert not alarms(detector, values)
    assert detector.width == 20_000
    assert detector.mean == pytest.approx(sum(values) / 20_000, rel=1e-12)
    mean = sum(values) / 20_000
    assert detector.variance == pytest.approx(sum((value - mean) ** 2 for value in values), rel=1e-9)
    assert sum(map(len, detector.totals)) <= 6 * 15  # at most 6 buckets of each of log2(20,000) sizes


def test_adwin_takes_100_000_values_in_seconds():
    source = random.Random(0)
    values = [float(source.random() < 0.3) for _ in range(100_000)]
    began = time.process_time()
    alarms(ADWIN(), values)
    assert time.process_time() - began < 5.0


def test_one_change_is_reported_once():
    found = alarms(ADWIN(), STREAMS["sudden"])
    assert len(found) == 1
    assert 2000 <= found[0] < 2200


def test_page_hinkley_alarms_where_its_sum_says_so():
    """After n zeros the k-th one deviates by n/(n+k) from the mean: the sum passes the threshold at a known step."""
    zeros, threshold = 50, 3.0
    total, ones = 0.0, 0
    while total <= threshold:
        ones += 1
        total += zeros / (zeros + ones)
    detector = PageHinkley(threshold, delta=0.0, alpha=1.0)
    assert alarms(detector, [0.0] * zeros + [1.0] * ones) == [zeros + ones - 1]


def test_page_hinkley_hears_nothing_before_its_minimum():
    assert alarms(PageHinkley(0.1, minimum=40), [0.0] * 10 + [1.0] * 29) == []
    assert alarms(PageHinkley(0.1, minimum=39), [0.0] * 10 + [1.0] * 29) == [38]


def test_modes_tell_rising_errors_from_falling_ones():
    rising, falling = [0.0] * 200 + [1.0] * 200, [1.0] * 200 + [0.0] * 200
    found = {
        (mode, name): bool(alarms(PageHinkley(10.0, mode=mode), values))
        for mode in PageHinkley.MODES
        for name, values in (("rising", rising), ("falling", falling))
    }
    assert [found[mode, "rising"] for mode in ("up", "down", "both")] == [True, False, True]
    assert [found[mode, "falling"] for mode in ("up", "down", "both")] == [False, True, True]


@pytest.mark.parametrize(
    ("first", "second", "stream"),
    [
        ("adwin()", "adwin(delta=0.5)", "gradual"),
        ("adwin()", "adwin(clock=5)", "sudden"),
        ("adwin(delta=0.3)", "adwin(delta=0.3, max_buckets=20)", "gradual"),
        ("adwin(delta=0.3)", "adwin(delta=0.3, min_window=200)", "recurring"),
        ("adwin(delta=0.9)", "adwin(delta=0.9, grace=1500)", "recurring"),
        ("page_hinkley()", "page_hinkley(threshold=20.0)", "sudden"),
        ("page_hinkley(threshold=20.0)", "page_hinkley(threshold=20.0, delta=0.1)", "gradual"),
        ("page_hinkley(threshold=20.0)", "page_hinkley(threshold=20.0, alpha=0.99)", "sudden"),
        ("page_hinkley(threshold=2.0)", "page_hinkley(threshold=2.0, minimum=100)", "sudden"),
        ("every_n()", "every_n(n=300)", "none"),
    ],
)
def test_every_option_changes_the_alarms(first, second, stream):
    assert alarms(made(first), STREAMS[stream]) != alarms(made(second), STREAMS[stream])
    assert repr(made(second)) == second


@pytest.mark.parametrize("text", [*SETTINGS, "every_n(n=7)"])
@pytest.mark.parametrize("cut", [0, 1, 700, 1003])
def test_saved_in_the_middle_it_goes_on_the_same(text, cut):
    values = STREAMS["recurring"][:2600]
    whole = alarms(made(text), values)
    begun, other = made(text), made(text)
    before = alarms(begun, values[:cut])
    alarms(other, values[500:1600])
    state = json.loads(json.dumps(capture(begun)))
    restore(other, state)
    assert before + [cut + step for step in alarms(other, values[cut:])] == whole


def test_the_dummy_counts_and_nothing_else():
    assert alarms(Every(100), STREAMS["none"][:350]) == [99, 199, 299]
    assert alarms(Every(100), STREAMS["real sudden"][:350]) == [99, 199, 299]


@pytest.mark.parametrize("detector", [ADWIN(), PageHinkley(), Every(3)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "high", None])
def test_what_is_not_a_number_is_refused_and_changes_nothing(detector, value):
    detector.update(0.5)
    before = capture(detector)
    with pytest.raises(InputError, match="one finite number"):
        detector.update(value)
    assert capture(detector) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: ADWIN(0.0),
        lambda: ADWIN(1.5),
        lambda: ADWIN(clock=0),
        lambda: ADWIN(max_buckets=1),
        lambda: ADWIN(min_window=0),
        lambda: ADWIN(grace=-1),
        lambda: PageHinkley(-1.0),
        lambda: PageHinkley(alpha=1.1),
        lambda: PageHinkley(minimum=0),
        lambda: PageHinkley(mode="upp"),
        lambda: Every(0),
    ],
)
def test_arguments_out_of_range_are_refused(make):
    with pytest.raises(ArgumentError):
        make()


def test_a_wrong_mode_gets_the_closest():
    with pytest.raises(ArgumentError, match="did you mean 'down'"):
        PageHinkley(mode="dwn")


# ---- the score of alarms ---------------------------------------------------------------------------------------------------


def test_score_by_hand():
    """Changes at 100, 300 and 600. 105 finds the first; 130 reports it again; 90 is too early; 290 too late (and before 300);
    600 finds the third at once; 300 is missed."""
    score = score_alarms([90, 105, 130, 290, 600], [100, 300, 600], length=1000, tolerance=100)
    assert score == {"found": 2, "delay": 2.5, "false_per_1000": 3.0}


def test_an_alarm_after_the_next_change_belongs_to_that_one():
    assert score_alarms([115], [100, 110], length=200, tolerance=50) == {"found": 1, "delay": 5.0, "false_per_1000": 0.0}


def test_the_tolerance_is_inclusive():
    assert score_alarms([150], [100], length=200, tolerance=50)["found"] == 1
    assert score_alarms([151], [100], length=200, tolerance=50) == {"found": 0, "delay": None, "false_per_1000": 5.0}


def test_without_changes_every_alarm_is_false():
    assert score_alarms([1, 2, 3], [], length=500, tolerance=10) == {"found": 0, "delay": None, "false_per_1000": 6.0}
    assert score_alarms([], [3], length=500, tolerance=10) == {"found": 0, "delay": None, "false_per_1000": 0.0}


@given(
    st.lists(st.integers(0, 499), max_size=20),
    st.lists(st.integers(0, 499), max_size=6),
    st.integers(0, 80),
)
def test_every_alarm_finds_a_change_or_is_false(found, changes, tolerance):
    score = score_alarms(found, changes, length=500, tolerance=tolerance)
    assert score["found"] + score["false_per_1000"] * 0.5 == pytest.approx(len(found))
    assert score["found"] <= len(set(changes))
    assert score["delay"] is None or 0 <= score["delay"] <= tolerance
    again = score_alarms(found + found, changes, length=500, tolerance=tolerance)
    assert (again["found"], again["delay"]) == (score["found"], score["delay"])


def test_steps_outside_the_stream_are_refused():
    with pytest.raises(ArgumentError, match=r"0\.\.9"):
        score_alarms([10], [], length=10, tolerance=1)
    with pytest.raises(ArgumentError):
        score_alarms([], [], length=0, tolerance=1)
    with pytest.raises(ArgumentError):
        score_alarms([], [], length=5, tolerance=-1)


def test_a_detector_beats_the_dummy_where_there_is_a_change_and_the_score_says_so():
    values, changes = STREAMS["recurring"], [1000, 2000, 3000]
    scores = {
        repr(detector): score_alarms(alarms(detector, values), changes, length=len(values), tolerance=100)
        for detector in (ADWIN(), PageHinkley(20.0), Every(100))
    }
    assert scores["adwin()"]["found"] == 3
    assert scores["every_n(n=100)"] == {"found": 3, "delay": 99.0, "false_per_1000": 9.25}
    assert scores["adwin()"]["false_per_1000"] < 1.0
    assert scores["adwin()"]["delay"] < scores["every_n(n=100)"]["delay"]


def test_a_variance_that_rounding_leaves_below_zero_counts_as_none():
    detector = ADWIN()
    for _ in range(200):
        detector.update(0.5)
    detector.variance = -1e-12
    assert not detector._cut()
