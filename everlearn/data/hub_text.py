"""Texts as tokens of a Hugging Face tokenizer: read block of lines by block of lines, kept in a file, and mapped from it.

    document  =  a file, or a row of a data set of the hub        tokens  =  those of its blocks, then the end-of-text token if there is one

A block is 65,536 characters and the rest of a line, so a text may be larger than memory; a token does not reach from one block into the
next. The file is one of safetensors with a row of uint16, or of int32 for more than 65,536 tokens. It appears whole or not at all, and is
made anew where the texts (their names, sizes, times of change, order) or the tokenizer are others.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy
from safetensors import SafetensorError, safe_open
from torch import Tensor

from everlearn.core.errors import DataError, StateError, closest, first_line, optional
from everlearn.core.lock import in_turn
from everlearn.core.spec import Described
from everlearn.data.hub import download

BLOCK = 2**16  # characters, and what is left of a line
BLOCKS = 32  # that a tokenizer is given at once
HEADER = 256  # bytes that describe the file
COLUMNS = ("text", "content", "document", "sentence")


@dataclass(frozen=True, repr=False)
class HubText(Described):
    """A column of texts in a data set of the Hugging Face hub, or in a folder in its layout; each row is a document.

    data: `user/name`, or a folder; column: of texts (text, content, document or sentence where left out); config: which of its
    configurations; split: which part.
    """

    name: ClassVar[str] = "hub_text"
    data: str
    column: str | None = None
    config: str | None = None
    split: str = "train"


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a folder that `save_pretrained` wrote. Raises DataError where there is none, MissingExtraError."""
    transformers = optional("transformers", "hub", "a tokenizer")
    if not Path(folder).is_dir():
        raise DataError(f"tokenizer: there is no folder {str(folder)!r}.")
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises errors of every kind for files that it does not know
        raise DataError(f"tokenizer: none can be loaded from {str(folder)!r}: {first_line(error)}") from error


def vocabulary(tokenizer: Any) -> int:
    """Rows that a table of embeddings needs: one more than the highest number of a token."""
    return 1 + max(tokenizer.get_vocab().values())


def text_tokens(texts: Sequence[str | Path] | HubText, tokenizer: Any, cache: str | Path) -> Tensor:
    """(length,) tokens of text files (`.gz` is unpacked) or of a column on the hub, mapped from a file.

    tokenizer: of `transformers`, or None for bytes, with a line feed between documents; cache: the file, made where it is missing or
    belongs to other texts; processes that ask for the same one wait for the first. Tokens are uint8 for bytes, else uint16 or int32.
    Raises DataError where a text is missing, is not UTF-8 or all are empty, StateError where the file cannot be written.
    """
    path = Path(cache)
    mark, documents = _hub_documents(texts) if isinstance(texts, HubText) else _file_documents(texts)
    mark = hashlib.sha256(json.dumps([mark, _tokenizer_mark(tokenizer), BLOCK]).encode()).hexdigest()
    with in_turn(path.parent):
        found = _mapped(path, mark)
        if found is None:
            _write(path, mark, *_numbers(documents, tokenizer), told=str(texts))
            found = _mapped(path, mark)
    return found


def _file_documents(files: Sequence[str | Path]) -> tuple[Any, Iterator[Iterator[str]]]:
    """(what tells these texts from others, blocks of each)."""
    paths = [Path(file) for file in files]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file.")
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return stats, (_blocks(path) for path in paths)


def _blocks(path: Path) -> Iterator[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            while block := file.read(BLOCK):
                yield block if block.endswith("\n") else block + file.readline(BLOCK)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 ({error.reason}); convert it, or pre-train on bytes, without a tokenizer."
        ) from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from error


def _hub_documents(source: HubText) -> tuple[Any, Iterator[Iterator[str]]]:
    parts = download(source.data, source.config)
    if source.split not in parts:
        raise DataError(f"{source}: {closest('split', source.split, parts)}")
    part = parts[source.split]
    column = source.column or next((usual for usual in COLUMNS if usual in part.features), None)
    if column is None:
        raise DataError(f"{source}: no column is named like a text; name one with column=: {', '.join(part.features)}.")
    if column not in part.features:
        raise DataError(f"{source}: column: {closest('column', column, part.features)}")
    if getattr(part.features[column], "dtype", None) not in ("string", "large_string"):
        raise DataError(f"{source}: the column {column!r} holds {part.features[column]}, not texts.")
    rows = (row for rows in part.select_columns([column]).iter(1000) for row in rows[column])
    return [column, part._fingerprint], (iter([row] if row else []) for row in rows)


def _tokenizer_mark(tokenizer: Any) -> Any:
    if tokenizer is None:
        return "bytes"
    inner = getattr(tokenizer, "backend_tokenizer", None)
    rules = inner.to_str() if inner is not None else [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    return [rules, tokenizer.eos_token_id]


def _numbers(documents: Iterable[Iterator[str]], tokenizer: Any) -> tuple[str, Iterator[numpy.ndarray]]:
    """(type, tokens piece by piece)."""
    if tokenizer is None:
        return "U8", (numpy.frombuffer(block.encode(), numpy.uint8) for block in _ended(documents, "\n"))
    kind, dtype = ("U16", "<u2") if vocabulary(tokenizer) <= 2**16 else ("I32", "<i4")
    end = tokenizer.eos_token_id

    def pieces() -> Iterator[numpy.ndarray]:
        blocks = _ended(documents, None)
        while group := list(islice(blocks, BLOCKS)):
            texts = [block for block in group if block is not None]
            told = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else [])
            for block in group:
                ids = next(told) if block is not None else [end] if end is not None else []
                yield numpy.asarray(ids, dtype=dtype)

    return kind, pieces()


def _ended(documents: Iterable[Iterator[str]], end: str | None) -> Iterator[str | None]:
    """The blocks of all documents, and an end behind each that is not empty."""
    for document in documents:
        empty = True
        for block in document:
            empty = False
            yield block
        if not empty:
            yield end


def _write(path: Path, mark: str, kind: str, pieces: Iterator[numpy.ndarray], told: str) -> None:
    for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    count = size = 0
    try:
        with open(temporary, "wb") as file:
            file.write(bytes(8 + HEADER))
            for piece in pieces:
                file.write(piece.tobytes())
                count, size = count + len(piece), size + piece.nbytes
            if not count:
                raise DataError(f"{told}: no text at all.")
            tensor = {"dtype": kind, "shape": [count], "data_offsets": [0, size]}
            header = json.dumps({"__metadata__": {"mark": mark}, "tokens": tensor}).encode()
            file.seek(0)
            file.write(HEADER.to_bytes(8, "little") + header.ljust(HEADER))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror or error}. Nothing was half-written.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _mapped(path: Path, mark: str) -> Tensor | None:
    """The tokens of a file of this mark; None where there is none."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("tokens") if (file.metadata() or {}).get("mark") == mark else None
    except (OSError, SafetensorError):
        return None
