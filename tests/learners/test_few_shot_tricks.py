"""The tricks by name: groups, values given by hand, and refusals."""

import pytest

from everlearn.comparison.catalog import values
from everlearn.core.errors import ArgumentError
from everlearn.core.spec import build, parse
from everlearn.learners.few_shot import FewShot
from everlearn.learners.few_shot_tricks import GROUPS, OFF, TRICKS, Finetune, chosen
from everlearn.optim.optimizers import SGD, Adam


def test_there_are_eight_in_three_groups():
    assert [trick.number for trick in TRICKS.values()] == list(range(1, 9))
    assert [trick.group for trick in TRICKS.values()] == ["stability"] * 3 + ["adaptability"] * 2 + ["training"] * 3
    assert set(GROUPS["all"]) == set(OFF) == set(TRICKS) - {"encoder"}


def test_names_switch_what_was_left_alone():
    on = chosen("few_shot", "supcon+rotation", OFF | {"rotation": 0.2}, OFF)
    assert on == OFF | {"supcon": 1.0, "rotation": 0.2}
    assert chosen("few_shot", "", OFF, OFF) == OFF
    every = chosen("few_shot", "all", OFF, OFF)
    assert all(every[name] != OFF[name] for name in OFF)
    assert chosen("few_shot", "stability", OFF, OFF)["pretrain"] == 0


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("supcn", "unknown few_shot: trick 'supcn'; did you mean 'supcon'"),
        ("encoder", "the network itself"),
        (3, "tricks must be a text"),
    ],
)
def test_unknown_tricks_are_refused(word, says, network):
    with pytest.raises(ArgumentError, match=says):
        FewShot(network(), tricks=word)


def test_tuning_can_be_typed():
    made = build(parse("finetune(lr=0.01, optimizer='adam', weight_decay=0.1)"), values(), "value")
    assert made == Finetune(lr=0.01, optimizer="adam", weight_decay=0.1)
    assert repr(made) == "finetune(lr=0.01, optimizer='adam', weight_decay=0.1)"
    assert made.rule(0.5) == Adam(lr=0.5, weight_decay=0.1)
    assert Finetune(momentum=0.9).rule(0.1) == SGD(lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"steps": 0},
        {"momentum": 2.0},
        {"weight_decay": -0.1},
        {"prototype_lr": -1.0},
        {"optimizer": "adagrad"},
    ],
    ids=str,
)
def test_wrong_tuning_is_refused(wrong):
    with pytest.raises(ArgumentError, match=f"finetune: (unknown )?{next(iter(wrong))}|unknown finetune: optimizer"):
        Finetune(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 0.0},
        {"supcon": -1.0},
        {"rotation": -0.5},
        {"subnet": 1.5},
        {"calibrate": -0.1},
        {"temperature": 0.0},
        {"pretrain": -1},
        {"pretrain_batch": 0},
        {"pretrain_temperature": 0},
        {"projection": 0},
        {"passes": 0},
        {"prototypes": "frame"},
        {"head": "svm"},
        {"predict_with": "nearest"},
        {"predict_with": "assigned"},
        {"prototype_loss": "hinge"},
        {"finetune": 0.1},
        {"classification": 0.0},
        {"average": "median"},
        {"pseudo_classes": "mirror"},
        {"head": "lda", "pseudo_classes": "rotation2"},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(wrong, network):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        FewShot(network(), **wrong)


def test_a_simplex_frame_needs_wide_features(network):
    with pytest.raises(ArgumentError, match=r"dim must be at least n - 1 = 11 for n=12 prototypes, got 7.*spread"):
        FewShot(network(classes=12), prototypes="etf")
    FewShot(network(classes=8), prototypes="etf")


def test_rotation_beside_pseudo_classes_of_all_quarters_is_warned_of(network):
    with pytest.warns(UserWarning, match="rotation adds nothing"):
        FewShot(network(), rotation=0.5, pseudo_classes="rotation4")


def test_the_table_of_tricks(network):
    table = FewShot(network(), tricks="pretrain", subnet=0.2).trick_table()
    assert [row["number"] for row in table] == list(range(1, 9))
    assert {row["argument"]: row["value"] for row in table if row["on"]} == {"pretrain": 6, "subnet": 0.2}
    assert table[5]["on"] is None and table[5]["argument"] == "model"
