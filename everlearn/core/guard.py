"""Input is checked once, where it enters a learner, before any state changes.

One pass over x proves it finite: a sum is finite only if every term is (an overflowing sum is looked at again, term by
term). The shape and dtype of the first batch are the rule for all that follow; before it, one row is tried on the network.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from everlearn.core.errors import InputError
from everlearn.core.events import Batch, X, rows


class Guard:
    """Refuses wrong shapes, dtypes, NaN, infinities and labels out of range, in one sentence each.

    owner: the learner's name in messages; classes: the number of classes y may name, or None where it is not known;
    finite=False lets NaN through as "missing" (estimators that handle it say so); model: the network that x must fit, tried on
    one row for as long as nothing was learned (without it, the first batch is not known to fit until the network has failed);
    targets: the number of real numbers in an answer, where y is not of classes: 0 takes that of the first batch with answers.
    """

    parts = ("shapes", "dtypes")

    def __init__(
        self,
        owner: str,
        classes: int | None = None,
        finite: bool = True,
        model: nn.Module | None = None,
        *,
        targets: int | None = None,
    ):
        self.owner = owner
        self.classes = classes
        self.finite = finite
        self.model = model
        self.targets = targets
        self.shapes: list[list[int]] = []  # of the tensors in x, and behind them that of y where it holds values
        self.dtypes: list[str] = []  # of the tensors in x

    def batch(self, batch: Batch) -> None:
        """Refuse a batch that cannot be learned from; remember the shape of the first good one."""
        if not isinstance(batch, Batch):
            raise InputError(f"{self.owner}: update takes a Batch(x, y), got {type(batch).__name__}.")
        self.inputs(batch.x)
        if batch.y is not None:
            (self._labels if self.targets is None else self._answers)(batch.y, len(batch))
        for name, value in (("time", batch.time), ("id", batch.id)):
            if value is not None and len(value) != len(batch):
                raise InputError(f"{self.owner}: {name} must name each of the {len(batch)} rows of x, got {len(value)}.")
        if not self.shapes:
            self.shapes, self.dtypes = _layout(batch.x)
        if self.targets is not None and batch.y is not None and self.width is None:
            self.shapes = [*self.shapes, [batch.y.shape[1]]]

    @property
    def width(self) -> int | None:
        """The number of values in an answer: as told, or as learned from; None where neither is known."""
        known = self.shapes[len(self.dtypes) :]
        return self.targets or (known[0][0] if known else None)

    def inputs(self, x: X) -> None:
        """Refuse an x whose rows differ from those learned from, or that is not finite."""
        if isinstance(x, Tensor):
            if self.shapes and (
                len(self.dtypes) > 1 or list(x.shape[1:]) != self.shapes[0] or str(x.dtype) != self.dtypes[0]
            ):
                self._differs(x)
            self._tensor(x, "x")
        else:
            self._mapping(x)
        if not self.shapes and self.model is not None:
            self._try(self.model, x)

    def _mapping(self, x: X) -> None:
        if not isinstance(x, Mapping) or not x or not all(isinstance(value, Tensor) for value in x.values()):
            raise InputError(f"{self.owner}: x must be a tensor or a dict of tensors, got {type(x).__name__}.")
        lengths = {key: len(value) if value.ndim else 0 for key, value in x.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"{self.owner}: every tensor in x needs the same number of rows, got {lengths}.")
        if self.shapes and _layout(x) != (self.shapes[: len(self.dtypes)], self.dtypes):
            self._differs(x)
        for key, value in x.items():
            self._tensor(value, f"x[{key!r}]")

    def _try(self, model: nn.Module, x: X) -> None:
        """One row through the network, so that what does not fit is refused while nothing has changed."""
        training = model.training
        try:
            model.eval()
            with torch.no_grad():
                model(rows(x, slice(0, 1)))
        except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            shapes, dtypes = _layout(x)
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.owner}: the network cannot take rows of shape {_plain(shapes)} and dtype {_plain(dtypes)}: {reason}"
            ) from error
        finally:
            model.train(training)

    def _differs(self, x: X) -> None:
        shapes, dtypes = _layout(x)
        raise InputError(
            f"{self.owner}: rows of x have shape {_plain(shapes)} and dtype {_plain(dtypes)}; "
            f"this learner learned from shape {_plain(self.shapes[: len(self.dtypes)])} and dtype {_plain(self.dtypes)}."
        )

    def _tensor(self, x: Tensor, name: str) -> None:
        if x.ndim == 0 or len(x) == 0:
            raise InputError(f"{self.owner}: {name} must hold at least one row, got shape {tuple(x.shape)}.")
        if self.finite and x.dtype.is_floating_point and not math.isfinite(x.sum()):
            wrong = (~torch.isfinite(x)).nonzero()
            if len(wrong):
                place = tuple(wrong[0].tolist())
                raise InputError(
                    f"{self.owner}: {name} holds {x[place].item()} at {place} ({len(wrong)} such values in all); "
                    "fill or drop missing values first."
                )

    def _answers(self, y: Tensor, count: int) -> None:
        if not isinstance(y, Tensor) or y.dtype != torch.float32:
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"{self.owner}: y must be a float32 tensor of values, got {kind}.")
        wanted = self.width
        if y.ndim != 2 or len(y) != count or y.shape[1] == 0 or wanted not in (None, y.shape[1]):
            form = f"({count}, {wanted})" if wanted else f"({count}, targets)"
            raise InputError(f"{self.owner}: y must have shape {form} for {count} rows of x, got {tuple(y.shape)}.")
        if not torch.isfinite(y).all():
            place = tuple((~torch.isfinite(y)).nonzero()[0].tolist())
            raise InputError(
                f"{self.owner}: y holds {y[place].item()} at {place}; leave out rows whose answer is not known."
            )

    def _labels(self, y: Tensor, count: int) -> None:
        if not isinstance(y, Tensor) or y.dtype != torch.int64:
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"{self.owner}: y must be an int64 tensor of class numbers, got {kind}.")
        if y.shape != (count,):
            raise InputError(f"{self.owner}: y must have shape ({count},) for {count} rows of x, got {tuple(y.shape)}.")
        low, high = (int(value) for value in torch.aminmax(y))
        if low < 0 or (self.classes is not None and high >= self.classes):
            allowed = f"0..{self.classes - 1}" if self.classes is not None else ">= 0"
            wrong = low if low < 0 else high
            raise InputError(f"{self.owner}: label {wrong} is out of range; allowed: {allowed}.")


def count_outputs(model: nn.Module) -> int | None:
    """The number of classes a model tells apart (or of values that it gives), read off its last linear layer; None where it has none."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else None


def _layout(x: X) -> tuple[list[list[int]], list[str]]:
    if isinstance(x, Tensor):
        return [list(x.shape[1:])], [str(x.dtype)]
    return [list(x[key].shape[1:]) for key in sorted(x)], [f"{key}: {x[key].dtype}" for key in sorted(x)]


def _plain(items: list) -> str:
    texts = [str(tuple(item)) if isinstance(item, list) else item for item in items]
    return texts[0] if len(texts) == 1 else str(texts)
