"""rho*: figures worked out by hand, closed forms, a slow twin, the batched form beside the exact one, and speed."""

import itertools
import math
import time

import numpy
import pytest
import torch
from scipy.optimize import minimize

from everlearn.core.errors import ArgumentError, InputError
from everlearn.measure import difficulty
from everlearn.measure.difficulty import difficulties, difficulty_gradient, optimal_design, rho_star

COS, SIN = math.cos(0.1), math.sin(0.1)


def thresholds(n):
    return torch.tensor([[0.5 if i >= k else -0.5 for i in range(n)] for k in range(n + 1)], dtype=torch.float64)


def margins(n, k, h=1.0):
    return torch.tensor([h if i >= k else -h for i in range(n)], dtype=torch.float64)


def design_of(*arguments):
    return [round(x, 4) for x in rho_star(*arguments)[1].tolist()]


def twin(x, z, theta):
    """The epigraph form by SLSQP: min s subject to ratio_z(lambda) <= s on the simplex."""
    x, z, theta = (numpy.asarray(value, dtype=float) for value in (x, z, theta))
    best = int((z @ theta).argmax())
    u = numpy.delete(z[best] - z, best, 0)
    u = u / (u @ theta)[:, None]

    def ratios(lam):
        return (u @ numpy.linalg.pinv((x.T * lam) @ x) * u).sum(1)

    start = numpy.full(len(x), 1.0 / len(x))
    scale = ratios(start).max()
    found = minimize(
        lambda p: p[-1],
        [*start, 1.0],
        bounds=[(1e-6, 1)] * len(x) + [(0, None)],
        constraints=[
            {"type": "eq", "fun": lambda p: p[:-1].sum() - 1.0},
            {"type": "ineq", "fun": lambda p: p[-1] - ratios(p[:-1]) / scale},
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return found.x[-1] * scale


def test_best_arm():
    eye = torch.eye
    assert rho_star(eye(2), eye(2), [1.0, 0.0])[0] == pytest.approx(4.0, rel=1e-8)
    for arms, gap in ((5, 0.5), (3, 1.0), (10, 0.25)):
        theta = [gap] + [0.0] * (arms - 1)
        assert rho_star(eye(arms), eye(arms), theta)[0] == pytest.approx((1 + math.sqrt(arms - 1)) ** 2 / gap**2, rel=1e-8)
    value, _ = rho_star(eye(4), eye(4), [1.0, 0.8, 0.5, 0.0])
    assert value == pytest.approx(105.36784, abs=5e-6)
    assert design_of(eye(4), eye(4), [1.0, 0.8, 0.5, 0.0]) == [0.4755, 0.4736, 0.0413, 0.0097]
    hardness = 0.2**-2 + 0.2**-2 + 0.5**-2 + 1.0
    assert hardness == pytest.approx(55.0) and hardness <= value <= 2 * hardness


def test_the_gradient_is_that_of_the_envelope_theorem():
    """The spec's figures, and central differences; a constant added to theta changes nothing, so the parts sum to 0."""
    theta = torch.tensor([1.0, 0.6, 0.3], dtype=torch.float64)
    value, gradient = difficulty_gradient(torch.eye(3), torch.eye(3), theta)
    assert value == pytest.approx(27.43677, abs=5e-6) and float(gradient.sum()) == pytest.approx(0.0, abs=1e-9)
    step = 1e-4
    differences = []
    for i in range(3):
        move = step * torch.eye(3, dtype=torch.float64)[i]
        above, below = (rho_star(torch.eye(3), torch.eye(3), theta + sign * move)[0] for sign in (1, -1))
        differences.append((above - below) / (2 * step))
    # central differences are off by step^2 |third derivative| / 6 ~ 1e-8 * 1e5 / 6, and by 1e-9 value / step
    assert gradient.tolist() == pytest.approx(differences, abs=1e-3)
    assert gradient.tolist() == pytest.approx([-130.961, 122.663, 8.298], abs=2e-3)


def test_a_single_alternative_has_a_closed_form():
    value, design = rho_star(torch.eye(2), [[1.0, 0.0], [COS, SIN]], [1.0, 0.0])
    assert value == pytest.approx((1 - COS + SIN) ** 2 / (1 - COS) ** 2, rel=1e-8) and value == pytest.approx(
        440.30016, abs=5e-6
    )
    assert [round(x, 4) for x in design.tolist()] == [0.0477, 0.9523]
    three = [[1.0, 0.0], [0.0, 1.0], [COS, SIN]]
    value, design = rho_star(three, three, [1.0, 0.0])
    assert value == pytest.approx(440.30016, abs=5e-6) and float(design[2]) < 1e-6
    value, design = optimal_design(torch.eye(3), [[1.0, -2.0, 3.0]])
    assert value == pytest.approx(36.0) and design.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_two_of_four_arms():
    pairs = [[float(i in pair) for i in range(4)] for pair in itertools.combinations(range(4), 2)]
    assert rho_star(torch.eye(4), pairs, [1.0, 0.8, 0.5, 0.0])[0] == pytest.approx(50.99818, abs=5e-6)
    assert design_of(torch.eye(4), pairs, [1.0, 0.8, 0.5, 0.0]) == [0.0954, 0.4312, 0.4404, 0.0330]


def test_thresholds():
    """Four printed digits, so within half of the last; symmetric in k."""
    for k, expected in enumerate((2.1333, 3.0806, 3.3551, 3.4885, 3.5544, 3.5746)):
        for place in {k, 10 - k}:
            assert rho_star(torch.eye(10), thresholds(10), margins(10, place))[0] == pytest.approx(expected, abs=6e-5)
    expected = [0.040, 0.056, 0.094, 0.281, 0.281, 0.094, 0.056, 0.040, 0.031, 0.026]
    assert rho_star(torch.eye(10), thresholds(10), margins(10, 4))[1].tolist() == pytest.approx(expected, abs=5e-4)
    for k, expected in ((0, 2.59123), (1, 3.57082), (12, 4.48871)):
        assert rho_star(torch.eye(25), thresholds(25), margins(25, k))[0] == pytest.approx(expected, abs=5.1e-6)


def test_scale_and_noise():
    """rho*(c theta) = rho*(theta) / c^2; noise of standard deviation s multiplies it by s^2."""
    base = rho_star(torch.eye(10), thresholds(10), margins(10, 3))[0]
    assert rho_star(torch.eye(10), thresholds(10), margins(10, 3, 0.3))[0] == pytest.approx(base / 0.09, rel=1e-7)
    assert rho_star(torch.eye(10), thresholds(10), margins(10, 3), sigma=2.0)[0] == pytest.approx(4.0 * base, rel=1e-7)
    one = rho_star(torch.eye(2), torch.eye(2), [1.0, 0.0], sigma=[1.0, 3.0])
    assert one[0] == pytest.approx(16.0) and one[1].tolist() == pytest.approx([0.25, 0.75])  # u = (1, 3) in whitened units


def test_the_slow_twin_agrees():
    """SLSQP keeps weights at 1e-6 or more, and stops at 1e-12 of the scaled objective: it may lie above by n 1e-6."""
    random = torch.Generator().manual_seed(0)
    for n, m, d in ((6, 5, 3), (8, 8, 4), (4, 3, 4)):
        x, z = (torch.randn(count, d, generator=random, dtype=torch.float64) for count in (n, m))
        theta = torch.randn(d, generator=random, dtype=torch.float64)
        assert rho_star(x, z, theta)[0] == pytest.approx(twin(x, z, theta), rel=1e-4)
    theta = margins(6, 2) * torch.rand(6, generator=random, dtype=torch.float64)
    assert rho_star(torch.eye(6), thresholds(6), theta)[0] == pytest.approx(
        twin(torch.eye(6), thresholds(6), theta), rel=1e-4
    )


def test_queries_need_not_span_more_than_the_differences_of_answers():
    x = torch.tensor([[1.0, -1.0, 0.0], [2.0, -2.0, 0.0]])
    z = torch.eye(3)[:2]
    assert rho_star(x, z, [1.0, 0.0, 0.0])[0] == pytest.approx(
        0.25, rel=1e-6
    )  # only the longer query: (1/2)^2 for a gap of 1
    with pytest.raises(InputError, match="none sees"):
        rho_star(x, torch.eye(3), [1.0, 0.0, 0.0])


def test_bad_input_and_ties():
    assert math.isinf(rho_star(torch.eye(2), torch.eye(2), [1.0, 1.0])[0])
    with pytest.raises(InputError, match="equally good"):
        difficulty_gradient(torch.eye(2), torch.eye(2), [1.0, 1.0])
    with pytest.raises(ArgumentError, match="must agree"):
        rho_star(torch.eye(2), torch.eye(2), [1.0])
    with pytest.raises(ArgumentError, match="the same one"):
        rho_star(torch.eye(2), torch.ones(2, 2), [1.0, 0.0])
    with pytest.raises(ArgumentError, match="sigma"):
        rho_star(torch.eye(2), torch.eye(2), [1.0, 0.0], sigma=[1.0, -1.0])


def instances(n, count):
    random = torch.Generator().manual_seed(1)
    z = thresholds(n).float()
    k = torch.randint(0, n + 1, (count,), generator=random)
    return z, 2.0 * z[k] * (0.1 + 0.9 * torch.rand(count, n, generator=random))


def test_many_instances_at_once_come_near_from_above():
    """A design's value is never below rho*; the designs of the two ways, unit vectors and Cholesky, agree."""
    z, theta = instances(10, 20)
    found = difficulties(torch.eye(10), z, theta)
    exact = torch.tensor([rho_star(torch.eye(10), z, row)[0] for row in theta])
    assert bool((found.value >= exact * (1 - 1e-5)).all()) and bool((found.value <= 1.2 * exact).all())
    turn = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    turned = difficulties(turn, z.double() @ turn, theta.double() @ turn, steps=20)
    plain = difficulties(torch.eye(10), z, theta.double(), steps=20)
    assert turned.value.tolist() == pytest.approx(plain.value.tolist(), rel=1e-8)
    assert (turned.gradient @ turn.T).flatten().tolist() == pytest.approx(
        plain.gradient.flatten().tolist(), rel=1e-6, abs=1e-8
    )
    warm = difficulties(torch.eye(10), z, theta, found.design)
    # a step of rate 0.3 shrinks no weight, relative to another, by more than exp(0.3)
    assert bool((warm.value >= exact * (1 - 1e-5)).all()) and bool((warm.value <= 1.35 * exact).all())


def test_the_batched_gradient_is_that_of_its_smoothed_value():
    z, theta = instances(6, 8)
    theta = theta.double()
    found = difficulties(torch.eye(6), z, theta, steps=0)
    scores = theta @ z.double().T
    for row in range(8):
        best = int(scores[row].argmax())
        others = [j for j in range(7) if j != best]
        u = z[best].double() - z[others].double()
        values = 6.0 * (u**2).sum(1) / (u @ theta[row]) ** 2
        weight = (60.0 * values / values.max()).softmax(0)
        expected = -2.0 * (weight * values / (u @ theta[row])) @ u
        assert found.gradient[row].tolist() == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-12)


def test_the_solver_ends_where_rounding_lets_it_come_no_nearer(monkeypatch):
    """Some 70 Newton steps from the start to a gap of 1e-9; a decrement that no longer falls is not waited for (200 steps at most)."""
    steps = []
    monkeypatch.setattr(difficulty, "_barrier", lambda *given, of=difficulty._barrier: steps.append(1) or of(*given))
    z, theta = instances(25, 6)
    for row in theta:
        rho_star(torch.eye(25), z, row)
        assert 40 < len(steps) < 100, len(steps)
        steps.clear()


@pytest.mark.slow
def test_speed():
    """Exact, 25 thresholds: 50 ms; 1,000 instances of them, four warm steps: 20 ms; the least processor time of several runs."""

    def least(run):
        times = []
        for _ in range(5):
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
        return min(times)

    z, theta = instances(25, 1000)
    design = difficulties(torch.eye(25), z, theta, steps=5).design
    exact = least(lambda: rho_star(torch.eye(25), z, theta[0]))
    batched = least(lambda: difficulties(torch.eye(25), z, theta, design))
    print(f"exact {1e3 * exact:.1f} ms, batched {1e3 * batched:.1f} ms")
    assert exact <= 0.05 and batched <= 0.02
