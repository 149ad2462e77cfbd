"""Permuted and rotated inputs: bijections, exact quarter turns, and transforms that reach batches and held-out sets alike."""

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.events import Batch, Boundary
from everlearn.data.dataset import Data
from everlearn.data.domain import Permute, Rotate, corners, image_size, permuted, rotated


@pytest.fixture(scope="module")
def images():
    x = torch.randint(0, 256, (60, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Data("images", x, torch.arange(60) % 3, ("a", "b", "c"))


def test_a_permutation_is_a_bijection_and_another_for_each_session_and_seed():
    orders = [Permute(seed).order(64, session) for seed in (0, 1) for session in (1, 2)]
    assert all(torch.equal(order.sort().values, torch.arange(64)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_the_first_session_is_as_given_and_channels_move_together(images):
    change = Permute(0)
    assert change(images.x, 0) is images.x
    moved = change(images.x, 2)
    assert moved.shape == images.x.shape and moved.dtype == torch.uint8
    order = change.order(36, 2)
    for channel in range(3):
        assert torch.equal(moved[:, channel].flatten(1), images.x[:, channel].flatten(1)[:, order])


def test_permuted_streams_show_every_row_through_each_permutation(digits):
    stream = permuted(digits, experiences=3, batch=50)
    change = Permute(0)
    starts = [0, *stream.changes]
    for session, start in enumerate(starts):
        end = stream.checkpoints[session]
        shown = torch.cat([stream[event].x for event in range(start + 1, end)])
        undone = shown if session == 0 else shown[:, change.order(64, session).argsort()]
        held_out = stream.held_out[session].x
        judged = held_out if session == 0 else held_out[:, change.order(64, session).argsort()]
        together = torch.cat([undone, judged])
        assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, digits.x.tolist()))
        assert torch.equal(torch.cat([stream[start].data.x]).sort(0).values, shown.sort(0).values)


def test_only_the_first_boundary_brings_classes(digits):
    found = [event for event in permuted(digits, experiences=3, batch=500) if isinstance(event, Boundary)]
    assert [event.classes for event in found] == [tuple(range(10)), (), ()]
    assert not permuted(digits, boundaries=False).boundaries
    assert all(isinstance(event, Batch) for event in permuted(digits, boundaries=False, batch=500))


def test_rotation_by_nothing_is_the_identity(digits):
    turn = Rotate((0, 360, -720.0), (8, 8))
    assert all(torch.equal(turn(digits.x, session), digits.x) for session in range(3))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact(digits, images, quarters):
    eight = digits.x.reshape(-1, 8, 8)
    turned = Rotate((90 * quarters,), (8, 8))(digits.x, 0)
    assert torch.equal(turned.reshape(-1, 8, 8), torch.rot90(eight, quarters, dims=(1, 2)))
    assert torch.equal(Rotate((90 * quarters,), (6, 6))(images.x, 0), torch.rot90(images.x, quarters, dims=(2, 3)))


def test_four_quarter_turns_are_the_identity(digits):
    turn, x = Rotate((90,), (8, 8)), digits.x
    for _ in range(4):
        x = turn(x, 0)
    assert torch.equal(x, digits.x)


def test_an_eighth_turn_by_hand():
    """A 3 x 3 image turned by 45 degrees: its centre stays; the place right of it comes from (1 + s, 1 + s) with s = sqrt(1/2),
    between the centre (1 - s)^2, its neighbours below and to the right s (1 - s) each, and the corner s^2."""
    image = torch.arange(1.0, 10.0).reshape(1, 9)
    turned = Rotate((45,), (3, 3))(image, 0)[0]
    s = 0.5**0.5
    assert float(turned[4]) == 5.0
    right = (1 - s) ** 2 * 5 + s * (1 - s) * (8 + 6) + s * s * 9
    assert float(turned[5]) == pytest.approx(right, abs=1e-5)
    corner = 0.0  # (0, 2) comes from 1.41 to the right of the centre: (1, 2.41), weight 0.59 on the edge, the rest outside
    corner += (1 - (2**0.5 - 1)) * 6
    assert float(turned[2]) == pytest.approx(corner, abs=1e-5)


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 200])
def test_weights_are_shares(degrees):
    index, weight = corners((8, 8), degrees)
    assert index.min() >= 0 and index.max() < 64
    assert weight.min() >= 0 and weight.sum(0).max() <= 1 + 1e-9
    centre = weight.sum(0).reshape(8, 8)[3:5, 3:5]
    assert torch.allclose(centre, torch.ones(2, 2, dtype=torch.float64))


def test_rotated_streams_turn_batches_and_held_out_sets(digits):
    plain, stream = rotated(digits, degrees=(0, 0), batch=40), rotated(digits, degrees=(0, 90), batch=40)
    turn = Rotate((90,), (8, 8))
    for left, right, first in zip(plain, stream, range(len(stream)), strict=True):
        if isinstance(right, Batch):
            assert torch.equal(right.x, turn(left.x, 0) if first >= stream.changes[0] else left.x)
    assert torch.equal(stream.held_out[1].x, turn(stream.held_out[0].x, 0))
    assert [held_out.name for held_out in stream.held_out] == ["1: 0 degrees", "2: 90 degrees"]
    assert stream.name == "rotated(digits, degrees=(0, 90), batch=40)"


def test_what_is_no_image_is_refused(digits):
    columns = Data("columns", digits.x[:, :10], digits.y, digits.classes)
    with pytest.raises(DataError, match=r"rows of shape \(10,\), which are no images"):
        rotated(columns)
    assert permuted(columns, experiences=2)[1].x.shape[1] == 10
    assert image_size(digits) == (8, 8)


@pytest.mark.parametrize("degrees", [(), 45, ("a",), (float("nan"),)])
def test_wrong_angles_are_refused(digits, degrees):
    with pytest.raises(ArgumentError, match="degrees must be one or more finite numbers"):
        rotated(digits, degrees=degrees)


def test_wrong_sizes_are_refused(digits):
    with pytest.raises(ArgumentError, match="permuted: experiences must be an int >= 1"):
        permuted(digits, experiences=0)
    with pytest.raises(ArgumentError, match="permuted: batch"):
        permuted(digits, batch=0)
