"""Draw docs/corruptions.jpg: each corruption in five severities, on a photograph that comes with scikit-learn.

python scripts/corruption_grid.py [SIDE] [FILE]
"""

import sys

import numpy
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from everlearn.data.corruptions import ALL_TYPES, corrupt, label_of

THUMB, TEXT, BLOCKS = 88, 14, 2
COLUMNS = 6  # the image, then severities 1 to 5


def grid(side: int) -> Image.Image:
    """The picture, for images of a side."""
    photo = Image.fromarray(load_sample_image("flower.jpg")).crop((110, 0, 537, 427)).resize((side, side), Image.LANCZOS)
    clean = torch.from_numpy(numpy.asarray(photo).copy()).permute(2, 0, 1)[None]
    lines = -(-len(ALL_TYPES) // BLOCKS)
    sheet = Image.new("RGB", (BLOCKS * COLUMNS * THUMB + (BLOCKS - 1) * TEXT, lines * (THUMB + TEXT)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, kind in enumerate(ALL_TYPES):
        block, line = divmod(number, lines)
        left, top = block * (COLUMNS * THUMB + TEXT), line * (THUMB + TEXT)
        pen.text((left + 1, top), label_of(kind).replace("_", " "), fill="black")
        for column in range(COLUMNS):
            seen = clean if column == 0 else corrupt(clean, kind, column)
            tile = Image.fromarray(seen[0].permute(1, 2, 0).numpy())
            way = Image.LANCZOS if side > THUMB else Image.NEAREST
            sheet.paste(tile.resize((THUMB - 2, THUMB - 2), way), (left + column * THUMB, top + TEXT))
    return sheet


if __name__ == "__main__":
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 224
    grid(side).save(sys.argv[2] if len(sys.argv) > 2 else "docs/corruptions.jpg", quality=82)
