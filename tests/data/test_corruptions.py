"""`corrupt` on every type, severity, size, dtype and channel; the same rows whatever stands beside them; speed."""

import time

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError, InputError
from everlearn.data.corruption_tables import TYPES
from everlearn.data.corruptions import ALL_TYPES, FUNCTIONS, corrupt, label_of

SMOOTH = (
    "brightness",
    "contrast",
    "saturate",
    "gaussian_noise",
    "fog",
    "gaussian_blur",
    "speckle_noise",
    "jpeg_compression",
)


@pytest.fixture(scope="module")
def images():
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 8, 8, generator=random)
    fine = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear", align_corners=False)
    return (fine * 230 + 10).to(torch.uint8)


def test_every_type_has_its_function():
    assert set(FUNCTIONS) == set(ALL_TYPES) and ALL_TYPES[:15] == TYPES


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_all_severities_for_bytes_and_floats_grey_and_colour(images, kind):
    for severity in range(1, 6):
        for channels in (1, 3):
            whole = images[:, :channels]
            found = corrupt(whole, kind, severity)
            real = corrupt(whole.double() / 255.0, kind, severity)
            assert found.dtype == torch.uint8 and real.dtype == torch.float64 and found.shape == real.shape == whole.shape
            assert real.min() >= 0.0 and real.max() <= 1.0
            assert (found.double() - real * 255.0).abs().max() <= 0.5001  # rounded, and nothing else
            if not (channels == 1 and kind == "saturate"):
                assert not torch.equal(found, whole) or (kind, severity) in {("pixelate", 1)}


@pytest.mark.parametrize("kind", ALL_TYPES)
def test_a_row_is_the_same_in_every_batch_and_a_seed_is_another_world(images, kind):
    together = corrupt(images, kind, 4, index=[5, 9, 2])
    assert torch.equal(corrupt(images[[2, 1]], kind, 4, index=torch.tensor([2, 9])), together[[2, 1]])
    random = not torch.equal(corrupt(images, kind, 4, seed=1, index=[5, 9, 2]), together)
    still = (
        "defocus_blur",
        "zoom_blur",
        "brightness",
        "contrast",
        "pixelate",
        "jpeg_compression",
        "gaussian_blur",
        "saturate",
    )
    assert random is (kind not in still)


@pytest.mark.parametrize("kind", SMOOTH)
def test_a_higher_severity_is_further_from_the_image(images, kind):
    severities = (3, 5) if kind == "saturate" else (1, 3, 5)
    away = [float((corrupt(images, kind, severity).float() - images.float()).abs().mean()) for severity in severities]
    assert away == sorted(away) and away[-1] > away[0]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 36), (3, 64, 64), (1, 65, 65), (3, 224, 224)])
def test_any_size(shape):
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(3))
    for kind in TYPES:
        found = corrupt(x, kind, 5)
        assert found.shape == x.shape and torch.isfinite(found).all() and not torch.equal(found, x)


def test_a_photograph_of_frost_takes_the_place_of_the_texture(images):
    photo = torch.full((3, 200, 220), 255, dtype=torch.uint8)
    found = corrupt(images.float() / 255.0, "frost", 5, photos=[photo])
    assert torch.allclose(found, (0.75 * images.float() / 255.0 + 0.45).clamp(max=1.0), atol=1e-5)
    assert label_of("frost") == "frost_synthetic" and label_of("frost", [photo]) == "frost" and label_of("fog") == "fog"
    with pytest.raises(DataError, match=r"a photograph of frost has the shape \(3, 100, 100\)"):
        corrupt(images, "frost", photos=[photo[:, :100, :100]])
    with pytest.raises(DataError, match="photos holds no photograph"):
        corrupt(images, "frost", photos=[])


def test_inputs_are_not_changed_and_the_global_generator_is_left_alone(images):
    before, state = images.clone(), torch.get_rng_state()
    for kind in ALL_TYPES:
        corrupt(images, kind)
    assert torch.equal(images, before) and torch.equal(torch.get_rng_state(), state)
    assert corrupt(images[:0], "fog").shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("x", "options", "error", "words"),
    [
        (torch.full((1, 1, 32, 32), 1.5), {}, DataError, "images must lie in 0..1, got 1.5 to 1.5"),
        (torch.full((1, 1, 32, 32), torch.nan), {}, DataError, "images must lie in 0..1"),
        (torch.zeros(1, 2, 32, 32), {}, DataError, r"\(batch, 1 or 3, height, width\).*got \(1, 2, 32, 32\)"),
        (torch.zeros(32, 32), {}, DataError, r"got \(32, 32\)"),
        (torch.zeros(1, 1, 32, 32).numpy(), {}, DataError, r"must be a tensor, got ndarray. Use torch.as_tensor\(images\)"),
        (torch.zeros(1, 1, 4, 32), {}, DataError, "sides of 8 or more"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.int64), {}, DataError, "uint8 or floating point"),
        (torch.zeros(2, 1, 32, 32), {"index": [1]}, InputError, "a number for each of the 2 images, got 1"),
        (torch.zeros(1, 1, 32, 32), {"type": "rain"}, ArgumentError, "unknown corruption 'rain'; .*known: brightness"),
        (torch.zeros(1, 1, 32, 32), {"severity": 0}, ArgumentError, "severity must be one of 1, 2, 3, 4, 5"),
    ],
)
def test_refusals(x, options, error, words):
    with pytest.raises(error, match=words):
        corrupt(x, **{"type": "fog", **options})


def test_fifteen_types_of_a_thousand_images_take_far_less_than_a_minute():
    """At least 3,000 images of 32 x 32 a second for each core, as a mean over the types: 5 s for 15 x 1,000. Here on a tenth."""
    x = torch.randint(0, 256, (100, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for kind in TYPES:
        corrupt(x[:2], kind)  # kernels are made once
    start = time.process_time()
    for kind in TYPES:
        corrupt(x, kind)
    rate = 100 * len(TYPES) / (time.process_time() - start)
    print(f"{rate:.0f} images a second")
    assert rate >= 3000
