"""Windows of rows, features and answers held against earlier ones: what fires, what does not, and that pieces do not matter."""

import pytest
import torch

from everlearn.core.state import capture, load, same
from everlearn.measure.shift import KINDS, AnswerShift, ColumnShift, KernelShift


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def names(count):
    return [f"c{place}" for place in range(count)]


def overs(readings):
    return [reading.over for reading in readings]


# ---- columns ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"psi": 0.25}, {"psi": None, "ks": 0.2}, {"psi": 0.25, "ks": 0.2}])
def test_a_shifted_column_is_named(limits):
    shift = ColumnShift(names(6), reference=200, window=100, **limits)
    assert shift.add(normal(0, 200, 6)) == []
    assert not any(overs(shift.add(normal(1, 100, 6))))
    moved = normal(2, 100, 6)
    moved[:, 4] += 1.5
    readings = shift.add(moved)
    assert overs(readings) == [True] * len([value for value in limits.values() if value])
    assert all("c4" in reading.message and "it alone" in reading.message for reading in readings)


def test_the_value_is_psi_and_the_limit_is_what_matters_or_what_chance_reaches():
    from everlearn.measure.distribution import bin_counts, bin_edges, psi, psi_limit

    reference, window = normal(0, 400, 3), normal(1, 200, 3)
    edges = bin_edges(reference.double())
    far = psi(bin_counts(reference.double(), edges), bin_counts(window.double(), edges))
    for least, expected in ((0.01, psi_limit(400, 200, 10, 0.003 / 3)), (0.9, 0.9)):
        shift = ColumnShift(names(3), psi=least, level=0.003, reference=400, window=200)
        (reading,) = shift.add(torch.cat([reference, window]))
        assert reading.value == pytest.approx(float(far.max()))
        assert reading.limit == pytest.approx(expected)


def test_the_more_columns_the_farther_chance_reaches():
    limits = []
    for count in (1, 100):
        shift = ColumnShift(names(count), psi=0.0, reference=200, window=100)
        limits.append(shift.add(normal(0, 300, count))[0].limit)
    assert limits[1] > 1.2 * limits[0]


@pytest.mark.parametrize("piece", [1, 7, 350])
def test_how_rows_come_in_pieces_does_not_matter(piece):
    x = normal(0, 700, 3)
    x[500:] += 2.0
    whole, parts = (ColumnShift(names(3), ks=0.2, reference=200, window=100) for _ in range(2))
    expected = whole.add(x)
    found = [reading for start in range(0, 700, piece) for reading in parts.add(x[start : start + piece])]
    assert found == expected
    assert len(found) == 10
    assert same(capture(whole), capture(parts))


@pytest.mark.parametrize(("dtype", "over"), [(torch.float64, True), (torch.float32, False)])
def test_large_numbers_need_double_precision(dtype, over):
    """A count about 2^40 that moves by hundreds: float32 cannot tell."""
    shift = ColumnShift(["c0"], psi=0.25, reference=200, window=100, dtype=dtype)
    x = 2.0**40 + 100.0 * normal(0, 300, 1).double()
    x[200:] += 500.0
    assert overs(shift.add(x)) == [over]


def test_a_column_that_never_varied_has_a_limit_too():
    shift = ColumnShift(names(2), psi=0.0, reference=100, window=100)
    assert overs(shift.add(torch.zeros(200, 2))) == [False]
    assert overs(shift.add(torch.ones(100, 2))) == [True]


def test_renewed_columns_take_the_next_rows_as_the_reference():
    shift = ColumnShift(names(2), reference=200, window=100)
    shift.add(normal(0, 200, 2))
    assert overs(shift.add(normal(1, 100, 2) + 3.0)) == [True]
    shift.renew()
    assert overs(shift.add(normal(2, 300, 2) + 3.0)) == [False]


# ---- kernels ---------------------------------------------------------------------------------------------------------------


def plain(rows):
    return rows.flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_images_that_change_are_far(dtype):
    def images(seed, count, brightness):
        return (40.0 * normal(seed, count, 1, 4, 4) + brightness).clamp(0, 255).to(dtype)

    shift = KernelShift((1, 4, 4), dtype, reference=60, window=60)
    assert shift.add(images(0, 60, 100), plain) == []
    assert overs(shift.add(images(1, 60, 100), plain)) == [False]
    assert overs(shift.add(images(2, 60, 160), plain)) == [True]
    shift.renew()
    assert overs(shift.add(images(3, 120, 160), plain)) == [False]


def test_features_are_those_of_now_on_both_sides():
    """Whatever a network has become, it sees both samples: a change of the network alone is no shift."""
    shift = KernelShift((3,), torch.float32, reference=60, window=60)
    shift.add(normal(0, 60, 3), lambda rows: rows)
    assert overs(shift.add(normal(1, 60, 3), lambda rows: 100.0 * rows + 7.0)) == [False]
    assert overs(shift.add(normal(2, 60, 3) + 2.0, lambda rows: torch.zeros(len(rows), 3))) == [False]


def test_only_every_other_row_is_kept_however_rows_come():
    x = normal(0, 100, 2)
    whole, parts = (KernelShift((2,), torch.float32, reference=20, window=20, stride=3) for _ in range(2))
    whole.add(x, plain)
    for start in range(0, 100, 7):
        parts.add(x[start : start + 7], plain)
    assert torch.equal(whole.kept, x[:60:3])
    assert same(capture(whole), capture(parts))


def test_the_least_distance_that_matters_is_a_limit():
    limits = []
    for least in (0.0, 0.5):
        shift = KernelShift((2,), torch.float32, least=least, reference=50, window=50)
        limits.append(shift.add(normal(0, 100, 2), plain)[0].limit)
    assert 0.0 < limits[0] < 0.5 == limits[1]


# ---- answers ---------------------------------------------------------------------------------------------------------------


def labels(seed, count, chances):
    return torch.multinomial(
        torch.tensor(chances), count, replacement=True, generator=torch.Generator().manual_seed(seed)
    ).tolist()


def test_answers_that_collapse_to_one_are_far():
    shift = AnswerShift(window=100)
    for seed in range(4):
        assert not any(overs(shift.count(labels(seed, 100, [0.3, 0.3, 0.4]), [])))
    (reading,) = shift.count([2] * 100, [])
    assert reading.over
    assert "Answers have shifted" in reading.message


def test_slow_change_is_no_shift_and_the_same_change_at_once_is():
    """Learning: shares go from a half to nine tenths over 40 windows."""
    slow, sudden = AnswerShift(window=200), AnswerShift(window=200)
    steps = [0.5 + 0.01 * step for step in range(41)]
    slowly = [slow.count(labels(seed, 200, [share, 1.0 - share]), []) for seed, share in enumerate(steps)]
    at_once = [
        sudden.count(labels(seed, 200, [share, 1.0 - share]), []) for seed, share in enumerate([0.5] * 20 + [0.9] * 20)
    ]
    assert not any(any(overs(readings)) for readings in slowly)
    assert [any(overs(readings)) for readings in at_once].index(True) == 20


def test_the_reference_stands_still_while_an_alarm_lasts():
    shift = AnswerShift(window=100)
    for seed in range(5):
        shift.count(labels(seed, 100, [0.5, 0.5]), [])
    for _ in range(8):
        assert overs(shift.count([0] * 100, [], frozen=True)) == [True]
    assert overs(shift.count(labels(9, 100, [0.5, 0.5]), [], frozen=True)) == [False]


def test_more_labels_than_shares_are_told_apart_share_them():
    shift = AnswerShift(window=100)
    for seed in range(3):
        assert not any(overs(shift.count([KINDS * seed + label % 40 for label in range(100)], [])))
    assert overs(shift.count([7] * 100, [])) == [True]


def test_a_rise_of_entropy_is_told_and_a_fall_is_not():
    def fed(shift, level):
        return shift.count([0] * 100, [level] * 100)

    shift = AnswerShift(window=100, shares=None)
    for _ in range(3):
        fed(shift, 0.4)
    (low,) = fed(shift, 0.1)
    assert not low.over
    (high,) = fed(shift, 0.8)
    assert high.over
    assert high.value == pytest.approx(0.8 - 0.4)
    assert high.limit == 0.15


def test_a_rise_within_chance_is_not_told():
    """Two values 0 and 1: a mean over 10 rows wanders by more than the least rise."""
    shift = AnswerShift(window=10, shares=None, entropy=0.01)
    readings = []
    for seed in range(60):
        values = [float(value) for value in labels(seed, 10, [0.5, 0.5])]
        readings += shift.count([0] * 10, values)
    assert not any(overs(readings))
    assert min(reading.limit for reading in readings) > 0.3


def test_values_are_counted_between_quantiles_of_the_first_windows():
    shift = AnswerShift(columns=2, values=True, window=100)
    for seed in range(8):
        assert not any(overs(shift.measure(normal(seed, 100, 2))))
    moved = normal(9, 100, 2)
    moved[:, 1] *= 4.0
    assert overs(shift.measure(moved)) == [True]


@pytest.mark.parametrize("limits", [{"shares": None}, {"entropy": None}])
def test_what_is_switched_off_gives_no_readings(limits):
    shift = AnswerShift(window=50, **limits)
    readings = [shift.count([step % 2] * 50, [step % 2 * 1.0] * 50) for step in range(6)]
    assert {len(found) for found in readings[2:]} == {1}


def test_a_shift_towards_the_right_answers_is_learning_and_one_away_from_them_is_not():
    before, truth, beyond = [0.1, 0.9], [0.5, 0.5], [0.9, 0.1]

    def told(after, right, known=True):
        shift = AnswerShift(window=100)
        for seed in range(4):
            shift.count(labels(seed, 100, before), [])
            if known:
                shift.tell(labels(50 + seed, 100, right))
        return overs(shift.count(labels(9, 100, after), []))

    assert told(truth, truth) == [False]
    assert told(truth, truth, known=False) == [True]
    assert told(truth, before) == [True]
    assert told([0.99, 0.01], beyond) == [False]
    assert told([0.6, 0.4], [0.1, 0.9]) == [True]


def test_values_that_shift_towards_the_right_ones_are_learning():
    for right, over in ((4.0, False), (0.0, True)):
        shift = AnswerShift(values=True, window=100)
        for seed in range(8):
            shift.measure(normal(seed, 100, 1))
            shift.tell_values(normal(50 + seed, 100, 1) + right)
        assert overs(shift.measure(normal(9, 100, 1) + 4.0)) == [over]


def test_a_model_that_trembles_must_shift_farther():
    limits = []
    for swing in (0.0, 0.2):
        shift = AnswerShift(window=250)
        for seed in range(12):
            share = 0.5 + swing * (seed % 2 * 2 - 1)
            readings = shift.count(labels(seed, 250, [share, 1.0 - share]), [])
        limits.append(readings[0].limit)
    assert limits[0] == 0.25 < limits[1]


def test_state_goes_on_where_it_was():
    for made in (lambda: AnswerShift(window=30), lambda: AnswerShift(window=30, values=True)):
        first, second = made(), made()

        def feed(shift, seed):
            if shift.by_value:
                return shift.measure(normal(seed, 17, 1) + (seed > 20) * 5.0)
            return shift.count(labels(seed, 17, [0.5, 0.5] if seed < 20 else [0.05, 0.95]), [0.5] * 17)

        for seed in range(15):
            feed(first, seed)
        load(second, capture(first))
        rest = [feed(first, seed) for seed in range(15, 30)]
        assert rest == [feed(second, seed) for seed in range(15, 30)]
        assert any(any(overs(readings)) for readings in rest)
        assert same(capture(first), capture(second))
