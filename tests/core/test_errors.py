"""The tree of errors, and the sentences that more than one module makes."""

import inspect
import re

import pytest

from everlearn.core import errors
from everlearn.core.errors import (
    ArgumentError,
    EverlearnError,
    MissingExtraError,
    check_count,
    check_range,
    closest,
    first_line,
    optional,
)

TREE = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def test_every_error_is_drawn_with_its_exit_code():
    drawn = dict(re.findall(r"── (\w+) .* (\d)$", errors.__doc__, flags=re.MULTILINE))
    assert drawn == {error.__name__: str(error.exit_code) for error in TREE if error is not EverlearnError}


def test_there_is_one_root():
    assert all(issubclass(error, EverlearnError) for error in TREE)
    assert EverlearnError.exit_code == 1


@pytest.mark.parametrize(
    ("name", "known", "sentence"),
    [
        ("repaly", ["replay", "derpp"], "unknown learner 'repaly'; did you mean 'replay'? known: derpp, replay."),
        ("zzz", ["replay"], "unknown learner 'zzz'; known: replay."),
        ("zzz", [], "unknown learner 'zzz'; known: none."),
        ("zzz", ["uniform", "uniform"], "unknown learner 'zzz'; known: uniform."),
    ],
)
def test_the_closest_name_is_offered(name, known, sentence):
    assert closest("learner", name, known) == sentence


def test_names_too_many_to_be_read_are_told_of_in_words():
    told = closest("component", "repaly", ["replay", "derpp"], told="`everlearn list` names all")
    assert told == "unknown component 'repaly'; did you mean 'replay'? `everlearn list` names all."


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_counts_are_whole_numbers(value):
    with pytest.raises(ArgumentError, match=re.escape(f"owner: rows must be an int >= 1, got {value!r}. Do this.")):
        check_count("owner", "rows", value, fix="Do this.")


def test_counts_may_begin_lower():
    check_count("owner", "rows", 0, low=0)
    check_count("owner", "rows", 1)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_numbers_lie_in_their_range(value):
    with pytest.raises(ArgumentError, match=re.escape(f"owner: share must be a number between 0 and 1, got {value!r}.")):
        check_range("owner", "share", value, 0.0, 1.0)


def test_ranges_have_closed_ends_and_may_have_none_above():
    for value in (0, 0.0, 1, 1.0, 0.5):
        check_range("owner", "share", value, 0.0, 1.0)
    check_range("owner", "share", 1e300, 0.0)
    with pytest.raises(ArgumentError, match=r"must be a number >= 0, got -1\. Use 0 for none\."):
        check_range("owner", "share", -1, 0.0, fix="Use 0 for none.")


def test_a_missing_library_is_named_with_the_command_that_installs_it():
    with pytest.raises(
        MissingExtraError, match=r"the chart needs the library 'no_such_library'.*pip install 'everlearn\[track\]'"
    ):
        optional("no_such_library", "track", "the chart")
    with pytest.raises(MissingExtraError, match="'no_such_library'"):
        optional("no_such_library.part", "track", "the chart")
    assert optional("json.decoder", "track", "the chart").JSONDecoder


def test_a_library_that_fails_for_another_reason_says_its_own(tmp_path, monkeypatch):
    (tmp_path / "half_library.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        optional("half_library", "track", "the chart")


def test_the_first_line_of_what_another_library_says():
    assert first_line(ValueError("  too short\nby far")) == "too short"
    assert first_line(KeyError()) == "KeyError"
