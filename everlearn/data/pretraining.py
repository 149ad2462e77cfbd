"""Domains to pre-train on, one after the other: a text as windows of tokens, or images, without labels.

    TextDomain    rows (rows, window + 1): windows that begin anywhere in the first nine tenths; held out: the last tenth, window by window
    ImageDomain   rows (rows, ...): drawn from the images; held out: images of their own

A text is split before anything is drawn from it, and never shuffled. Rows are drawn evenly, with replacement, by a generator that is handed
in: nothing has to be remembered of where a domain was left.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, DataError, check_count, check_range
from everlearn.core.random import generator
from everlearn.data.pictures import Pictures, take

HELD = 0.1  # share that is held out
MEASURED = 2000  # images whose mean and deviation are taken
LEAST = 1e-6  # deviation of a channel that divides
TEXTS = ("*.txt", "*.md", "*.py", "*.rst", "*.html", "*.csv", "*.json", "*.jsonl", "*.gz")  # names of files of texts


class Domain(Protocol):
    """Rows to pre-train on, and rows to be judged on."""

    name: str

    def draw(self, rows: int, random: torch.Generator) -> Tensor:
        """So many rows, each as likely."""
        ...

    def sample(self, rows: int, random: torch.Generator) -> Tensor:
        """So many rows, none of them twice."""
        ...

    def held_out(self, rows: int = 256) -> Iterator[Tensor]:
        """The rows held out, in batches."""
        ...

    def __len__(self) -> int:
        """The rows that `sample` has at most."""
        ...


class TextDomain:
    """A sequence of tokens, cut into windows.

    name: what reports call it; tokens: (length,) integers, which may be mapped from a file; window: tokens that a model sees at once;
    held: share at the end that is held out. Raises DataError where either part is shorter than one window and the token after it.

    >>> domain = TextDomain("abc", torch.arange(100, dtype=torch.uint8), window=4)
    >>> domain.draw(2, torch.Generator().manual_seed(0)).shape, [len(rows) for rows in domain.held_out()]
    (torch.Size([2, 5]), [2])
    """

    def __init__(self, name: str, tokens: Tensor, *, window: int = 128, held: float = HELD):
        check_count("text_domain", "window", window)
        check_range("text_domain", "held", held, 0.0, 0.5)
        if tokens.dim() != 1 or tokens.is_floating_point():
            raise ArgumentError(f"text_domain: tokens must be a row of integers, got {tokens.dtype} {tuple(tokens.shape)}.")
        cut = len(tokens) - int(held * len(tokens))
        self.name, self.window = name, window
        self.tokens, self.held = tokens[:cut], tokens[cut:]
        for part, length in (("to learn from", cut), ("held out", len(self.held))):
            if length < window + 1 and (held or part != "held out"):
                raise DataError(
                    f"{name}: {length} tokens {part} are fewer than a window of {window} and the token after it; bring more text, or "
                    "make the window smaller."
                )

    def __len__(self) -> int:
        """Windows that do not overlap, in the part to learn from."""
        return (len(self.tokens) - 1) // self.window

    def draw(self, rows: int, random: torch.Generator) -> Tensor:
        """(rows, window + 1), beginning anywhere."""
        return self._windows(self.tokens, torch.randint(len(self.tokens) - self.window, (rows,), generator=random))

    def sample(self, rows: int, random: torch.Generator) -> Tensor:
        """(rows, window + 1) that do not overlap but for the token that ends one and begins the next."""
        return self._windows(self.tokens, self.window * torch.randperm(len(self), generator=random)[:rows])

    def held_out(self, rows: int = 256) -> Iterator[Tensor]:
        """Windows one after the other; the first token of each is the last one of the window before."""
        count = max(0, (len(self.held) - 1) // self.window)
        for first in range(0, count, rows):
            yield self._windows(self.held, self.window * torch.arange(first, min(first + rows, count)))

    def _windows(self, tokens: Tensor, starts: Tensor) -> Tensor:
        rows = tokens[starts[:, None] + torch.arange(self.window + 1)]
        return rows.int() if rows.dtype == torch.uint16 else rows  # torch cannot write into rows of uint16, as replay does


class ImageDomain:
    """Images without labels.

    images: (rows, channels, height, width) floats, which are handed out as they are, or uint8, also as `Pictures` that are decoded when
    they are asked for; held: images of their own to be judged on, by default a tenth of `images`, drawn once and for all; mean, std: by
    channel, of pixels in 0..1, with which uint8 images are standardised (default: those of at most 2,000 of them).

    >>> domain = ImageDomain("dots", torch.zeros(20, 1, 4, 4))
    >>> domain.draw(3, torch.Generator().manual_seed(0)).shape, len(domain), [len(rows) for rows in domain.held_out()]
    (torch.Size([3, 1, 4, 4]), 18, [2])
    """

    def __init__(
        self,
        name: str,
        images: Tensor | Pictures,
        held: Tensor | Pictures | None = None,
        *,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ):
        if not (images.dtype.is_floating_point or images.dtype == torch.uint8):
            raise ArgumentError(f"image_domain: images must be uint8, or floats that are standardised, got {images.dtype}.")
        if held is None:
            order = torch.randperm(len(images), generator=generator(0, "held out"))  # files come class by class
            cut = len(images) - int(HELD * len(images))
            images, held = take(images, order[:cut]), take(images, order[cut:])
        if not len(images) or not len(held):
            raise DataError(f"{name}: {len(images)} images to learn from and {len(held)} held out; both need at least one.")
        self.name, self.images, self.held = name, images, held
        self.mean, self.std = mean, std
        if mean is None and images.dtype == torch.uint8:
            self.mean, self.std = moments(images)

    def __len__(self) -> int:
        """Images to learn from."""
        return len(self.images)

    def draw(self, rows: int, random: torch.Generator) -> Tensor:
        """(rows, ...), each image as likely."""
        return self._floats(self.images[torch.randint(len(self.images), (rows,), generator=random)])

    def sample(self, rows: int, random: torch.Generator) -> Tensor:
        """(rows, ...), no image twice."""
        return self._floats(self.images[torch.randperm(len(self.images), generator=random)[:rows]])

    def held_out(self, rows: int = 256) -> Iterator[Tensor]:
        """The images held out, in their order."""
        for first in range(0, len(self.held), rows):
            yield self._floats(self.held[first : first + rows])

    def _floats(self, x: Tensor) -> Tensor:
        return x if x.dtype.is_floating_point else (x.float() / 255.0 - self.mean) / self.std


def moments(images: Tensor | Pictures) -> tuple[Tensor, Tensor]:
    """(mean, deviation) of each channel, (channels, 1, 1), of uint8 images as 0..1; of at most 2,000 of them, evenly spaced."""
    some = images[torch.arange(0, len(images), -(-len(images) // MEASURED))].float() / 255.0
    return some.mean((0, 2, 3)).view(-1, 1, 1), some.std((0, 2, 3)).view(-1, 1, 1).clamp_min(LEAST)


def text_folder(path: str | Path, *patterns: str) -> list[Path]:
    """The files of texts in a folder and in its folders, in the order of their paths; without what is hidden (.git, say).

    patterns: of names, such as "*.py" (by default the usual endings of texts, packed or not). Raises DataError where none is there.
    """
    folder, wanted = Path(path), patterns or TEXTS
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder.")
    within = (file.relative_to(folder) for file in folder.rglob("*") if any(map(file.match, wanted)) and file.is_file())
    shown = [path for path in within if not any(part.startswith(".") for part in path.parts)]
    found = [folder / path for path in sorted(shown, key=lambda path: path.parts)]
    if not found:
        raise DataError(f"{folder}: no file is named like {', '.join(wanted)}.")
    return found


def text_bytes(*files: str | Path) -> Tensor:
    """(length,) uint8: the bytes of files, one after the other; a single plain file is mapped and not read. `.gz` is unpacked.

    Raises DataError where a file is missing or they hold nothing.
    """
    import gzip

    parts = []
    for file in map(Path, files):
        if not file.is_file():
            raise DataError(f"{file}: there is no such file.")
        if file.suffix == ".gz":
            parts.append(numpy.frombuffer(gzip.decompress(file.read_bytes()), numpy.uint8))
        elif file.stat().st_size:
            parts.append(numpy.memmap(file, numpy.uint8, mode="r"))
    if not sum(map(len, parts)):
        raise DataError(f"{', '.join(map(str, files))}: no text at all.")
    whole = parts[0] if len(parts) == 1 else numpy.concatenate(parts)
    return _tensor(whole)


def _tensor(values: numpy.ndarray) -> Tensor:
    """Without a copy, also of what may not be written: rows are gathered from it, which copies them."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that it cannot mark a tensor as read-only
        return torch.from_numpy(values)
