"""index_lists: published lists decide which rows a few-shot stream has, and are refused where they contradict it."""

from dataclasses import replace

import pytest
import torch

from everlearn.core.errors import ArgumentError, DataError
from everlearn.data import index_lists
from everlearn.data.few_shot import few_shot


def numbers(x):
    return x[:, 0].long().tolist()


@pytest.fixture
def listed(numbered, tmp_path):
    """(data with a test part, folder of lists): base classes 0..8, then 9 and 10 with two rows each."""
    data = numbered([20] * 11)
    data = replace(data, test_x=data.x, test_y=data.y)
    shots = {label: (data.y == label).nonzero().flatten().tolist()[3:5] for label in (9, 10)}
    for number, label in ((2, 10), (3, 9)):
        (tmp_path / f"session_{number}.txt").write_text("".join(f"{row}\n" for row in shots[label]))
    return data, tmp_path, shots


LISTED = {"base_classes": 9, "way": 1, "shot": 2, "sessions": 2}


def test_lists_decide_which_rows_come(listed):
    data, folder, shots = listed
    stream = few_shot(data, **LISTED, index=str(folder))
    assert [stream.classes_of(number) for number in range(3)] == [tuple(range(9)), (10,), (9,)]
    assert [sorted(numbers(stream.session(number).train.x)) for number in (1, 2)] == [shots[10], shots[9]]
    assert len(stream.session(0).train) == 180
    base = (data.y < 9).nonzero().flatten()[::2].tolist()
    (folder / "session_1.txt").write_text("\n".join(map(str, base)) + "\n\n")
    stream = few_shot(data, **LISTED, index=str(folder), seed=3)
    assert sorted(numbers(stream.session(0).train.x)) == base


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"base_classes": 8}, "base_classes=8 .* Use base_classes=9"),
        ({"way": 2}, "Use way=1"),
        ({"shot": 5}, "Use shot=2"),
        ({"sessions": 8}, "Use sessions=2"),
        ({"index": "nowhere"}, "index must be a folder"),
    ],
)
def test_arguments_must_agree_with_the_lists(listed, change, told):
    data, folder, _ = listed
    with pytest.raises(ArgumentError, match=told):
        few_shot(data, **({**LISTED, "index": str(folder)} | change))


def test_lists_that_cannot_be_used(listed):
    data, folder, shots = listed
    with pytest.raises(ArgumentError, match=r"index .* no test part of its own"):
        few_shot(replace(data, test_x=None, test_y=None), **LISTED, index=str(folder))
    third = folder / "session_3.txt"
    for text, told in (
        ("12\nfour\n", "session_3.txt:2: a row number 0..219 .* 'four'"),
        ("220\n", "session_3.txt:1"),
        ("-1\n", "'-1'"),
        (" \n", "lists no row"),
        (f"{shots[9][0]}\n{shots[9][0]}\n", "twice"),
        (f"{shots[10][0]}\n", "twice"),
    ):
        third.write_text(text)
        with pytest.raises(DataError, match=told):
            few_shot(data, **LISTED, index=str(folder))
    others = [row for row in (data.y == 10).nonzero().flatten().tolist() if row not in shots[10]]
    third.write_text(f"{others[0]}\n{others[1]}\n")
    with pytest.raises(DataError, match="'c10', which an earlier one brought"):
        few_shot(data, **(LISTED | {"base_classes": 10}), index=str(folder))
    third.rename(folder / "session_4.txt")
    with pytest.raises(DataError, match=r"lacks session_3\.txt"):
        few_shot(data, **LISTED, index=str(folder))


IMAGES = ("001.Wren/a.jpg", "001.Wren/b.jpg", "002.Gull/a.jpg", "002.Gull/c.jpg")


@pytest.fixture
def birds(numbered):
    """Two classes of two images; both have an a.jpg."""
    data = replace(numbered([2, 2]), y=torch.tensor([0, 0, 1, 1]), files=IMAGES)
    return replace(data, test_x=data.x, test_y=data.y)


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("002.Gull/a.jpg", 2),
        ("CUB_200_2011/images/002.Gull/a.jpg", 2),
        ("CUB_200_2011/images/001.Wren/a.jpg", 0),
        ("  c.jpg ", 3),  # the only one of this name
        ("3", 3),
    ],
)
def test_a_line_names_one_image(birds, tmp_path, line, row):
    other = "001.Wren/b.jpg" if row > 1 else "002.Gull/c.jpg"
    (tmp_path / "session_1.txt").write_text(f"x/{other}\n")
    (tmp_path / "session_2.txt").write_text(f"{line}\n")
    session = index_lists.listed(birds, tmp_path)
    assert session.tolist() == [{row: 1, IMAGES.index(other): 0}.get(place, -1) for place in range(4)]


@pytest.mark.parametrize(
    "line", ["a.jpg", "003.Owl/a.jpg", "images/003.Owl/c.jpg", "002.Gull/b.jpg", "Gull/a.jpg", "d.jpg", "4", "002.Gull/"]
)
def test_a_line_that_names_none_or_several_is_refused_with_its_number(birds, tmp_path, line):
    (tmp_path / "session_2.txt").write_text(f"x/002.Gull/c.jpg\n{line}\n")
    with pytest.raises(DataError, match=r"session_2.txt:2: a row number 0..3 .* or the path of one of its images"):
        index_lists.listed(birds, tmp_path)


def test_row_numbers_alone_where_rows_are_no_images(numbered, tmp_path):
    (tmp_path / "session_2.txt").write_text("a.jpg\n")
    with pytest.raises(DataError, match=r"a row number 0..3 of the training part is expected, got 'a.jpg'"):
        index_lists.listed(numbered([2, 2]), tmp_path)
