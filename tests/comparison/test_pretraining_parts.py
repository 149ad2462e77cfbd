"""Domains and networks of a pre-training by name: where they are found, what size they get, and what is refused."""

import numpy
import pytest
import torch

from everlearn.comparison.pretraining_parts import build_network, deliver, delivered, read_domains, shape_of, tokenizer_of
from everlearn.core.errors import ArgumentError, DataError, SpecError
from everlearn.data.pretraining import ImageDomain
from everlearn.nn.masked_autoencoder import MaskedAutoencoder
from everlearn.nn.tiny_gpt import TinyGPT


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "b.txt").write_text("b" * 400)
    (tmp_path / "deep" / "er" / "a.py").write_text("a" * 400)
    (tmp_path / "deep" / "picture.png").write_bytes(b"no text")
    (tmp_path / "one.txt").write_text("one " * 100)
    images = numpy.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=numpy.uint8)
    numpy.savez(tmp_path / "dots.npz", x=images, y=numpy.arange(40) % 4)
    return tmp_path


def test_files_and_folders_become_domains_of_their_names(corpora):
    one, two, named = read_domains(["one.txt", "deep", "third=one.txt"], window=8)
    assert [domain.name for domain in (one, two, named)] == ["one", "deep", "third"]
    assert bytes(one.tokens[:8].tolist()) == b"one one "
    text = bytes(two.tokens.tolist()) + bytes(two.held.tolist())
    assert text == b"b" * 400 + b"a" * 400  # sorted by path, and no picture among them
    assert shape_of(one) == {"vocabulary": 256, "window": 8}


def test_files_are_named_by_a_pattern_and_columns_of_the_hub_by_a_call(corpora, monkeypatch):
    datasets = pytest.importorskip("datasets")
    code, named = read_domains(["deep/*.py", "letters=deep/*.txt"], window=8)
    assert (code.name, named.name) == ("deep", "letters")
    assert bytes(code.tokens[:3].tolist()) == b"aaa" and bytes(named.tokens[:3].tolist()) == b"bbb"
    asked = []

    def download(name, config):
        asked.append((name, config))
        return {"verses": datasets.Dataset.from_dict({"verse": ["two " * 50, "lines " * 50]})}

    monkeypatch.setattr("everlearn.data.hub_text.download", download)
    text = "hub_text('some/one', column='verse', config='en', split='verses')"
    first, second = read_domains([text, f"en={text}"], window=8, cache=corpora / "kept")
    assert (first.name, second.name) == ("some/one", "en") and asked == 2 * [("some/one", "en")]
    assert torch.equal(torch.cat([first.tokens, first.held])[-7:], torch.tensor(list(b"lines \n"), dtype=torch.uint8))
    assert sorted(path.name for path in (corpora / "kept").glob("*.tokens")) == ["en.tokens", "some-one.tokens"]
    (bare,) = read_domains(["hub_text(verses, column=verse, split=verses)"], window=8, cache=corpora / "bare")
    assert bare.name == "verses" and len(bare.tokens) == len(first.tokens)  # a shell takes quotes away
    with pytest.raises(ArgumentError, match="en: pass cache="):
        read_domains([f"en={text}"], window=8)
    with pytest.raises(DataError, match=r"no file is named like \*\.rs"):
        read_domains(["deep/*.rs"], window=8)


def test_images_are_standardised_by_channel_and_cut_into_classes(corpora):
    (whole,) = read_domains(["npz('dots.npz')"])
    pixels = torch.cat([whole.sample(36, torch.Generator()), *whole.held_out()])
    assert whole.images.dtype == torch.uint8 and pixels.shape == (40, 3, 8, 8)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(pixels.std((0, 2, 3)), torch.ones(3), atol=0.05, rtol=0)
    parts = read_domains(["npz('dots.npz')"], split=2)
    assert [domain.name for domain in parts] == ["0+1", "2+3"] and [len(domain) for domain in parts] == [18, 18]
    (named, _) = read_domains(["mine=npz('dots.npz')"], split=2)
    assert named.name == "mine 0+1" and shape_of(named) == {"size": 8, "channels": 3}


def test_both_parts_of_a_split_share_one_scale(corpora):
    first, second = read_domains(["npz('dots.npz')"], split=2)
    assert torch.equal(first.mean, second.mean) and torch.equal(first.std, second.std)
    assert first.mean.shape == (3, 1, 1)


def test_folders_of_pictures_without_classes(corpora):
    from PIL import Image

    for number in range(20):
        place = corpora / "shots" / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6 + number % 2, 6), (number, 0, 0)).save(place / f"{number}.png")
    with pytest.raises(DataError, match="images differ in size"):
        read_domains(["shots"])
    (shots,) = read_domains(["shots"], size=8)
    assert (shots.name, len(shots), shape_of(shots)) == ("shots", 18, {"size": 8, "channels": 3})
    (corpora / "shots" / "labels.csv").write_text("file,label\n" * 500)  # one list among twenty pictures
    (corpora / "shots" / "._0.png").write_bytes(b"hidden, and no picture")
    (shots,) = read_domains(["shots"], size=8)
    assert len(shots) == 18
    Image.new("L", (8, 8)).save(corpora / "grey.png")
    with pytest.raises(DataError, match=r"grey\.png: one picture makes no domain; name the folder"):
        read_domains(["grey.png"])
    grey = corpora / "grey"
    grey.mkdir()
    for number in range(10):
        Image.new("L", (8, 8)).save(grey / f"{number}.png")
    with pytest.raises(DataError, match=r"one \(channels, height, width\), got shots \(3, 8, 8\), grey \(1, 8, 8\)"):
        read_domains(["shots", "grey"], size=8)
    with pytest.raises(DataError, match=r"images must be square, .* got \(36, 3, 4, 8\)\. .*--size 32"):
        shape_of(ImageDomain("wide", torch.zeros(36, 3, 4, 8), torch.zeros(1, 3, 4, 8)))


def test_a_test_part_is_held_out_class_by_class():
    first, *_, last = read_domains(["mnist10k"], split=5)
    assert (first.name, last.name) == ("0+1", "8+9") and first.images.shape[1:] == (1, 28, 28)
    assert len(first) + len(first.held) == pytest.approx(2115, abs=5)  # zeros and ones among the 10,000


def test_networks_get_the_size_that_is_needed_unless_they_say_another():
    text = {"vocabulary": 50, "window": 16}
    model = build_network("auto", text, seed=3)
    assert isinstance(model, TinyGPT) and (model.vocabulary, model.length) == (50, 16)
    assert torch.equal(model.table, TinyGPT(50, length=16, seed=3).table)
    assert build_network("tiny_gpt(length=99, dim=8)", text).positions.shape == (99, 8)
    for size, patch in ((28, 7), (8, 2), (6, 2), (9, 3), (7, 7)):
        if size == patch:
            continue
        model = build_network("masked_autoencoder(dim=12)", {"size": size, "channels": 2})
        assert isinstance(model, MaskedAutoencoder) and (model.patch, model.embed.in_features) == (patch, 2 * patch**2)


def test_what_was_delivered_is_read_again(tmp_path):
    shape = {"vocabulary": 9, "window": 4}
    model = build_network("tiny_gpt(dim=8, depth=1)", shape, seed=7)
    deliver(model, tmp_path, text="tiny_gpt(dim=8, depth=1)", shape=shape)
    again = delivered(tmp_path)
    x = torch.randint(9, (2, 4))
    assert torch.equal(again(x), model(x)) and not again.training
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(DataError, match="no delivered model can be read"):
        delivered(tmp_path)
    with pytest.raises(DataError, match="nowhere: no delivered model"):
        delivered(tmp_path / "nowhere")


def test_what_is_not_there_or_fits_nothing_is_refused(corpora):
    with pytest.raises(DataError, match=r"gone\.txt: there is no such file or folder"):
        read_domains(["gone.txt"])
    for text in ("", "en="):
        with pytest.raises(DataError, match=rf"'{text}' names no domain; write NAME=WHAT, as in en=english\.txt"):
            read_domains([text])
    with pytest.raises(DataError, match="corpora/en: there is no such file or folder"):
        read_domains(["en=corpora/en"])
    with pytest.raises(DataError, match="unknown data set 'mnist11k'"):
        read_domains(["mnist11k"])
    with pytest.raises(ArgumentError, match="some domains are texts and others images"):
        read_domains(["one.txt", "npz('dots.npz')"], window=8)
    with pytest.raises(DataError, match="fewer than a window of 500"):
        read_domains(["one.txt"], window=500)
    with pytest.raises(DataError, match=r"iris: rows of shape \(4,\) are no images"):
        read_domains(["iris"])
    with pytest.raises(ArgumentError, match=r"split must be 1..4, the classes of .*, got 9"):
        read_domains(["npz('dots.npz')"], split=9)
    (corpora / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: the folder holds neither texts \(\*\.txt, .*\) nor pictures \(\.png, "):
        read_domains(["empty"])
    with pytest.raises(ArgumentError, match="split=2 cuts data sets of images by their classes, and no domain is one"):
        read_domains(["one.txt"], window=8, split=2)
    with pytest.raises(
        ArgumentError, match="size=8 brings the pictures of folders to one size, and no domain is such a folder"
    ):
        read_domains(["npz('dots.npz')"], size=8)
    with pytest.raises(ArgumentError, match="size must be an int >= 1, got 0"):
        read_domains(["deep"], size=0)
    with pytest.raises(ArgumentError, match="split must be an int >= 0, got -1"):
        read_domains(["npz('dots.npz')"], split=-1)
    for text in ("hub", "hub()", "hub(vocabulary=9)"):
        with pytest.raises(SpecError, match=r"names no folder; write hub\('FOLDER'\)"):
            tokenizer_of(None, text)
    for text in ("hub('gone')", "hub(folder='gone')"):
        with pytest.raises(DataError, match="there is no folder 'gone'"):
            tokenizer_of(None, text)
    with pytest.raises(SpecError, match="unknown model of texts 'tiny_gtp'; did you mean 'tiny_gpt'"):
        build_network("tiny_gtp()", {"vocabulary": 9, "window": 4})
    with pytest.raises(SpecError, match="unknown model of images 'tiny_gpt'; known: masked_autoencoder"):
        build_network("tiny_gpt()", {"size": 8, "channels": 1})
    with pytest.raises(SpecError, match=r"gives OrderedDict, not a torch\.nn\.Module"):
        build_network("collections:OrderedDict()", {"vocabulary": 9, "window": 4})
