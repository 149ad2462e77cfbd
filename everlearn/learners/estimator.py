"""Estimators of other libraries in call strings: from a name to a class, and from an object to its text.

    sklearn(make_pipeline(StandardScaler(), SGDClassifier()))      river(tree.HoeffdingTreeClassifier())      mymodule:build()

Names are looked for in the public modules of the library, short (`SGDClassifier`) or with the module (`linear_model.SGDClassifier`);
nothing is evaluated. Also the one formula that both wrappers share: probabilities of the classes known so far to scores for all.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, SpecError
from everlearn.core.spec import build, parse

EPSILON = 1e-12  # the least probability of a class, so that scores are finite


@dataclass(frozen=True)
class Library:
    """Where to look. package: the import name; modules: public modules, the likeliest first; word: its name in messages;
    example: a name that a user may copy; dotted: whether texts carry the module (`tree.HoeffdingTreeClassifier`)."""

    package: str
    modules: tuple[str, ...]
    word: str
    example: str
    dotted: bool

    def find(self, name: str) -> Any:
        """The public class or `make_...` function of a name. Raises SpecError with the closest one."""
        steps = name.removeprefix(self.package + ".").split(".")
        if len(steps) > 1:
            return self._walk(steps, name)
        for _, known, value in self._public():
            if known == name:
                return value
        raise self._unknown(name, _near(name, {known for _, known, _ in self._public()}))

    def _walk(self, steps: Sequence[str], name: str) -> Any:
        """Follow a dotted name, only through modules of the library."""
        if steps[0] not in self.modules:
            near = _near(steps[0], self.modules)
            raise self._unknown(name, ".".join([near, *steps[1:]]) if near else "")
        found: Any = importlib.import_module(self.package)
        for index, step in enumerate(steps):
            value = getattr(found, step, None)
            if value is None and index < len(steps) - 1:
                try:
                    value = importlib.import_module(f"{found.__name__}.{step}")
                except ModuleNotFoundError:
                    value = None
            own = inspect.ismodule(value) and value.__name__.startswith(self.package + ".")
            if step.startswith("_") or not (own if index < len(steps) - 1 else _constructs(value, step)):
                public = [key for key, item in vars(found).items() if _constructs(item, key) or inspect.ismodule(item)]
                near = _near(step, public)
                raise self._unknown(name, ".".join([*steps[:index], near]) if near else "")
            found = value
        return found

    def _public(self) -> Iterator[tuple[str, str, Any]]:
        """(module, name, value) of everything that a call string may construct; modules are imported as the search gets to them."""
        for place in self.modules:
            module = importlib.import_module(f"{self.package}.{place}")
            listed = getattr(module, "__all__", None)
            for name, value in vars(module).items():
                if _constructs(value, name) and (
                    name in listed if listed is not None else value.__module__ == module.__name__
                ):
                    yield place, name, value

    def _unknown(self, name: str, near: str) -> SpecError:
        hint = f"did you mean {near!r}? " if near else ""
        return SpecError(
            f"unknown {self.word} estimator {name!r}; {hint}Any public class of {self.word} is known, such as {self.example}; "
            "write your own as mymodule:MyClassifier()."
        )

    def reference(self, kind: type) -> str:
        """The shortest name under which a class is found again."""
        path = kind.__module__.split(".")
        if path[0] == self.package and len(path) > 1 and path[1] in self.modules:
            module = importlib.import_module(f"{self.package}.{path[1]}")
            if getattr(module, kind.__name__, None) is kind:
                return f"{path[1]}.{kind.__name__}" if self.dotted else kind.__name__
            public = [step for step in path[1:] if not step.startswith("_")]
            return ".".join([*public, kind.__name__])
        return f"{kind.__module__}:{kind.__qualname__}"


def _near(name: str, known: Iterable[str]) -> str:
    """The closest known name that may be a classifier, "" where none is close."""
    names = sorted(item for item in known if not item.endswith("Regressor"))
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.5)), "")


def _constructs(value: Any, name: str) -> bool:
    return not name.startswith("_") and (inspect.isclass(value) or (inspect.isfunction(value) and name.startswith("make_")))


def estimator(given: Any, library: Library, good: Callable[[Any], bool]) -> Any:
    """The estimator that is meant: an object as it is, a class called without arguments, a call string built.

    good: whether an object is a classifier of that library. Raises SpecError (unknown name), ArgumentError (not a classifier).

    >>> from everlearn.learners.sklearn_estimator import SKLEARN
    >>> estimator("SGDClassifier(alpha=0.01)", SKLEARN, lambda value: hasattr(value, "fit"))
    SGDClassifier(alpha=0.01)
    """
    found = given
    if isinstance(found, str):
        found = build(parse(found), {}, "estimator", library.find)
    if inspect.isclass(found):
        found = found()
    if not good(found):
        raise ArgumentError(
            f"a {library.word} classifier is expected, got {type(found).__name__} ({found!r:.80}). Use one such as {library.example}()."
        )
    return found


def written(value: Any, library: Library) -> str:
    """The call string of an estimator: its class, and the arguments that differ from the defaults."""
    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, numpy.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        inside = ", ".join(written(item, library) for item in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {written(item, library)}" for key, item in value.items()) + "}"
    if inspect.isclass(value) or inspect.isroutine(value):
        return f"{value.__module__}:{value.__qualname__}"
    return f"{library.reference(type(value))}({', '.join(_arguments(value, library))})"


def _arguments(value: Any, library: Library) -> list[str]:
    """Constructor arguments, read from the attributes of the same name, where they differ from the default (also from what a
    constructor makes of the default, such as no limit of a depth given as None)."""
    texts: list[str] = []
    try:
        plain = type(value)()
    except TypeError:  # an argument is required
        plain = None
    named = False
    for key, parameter in inspect.signature(type(value)).parameters.items():
        held = getattr(value, key, parameter.empty)
        if held is parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            texts += [written(item, library) for item in (held.values() if isinstance(held, dict) else held)]
            continue
        text = written(held, library)
        if parameter.default is not parameter.empty:
            usual = {written(parameter.default, library), written(getattr(plain, key, parameter.default), library)}
            if text in usual:
                named = True
                continue
        named = named or parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty
        texts.append(f"{key}={text}" if named else text)
    return texts


def refuse_mappings(batch: Any, owner: str) -> None:
    """Refuse a batch whose x is a dict of tensors, before a guard takes its layout for the rule."""
    if isinstance(getattr(batch, "x", None), Mapping):
        table(batch.x, owner)


def table(x: Any, owner: str) -> Tensor:
    """Rows of numbers for an estimator: (rows, features), on the CPU; bytes 0..255 (images) become float32 in 0..1.

    Raises InputError where x is not one tensor, or a row holds nothing.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{owner}: x must be one tensor of numbers, got a dict of {sorted(x)}.")
    flat = x.detach().cpu().reshape(len(x), x.shape[1:].numel())
    if flat.shape[1] == 0 or flat.is_complex():
        raise InputError(f"{owner}: rows of x must be real numbers, at least one each, got {tuple(x.shape)} {x.dtype}.")
    if flat.dtype == torch.uint8:
        return flat.float() / 255.0
    return flat.float() if flat.dtype in (torch.float16, torch.bfloat16, torch.bool) else flat


def scores(probabilities: numpy.ndarray, device: torch.device) -> Tensor:
    """(rows, classes) log-probabilities, float64: what is not a number counts as 0, rows without any become uniform."""
    known = numpy.where(numpy.isfinite(probabilities) & (probabilities > 0.0), probabilities, 0.0)
    total = known.sum(axis=1, keepdims=True)
    if not total.all():
        known[total[:, 0] == 0.0] = 1.0
        total = known.sum(axis=1, keepdims=True)
    return torch.from_numpy(numpy.log(numpy.maximum(known / total, EPSILON))).to(device)
