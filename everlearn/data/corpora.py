"""Texts to pre-train on, as bytes: public-domain books below EVERLEARN_DATA, and the Python source that every machine has.

Reference: van Rossum et al., The Python standard library (PSF licence), read where it is installed.
"""

import sysconfig
from pathlib import Path

from torch import Tensor

from everlearn.core.errors import DataError, check_count, closest
from everlearn.data.folders import roots, where
from everlearn.data.pretraining import text_bytes

FOLDER = "text_corpora"
ENDING = ".txt.gz"


def corpus(*names: str) -> Tensor:
    """(length,) uint8: the bytes of texts of the folder text_corpora, one after the other.

    names: such as "en_tinyshakespeare" or "de_genesis". Raises DataError where EVERLEARN_DATA has no such folder or text.
    """
    folder = next((root / FOLDER for root in roots() if (root / FOLDER).is_dir()), None)
    if folder is None:
        raise DataError(
            f"{FOLDER}: not found in {where()}. Set EVERLEARN_DATA to the folder that holds the folder of this name."
        )
    known = [path.name.removesuffix(ENDING) for path in sorted(folder.glob(f"*{ENDING}"))]
    for name in names:
        if name not in known:
            raise DataError(closest("text", name, known))
    return text_bytes(*(folder / f"{name}{ENDING}" for name in names))


def python_source(length: int = 1_000_000) -> Tensor:
    """(length,) uint8: the modules at the top of Python's standard library, by name, cut off after so many bytes.

    Which bytes these are depends on Python's version, not on the machine.
    """
    check_count("python_source", "length", length)
    folder = Path(sysconfig.get_path("stdlib"))
    return text_bytes(*(path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_sysconfigdata")))[:length]
