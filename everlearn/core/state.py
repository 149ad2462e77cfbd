"""State as a tree of tensors and JSON scalars, and snapshots of it on disk.

`parts` of an object name the attributes that are state. `capture` walks them (modules, optimisers, generators, objects with
parts of their own, tensors, scalars); `restore` puts them back. A snapshot is a pair NUMBER.safetensors + NUMBER.json. The
JSON names the sha256 of the tensors and is renamed into place last, so a snapshot exists whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from everlearn.core.errors import StateError

Tree = dict[str, Any]
TENSOR = "$tensor"
KEEP = 2  # snapshots kept, so that a garbled newest one still leaves an earlier one


def capture(value: Any) -> Any:
    """The state of a value, detached from it: a copy that later steps do not change."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, nn.Module):
        return {key: item.detach().clone() for key, item in value.state_dict().items() if isinstance(item, Tensor)}
    if isinstance(value, torch.optim.Optimizer):
        return capture(value.state_dict())
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, numpy.random.Generator):
        return capture(value.bit_generator.state)
    if isinstance(value, numpy.integer):
        return int(value)
    if isinstance(value, Mapping):
        state = {str(key): capture(item) for key, item in value.items()}
        if len(state) != len(value):
            raise StateError(f"two keys of a dict have the same text, so one would be lost: {sorted(map(repr, value))}.")
        return state
    if isinstance(value, (list, tuple)):
        return [capture(item) for item in value]
    if hasattr(value, "parts"):
        return {name: capture(getattr(value, name)) for name in value.parts}
    raise StateError(
        f"state must be tensors, JSON scalars, modules, optimisers, generators or objects with `parts`; got {type(value).__name__}."
    )


def load(value: Any, state: Any) -> None:
    """Put a captured state back into an object, wholly or not at all. Raises StateError, with the object as it was."""
    before = capture(value)
    try:
        restore(value, state)
    except BaseException:
        restore(value, before)
        raise


def restore(value: Any, state: Any) -> Any:
    """Put a captured state back into a value: in place where the value is an object, else as the returned replacement.

    The state is copied: neither side sees the other's later changes. Raises StateError where it does not fit.
    """
    if isinstance(value, (nn.Module, torch.optim.Optimizer, torch.Generator, numpy.random.Generator)):
        try:
            _restore_foreign(value, state)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StateError(
                f"the state does not fit this {type(value).__name__}: {' '.join(str(error).split())}"
            ) from error
    elif hasattr(value, "parts"):
        missing = set(value.parts) ^ set(state) if isinstance(state, Mapping) else set(value.parts)
        if missing:
            raise StateError(f"the state does not fit {type(value).__name__}: parts {sorted(missing)} are on one side only.")
        for name in value.parts:
            setattr(value, name, restore(getattr(value, name), state[name]))
        if hasattr(value, "restored"):
            value.restored()
    elif isinstance(value, Mapping) and any(map(_stands, value.values())):
        if not isinstance(state, Mapping) or set(map(str, value)) != set(state):
            raise StateError(f"the state does not fit: objects {sorted(map(str, value))} stand where it has others.")
        return {key: restore(item, state[str(key)]) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        return type(value)(_restore_items(value, state)) if type(value) in (list, tuple) else capture(state)
    elif isinstance(value, Tensor) and isinstance(state, Tensor):
        return state.detach().to(value.device, copy=True)
    else:
        return capture(state)
    return value


def _restore_foreign(value: Any, state: Any) -> None:
    """The objects of torch and numpy that have a way of their own."""
    if isinstance(value, nn.Module):
        value.load_state_dict(state)
    elif isinstance(value, torch.optim.Optimizer):
        # torch's optimisers go on writing into the tensors that they are given, so they are given copies
        value.load_state_dict({**state, "state": {int(key): capture(item) for key, item in state["state"].items()}})
    elif isinstance(value, torch.Generator):
        value.set_state(state)
    else:
        value.bit_generator.state = state


def _stands(value: Any) -> bool:
    """Whether a value is an object that a state is put into, not plain data that it replaces."""
    objects = (nn.Module, torch.optim.Optimizer, torch.Generator, numpy.random.Generator)
    return isinstance(value, objects) or hasattr(value, "parts")


def _restore_items(values: Any, state: Any) -> list[Any]:
    """Restore item by item where the values are objects; plain data is replaced whole, whatever its length."""
    if any(map(_stands, values)):
        if not isinstance(state, (list, tuple)) or len(values) != len(state):
            raise StateError(f"the state does not fit: it holds other than the {len(values)} objects that stand.")
        return [restore(item, part) for item, part in zip(values, state, strict=True)]
    return [capture(item) for item in state]


def same(first: Any, second: Any) -> bool:
    """Whether two captured states are equal to the bit."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return (
            isinstance(first, Tensor)
            and isinstance(second, Tensor)
            and first.dtype == second.dtype
            and first.shape == second.shape
            and _bits(first) == _bits(second)
        )
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second or (first != first and second != second)


def _bits(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def pack(state: Any) -> tuple[bytes, Any]:
    """(safetensors bytes, JSON tree that points into them)."""
    tensors: dict[str, Tensor] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, Tensor):
            key = str(len(tensors))
            tensors[key] = node.detach().cpu().contiguous().clone()
            return {TENSOR: key}
        if isinstance(node, dict):
            if TENSOR in node:
                raise StateError(f"a state may not use the key {TENSOR!r}: it marks tensors in snapshots. Use another name.")
            return {key: walk(item) for key, item in node.items()}
        if isinstance(node, list):
            return [walk(item) for item in node]
        return node

    tree = walk(state)
    return save_tensors(tensors), tree


def unpack(data: bytes, tree: Any) -> Any:
    """The state that `pack` was given."""
    tensors = load_tensors(data)

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            if set(node) == {TENSOR}:
                return tensors[node[TENSOR]]
            return {key: walk(item) for key, item in node.items()}
        if isinstance(node, list):
            return [walk(item) for item in node]
        return node

    return walk(tree)


def digest(state: Any) -> str:
    """sha256 of a captured state: two folds that agree on it agree on every weight and counter."""
    data, tree = pack(state)
    return hashlib.sha256(data + json.dumps(tree, sort_keys=True).encode()).hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a crash or on a full disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(
            f"cannot write {path}: {error.strerror or error}. Nothing was half-written; earlier files stand."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_snapshot(folder: Path, number: int, state: Any) -> Path:
    """Write snapshot NUMBER beside what is there. Returns its JSON's path.

    Raises StateError where it cannot be written; nothing of it stays behind then, and other snapshots stand.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot make the folder {folder}: {error.strerror or error}.") from error
    data, tree = pack(state)
    path = folder / f"{number:09d}.json"
    body = json.dumps(tree)
    record = {"sha256": hashlib.sha256(data + body.encode()).hexdigest(), "number": number, "state": body}
    try:
        write_atomic(path.with_suffix(".safetensors"), data)
        write_atomic(path, json.dumps(record).encode())
    except StateError:
        path.unlink(missing_ok=True)
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        raise
    return path


def save_snapshot(folder: Path, number: int, state: Any) -> Path:
    """Write snapshot NUMBER and remove all but the newest `KEEP`, and any of a future that was given up. Returns its JSON's path.

    Raises StateError as `write_snapshot` does.
    """
    path = write_snapshot(folder, number, state)
    standing = sorted(folder.glob("*.json"))
    place = standing.index(path) + 1
    for old in standing[: max(0, place - KEEP)] + standing[place:]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return path


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written: temporary files, and tensors without their JSON."""
    for path in folder.glob(".*.*.[0-9]*"):
        path.unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        if not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)


def load_snapshot(path: Path) -> tuple[int, Any]:
    """(number, state) of one snapshot. Raises StateError where the file is missing, cut short or garbled."""
    try:
        record = json.loads(path.read_text())
        data = path.with_suffix(".safetensors").read_bytes()
        number, body = int(record["number"]), record["state"]
        good = hashlib.sha256(data + body.encode()).hexdigest() == record["sha256"] and number == int(path.stem)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"snapshot {path} cannot be read: {error}") from error
    if not good:
        raise StateError(f"snapshot {path} is corrupt: its sha256 does not match its content.")
    return number, unpack(data, json.loads(body))


def newest_snapshot(folder: Path) -> tuple[int, Any] | None:
    """The newest snapshot whose checksum matches; None where there is none. Garbled newer ones are passed over.

    Raises StateError where snapshots exist and every one of them is garbled: starting anew would hide the loss.
    """
    paths = sorted(folder.glob("*.json"), reverse=True)
    faults = []
    for path in paths:
        try:
            return load_snapshot(path)
        except StateError as error:
            faults.append(str(error))
    if faults:
        raise StateError(f"no usable snapshot in {folder}: {faults[0]} Run again with --no-resume to start from nothing.")
    return None
