"""Call strings: one text names a component wherever it appears (command line, YAML, report, HTTP, repr).

    replay(capacity=500, optimizer=sgd(lr=0.1))      split(digits, experiences=5)      package.module:MyLearner(rate=2)

The grammar is Python's own calls and literals, parsed with `ast` and never evaluated: `parse` gives a `Call` tree, `build`
turns it into objects by looking names up in a table, `describe` gives an object's text back.
"""

import ast
import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from everlearn.core.errors import SpecError, closest

INFINITY = "1e999"  # how Python's literals write it
_COLON = "__from__"
_REFERENCE = re.compile(r"(?<![\w'\"])((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


@dataclass(frozen=True)
class Call:
    """A name with its arguments; `called` tells `digits` from `digits()`. `name` may be `module:attribute`."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    called: bool = False

    def __str__(self) -> str:
        if not self.called:
            return self.name
        inside = [_text(item) for item in self.args] + [f"{key}={_text(item)}" for key, item in self.kwargs]
        return f"{self.name}({', '.join(inside)})"


def parse(text: str, example: str = "replay(capacity=500)") -> Call:
    """Read a call string. Raises SpecError that points at what cannot be read, beside an example of what can."""
    if not isinstance(text, str) or not text.strip():
        raise SpecError(f"a call string such as {example!r} is expected, got {text!r}.")
    source = _outside_quotes(text.strip())
    try:
        node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or error or "too deeply nested"
        raise SpecError(f"cannot read {text!r}: {reason}. A call string looks like {example}.") from error
    value = _convert(node, text)
    if not isinstance(value, Call):
        raise SpecError(f"cannot read {text!r}: a name or a call is expected, such as {example}.")
    return value


def split_list(text: str) -> list[str]:
    """Split 'a(b=1, c=2), d' at the commas outside brackets and quotes."""
    items, depth, quote, start = [], 0, "", 0
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            items.append(text[start:position].strip())
            start = position + 1
    return [item for item in [*items, text[start:].strip()] if item]


def build(call: Any, names: Mapping[str, Any], kind: str = "component", unknown: Callable[[str], Any] | None = None) -> Any:
    """Turn a `Call` tree (or a literal) into an object.

    names: what each name stands for; a function or class is called with the arguments, also when written without brackets,
    an import `module:name` only with them. unknown: asked for names that the table lacks (data sets on disk, say).
    """
    if isinstance(call, (list, tuple)):
        return type(call)(build(item, names, kind, unknown) for item in call)
    if isinstance(call, dict):
        return {key: build(item, names, kind, unknown) for key, item in call.items()}
    if not isinstance(call, Call):
        return call
    target = lookup(call.name, names, kind, unknown)
    if ":" in call.name and not call.called:
        return target
    if not callable(target):
        if call.called:
            raise SpecError(f"{call.name} takes no arguments; write {call.name} without brackets.")
        return target
    args = [build(item, names, kind, unknown) for item in call.args]
    kwargs = {key: build(item, names, kind, unknown) for key, item in call.kwargs}
    return invoke(call.name, target, args, kwargs)


def invoke(name: str, target: Callable, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call target(*args, **kwargs); a wrong argument name or count becomes a SpecError with the right ones."""
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:
        return target(*args, **kwargs)
    flexible = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())
    known = [key for key, item in parameters.items() if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)]
    wrong = [key for key in kwargs if key not in known]
    if wrong and not flexible:
        raise SpecError(f"{name}: {closest('argument', wrong[0], known)}")
    try:
        inspect.signature(target).bind(*args, **kwargs)
    except TypeError as error:
        raise SpecError(f"{name}: {error}; its arguments are: {', '.join(known)}.") from error
    return target(*args, **kwargs)


def lookup(name: str, names: Mapping[str, Any], kind: str, unknown: Callable[[str], Any] | None = None) -> Any:
    """What a name stands for: an entry of the table, an import `module:attribute`, or what `unknown` finds."""
    if name in names:
        return names[name]
    if ":" in name:
        return import_reference(name)
    if unknown is not None:
        return unknown(name)
    raise SpecError(closest(kind, name, names))


def import_reference(reference: str) -> Any:
    """Import `package.module:attribute`."""
    module, _, attribute = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise SpecError(
            f"cannot import {module!r} for {reference!r}: no such module on the path. One's own is looked for in the current folder."
        ) from error
    for step in attribute.split("."):
        if not hasattr(found, step):
            public = [item for item in vars(found) if not item.startswith("_")]
            raise SpecError(f"{reference}: {closest('name', step, public)}")
        found = getattr(found, step)
    return found


def describe(value: Any) -> str:
    """The call string of an object: its name, and the arguments that differ from the defaults."""
    if getattr(value, "spec", None) and isinstance(value.spec, str):
        return value.spec
    if value is None or isinstance(value, (bool, int, float, str)):
        return _text(value)
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(describe, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}:{value.__qualname__}"
    name = getattr(value, "name", None)
    if not isinstance(name, str):
        return repr(value) if type(value).__repr__ is not object.__repr__ else type(value).__name__
    return f"{name}({', '.join(_arguments(value))})"


class Described:
    """A value whose text is the call string it is made by."""

    def __repr__(self) -> str:
        return describe(self)


def _arguments(value: Any) -> list[str]:
    """Arguments of an object's constructor, read from the attributes of the same name, where they differ from the default.

    The network a learner trains and its seed belong to the comparison, not to the learner's text; an estimator does not.
    """
    texts = []
    for key, parameter in inspect.signature(type(value)).parameters.items():
        if key == "model" and getattr(value, "takes", "network") == "estimator" and value.written:
            texts.append(value.written)
        if key in ("model", "seed") or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if not hasattr(value, key):
            continue
        held = getattr(value, key)
        if inspect.ismethod(held):
            continue  # a method that happens to be named as the argument is
        text = describe(held)
        if parameter.default is parameter.empty:
            texts.append(text if not texts else f"{key}={text}")
        elif text != describe(parameter.default):
            texts.append(f"{key}={text}")
    return texts


def _outside_quotes(text: str) -> str:
    """Rewrite `module:attribute` as an attribute that `ast` accepts, leaving quoted text alone."""
    pieces = re.split(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", text)
    return "".join(piece if index % 2 else _REFERENCE.sub(rf"\1.{_COLON}.\2", piece) for index, piece in enumerate(pieces))


def _convert(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call):
        name = _dotted(node.func, text)
        if any(keyword.arg is None for keyword in node.keywords) or any(isinstance(item, ast.Starred) for item in node.args):
            raise SpecError(f"cannot read {text!r}: * and ** are not part of call strings.")
        args = tuple(_convert(item, text) for item in node.args)
        kwargs = tuple((keyword.arg, _convert(keyword.value, text)) for keyword in node.keywords)
        return Call(name, args, kwargs, called=True)
    if isinstance(node, (ast.Name, ast.Attribute)):
        return Call(_dotted(node, text))
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_convert(item, text) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    try:
        if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
            return {ast.literal_eval(key): _convert(item, text) for key, item in zip(node.keys, node.values, strict=True)}
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        piece = ast.get_source_segment(_outside_quotes(text.strip()), node) or text
        raise SpecError(f"cannot read {piece!r} in {text!r}: only calls, names and literals are allowed.") from error


def _dotted(node: ast.expr, text: str) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise SpecError(f"cannot read {text!r}: only calls, names and literals are allowed.")
    dotted = ".".join([node.id, *reversed(names)])
    return dotted.replace(f".{_COLON}.", ":")


def _text(item: Any) -> str:
    if isinstance(item, Call):
        return str(item)
    if isinstance(item, (list, tuple)):
        inside = ", ".join(map(_text, item))
        return f"[{inside}]" if isinstance(item, list) else f"({inside}{',' if len(item) == 1 else ''})"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{key!r}: {_text(value)}" for key, value in item.items()) + "}"
    if isinstance(item, float) and math.isinf(item):
        return INFINITY if item > 0 else f"-{INFINITY}"
    return repr(item)
