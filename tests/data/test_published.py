"""Published layouts on tiny local copies of the same format."""

import numpy
import pytest
import torch
from PIL import Image

from everlearn.core.errors import ArgumentError, DataError
from everlearn.core.spec import build, parse
from everlearn.data import published
from everlearn.data.few_shot import few_shot
from everlearn.data.load import SOURCES
from everlearn.data.pictures import Pictures
from everlearn.data.published import cifar100, cub200, mini_imagenet


def picture(path, shade, size=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (shade, 0, 0)).save(path)


def mini(folder, train, test, place="images/{name}"):
    """A copy of miniImageNet: rows are (class, number)."""
    for split, rows in (("train", train), ("test", test)):
        lines = ["filename,label", *(f"{label}{number}.png,{label}" for label, number in rows)]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
        for label, number in rows:
            picture(folder / place.format(name=f"{label}{number}.png", label=label), number)


def birds(folder, count=4):
    """A copy of CUB-200-2011: two species, every other photograph to learn from."""
    species = ("001.Albatross", "002.Wren")
    names = [f"{species[number % 2]}/{species[number % 2][4:]}_{number}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        picture(folder / "images" / name, 10 * number)
    lists = {
        "images": [f"{number + 1} {name}" for number, name in enumerate(names)],
        "image_class_labels": [f"{number + 1} {number % 2 + 1}" for number in range(count)],
        "train_test_split": [f"{number + 1} {int(number < count - 2)}" for number in range(count)],
        "classes": [f"{number + 1} {name}" for number, name in enumerate(species)],
    }
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_mini_imagenet_with_the_same_classes_in_both_lists(tmp_path):
    mini(tmp_path, [("n02", 1), ("n01", 2), ("n02", 3)], [("n01", 4), ("n02", 5)])
    data = mini_imagenet(str(tmp_path), size=8)
    assert data.classes == ("n01", "n02") and data.x.shape == (3, 3, 8, 8) and data.x.dtype == torch.uint8
    assert data.y.tolist() == [1, 0, 1] and data.x[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert data.test_y.tolist() == [0, 1] and data.test_x[:, 0, 0, 0].tolist() == [4, 5]
    assert data.name == f"mini_imagenet({str(tmp_path)!r}, size=8)"
    assert data.files == ("n021.png", "n012.png", "n023.png")
    assert data.take(torch.tensor([2, 0])).files == ("n023.png", "n021.png")


def test_mini_imagenet_with_classes_of_their_own_in_each_list(tmp_path, monkeypatch):
    (tmp_path / "mini_imagenet").mkdir()
    mini(tmp_path / "mini_imagenet", [("n01", 1), ("n01", 2)], [("n03", 3)], "{label}/{name}")
    monkeypatch.setenv("EVERLEARN_DATA", str(tmp_path))
    data = mini_imagenet()
    assert data.name == "mini_imagenet" and data.x.shape == (3, 3, 84, 84)
    assert data.test_x is None and data.y.tolist() == [0, 0, 1]


def test_cub_in_its_own_lists(tmp_path):
    birds(tmp_path)
    data = cub200(str(tmp_path), size=(5, 7))
    assert data.classes == ("001.Albatross", "002.Wren") and data.x.shape == (2, 3, 5, 7)
    assert (
        data.y.tolist() == [0, 1]
        and data.test_y.tolist() == [0, 1]
        and data.files
        == (
            "001.Albatross/Albatross_0.jpg",
            "002.Wren/Wren_1.jpg",
        )
    )
    assert data.test_x[:, 0].float().mean((1, 2)).round().tolist() == pytest.approx([20, 30], abs=3)  # jpg rounds


def test_cifar_from_the_hubs_files_in_a_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["apple", "boy", "cat"]),
            "coarse_label": datasets.ClassLabel(names=["fruit", "animal"]),
        }
    )
    for split, labels in (("train", [0, 2, 1, 0]), ("test", [1, 2])):
        pictures = [Image.fromarray(numpy.full((4, 4, 3), 10 * label + 1, numpy.uint8)) for label in labels]
        rows = {"img": pictures, "fine_label": labels, "coarse_label": [min(label, 1) for label in labels]}
        (tmp_path / "cifar100").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            tmp_path / "cifar100" / f"{split}-00000-of-00001.parquet"
        )
    monkeypatch.setenv("EVERLEARN_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = cifar100()
    assert data.name == "cifar100" and data.classes == ("apple", "boy", "cat") and data.y.tolist() == [0, 2, 1, 0]
    assert data.x.shape == (4, 3, 4, 4) and data.x[:, 0, 0, 0].tolist() == [1, 21, 11, 1] and data.test_y.tolist() == [1, 2]
    coarse = cifar100(labels="coarse")
    assert coarse.classes == ("fruit", "animal") and coarse.y.tolist() == [0, 1, 1, 0]
    with pytest.raises(ArgumentError, match="labels must be 'fine' or 'coarse'"):
        cifar100(labels="all")
    (tmp_path / "cifar100" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(
        DataError, match=r"holds no test-\*.parquet. Its train-00000.* are at huggingface.co/datasets/uoft-cs/cifar100"
    ):
        cifar100()


def test_cifar_that_the_hub_does_not_give_says_where_else_it_may_lie(monkeypatch):
    monkeypatch.delenv("EVERLEARN_DATA", raising=False)
    asked = []

    def unreachable(name, target):
        asked.append((name, target))
        raise DataError("the hub cannot be reached.")

    monkeypatch.setattr(published, "hub", unreachable)
    with pytest.raises(DataError, match=r"cannot be reached. Or make a folder cifar100 in EVERLEARN_DATA \(not set\)"):
        cifar100(labels="coarse")
    assert asked == [("uoft-cs/cifar100", "coarse_label")]


def test_both_sets_of_files_may_be_read_lazily(tmp_path):
    (tmp_path / "mini" / "split").mkdir(parents=True)
    (tmp_path / "cub").mkdir()
    mini(tmp_path / "mini", [("n01", 1), ("n02", 2)], [("n02", 3)])
    for name in ("train.csv", "test.csv"):
        (tmp_path / "mini" / name).rename(tmp_path / "mini" / "split" / name)
    birds(tmp_path / "cub")
    for source, folder in ((mini_imagenet, tmp_path / "mini"), (cub200, tmp_path / "cub")):
        eager, lazy = source(str(folder), size=5), source(str(folder), size=5, lazy=True)
        assert isinstance(lazy.x, Pictures) and torch.equal(lazy.x[:], eager.x) and torch.equal(lazy.test_x[:], eager.test_x)
        assert lazy.name == f"{source.__name__}({str(folder)!r}, size=5, lazy=True)" and lazy.files == eager.files
        assert isinstance(build(parse(lazy.name), SOURCES, "data set").x, Pictures)
        with pytest.raises(ArgumentError, match="lazy must be True or False"):
            source(str(folder), lazy=1)


def test_lists_of_images_choose_the_rows_of_sessions(tmp_path):
    rows = [(f"n{label}", 10 * label + number) for label in range(4) for number in range(5)]
    (tmp_path / "data").mkdir()
    mini(tmp_path / "data", rows, [(f"n{label}", 100 + label) for label in range(4)])
    lists = tmp_path / "lists"
    lists.mkdir()
    first = [f"MINI-ImageNet/train/n{label}/n{label}{10 * label + number}.png" for label in (0, 1) for number in range(5)]
    (lists / "session_1.txt").write_text("\n".join(first))
    for session, label in ((2, 3), (3, 2)):
        (lists / f"session_{session}.txt").write_text("\n".join(f"x/n{label}{10 * label + number}.png" for number in (4, 1)))
    data = mini_imagenet(str(tmp_path / "data"), size=6)
    stream = few_shot(data, base_classes=2, way=1, shot=2, sessions=2, index=str(lists))
    assert [stream.classes_of(number) for number in range(3)] == [(0, 1), (3,), (2,)]
    seen = {int(batch.x[row, 0, 0, 0]) for batch in stream if hasattr(batch, "x") for row in range(len(batch))}
    assert {value for value in seen if value >= 20} == {34, 31, 24, 21}
    (lists / "session_3.txt").write_text("x/n224.png\nx/n299.png")
    with pytest.raises(DataError, match=r"session_3.txt:2: a row number 0..19 .* or the path of one of its images"):
        few_shot(data, base_classes=2, way=1, shot=2, sessions=2, index=str(lists))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "train.csv").unlink(), "holds no train.csv"),
        (lambda folder: (folder / "train.csv").write_text("file,label\na,b\n"), "must name the columns filename and label"),
        (
            lambda folder: (folder / "train.csv").write_text("filename,label\na.png,\n"),
            r"train.csv:2: a file name and a label",
        ),
        (lambda folder: (folder / "train.csv").write_text("filename,label\n"), "the list is empty"),
        (lambda folder: (folder / "images" / "n011.png").unlink(), "image n011.png of the lists is missing"),
        (lambda folder: (folder / "train.csv").write_text("filename,label\nn011.png,n01\nn011.png,n01\n"), "n011.png twice"),
        (lambda folder: (folder / "test.csv").write_text("filename,label\nn011.png,n01\n"), "n011.png twice"),
        (lambda folder: (folder / "images" / "n022.png").write_text("text"), "n022.png: cannot be read as an image"),
        (lambda folder: (folder / "test.csv").write_text("filename,label\nn011.png,n01\nn011.png,n09\n"), "class 'n09'"),
    ],
)
def test_a_copy_of_mini_imagenet_that_lacks_something_is_refused(tmp_path, harm, message):
    mini(tmp_path, [("n01", 1), ("n02", 2)], [("n01", 3)])
    harm(tmp_path)
    with pytest.raises(DataError, match=message):
        mini_imagenet(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("images", "1 a.jpg\n1 b.jpg\n", r"images.txt:2: a number of its own"),
        ("image_class_labels", "1 1\n2 2\n3 1\n", "image 4 is there or in images.txt, not in both"),
        ("image_class_labels", "1 1\n2 2\n3 1\n4 7\n", "image 4 has class '7', which classes.txt lacks"),
        ("classes", None, "classes.txt is missing"),
        ("images", None, "holds no images.txt. Pass the folder .* It is published as"),
        ("train_test_split", "1 1\n2 2\n3 0\n4 0\n", r"train_test_split.txt: image 2 has '2'; 1 \(training\) or 0 \(test\)"),
        ("train_test_split", "1 0\n2 0\n3 0\n4 0\n", "no image is a training image"),
        ("train_test_split", "1 1\n2 train\n3 0\n4 0\n", "image 2 has 'train'"),
        ("images", "1 a.jpg\n2 b.jpg\n3 c.jpg\n4 d.jpg\n", "image a.jpg of the lists is missing"),
        ("images", "1 {0}\n2 {0}\n3 {0}\n4 {0}\n".format("002.Wren/Wren_1.jpg"), "Wren_1.jpg twice"),
    ],
)
def test_a_copy_of_cub_that_lacks_something_is_refused(tmp_path, name, text, message):
    birds(tmp_path)
    (tmp_path / f"{name}.txt").write_text(text) if text else (tmp_path / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=message):
        cub200(str(tmp_path))


def test_a_set_that_is_nowhere_says_where_it_was_looked_for(monkeypatch):
    monkeypatch.delenv("EVERLEARN_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"cub200: not found in EVERLEARN_DATA \(not set\). It is published as .*\. Pass its folder"
    ):
        cub200()
