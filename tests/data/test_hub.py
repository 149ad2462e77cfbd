"""The hub through its client library: what a downloaded set becomes, and fast, clear refusals without a network."""

import os
import subprocess
import sys
import time

import numpy
import pytest
import torch
from PIL import Image

from everlearn.core.errors import ArgumentError, DataError, MissingExtraError
from everlearn.data import hub as room
from everlearn.data.hub import hub
from everlearn.data.load import load

datasets = pytest.importorskip("datasets")


def offer(monkeypatch, **parts):
    """The hub answers with these parts, whatever is asked."""
    asked = []
    monkeypatch.setattr(room, "_refuse_unreachable", lambda name: None)

    def load_dataset(name, config=None):
        asked.append((name, config))
        return datasets.DatasetDict(parts)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def pets(rows, start=0):
    features = datasets.Features(
        {
            "weight": datasets.Value("float32"),
            "fur": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["dog", "cat"]),
        }
    )
    weights = [float(start + row) for row in range(rows)]
    return datasets.Dataset.from_dict(
        {"weight": weights, "fur": ["long", "short"] * (rows // 2), "label": [0, 1] * (rows // 2)}, features=features
    )


def pictures(*sizes, mode="RGB"):
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.Value("string")})
    images = [
        Image.new(mode, (size, size), 10 * (place + 1) if mode == "L" else (place, 2, 3)) for place, size in enumerate(sizes)
    ]
    kinds = ["cat" if place % 2 else "ant" for place in range(len(sizes))]
    return datasets.Dataset.from_dict({"image": images, "kind": kinds}, features=features)


def test_columns_are_encoded_with_statistics_of_the_training_part(monkeypatch):
    asked = offer(monkeypatch, train=pets(4), test=pets(2, start=100))
    data = hub("someone/pets", config="small")
    assert asked == [("someone/pets", "small")]
    assert data.features == ("weight", "fur=long", "fur=short") and data.classes == ("dog", "cat")
    deviation = 1.25**0.5  # of 0, 1, 2, 3
    assert data.x[:, 0].tolist() == pytest.approx([-1.5 / deviation, -0.5 / deviation, 0.5 / deviation, 1.5 / deviation])
    assert data.test_x[0, 0] == pytest.approx(98.5 / deviation) and data.test_y.tolist() == [0, 1]
    assert data.name == "hub('someone/pets', config='small')"


def test_parts_columns_and_target_can_be_named(monkeypatch):
    offer(monkeypatch, train=pets(4), validation=pets(6))
    assert hub("pets").test_x is None
    assert len(hub("pets", split="validation", test="train").test_x) == 4
    assert hub("pets", test=None).test_x is None
    assert hub("pets", drop=("fur",)).features == ("weight",)
    assert hub("pets", target="fur").classes == ("long", "short")


def test_pictures_become_bytes(monkeypatch):
    offer(monkeypatch, train=pictures(4, 4), test=pictures(4, 4))
    data = hub("pictures", target="kind")
    assert data.x.shape == (2, 3, 4, 4) and data.x.dtype == torch.uint8 and data.x[1, :, 0, 0].tolist() == [1, 2, 3]
    assert data.classes == ("ant", "cat") and data.test_x.shape == (2, 3, 4, 4)
    offer(monkeypatch, train=pictures(4, 4, mode="L"))
    assert hub("pictures", target="kind").x.shape == (2, 1, 4, 4)
    offer(monkeypatch, train=pictures(4, 6))
    with pytest.raises(DataError, match=r"row 1 is an image of \(6, 6\) pixels.*size=32"):
        hub("pictures", target="kind")
    assert hub("pictures", target="kind", size=8).x.shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"split": "trian"}, DataError, "unknown split 'trian'; did you mean 'train'"),
        ({"target": "lable"}, DataError, "unknown column 'lable'; did you mean 'label'"),
        ({"drop": ("fur", "weight")}, DataError, "no columns are left"),
        ({"size": 0}, ArgumentError, "size"),
    ],
)
def test_what_does_not_fit(monkeypatch, options, error, words):
    offer(monkeypatch, train=pets(4))
    with pytest.raises(error, match=words):
        hub("pets", **options)


def test_a_set_without_labels_asks_for_the_target(monkeypatch):
    offer(monkeypatch, train=pictures(4, 4))
    with pytest.raises(DataError, match="name one with target=: image, kind"):
        hub("pictures")


def test_free_text_is_refused(monkeypatch):
    notes = datasets.Dataset.from_dict({"text": [f"note {row}" for row in range(100)], "label": [0, 1] * 50})
    offer(monkeypatch, train=notes)
    with pytest.raises(DataError, match="'text' has 100 different texts"):
        hub("notes")


def test_what_the_client_library_says_is_passed_on(monkeypatch):
    offer(monkeypatch)

    def load_dataset(name, config=None):
        raise ValueError("Config name is missing.\nPlease pick one among: a, b")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"hub\('x/y'\): ValueError: Config name is missing"):
        hub("x/y")


def test_an_unknown_name_and_an_unreachable_hub(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    waits = []

    class Api:
        def dataset_info(self, name, timeout):
            waits.append(timeout)
            raise HFValidationError("no such name") if name == "nobody/nothing" else OSError("network is down")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(DataError, match="the Hugging Face hub has no data set of this name"):
        hub("nobody/nothing")
    with pytest.raises(DataError, match=r"cannot be reached \(OSError: network is down.\).*HF_HUB_OFFLINE=1"):
        hub("someone/something")
    assert waits == [room.SECONDS] * 2


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'everlearn\[hub\]'"):
        hub("pets")
    with pytest.raises(
        DataError, match=r"unknown data set 'digitz'; did you mean 'digits'\?.*pip install 'everlearn\[hub\]'"
    ):
        load("digitz")


def test_a_folder_in_the_hubs_layout_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "rows").mkdir()
    values = numpy.arange(8.0)
    lines = "".join(f"{value},{'ab'[row % 2]}\n" for row, value in enumerate(values))
    (tmp_path / "rows" / "train.csv").write_text(f"value,label\n{lines}")
    data = hub(str(tmp_path / "rows"))
    assert len(data) == 8 and data.classes == ("a", "b") and data.x.mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_offline_is_refused_at_once():
    program = (
        "import time\nfrom everlearn.core.errors import DataError\nfrom everlearn.data.hub import hub\n"
        "begin = time.time()\n"
        "try:\n    hub('nobody/nothing')\n"
        "except DataError as error:\n    print(error)\n    print(time.time() - begin)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    begin = time.time()
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=100)
    message, seconds = done.stdout.strip().splitlines()
    assert "hub('nobody/nothing')" in message and "Offline" in message
    assert float(seconds) < 30 and time.time() - begin < 90  # 2 s on a free core, nearly all of it imports


def test_a_row_without_an_image_is_named(monkeypatch):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    whole = Image.new("RGB", (2, 2))
    for bad, words in (
        (None, "row 1 has no image in the column image"),
        ({"bytes": b"text"}, "row 1 cannot be read as an image"),
    ):
        rows = {"image": [whole, bad], "label": ["a", "b"]}
        offer(monkeypatch, train=datasets.Dataset.from_dict(rows, features=features))
        with pytest.raises(DataError, match=words):
            hub("someone/pictures")
