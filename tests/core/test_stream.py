"""The contract of streams: by number, in order, without walking."""

import pytest
import torch

from everlearn import Batch, HeldOut, Schema, Stream


def test_a_stream_yields_what_its_numbers_name(clouds):
    stream = clouds(5)
    walked = list(stream)
    assert len(walked) == 5
    for index in (4, 0, 2, 2):
        assert torch.equal(walked[index].x, stream[index].x) and walked[index].id == stream[index].id
    assert repr(stream) == "clouds(length=5, seed=0)"


def test_no_event_is_made_before_it_is_asked_for():
    asked = []

    class Lazy(Stream):
        name = "lazy"
        schema = Schema((1,), torch.float32, ("a",))

        def __len__(self):
            return 10**9

        def __getitem__(self, index):
            asked.append(index)
            return Batch(torch.zeros(1, 1))

    stream = Lazy()
    walk = iter(stream)
    next(walk), next(walk)
    stream[10**8]
    assert asked == [0, 1, 10**8]
    assert (stream.held_out, stream.checkpoints, stream.boundaries, stream.deployed, stream.changes) == (
        (),
        (),
        False,
        0,
        (),
    )
    assert stream.headline == "held_out"


def test_a_stream_without_its_two_methods_cannot_be_made():
    class Half(Stream):
        def __len__(self):
            return 0

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_a_schema_counts_its_classes():
    assert Schema((3, 8, 8), torch.uint8, ("cat", "dog", "owl")).outputs == 3
    assert HeldOut("test", torch.zeros(2, 1), torch.zeros(2)).task is None


def test_a_schema_says_what_answers_are():
    labels = Schema((4,), torch.float32, ("no", "maybe", "yes"))
    values = Schema((24, 2), torch.float32, (), ("a>b", "b>a"), targets=("a>b",))
    assert (labels.outputs, labels.answers) == (3, "classes")
    assert (values.outputs, values.answers) == (1, "values")
