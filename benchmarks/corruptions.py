"""Corruptions of images of 224 pixels beside imagecorruptions: how far images move, and how long that takes.

    python -m pip install imagecorruptions opencv-python-headless scikit-image numba "setuptools<80"
    python benchmarks/corruptions.py

Two photographs that come with scikit-learn, severities 1, 3 and 5. mean and deviation are those of the change of all values, 0..255,
over several draws; times are processor times of one thread for one image, each contender after one call that does not count. Writes
results/corruptions.md.
"""

import sys
from pathlib import Path
from time import process_time

import numpy
import skimage.filters
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from everlearn.data.corruption_tables import TYPES
from everlearn.data.corruptions import corrupt, label_of

SEVERITIES, DRAWS, SIDE = (1, 3, 5), 4, 224


def theirs():
    """imagecorruptions.corrupt, which was written for older releases of numpy and scikit-image."""
    plain = skimage.filters.gaussian

    def gaussian(image, sigma=1, *rest, multichannel=None, **options):
        return plain(image, sigma, *rest, **options, **({"channel_axis": -1} if multichannel else {}))

    skimage.filters.gaussian = gaussian
    numpy.float_ = numpy.float64
    import imagecorruptions

    return imagecorruptions.corrupt


def timed(make):
    """(what make(draw) gave for each draw, milliseconds of one image)."""
    make(0)
    start = process_time()
    found = [make(draw) for draw in range(DRAWS)]
    return numpy.stack(found).astype(float), 1e3 * (process_time() - start) / DRAWS / 2


def main():
    torch.set_num_threads(1)
    other = theirs()
    photos = [Image.fromarray(load_sample_image(name)).crop((110, 0, 537, 427)) for name in ("flower.jpg", "china.jpg")]
    clean = numpy.stack([numpy.asarray(photo.resize((SIDE, SIDE), Image.LANCZOS)) for photo in photos])
    images = torch.from_numpy(clean).permute(0, 3, 1, 2)
    numpy.random.seed(0)  # theirs draws from the global state
    lines = [
        "| type | severity | mean, theirs | ours | deviation, theirs | ours | ms, theirs | ours |",
        "|---|---:" + "|---:" * 6 + "|",
    ]
    for kind in TYPES:
        for severity in SEVERITIES:
            first, slow = timed(
                lambda draw, kind=kind, severity=severity: [
                    other(image, corruption_name=kind, severity=severity) for image in clean
                ]
            )
            second, quick = timed(
                lambda draw, kind=kind, severity=severity: (
                    corrupt(images, kind, severity, index=[2 * draw, 2 * draw + 1]).permute(0, 2, 3, 1).numpy()
                )
            )
            moved = [found - clean for found in (first, second)]
            figures = [f"{found.mean():.1f}" for found in moved] + [f"{found.std():.1f}" for found in moved]
            lines.append(
                f"| {label_of(kind)} | {severity} | " + " | ".join([*figures, f"{slow:.1f}", f"{quick:.1f}"]) + " |"
            )
            print(lines[-1], flush=True)
    Path(__file__).with_name("results").joinpath("corruptions.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
