"""Which tensors of a network are masked, which belong to tasks, and which to the head."""

import pytest
import torch
from torch import nn

from everlearn.core.errors import ArgumentError
from everlearn.learners.sparse_layout import Layout


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 5)
    )


NORMS = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked", "4.weight", "4.bias"}


@pytest.mark.parametrize("own_head", [True, False])
@pytest.mark.parametrize("own_norms", [True, False])
def test_every_tensor_has_one_part(own_head, own_norms):
    layout = Layout("sparse", network(), own_head, own_norms)
    masked, head, own = set(layout.layers), set(layout.head), set(layout.own)
    assert masked == {"0.weight", "3.weight"} | (set() if own_head else {"5.weight"})
    assert head == ({"5.weight", "5.bias"} if own_head else set())
    assert own == {"0.bias", "3.bias"} | (NORMS if own_norms else set()) | (set() if own_head else {"5.bias"})
    assert layout.size == 108 + 128 + (0 if own_head else 40)


def test_rows_are_cut_and_written_layer_by_layer():
    layout = Layout("sparse", network(), True, True)
    row = torch.arange(236.0)
    layout.write(row)
    assert torch.equal(layout.row(), row)
    assert torch.equal(layout.model[3].weight.flatten(), row[layout.layers["3.weight"]])
    assert [piece.shape for piece in layout.cut(row)] == [(4, 3, 3, 3), (8, 16)]


def test_what_a_task_keeps_is_a_copy_and_is_put_back_beside_other_rows():
    layout = Layout("sparse", network(), True, True)
    rows = torch.tensor([1, 3])
    kept = layout.private(rows)
    assert kept["5.weight"].shape == (2, 8) and kept["0.bias"].shape == (4,)
    before = layout.model[5].weight.detach().clone()
    with torch.no_grad():
        for tensor in layout.model.parameters():
            tensor.add_(1.0)
    tensors = layout.tensors()
    layout.put(tensors, kept, rows)
    assert torch.equal(tensors["5.weight"][[1, 3]], before[[1, 3]])
    assert torch.equal(tensors["5.weight"][[0, 2, 4]], before[[0, 2, 4]] + 1.0)
    assert torch.equal(layout.model[5].weight, before + 1.0)  # the model itself is not touched


def test_a_weight_that_layers_share_is_masked_once_under_all_its_names():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))
    model[1].weight = model[0].weight
    layout = Layout("sparse", model, True, True)
    assert layout.names == {"0.weight": ["0.weight", "1.weight"]} and layout.size == 36


def test_frozen_layers_are_not_masked_and_a_network_without_others_is_refused():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))
    model[0].requires_grad_(False)
    assert list(Layout("sparse", model, True, True).layers) == ["1.weight"]
    model[1].requires_grad_(False)
    with pytest.raises(ArgumentError, match="before its last linear layer that trains"):
        Layout("sparse", model, True, True)
