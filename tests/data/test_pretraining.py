"""Domains to pre-train on: where windows lie, what is held out, draws by a generator, files of bytes, and what is refused."""

import gzip

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data.pictures import Pictures
from everlearn.data.pretraining import ImageDomain, TextDomain, text_bytes, text_folder


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def counting():
    return TextDomain("counting", torch.arange(1000, dtype=torch.int32), window=10)


def test_a_text_is_split_before_anything_is_drawn_from_it(counting):
    drawn = counting.draw(4000, seeded())
    assert drawn.shape == (4000, 11) and drawn.dtype == torch.int32
    assert torch.equal(drawn, drawn[:, :1] + torch.arange(11, dtype=torch.int32))  # whole windows, in their order
    assert drawn.min() == 0 and drawn.max() == 899  # both ends of the first nine tenths
    held = torch.cat(list(counting.held_out(rows=4)))
    assert held[:, 0].tolist() == list(range(900, 990, 10)) and held.max() == 990


def test_every_beginning_is_as_likely(counting):
    starts = counting.draw(89_000, seeded(1))[:, 0].bincount(minlength=890)
    assert len(starts) == 890 and starts.min() > 100 - 6 * 10 and starts.max() < 100 + 6 * 10


def test_a_sample_has_no_window_twice(counting):
    assert len(counting) == 89
    whole = counting.sample(89, seeded())
    assert sorted(whole[:, 0].tolist()) == list(range(0, 890, 10)) and whole[:, 0].tolist() != list(range(0, 890, 10))
    assert torch.equal(counting.sample(5, seeded()), whole[:5])


def test_the_generator_alone_decides(counting):
    torch.manual_seed(0)
    first = counting.draw(5, seeded(3))
    torch.manual_seed(1)
    assert torch.equal(counting.draw(5, seeded(3)), first) and not torch.equal(counting.draw(5, seeded(4)), first)


def test_nothing_is_held_out_where_nothing_is_asked_for():
    domain = TextDomain("all", torch.arange(20), window=5, held=0.0)
    assert list(domain.held_out()) == [] and int(domain.draw(500, seeded()).max()) == 19


def test_texts_that_are_too_short_and_tokens_of_another_kind_are_refused():
    with pytest.raises(DataError, match="short: 9 tokens to learn from are fewer than a window of 20"):
        TextDomain("short", torch.arange(10), window=20)
    with pytest.raises(DataError, match="thin: 4 tokens held out are fewer than a window of 4 and the token after it"):
        TextDomain("thin", torch.arange(40), window=4)
    with pytest.raises(ArgumentError, match=r"row of integers, got torch\.float32"):
        TextDomain("floats", torch.zeros(100))
    with pytest.raises(ArgumentError, match="held"):
        TextDomain("much", torch.arange(100), window=4, held=0.9)


def test_images_are_drawn_evenly_and_those_held_out_are_others():
    images = torch.arange(50.0).view(50, 1, 1, 1)
    domain = ImageDomain("numbers", images)
    held = torch.cat(list(domain.held_out(rows=2))).flatten().tolist()
    drawn = set(domain.draw(5000, seeded()).flatten().tolist())
    assert len(held) == 5 and held != [45.0, 46.0, 47.0, 48.0, 49.0] and drawn == set(range(50)) - set(held)
    assert sorted(domain.sample(45, seeded()).flatten().tolist()) == sorted(drawn)
    own = ImageDomain("own", images, held=images[:3])
    assert len(own) == 50 and [len(rows) for rows in own.held_out(2)] == [2, 1]


def test_bytes_are_standardised_by_channel_as_they_are_handed_out():
    pixels = torch.randint(0, 256, (30, 3, 4, 4), generator=seeded(), dtype=torch.uint8)
    pixels[:, 2] = 7  # a channel that never changes
    domain = ImageDomain("raw", pixels, held=pixels)
    found = torch.cat(list(domain.held_out(rows=7)))
    by_hand = pixels.float() / 255.0
    mean, std = by_hand.mean((0, 2, 3), keepdim=True), by_hand.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    torch.testing.assert_close(found[:, :2], ((by_hand - mean) / std)[:, :2])
    assert found[:, 2].abs().max() < 1.0 and domain.images.dtype == torch.uint8
    given = ImageDomain("given", pixels, held=pixels, mean=torch.full((3, 1, 1), 0.5), std=torch.full((3, 1, 1), 0.25))
    torch.testing.assert_close(next(given.held_out(30)), 4.0 * by_hand - 2.0)


def test_pictures_are_decoded_when_they_are_asked_for(tmp_path):
    from PIL import Image

    files = []
    for number in range(20):
        files.append(tmp_path / f"{number:02d}.png")
        Image.new("L", (4, 4), 10 * number).save(files[-1])
    domain = ImageDomain("files", Pictures(files, (1, 4, 4)), mean=torch.zeros(1, 1, 1), std=torch.ones(1, 1, 1))
    held = torch.cat(list(domain.held_out()))[:, 0, 0, 0].mul(255).round().int().tolist()
    drawn = domain.draw(400, seeded())
    seen = set(drawn[:, 0, 0, 0].mul(255).round().int().tolist())
    assert len(held) == 2 and seen == set(range(0, 200, 10)) - set(held) and drawn.shape == (400, 1, 4, 4)
    files[0].unlink()
    with pytest.raises(DataError, match=r"00\.png"):
        domain.sample(18, seeded())


def test_images_of_another_kind_and_empty_sets_are_refused():
    with pytest.raises(ArgumentError, match=r"uint8, or floats that are standardised, got torch\.int64"):
        ImageDomain("raw", torch.zeros(4, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(DataError, match="few: 3 images to learn from and 0 held out"):
        ImageDomain("few", torch.zeros(3, 1, 2, 2))


def test_bytes_of_files_one_after_the_other(tmp_path):
    first, second, packed = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.gz"
    first.write_bytes(b"abc")
    second.write_bytes("ü".encode())
    packed.write_bytes(gzip.compress(b"xyz"))
    assert bytes(text_bytes(first).tolist()) == b"abc"
    assert bytes(text_bytes(first, second, packed).tolist()) == b"abc\xc3\xbcxyz"
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert bytes(text_bytes(empty, first).tolist()) == b"abc"
    with pytest.raises(DataError, match="no text at all"):
        text_bytes(empty)
    with pytest.raises(DataError, match=r"nothing\.txt: there is no such file"):
        text_bytes(tmp_path / "nothing.txt")


def test_a_plain_file_is_mapped_and_not_read(tmp_path):
    file = tmp_path / "large.txt"
    with open(file, "wb") as out:
        out.truncate(50 * 2**20)
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokens = text_bytes(file)
    assert len(tokens) == 50 * 2**20 and not tokens[-100:].any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB


def test_texts_of_a_folder_come_in_the_order_of_their_paths(tmp_path):
    for name in ("b.txt", "a-b/z.md", "a/deep/c.py", "a/d.txt.gz", "picture.png", ".git/e.txt", "a/.hidden.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "folder.txt").mkdir()

    def names(*patterns):
        return [path.relative_to(tmp_path).as_posix() for path in text_folder(tmp_path, *patterns)]

    assert names() == ["a/d.txt.gz", "a/deep/c.py", "a-b/z.md", "b.txt"]
    assert names("*.py", "*.png") == ["a/deep/c.py", "picture.png"]
    with pytest.raises(DataError, match=r"no file is named like \*\.rs"):
        names("*.rs")
    with pytest.raises(DataError, match=r"b\.txt: there is no such folder"):
        text_folder(tmp_path / "b.txt")


def test_rows_of_uint16_can_be_written_into_as_replay_does():
    tokens = torch.arange(60_000, 60_100, dtype=torch.int32)
    domain = TextDomain("high", tokens.to(torch.uint16), window=4)
    rows = domain.draw(50, seeded())
    assert rows.dtype == torch.int32 and torch.equal(rows, TextDomain("high", tokens, window=4).draw(50, seeded()))
    rows[torch.arange(50) % 2 == 0] = domain.sample(2, seeded())[:1]
    assert rows.min() >= 60_000
