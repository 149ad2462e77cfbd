"""The published tables: complete, ordered, and scaled with the side of the image."""

import pytest

from everlearn.core.errors import ArgumentError
from everlearn.data.corruption_tables import (
    EXTRA_TYPES,
    NOISES,
    TABLE_32,
    TABLE_224,
    TYPES,
    strength,
)


def test_fifteen_types_and_three_more_each_in_five_severities():
    assert len(TYPES) == 15 and set(TABLE_32) == set(TABLE_224) == {*TYPES, *EXTRA_TYPES}
    for table in (TABLE_32, TABLE_224):
        assert {len(rows) for rows in table.values()} == {5}
    assert all(len(TABLE_32[kind][0]) == len(TABLE_224[kind][0]) for kind in TABLE_32)


def test_the_tables_as_published():
    assert strength("gaussian_noise", 5, 32, 32) == (0.10,) and strength("gaussian_noise", 5, 224, 224) == (0.38,)
    assert strength("jpeg_compression", 1, 32, 32) == (80,) and strength("jpeg_compression", 5, 224, 224) == (7,)
    assert strength("glass_blur", 4, 224, 224) == (1.1, 3, 2) and strength("glass_blur", 4, 32, 32) == (0.25, 1, 2)
    assert strength("elastic_transform", 2, 32, 32) == pytest.approx((1.6, 6.4, 2.24))
    assert strength("elastic_transform", 3, 224, 224) == pytest.approx((244 * 0.05, 244 * 0.01, 244 * 0.02))


def test_lengths_grow_with_the_side_and_other_numbers_stay():
    assert strength("motion_blur", 5, 28, 28) == (9, 2.5)  # never smaller than published for 32 pixels
    assert strength("motion_blur", 5, 48, 64) == (14, 2.5 * 1.5)  # the smaller side counts
    assert strength("motion_blur", 5, 112, 112) == (10, 7.5)
    assert strength("glass_blur", 1, 28, 28, "224") == (0.7 / 8, 1, 2)  # a whole distance is at least 1
    assert strength("snow", 5, 112, 112) == (0.55, 0.3, 2.5, 0.85, 6, 6.0, 0.55)
    assert strength("fog", 3, 64, 64) == strength("fog", 3, 32, 32)
    assert strength("fog", 3, 65, 65) == strength("fog", 3, 224, 224)


@pytest.mark.parametrize("kind", TYPES)
def test_strong_noise_changes_noise_alone(kind):
    usual, strong = strength(kind, 5, 28, 28), strength(kind, 5, 28, 28, "strong_noise")
    assert (strong == TABLE_224[kind][4]) if kind in NOISES else (strong == usual)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ("foggy", 5, "auto"),
            "unknown corruption 'foggy'; did you mean 'fog'\\? known: brightness, contrast, .*zoom_blur\\.$",
        ),
        (("fog", 0, "auto"), "severity must be one of 1, 2, 3, 4, 5, got 0"),
        (("fog", 6, "auto"), "got 6"),
        (("fog", True, "auto"), "got True"),
        (("fog", 2.0, "auto"), "severity must be one of 1, 2, 3, 4, 5, got 2.0"),
        (("fog", 5, "64"), "size_table must be one of auto, 32, 224, strong_noise, got '64'"),
    ],
)
def test_refusals(given, words):
    kind, severity, table = given
    with pytest.raises(ArgumentError, match=words):
        strength(kind, severity, 32, 32, table)
