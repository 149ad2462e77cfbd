"""Vowpal Wabbit's dsjson: an event worked out by hand, a log there and back, and lines that cannot be right."""

import json

import pytest
import torch

from everlearn.core.errors import DataError
from everlearn.data.decision_files import read_decisions, write_decisions
from everlearn.data.vowpal import read_dsjson
from tests.data.test_decision_files import made

EVENT = {
    "_label_cost": -1,
    "_label_probability": 0.8,
    "_label_Action": 2,
    "_labelIndex": 1,
    "Version": "1",
    "EventId": "e1",
    "Timestamp": "2021-07-29T10:00:00.5000000Z",
    "a": [2, 1],
    "c": {
        "User": {"age": 3, "lang": "en"},
        "_multi": [{"Item": {"price": 2.0, "tags": [1.0, 4.0]}}, {"Item": {"price": 5.0, "tags": [0.0, 1.0]}}],
    },
    "p": [0.8, 0.2],
    "VWState": {"m": "model-a"},
    "pdrop": 0.5,
}


def written(path, *events):
    path.write_text("\n".join(map(json.dumps, events)))
    return path


def test_one_event_read_by_hand(tmp_path):
    log = read_decisions(written(tmp_path / "log.dsjson", EVENT))
    assert log.id == ("e1",) and log.action.tolist() == [1] and log.reward.tolist() == [1.0]
    assert log.propensity.tolist() == [0.8] and log.probabilities.tolist() == [[0.2, 0.8]]
    assert log.weight.tolist() == [2.0], "with half of the events dropped, one stands for two"
    assert log.x.tolist() == [[3.0, 1.0]], "age, lang=en; a description that comes back names its action"
    assert log.time.tolist() == [1627552800.5]


def test_actions_are_told_by_description_where_it_comes_back(tmp_path):
    swapped = {**EVENT, "EventId": "e2", "c": {**EVENT["c"], "_multi": EVENT["c"]["_multi"][::-1]}, "pdrop": 0.0}
    log = read_decisions(written(tmp_path / "log.dsjson", EVENT, swapped))
    assert log.action.tolist() == [1, 0] and log.probabilities.tolist() == [[0.2, 0.8], [0.8, 0.2]]
    only = {**EVENT, "EventId": "e3", "_labelIndex": 0, "a": [1], "p": [1.0], "_label_probability": 1.0}
    only["c"] = {**EVENT["c"], "_multi": [EVENT["c"]["_multi"][1]]}
    log = read_decisions(written(tmp_path / "log.dsjson", EVENT, swapped, only))
    assert log.offered.tolist() == [[True, True], [True, True], [False, True]] and log.action.tolist() == [1, 0, 1]


def test_actions_are_told_by_place_where_descriptions_do_not_come_back(tmp_path):
    events = []
    for number in range(3):
        multi = [{"price": 10.0 * number + place} for place in (1, 2)]
        events.append({**EVENT, "EventId": str(number), "c": {"age": 3, "_multi": multi}})
    log = read_decisions(written(tmp_path / "log.dsjson", *events))
    assert log.actions == 2 and log.action.tolist() == [1, 1, 1]
    assert log.x.tolist() == [[3, 1, 2], [3, 11, 12], [3, 21, 22]], "the features of the actions are columns of their places"


def test_one_slot_is_read_and_lines_without_a_cost_are_left_out(tmp_path):
    slot = {
        "_outcomes": [{"_label_cost": -0.5, "_a": [1, 0], "_p": [0.8, 0.2]}],
        "EventId": "s",
        "c": {**EVENT["c"], "_slots": [{}]},
    }
    skipped = {**EVENT, "EventId": "n", "_skipLearn": True}
    dangling = {"RewardValue": 1.0, "EventId": "d"}
    log = read_dsjson(written(tmp_path / "log.dsjson", slot, skipped, dangling))
    assert log.id == ("s",) and log.action.tolist() == [1] and log.reward.tolist() == [0.5] and log.weight is None
    with pytest.raises(DataError, match="line 1: it decides 2 slots at once"):
        read_dsjson(written(tmp_path / "log.dsjson", {**slot, "_outcomes": slot["_outcomes"] * 2}))


def test_a_log_goes_there_and_back(tmp_path):
    log = made(12)
    back = read_decisions(write_decisions(log, tmp_path / "log.dsjson"))
    assert back.id == log.id
    for name in ("x", "offered", "action", "reward", "generation", "time"):
        assert torch.equal(getattr(back, name), getattr(log, name)), name
    assert torch.allclose(back.probabilities, log.probabilities, atol=1e-15) and torch.allclose(back.weight, log.weight)
    least = made(12, full=False)
    back = read_decisions(write_decisions(least, tmp_path / "log.dsjson"))
    assert torch.equal(back.propensity, least.propensity) and back.probabilities is None and back.time is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_label_probability": 0.0, "p": []}, "propensity is 0"),
        ({"p": [0.8, 0.4]}, "line 1: the probabilities `p` sum to 1.2"),
        ({"_labelIndex": 2}, "line 1: `a` and `_labelIndex` must name one of the 2 actions"),
        ({"pdrop": 1.0}, "line 1: pdrop is 1"),
        ({"c": {"age": 3}}, "line 1: no decision can be read"),
    ],
)
def test_a_line_that_cannot_be_right_is_named(tmp_path, change, said):
    with pytest.raises(DataError, match=said):
        read_dsjson(written(tmp_path / "log.dsjson", {**EVENT, **change}))
