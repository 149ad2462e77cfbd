"""The pieces that scenarios share at their door."""

import inspect

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.core.stream import Stream
from everlearn.data.naming import check_sizes, evenly, fraction_of, named, present


class Nothing(Stream):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


@named
def own(data, *, size: int = 3, kind: str = "a", seed: int = 0) -> Stream:
    """A scenario from elsewhere."""
    return Nothing()


def test_a_name_holds_what_differs_from_the_defaults(digits):
    assert own(digits).name == "own(digits)"
    assert own(digits, size=3, seed=5).name == "own(digits)"
    assert own(digits, kind="b", size=4).name == "own(digits, size=4, kind='b')"
    assert own(data=own(digits, size=9)).name == "own(own(digits, size=9))"


def test_signature_and_documentation_show_through():
    assert list(inspect.signature(own).parameters) == ["data", "size", "kind", "seed"]
    assert own.__doc__ == "A scenario from elsewhere."


@pytest.mark.parametrize(("events", "count", "expected"), [(10, 5, (2, 4, 6, 8, 10)), (3, 10, (1, 2, 3)), (1, 4, (1,))])
def test_evenly(events, count, expected):
    assert evenly(events, count) == expected


def test_a_fraction_leaves_one_event():
    assert [fraction_of(10, share) for share in (0.0, 0.24, 1.0)] == [0, 2, 9]


def test_present_lists_the_classes_that_have_rows(digits):
    assert present(digits.take(digits.y > 6)) == [7, 8, 9]


def test_sizes_are_checked():
    check_sizes("own", batch=1, epochs=2, test=0.5)
    with pytest.raises(ArgumentError, match="own: test must lie between 0 and 1, both left out, got 1"):
        check_sizes("own", batch=1, test=1)
