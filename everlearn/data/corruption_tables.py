"""The published strengths of the common corruptions: two tables, for images of 32 and of 224 pixels, severities 1 to 5.

    side <= 64: the 32 table, lengths in pixels times max(1, side / 32);     above: the 224 table, lengths in pixels times side / 224

Lengths in pixels are radii, distances and deviations of blurs. `size_table` chooses a table by hand; "strong_noise" is the choice by
size with the noise of the 224 table, which is what makes noise on images of digits a difficulty at all.

Reference: Hendrycks & Dietterich (2019), Benchmarking neural network robustness to common corruptions, arXiv 1903.12261.
"""

from everlearn.core.errors import ArgumentError, closest

TYPES = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)  # in the order in which results are published
EXTRA_TYPES = ("speckle_noise", "gaussian_blur", "saturate")  # kept back for validation where the others are the test
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
SEVERITIES = (1, 2, 3, 4, 5)
SIZE_TABLES = ("auto", "32", "224", "strong_noise")
SMALL, LARGE, BETWEEN = 32, 224, 64
ELASTIC_SIDE = 244  # of the 224 table: a slip of the published code, kept, since every published figure was made with it

Strength = tuple[float, ...]

TABLE_32: dict[str, tuple[Strength, ...]] = {
    "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    "shot_noise": ((500,), (250,), (100,), (75,), (50,)),
    "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    "speckle_noise": ((0.06,), (0.1,), (0.12,), (0.16,), (0.2,)),
    "gaussian_blur": ((0.4,), (0.6,), (0.7,), (0.8,), (1.0,)),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "snow": (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ),
    "frost": ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    "saturate": ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    "elastic_transform": ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
}
TABLE_224: dict[str, tuple[Strength, ...]] = {
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "speckle_noise": ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
    "gaussian_blur": ((1.0,), (2.0,), (3.0,), (4.0,), (6.0,)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ),
    "frost": ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "saturate": ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
    "elastic_transform": ((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
}
# which numbers of a strength are lengths in pixels, and which of those are whole
LENGTHS = {"defocus_blur": (0,), "glass_blur": (0, 1), "motion_blur": (0, 1), "snow": (4, 5), "gaussian_blur": (0,)}
WHOLE = {"glass_blur": (1,), "motion_blur": (0,), "snow": (4,)}


def strength(type: str, severity: int, height: int, width: int, size_table: str = "auto") -> Strength:
    """The numbers of one corruption for images of a size. Raises ArgumentError for an unknown type, severity or table.

    >>> strength("motion_blur", 5, 32, 32), strength("motion_blur", 5, 224, 224), strength("motion_blur", 5, 64, 64)
    ((9, 2.5), (20, 15.0), (18, 5.0))
    """
    check_strength("corrupt", type, severity, size_table)
    side = min(height, width)
    strong = size_table == "strong_noise" and type in NOISES
    large = size_table == "224" or strong or (size_table != "32" and side > BETWEEN)
    found = (TABLE_224 if large else TABLE_32)[type][severity - 1]
    if type == "elastic_transform":
        return tuple(part * side * (ELASTIC_SIDE / LARGE if large else 1.0) for part in found)
    scale = side / LARGE if large else max(1.0, side / SMALL)
    lengths, whole = LENGTHS.get(type, ()), WHOLE.get(type, ())
    return tuple(
        max(1, round(value * scale)) if place in whole else value * scale if place in lengths else value
        for place, value in enumerate(found)
    )


def check_strength(owner: str, type: str, severity: int, size_table: str) -> None:
    """Refuse an unknown type, severity or table."""
    if type not in TABLE_32:
        raise ArgumentError(f"{owner}: {closest('corruption', str(type), TABLE_32)}")
    if not isinstance(severity, int) or isinstance(severity, bool) or severity not in SEVERITIES:
        raise ArgumentError(f"{owner}: severity must be one of 1, 2, 3, 4, 5, got {severity!r}.")
    if size_table not in SIZE_TABLES:
        raise ArgumentError(f"{owner}: size_table must be one of {', '.join(SIZE_TABLES)}, got {size_table!r}.")
