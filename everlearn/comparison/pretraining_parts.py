"""The parts of a pre-training by name: domains from files, folders and data sets, networks of the size that they need, tokenizers.

english.txt                     a text file, named english          en=corpora/english      a folder of texts, named en
code=src/*.py                   the files of a folder that are named so, those in its folders too; quote it for the shell
wiki=hub_text('user/name')      a column of texts in a data set of the Hugging Face hub
photos                          a folder of pictures, named photos; `size` brings them to one size
mnist10k                        a data set of images by its name or call string; `split` cuts it into domains of classes
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from everlearn.comparison.catalog import sources
from everlearn.core.errors import ArgumentError, DataError, SpecError, check_count
from everlearn.core.random import isolated
from everlearn.core.spec import Call, build, parse
from everlearn.core.state import write_atomic
from everlearn.data.dataset import Data
from everlearn.data.hub_text import HubText, load_tokenizer, text_tokens, vocabulary
from everlearn.data.images import ENDINGS
from everlearn.data.load import load
from everlearn.data.pictures import pictures, take
from everlearn.data.pretraining import LEAST, TEXTS, ImageDomain, TextDomain, moments, text_bytes, text_folder
from everlearn.learners.pretraining_course import UNSAFE, write_weights
from everlearn.nn.causal import causal_model
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.tiny_gpt import TinyGPT

MODEL = "model.json"  # says what a delivered model is


def read_domains(
    texts: Sequence[str],
    *,
    window: int = 128,
    split: int = 0,
    size: int | None = None,
    reader: Any = None,
    cache: Path | None = None,
) -> list[Any]:
    """The domains of NAME=WHAT or WHAT: text files, folders of texts, texts of the hub, folders of images, data sets of images.

    window: tokens of a text at once; split: a data set of images in so many domains of classes; size: pixels to which images of folders
    are brought; reader: a Hugging Face tokenizer (None: bytes); cache: a folder where tokens are kept, and what comes from the hub.

    Raises DataError where one is missing, empty, too short, or of images of another shape; ArgumentError where texts and images are mixed,
    or where `split` or `size` is given and nothing is cut, or brought to a size.
    """
    check_count("pretrain", "split", split, low=0)
    if size is not None:
        check_count("pretrain", "size", size)
    found: list[Any] = []
    cut = sized = False
    for text in texts:
        name, sign, what = text.partition("=")
        if not sign or "(" in name:
            name, what = "", text
        if not what:
            raise DataError(f"pretrain: {text!r} names no domain; write NAME=WHAT, as in en=english.txt.")
        path = Path(what)
        shots, pages = _within(path)
        if path.is_file() and path.suffix.lower() in ENDINGS:
            raise DataError(f"{what}: one picture makes no domain; name the folder of its like.")
        if path.is_file() and path.suffix != ".npz":
            found.append(_text_domain(name or path.stem, [path], window, reader, cache))
        elif len(shots) > pages:  # a list of labels may lie among pictures, and figures among texts
            sized = True
            images = pictures(shots, len(shots), size and (size, size), None, lazy=True)[0]
            found.append(ImageDomain(name or path.resolve().name, images))
        elif pages:
            found.append(_text_domain(name or path.resolve().name, text_folder(path), window, reader, cache))
        elif "*" in path.name:
            found.append(_text_domain(name or path.parent.name, text_folder(path.parent, path.name), window, reader, cache))
        elif what.startswith("hub_text("):
            source = build(parse(what), {"hub_text": HubText}, "text", unknown=str)  # names without quotes are texts
            found.append(_text_domain(name or source.data, source, window, reader, cache))
        elif any(map(path.match, TEXTS)) or ("/" in what and "(" not in what and not path.exists()):
            raise DataError(f"{what}: there is no such file or folder.")
        else:
            found += _image_domains(name, what, split)
            cut = True
    if len({hasattr(domain, "images") for domain in found}) > 1:
        raise ArgumentError("pretrain: some domains are texts and others images; one model learns one kind.")
    shapes = {tuple(domain.images.shape[1:]): domain.name for domain in found if hasattr(domain, "images")}
    if len(shapes) > 1:
        told = ", ".join(f"{name} {shape}" for shape, name in shapes.items())
        raise DataError(f"pretrain: one model learns images of one (channels, height, width), got {told}.")
    if split and not cut:
        raise ArgumentError(
            f"pretrain: split={split} cuts data sets of images by their classes, and no domain is one. Leave it out."
        )
    if size and not sized:
        raise ArgumentError(
            f"pretrain: size={size} brings the pictures of folders to one size, and no domain is such a folder. Leave it out."
        )
    return found


def shape_of(domain: Any, reader: Any = None) -> dict[str, int]:
    """What a network must know of a domain: {vocabulary, window} of a text, {size, channels} of images. Raises DataError."""
    images = getattr(domain, "images", None)
    if images is None:
        return {"vocabulary": 256 if reader is None else vocabulary(reader), "window": domain.window}
    if len(images.shape) != 4 or images.shape[2] != images.shape[3]:
        raise DataError(
            f"{domain.name}: images must be square, (rows, channels, size, size), got {tuple(images.shape)}. Pictures of a folder are "
            "brought to squares by size (--size 32)."
        )
    return {"size": images.shape[2], "channels": images.shape[1]}


def build_network(text: str, shape: Mapping[str, int], seed: int = 0) -> nn.Module:
    """The network of a call string, or of "auto"; what it does not say of sizes is taken from the shape.

    >>> model = build_network("tiny_gpt(dim=32)", {"vocabulary": 10, "window": 8})
    >>> model.table.shape, model.length
    (torch.Size([10, 32]), 8)
    """
    if "window" in shape:
        made = partial(TinyGPT, shape["vocabulary"], length=shape["window"], seed=seed)
        usual, kind = {"tiny_gpt": made, "hub": partial(causal_model, **shape)}, "model of texts"
    else:
        side, kind = shape["size"], "model of images"
        usual = {"masked_autoencoder": partial(MaskedAutoencoder, side, shape["channels"], patch=_patch(side), seed=seed)}
    call = parse(next(iter(usual)) if text == "auto" else text)
    with isolated(seed, "network"):
        network = build(Call(call.name, call.args, call.kwargs, True), usual, kind)
    if not isinstance(network, nn.Module):
        raise SpecError(f"pretrain: {text} gives {type(network).__name__}, not a torch.nn.Module.")
    return network


def deliver(model: nn.Module, folder: Path, *, text: str, shape: Mapping[str, int], reader: Any = None) -> None:
    """Write a model into a folder, so that `delivered(folder)` makes it again; a Hugging Face model as its own library does."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        if reader is not None:
            reader.save_pretrained(folder)
        return
    write_weights(model, folder)
    write_atomic(folder / MODEL, json.dumps({"model": text, "shape": dict(shape)}, indent=1).encode())


def delivered(folder: str | Path) -> nn.Module:
    """The model that a pre-training left in a folder, in evaluation mode. Raises DataError where there is none."""
    place = Path(folder)
    if (place / "config.json").is_file():
        return causal_model(place).eval()
    try:
        told = json.loads((place / MODEL).read_text())
        model = build_network(told["model"], told["shape"])
        model.load_state_dict(load_file(place / "model.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: no delivered model can be read: {error}.") from error
    return model.eval()


def _patch(side: int) -> int:
    """The side of a patch: a quarter of the image where that is whole, else its least divisor above 1."""
    return side // 4 if side % 4 == 0 else next(part for part in range(2, side + 1) if side % part == 0)


def _text_domain(name: str, texts: Sequence[Path] | HubText, window: int, reader: Any, cache: Path | None) -> TextDomain:
    if reader is None and not isinstance(texts, HubText):
        return TextDomain(name, text_bytes(*texts), window=window)
    if cache is None:
        raise ArgumentError(f"{name}: pass cache=, a folder where its tokens are kept.")
    return TextDomain(name, text_tokens(texts, reader, cache / f"{UNSAFE.sub('-', name)}.tokens"), window=window)


def _within(folder: Path) -> tuple[list[Path], int]:
    """(pictures in a folder and in its folders, how many texts there are), without what is hidden; nothing where it is no folder."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    shots = sorted(path for path in files if path.suffix.lower() in ENDINGS)
    return shots, sum(f"*{path.suffix}" in TEXTS for path in files)


def _image_domains(name: str, what: str, split: int) -> list[ImageDomain]:
    try:
        data = build(parse(what), sources(), "data set", load)
        data = data if isinstance(data, Data) else load(what)
    except DataError as error:
        if not Path(what).is_dir():
            raise
        kinds = f"texts ({', '.join(TEXTS)}) nor pictures ({', '.join(ENDINGS)})"
        raise DataError(f"{what}: the folder holds neither {kinds}, and is no data set.") from error
    if len(data.x.shape) != 4:
        raise DataError(f"{what}: rows of shape {tuple(data.x.shape[1:])} are no images; pretrain takes texts and images.")
    x, test = data.x, data.test_x
    if x.dtype != torch.uint8:  # a table of floats: brought to mean 0 and deviation 1 here
        mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True).clamp_min(LEAST)
        x, test = (x - mean) / std, None if test is None else (test - mean) / std
    if not split:
        return [ImageDomain(name or data.name, x, test)]
    if not 1 <= split <= len(data.classes):
        raise ArgumentError(f"pretrain: split must be 1..{len(data.classes)}, the classes of {data.name}, got {split!r}.")
    mean, std = moments(x) if x.dtype == torch.uint8 else (None, None)
    found = []
    for group in torch.arange(len(data.classes)).chunk(split):
        label = "+".join(data.classes[index] for index in group)
        own = None if test is None else take(test, torch.isin(data.test_y, group))
        rows = take(x, torch.isin(data.y, group))
        found.append(ImageDomain(f"{name} {label}" if name else label, rows, own, mean=mean, std=std))
    return found


def tokenizer_of(named: str | None, model: str) -> Any:
    """A Hugging Face tokenizer, or None for bytes."""
    call = parse(model)
    if named is None and call.name != "hub":
        return None
    given = [*call.args, *(value for key, value in call.kwargs if key == "folder")]
    if named is None and not given:
        raise SpecError(f"pretrain: model={model!r} names no folder; write hub('FOLDER').")
    return load_tokenizer(named or str(given[0]))
