"""Every error that Everlearn raises on purpose, in one tree.

    EverlearnError                what is wrong, what was received, what is allowed, the nearest fix     exit code
    ├── SpecError                 a call string that cannot be read, or a name that nothing bears                2
    ├── ArgumentError             an argument out of its range                                                   2
    ├── InputError                x or y that cannot be learned from (shape, dtype, NaN, label)                  3
    ├── DataError                 a data set or table that is missing, unreadable or unusable                    3
    ├── StateError                a snapshot or run folder that is corrupt, or belongs to something else         4
    ├── BudgetError               a limit that cannot be kept                                                    5
    ├── ContractError             a learner or agent that breaks the contract                                    6
    ├── MissingExtraError         a library that an optional part needs                                          7
    └── ServeError                a request that a server refuses; `code` is its stable name                     8

A message is one sentence or two, made for the one who can mend it; the exit code is that of the command line.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class EverlearnError(Exception):
    """The root of the tree; its message is one sentence that a user can act on."""

    exit_code = 1


class SpecError(EverlearnError):
    """A call string that cannot be read, or a name that nothing bears."""

    exit_code = 2


class ArgumentError(EverlearnError):
    """An argument out of its range."""

    exit_code = 2


class InputError(EverlearnError):
    """An x or y that cannot be learned from."""

    exit_code = 3


class DataError(EverlearnError):
    """A data set or table that is missing, unreadable or unusable."""

    exit_code = 3


class StateError(EverlearnError):
    """A snapshot or run folder that is corrupt, or belongs to something else."""

    exit_code = 4


class BudgetError(EverlearnError):
    """A limit that cannot be kept."""

    exit_code = 5


class ContractError(EverlearnError):
    """A learner or agent that breaks the contract."""

    exit_code = 6


class MissingExtraError(EverlearnError):
    """A library that an optional part needs."""

    exit_code = 7


class ServeError(EverlearnError):
    """A request that a server refuses. Nothing of it was stored.

    code: the stable name that clients may rely on; status: the HTTP status; retry_after: seconds after which to try again, where
    trying again can help; errors: places in a request of many parts, [{"at", "detail"}].
    """

    exit_code = 8

    def __init__(
        self, code: str, detail: str, status: int, *, retry_after: float | None = None, errors: Iterable[dict] = ()
    ):
        super().__init__(detail)
        self.code = code
        self.status = status
        self.retry_after = retry_after
        self.errors = list(errors)


def closest(kind: str, name: str, known: Iterable[str], told: str = "") -> str:
    """The sentence for an unknown name: ``unknown learner 'repaly'; did you mean 'replay'? known: ...``.

    told: said in place of the known names, where there are too many of them to be read.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}{told or 'known: ' + (', '.join(names) or 'none')}."


def first_line(error: Exception) -> str:
    """What another library's error says first, or the error's name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a library that belongs to an extra, or say in one sentence how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise MissingExtraError(
            f"{purpose} needs the library {error.name!r}, which is not installed. "
            f"Install it with: pip install 'everlearn[{extra}]'"
        ) from error


def check_range(owner: str, argument: str, value: float, low: float, high: float = float("inf"), fix: str = "") -> None:
    """Refuse a number outside ``low..high`` (NaN included), or something that is not a number at all."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not good:
        allowed = f">= {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
        raise ArgumentError(f"{owner}: {argument} must be a number {allowed}, got {value!r}.{' ' + fix if fix else ''}")


def check_count(owner: str, argument: str, value: int, low: int = 1, fix: str = "") -> None:
    """Refuse what is not a whole number >= ``low``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ArgumentError(f"{owner}: {argument} must be an int >= {low}, got {value!r}.{' ' + fix if fix else ''}")
