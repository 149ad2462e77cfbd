"""Traffic matrices: the gravity model by hand, days and weeks in closed form, files with their line numbers."""

import math
from dataclasses import replace

import numpy
import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.random import derive
from everlearn.data.demands import (
    HUNDRED_BYTES,
    POPULATION,
    Traffic,
    abilene,
    euro28,
    gravity,
    read_demand_table,
    read_matrix_lines,
    sine_demands,
)
from everlearn.data.folders import roots
from everlearn.data.network import Network, both_ways

LINE = Network("line", ("a", "b", "c"), both_ways([(0, 1), (1, 2)]), (1.0,) * 4, (10.0,) * 4)


def need(folder):
    if not any((root / folder).is_dir() for root in roots()):
        pytest.skip(f"EVERLEARN_DATA has no {folder}")


def apart(demands):
    return demands[..., ~torch.eye(demands.shape[-1], dtype=torch.bool)]


def test_gravity_by_hand():
    """Masses 1, 1, 2 pull 1, 2, 2 between pairs; at distance 4 for one pair and exponent 0.5 its pull is halved."""
    assert gravity([1, 1, 2], total=10.0)[0].tolist() == [0.0, 1.0, 2.0]
    distance = torch.tensor([[0.0, 1.0, 4.0], [1.0, 0.0, 1.0], [4.0, 1.0, 0.0]])
    found = gravity([1, 1, 2], total=16.0, distance=distance)  # pulls 1, 2/2, 2, each twice: 8 in all
    assert found.tolist() == [[0.0, 2.0, 2.0], [2.0, 0.0, 4.0], [2.0, 4.0, 0.0]]
    assert torch.equal(gravity([1, 1, 2], total=10.0, distance=distance, exponent=0.0), gravity([1, 1, 2], total=10.0))


def test_gravity_rests_on_shares_alone():
    """The ratio of two demands is that of their products, the total is as asked, and the scale of masses is free."""
    mass = [3.0, 5.0, 0.0, 2.0]
    found = gravity(mass, total=7.0)
    assert float(found.sum()) == pytest.approx(7.0)
    assert float(found[0, 1] / found[1, 3]) == pytest.approx(15 / 10)
    assert not found[2].any() and not found[:, 2].any()
    assert torch.allclose(gravity([1000 * m for m in mass], total=7.0), found)


@pytest.mark.parametrize(
    ("mass", "options", "message"),
    [
        ([1.0, -1.0], {}, "mass must be numbers >= 0"),
        ([1.0, 0.0], {}, "two of them above 0"),
        ([1.0, math.nan], {}, "mass must be numbers >= 0"),
        ([1.0, math.inf], {}, "mass must be numbers >= 0"),
        ([1.0, 1.0], {"distance": torch.zeros(2, 2)}, r"distance must be \(2, 2\) numbers > 0"),
        ([1.0, 1.0], {"distance": torch.ones(3, 3)}, r"got shape \(3, 3\)"),
        ([1.0, 1.0], {"exponent": -1.0}, "exponent must be a number >= 0"),
        ([1.0, 1.0], {"total": -1.0}, "total must be a number >= 0"),
    ],
)
def test_gravity_refuses(mass, options, message):
    with pytest.raises(ArgumentError, match=message):
        gravity(mass, **{"total": 1.0} | options)


def test_without_noise_the_mean_over_a_whole_week_is_the_gravity_model():
    """Sines sum to 0 over whole periods, and 1 - 0.45 - 0.15 - 0.10 = 0.3 never sinks to the floor."""
    demands = sine_demands(LINE, 7 * 24, mass=[1, 1, 2], total=10.0, step_minutes=60.0, noise=0.0)
    assert torch.allclose(demands.mean(0), gravity([1, 1, 2], total=10.0), atol=1e-12)
    level = apart(demands / gravity([1, 1, 2], total=10.0))
    assert level.min() >= 0.3 - 1e-12 and level.max() <= 1.7 + 1e-12


def test_days_and_weeks_have_their_amplitudes():
    """The Fourier coefficients of each demand at one, two and a seventh of a cycle a day, and nothing elsewhere."""
    demands = sine_demands(LINE, 7 * 24, mass=[1, 1, 2], total=10.0, step_minutes=60.0, noise=0.0, seed=3)
    spectrum = torch.fft.rfft(apart(demands / gravity([1, 1, 2], total=10.0)), dim=0).abs() * 2 / len(demands)
    expected = {1: 0.10, 7: 0.45, 14: 0.15}  # cycles in the week
    for cycles, amplitude in expected.items():
        assert torch.allclose(spectrum[cycles], torch.tensor(amplitude, dtype=torch.float64), atol=1e-9)
    rest = [cycles for cycles in range(1, len(spectrum)) if cycles not in expected]
    assert spectrum[rest].max() < 1e-9


def test_the_busy_hour_follows_local_time():
    """Two destinations 90 degrees apart are busy six hours apart, up to the shift of each, which has deviation 0.2 rad (46 min)."""
    lonlat = ((0.0, 0.0), (0.0, 10.0), (90.0, 0.0))
    shifts = []
    for seed in range(40):
        demands = sine_demands(
            replace(LINE, lonlat=lonlat), 7 * 24, mass=[1, 1, 1], total=1.0, step_minutes=60.0, noise=0.0, seed=seed
        )
        phase = torch.fft.rfft(demands, dim=0)[7].angle()
        shifts.append(float(phase[0, 2] - phase[0, 1]) % (2 * math.pi) / (2 * math.pi) * 24)
    deviation = 0.2 * math.sqrt(2) / (2 * math.pi) * 24
    assert numpy.mean(shifts) == pytest.approx(6.0, abs=4 * deviation / math.sqrt(40))
    assert numpy.std(shifts) == pytest.approx(deviation, rel=0.5)


def test_a_demand_is_the_sum_of_sines_of_its_pair():
    """The formula, pair by pair and sample by sample, with the phases as they are drawn."""
    network, seed = replace(LINE, lonlat=((0.0, 0.0), (90.0, 0.0), (30.0, 10.0))), 4
    found = sine_demands(network, 200, mass=[1, 2, 3], total=10.0, step_minutes=90.0, noise=0.0, exponent=0.5, seed=seed)
    base = gravity([1, 2, 3], total=10.0, distance=torch.from_numpy(network.distances()), exponent=0.5)
    draws = numpy.random.default_rng(derive(seed, "phases"))
    shift, psi = draws.standard_normal(3), draws.uniform(0, 2 * math.pi, (3, 3))
    for t, s, d in ((0, 0, 1), (7, 1, 0), (100, 2, 0), (199, 0, 2), (150, 1, 2)):
        w, phi = 2 * math.pi / 16, 2 * math.pi * network.lonlat[d][0] / 360 + 0.2 * shift[d]
        level = (
            1
            + 0.45 * math.sin(w * t + phi)
            + 0.15 * math.sin(2 * w * t + 2 * phi + 1)
            + 0.1 * math.sin(w * t / 7 + psi[s, d])
        )
        assert float(found[t, s, d]) == pytest.approx(float(base[s, d]) * max(0.05, level), rel=1e-12)


def test_noise_is_a_factor_of_its_own_for_each_demand_and_matrix():
    options = {"mass": [1, 1, 2], "total": 10.0, "step_minutes": 5.0, "seed": 1}
    factor = apart(
        sine_demands(LINE, 4000, noise=0.05, **options) / sine_demands(LINE, 4000, noise=0.0, **options)
    ).flatten()
    count = len(factor)
    assert float(factor.mean()) == pytest.approx(1.0, abs=4 * 0.05 / math.sqrt(count))
    assert float(factor.std()) == pytest.approx(0.05, abs=4 * 0.05 / math.sqrt(2 * count))
    assert abs(float(numpy.corrcoef(factor[:-1], factor[1:])[0, 1])) < 4 / math.sqrt(count)
    assert sine_demands(LINE, 2000, noise=2.0, **options).min() == 0.0  # a demand is never negative


def test_demands_are_a_function_of_the_seed_and_do_not_depend_on_how_many_are_asked_for():
    options = {"mass": [1, 1, 2], "total": 10.0}
    long = sine_demands(LINE, 300, seed=5, **options)
    assert torch.equal(sine_demands(LINE, 40, seed=5, **options), long[:40])
    assert not torch.allclose(sine_demands(LINE, 40, seed=6, **options), long[:40])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an int >= 1"),
        ({"mass": [1, 1]}, "mass must weigh each of the 3 nodes, got 2"),
        ({"step_minutes": 0}, "step_minutes must be a number"),
        ({"noise": -0.1}, "noise must be a number >= 0"),
        ({"noise": math.nan}, "noise must be a number >= 0"),
    ],
)
def test_the_generator_refuses(options, message):
    with pytest.raises(ArgumentError, match=message):
        sine_demands(LINE, **{"steps": 5, "mass": [1, 1, 2], "total": 1.0} | options)


@pytest.mark.parametrize(
    ("demands", "message"),
    [
        (torch.zeros(4, 2, 2), r"must be a floating-point tensor \(time, 3, 3\)"),
        (torch.zeros(4, 3, 3).numpy(), r"must be a tensor \(time, 3, 3\), got ndarray. Use torch.as_tensor\(demands\)"),
        (torch.zeros(0, 3, 3), "got shape"),
        (torch.zeros(3, 3), "got shape"),
        (torch.zeros(4, 3, 3, dtype=torch.int64), "of torch.int64"),
        (
            torch.tensor([[[0.0, 0, 0], [0, 0, -2.0], [0, 0, 0]]]),
            r"the demand b > c of matrix 0 is -2.0; a finite number >= 0 is needed. Fill",
        ),
        (torch.tensor([[[0.0, 0, 0], [0, 0, math.nan], [0, 0, 0]]]), "is nan"),
        (torch.tensor([[[0.0, 0, 0], [0, 0, math.inf], [0, 0, 0]]]), "is inf"),
    ],
)
def test_demands_that_cannot_be_are_refused(demands, message):
    with pytest.raises(ArgumentError, match=message):
        Traffic("mine", LINE, demands)


def test_traffic_names_its_size_and_refuses_a_step_of_no_time():
    data = Traffic("mine", LINE, torch.zeros(4, 3, 3), 15.0)
    assert len(data) == 4 and repr(data) == "Traffic(mine: 4 matrices of 3 nodes, 15 min apart)"
    for step in (0.0, math.nan, math.inf):
        with pytest.raises(ArgumentError, match="step_minutes must be a number > 0"):
            Traffic("mine", LINE, torch.zeros(4, 3, 3), step)


def test_lines_of_numbers_are_matrices_in_hundreds_of_bytes(tmp_path):
    """100 bytes in 5 minutes are 800 bit / 300 s = 2.667e-6 Mbit/s; the blank line is passed over."""
    path = tmp_path / "X01"
    path.write_text("0 3e6 1 2\n\n4,5,6,7\n")
    found = read_matrix_lines(path, 2)
    assert pytest.approx(800 / 300 / 1e6) == HUNDRED_BYTES
    assert torch.allclose(found, HUNDRED_BYTES * torch.tensor([[[0, 3e6], [1, 2]], [[4, 5], [6, 7]]], dtype=torch.float64))
    assert float(found[0, 0, 1]) == pytest.approx(8.0)
    assert read_matrix_lines(path, 2, unit=1.0)[1].tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_lines_round_trip(tmp_path):
    demands = sine_demands(LINE, 6, mass=[1, 1, 2], total=10.0)
    path = tmp_path / "demands"
    path.write_text("".join(" ".join(map(repr, matrix.flatten().tolist())) + "\n" for matrix in demands))
    assert torch.equal(read_matrix_lines(path, 3, unit=1.0), demands)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3 4\n1 2 3\n", r"demands:2: 2 x 2 = 4 numbers are expected, got 3"),
        ("1 2 3 4\n\n1 2 x 4\n", r"demands:3: a finite number is expected, got 'x'"),
        ("1 2 nan 4\n", r"demands:1: a finite number is expected, got 'nan'"),
        ("1 2 -3 4\n", r"demands:1: a demand must be >= 0, got -3"),
        ("\n", "it holds no matrix"),
    ],
)
def test_lines_that_cannot_be_read_are_named(tmp_path, text, message):
    path = tmp_path / "demands"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_matrix_lines(path, 2)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for read in (lambda path: read_matrix_lines(path, 2), lambda path: read_demand_table(path, LINE)):
        with pytest.raises(DataError, match="cannot be read as text"):
            read(tmp_path / "none")


def test_a_table_of_demands_round_trips_and_pairs_without_a_row_send_nothing(tmp_path):
    path = tmp_path / "demands.csv"
    path.write_text("time,src,dst,value,note\n0,a,b,1.5,\n0,c,0,2,x\n5,1,c,0.25,\n10,a,a,7,\n")
    found = read_demand_table(path, LINE)
    expected = torch.zeros(3, 3, 3, dtype=torch.float64)
    expected[0, 0, 1], expected[0, 2, 0], expected[1, 1, 2], expected[2, 0, 0] = 1.5, 2.0, 0.25, 7.0
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,src,dst\n", r"demands.csv:1: the column 'value' is missing; there are time, src, dst"),
        ("time,src,dst,value\n5,a,b,1\n0,a,b,1\n", r"demands.csv:3: time 0 comes after 5. Sort the rows"),
        (
            "time,src,dst,value\n0,a,b,1\n5,a,b,1\n15,a,b,1\n",
            r"demands.csv:4: time 15 follows 5; matrices before are 5 apart",
        ),
        ("time,src,dst,value\n0,a,b,1\n0,a,b,2\n", r"demands.csv:3: the demand a > b at time 0 stands twice"),
        ("time,src,dst,value\n0,a,d,1\n", r"demands.csv:2: line has no node 'd'; nodes: a, b, c"),
        ("time,src,dst,value\n0,a,b,-1\n", r"demands.csv:2: a demand must be >= 0, got -1"),
        ("time,src,dst,value\nzero,a,b,1\n", r"demands.csv:2: a finite number is expected, got 'zero'"),
        ("time,src,dst,value\n0,a,b\n", r"demands.csv:2: a finite number is expected, got None"),
        ("time,src,dst,value\n", "it holds no demand"),
        ("", r"demands.csv:1: the column 'time' is missing; there are none"),
    ],
)
def test_a_table_that_cannot_be_read_names_the_line(tmp_path, text, message):
    path = tmp_path / "demands.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_demand_table(path, LINE)


def test_abilene_is_two_weeks_of_five_minutes():
    need("abilene_tm")
    data = abilene()
    assert data.name == "abilene" and len(data) == 14 * 288 and data.step_minutes == 5
    assert data.demands.dtype == torch.float64


def test_euro28_sends_ten_terabit_a_second_and_names_its_options():
    need("network_topologies")
    data = euro28(steps=7 * 288)
    assert set(POPULATION) == set(data.network.nodes)
    total = data.demands.sum((1, 2)).mean()
    assert float(total) == pytest.approx(10e6, rel=1e-3)  # 1.5 million draws of 5 % that average out, and whole days
    largest = numpy.unravel_index(int(data.demands.mean(0).argmax()), (28, 28))
    assert {data.network.nodes[index] for index in largest} == {"London", "Paris"}
    assert data.name == "euro28(steps=2016)" and euro28(steps=3, seed=2).name == "euro28(steps=3, seed=2)"
