"""Active units, effective rank and weight norm of networks whose answers are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from everlearn import Batch, FineTune, Learner, run
from everlearn.core.errors import ArgumentError
from everlearn.core.state import capture, same
from everlearn.measure.plasticity import Plasticity, active_units, effective_rank, inspect_networks, probe_rows


class Wordless(Learner):
    name, parts = "wordless", ()

    def predict(self, x):
        return torch.zeros(len(x), 3)

    def update(self, batch):
        return {}

    def boundary(self, boundary):
        pass


def test_rank_of_known_matrices():
    assert effective_rank(torch.eye(7)) == pytest.approx(7.0, abs=1e-12)
    assert effective_rank(torch.outer(torch.arange(1.0, 6.0), torch.ones(3))) == pytest.approx(1.0, abs=1e-5)
    assert effective_rank(torch.zeros(4, 3)) == 0.0
    # singular values 3 and 1: entropy of (3/4, 1/4)
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )


@given(some.integers(1, 8), some.integers(1, 8), some.integers(0, 2**31), some.floats(0.01, 100))
def test_rank_lies_between_one_and_the_smaller_side_and_ignores_scale(rows, width, seed, scale):
    matrix = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rank = effective_rank(matrix)
    assert 1.0 - 1e-9 <= rank <= min(rows, width) + 1e-9
    assert effective_rank(matrix * scale) == pytest.approx(rank)


def test_active_units_by_hand():
    layer = torch.tensor([[0.0, 1.0, 0.0, 8.0], [0.0, 0.0, 0.1, 8.0]])  # means 0, 0.5, 0.05, 8; mean of the layer 2.1375
    assert active_units([layer]) == 3 / 4
    assert active_units([layer], threshold=0.025) == 2 / 4  # 0.05 / 2.1375 = 0.0234 is dormant
    assert active_units([layer, torch.zeros(2, 4)]) == 3 / 8
    assert active_units([]) is None
    planes = torch.zeros(2, 3, 5, 5)  # channels of a convolution are its units
    planes[1, 2, 4, 4] = 1.0
    assert active_units([planes]) == 1 / 3
    tokens = torch.zeros(2, 6, 3)  # the last dimension of a sequence
    tokens[0, 5, 0] = 1.0
    assert active_units([tokens]) == 1 / 3


def layered(bias):
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    nn.init.constant_(model[0].bias, bias)
    return model


def test_a_dead_network_and_one_that_is_linear(incremental):
    x = probe_rows(incremental(), 64)
    dead = inspect_networks(FineTune(layered(-1e6)), x)
    assert (dead["active_units"], dead["effective_rank"]) == (0.0, 0.0)
    alive = inspect_networks(FineTune(layered(1e6)), x)
    assert alive["active_units"] == 1.0
    model = layered(0.0)
    assert inspect_networks(FineTune(model), x)["weight_norm"] == pytest.approx(
        torch.nn.utils.parameters_to_vector(model.parameters()).double().norm().item(), rel=1e-6
    )


def test_features_are_what_reaches_the_last_linear_layer(network, incremental):
    x = probe_rows(incremental(), 64)
    model = network()
    hidden = torch.relu(model[0](x))
    found = inspect_networks(FineTune(model), x)
    assert found["effective_rank"] == pytest.approx(effective_rank(hidden), rel=1e-9)
    assert found["active_units"] == float((hidden > 0).any(dim=0).double().mean())


def test_a_layer_that_is_used_twice_counts_twice_and_one_first_row_does_not_count(incremental):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.relu = nn.Linear(4, 2), nn.Linear(2, 3), nn.ReLU()
            nn.init.zeros_(self.first.weight)
            self.first.bias.data = torch.tensor([-1.0, 1.0])

        def forward(self, x):
            return self.last(self.relu(self.relu(self.first(x)) - 1.0) + (1.0 if len(x) == 1 else 0.0))

    class TriesFirst(Wordless):
        parts = ("model",)

        def predict(self, x):
            self.model(x[:1])
            return self.model(x)

    learner = TriesFirst()
    learner.model = Twice()
    found = inspect_networks(learner, probe_rows(incremental(), 8))
    assert found["active_units"] == 1 / 4  # one of two units at first, then none of two
    assert found["effective_rank"] == 0.0


def test_a_network_without_activation_modules_is_read_at_its_last_layer(incremental):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
            nn.init.zeros_(self.first.weight)
            self.first.bias.data = torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.0])

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    assert inspect_networks(FineTune(Plain()), probe_rows(incremental(), 8))["active_units"] == 3 / 5


def test_looking_changes_nothing(incremental):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))
    learner = FineTune(model)
    learner.update(Batch(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)))
    before, modes, drawn = capture(learner), [module.training for module in model.modules()], torch.random.get_rng_state()
    assert any(modes)
    inspect_networks(learner, probe_rows(incremental(), 32))
    assert same(capture(learner), before)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_probe_rows_come_from_the_whole_stream(listed):
    single = listed([Batch(torch.full((1, 4), float(index)), torch.tensor([0])) for index in range(640)])
    found = probe_rows(single, 64)
    assert len(found) == 64
    assert found[:, 0].tolist() == [float(20 * place + offset) for place in range(32) for offset in range(2)]
    assert len(probe_rows(listed(single.events[:10]), 64)) == 10
    wide = listed([Batch({"a": torch.full((50, 2), float(index))}, torch.zeros(50).long()) for index in range(4)])
    assert probe_rows(wide, 8)["a"][:, 0].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_it_is_measured_at_the_points_asked_for_and_at_the_end(listed, network):
    events = [Batch(torch.randn(4, 4), torch.tensor([0, 1, 2, 0])) for _ in range(100)]
    result = run(FineTune(network()), listed(events), monitors=[Plasticity(points=5)])
    points = [(point["event"], point["plasticity"]) for point in result.curve if "plasticity" in point]
    assert [event for event, _ in points] == [1, 40, 60, 80, 100]
    assert result.figures["plasticity"] == points[-1][1]
    assert points[0][1]["weight_norm"] != points[-1][1]["weight_norm"]


def test_the_threshold_changes_the_figure(incremental, network):
    stream = incremental()
    found = [
        run(FineTune(network()), stream, monitors=[Plasticity(threshold=at)]).figures["plasticity"]["active_units"]
        for at in (0.0, 1.0)
    ]
    assert found[1] < found[0]
    few = run(FineTune(network()), stream, monitors=[Plasticity(rows=2)]).figures["plasticity"]["effective_rank"]
    assert few <= 2.0
    for wrong in ({"rows": 0}, {"threshold": -1.0}, {"points": 0}):
        with pytest.raises(ArgumentError):
            Plasticity(**wrong)


def test_a_learner_without_a_network_has_no_figures(incremental):
    result = run(Wordless(), incremental(), monitors=[Plasticity()])
    assert result.figures["plasticity"] == {}
    assert all("plasticity" not in point for point in result.curve)
