"""The log of labelled rows behind a model whose state is not tensors: what was learned from, in order.

    model = fold(step, initial(arguments, seed), log)

Such a model (an estimator of another library) is saved as its log and folded anew when it is put back. Rows are copied into
tensors that grow by doubling, in the dtype given. `Window` is the part of a log that a re-fit may look at; it is what a budget limits.
"""

from torch import Tensor

from everlearn.core.errors import BudgetError, check_count
from everlearn.core.spec import describe
from everlearn.core.store import Store

FIRST = 256  # rows allocated at first


class Log:
    """Labelled rows by number; those before `first` have been dropped.

    >>> import torch
    >>> log = Log()
    >>> log.append(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    >>> log.end, log.rows(1, 3)[1].tolist()
    (3, [1, 1])
    """

    parts = ("x", "y", "first")

    def __init__(self) -> None:
        self.first = 0  # the number of the oldest row held
        self._slot = 0  # where that row stands
        self._held = 0
        self._x: Tensor | None = None
        self._y: Tensor | None = None

    @property
    def end(self) -> int:
        """The number that the next row will get: rows ever logged."""
        return self.first + self._held

    @property
    def x(self) -> Tensor | None:
        """(rows held, ...) without the space not in use; None before the first row."""
        return None if self._x is None else self._x[self._slot : self._slot + self._held]

    @x.setter
    def x(self, value: Tensor | None) -> None:
        self._x = value
        self._slot = 0
        self._held = 0 if value is None else len(value)

    @property
    def y(self) -> Tensor | None:
        """(rows held,) int64; None before the first row."""
        return None if self._y is None else self._y[self._slot : self._slot + self._held]

    @y.setter
    def y(self, value: Tensor | None) -> None:
        self._y = value

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, space not in use included."""
        return 0 if self._x is None else self._x.nbytes + self._y.nbytes

    def append(self, x: Tensor, y: Tensor) -> None:
        """Copy rows to the end. x: (rows, ...) of one shape and dtype throughout; y: (rows,) int64."""
        if self._x is None:
            self._x, self._y = x.new_empty((0, *x.shape[1:]), device="cpu"), y.new_empty(0, device="cpu")
        if self._slot + self._held + len(x) > len(self._x):
            self._move(max(FIRST, 2 * (self._held + len(x))))
        start = self._slot + self._held
        self._x[start : start + len(x)] = x
        self._y[start : start + len(x)] = y
        self._held += len(x)

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """x and y of the rows numbered start..stop-1: views, which no later row overwrites."""
        shift = self._slot - self.first
        return self._x[start + shift : stop + shift], self._y[start + shift : stop + shift]

    def take_back(self, count: int) -> None:
        """Undo the append of the last `count` rows."""
        self._held -= count
        if self.end == 0:
            self._x = self._y = None
        else:
            self._move(len(self._x))

    def drop(self, first: int) -> None:
        """Forget the rows before number `first`."""
        count = max(0, first - self.first)
        self.first += count
        self._slot += count
        self._held -= count

    def _move(self, allocated: int) -> None:
        """Move the rows held to the beginning of new space. Views of the old space stay as they are."""
        for name, old in (("_x", self._x), ("_y", self._y)):
            new = old.new_empty((allocated, *old.shape[1:]))
            new[: self._held] = old[self._slot : self._slot + self._held]
            setattr(self, name, new)
        self._slot = 0


class Window(Store):
    """The newest rows of a log, at most `capacity` of them (None: all): those from which a model may be fitted anew.

    It counts rows and their bytes, and holds none itself. seen: rows offered; replayed: rows handed to fits.

    >>> window = Window(capacity=100)
    >>> window.add(150, bytes=36)
    >>> window.start, window.stored, window.nbytes
    (50, 100, 3600)
    """

    name = "window"
    parts = ("capacity", "bytes", "row_bytes", "seen", "replayed")

    def __init__(self, capacity: int | None = None):
        if capacity is not None:
            check_count(self.name, "capacity", capacity)
        self.capacity = capacity
        self.bytes: int | None = None
        self.row_bytes = 0
        self.seen = 0
        self.replayed = 0

    @property
    def stored(self) -> int:
        return self.seen if self.capacity is None else min(self.seen, self.capacity)

    @property
    def nbytes(self) -> int:
        return self.stored * self.row_bytes

    @property
    def start(self) -> int:
        """The number of the oldest row in the window."""
        return self.seen - self.stored

    def limit(self, samples: int | None, nbytes: int | None) -> None:
        """Lower the capacity to these limits, before any row is seen. At 0 there is nothing to fit, and nothing is fitted."""
        if self.seen:
            raise BudgetError(
                f"window: a limit must be set before rows are seen, and {self.seen} were. Start with a new learner, or without a budget."
            )
        if samples is not None:
            self.capacity = samples if self.capacity is None else min(self.capacity, samples)
        if nbytes is not None:
            self.bytes = nbytes if self.bytes is None else min(self.bytes, nbytes)

    def add(self, count: int, bytes: int) -> None:
        """Count rows of so many bytes each."""
        self.seen += count
        self.row_bytes = bytes
        if self.bytes is not None:
            most = self.bytes // max(1, bytes)
            self.capacity = most if self.capacity is None else min(self.capacity, most)

    def __repr__(self) -> str:
        return describe(self)
