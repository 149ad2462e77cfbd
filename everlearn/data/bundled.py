"""Real data that comes with scikit-learn and needs no network.

Tables have columns with mean 0 and deviation 1 over all rows, since networks learn badly from unscaled columns; pixels of digits
are divided by 16, their largest value.
"""

from dataclasses import replace
from typing import Any

import numpy
import torch

from everlearn.core.errors import ArgumentError
from everlearn.data.dataset import Data
from everlearn.data.scaling import standardise

SIDE = 8  # of a handwritten digit, in pixels


def digits(side: int | None = None) -> Data:
    """Handwritten digits: 1,797 images of 8x8 pixels as 64 columns 0..1, 10 classes.

    side: 8, 16, 24 or another multiple of 8 gives images (1, side, side) of bytes instead, each pixel repeated, for networks and
    scenarios of images. Raises ArgumentError.

    Reference: Alpaydin & Kaynak (1998), Optical recognition of handwritten digits, UCI.

    >>> data = digits()
    >>> tuple(data.x.shape), float(data.x.min()), float(data.x.max())
    ((1797, 64), 0.0, 1.0)
    >>> tuple(digits(side=32).x.shape)
    (1797, 1, 32, 32)
    """
    from sklearn.datasets import load_digits

    if side is not None and (not isinstance(side, int) or side < SIDE or side % SIDE):
        raise ArgumentError(f"digits: side must be a multiple of {SIDE}, such as 32, or None for columns, got {side!r}.")
    bunch = load_digits()
    if side is not None:
        pixels = numpy.round(bunch.images * (255.0 / 16.0)).astype(numpy.uint8)[:, None]
        pixels = pixels.repeat(side // SIDE, axis=2).repeat(side // SIDE, axis=3)
        return replace(_data("digits", bunch, pixels), name=f"digits(side={side})", features=())
    return _data("digits", bunch, (bunch.data / 16.0).astype(numpy.float32))


def iris() -> Data:
    """Iris flowers: 150 rows of 4 lengths, standardised, 3 species.

    Reference: Fisher (1936), The use of multiple measurements in taxonomic problems.
    """
    from sklearn.datasets import load_iris

    bunch = load_iris()
    return _data("iris", bunch, standardise(bunch.data))


def wine() -> Data:
    """Wines: 178 rows of 13 chemical measurements, standardised, 3 cultivars.

    Reference: Aeberhard & Forina (1992), Wine, UCI.
    """
    from sklearn.datasets import load_wine

    bunch = load_wine()
    return _data("wine", bunch, standardise(bunch.data))


def breast_cancer() -> Data:
    """Tumours: 569 rows of 30 measurements of cell nuclei, standardised, malignant or benign.

    Reference: Street, Wolberg & Mangasarian (1993), Nuclear feature extraction for breast tumor diagnosis.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return _data("breast_cancer", bunch, standardise(bunch.data))


def _data(name: str, bunch: Any, x: numpy.ndarray) -> Data:
    y = torch.from_numpy(bunch.target.astype(numpy.int64))
    classes = tuple(str(label) for label in bunch.target_names)
    return Data(name, torch.from_numpy(x), y, classes, tuple(str(feature) for feature in bunch.feature_names))


BUNDLED = {"digits": digits, "iris": iris, "wine": wine, "breast_cancer": breast_cancer}
