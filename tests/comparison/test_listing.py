"""Lists, explanations, references, and the contract by name."""

import pytest

from everlearn.comparison.listing import KINDS, check_named, explain, listing, references
from everlearn.core.errors import ArgumentError, SpecError
from everlearn.studies.study import studies


def test_every_component_has_a_line():
    found = listing("all", studies())
    assert set(found) == set(KINDS)
    for group, rows in found.items():
        assert rows, group
        assert all(name and line for name, line in rows), group


def test_one_kind_alone():
    assert list(listing("learners", {})) == ["learners"]
    with pytest.raises(ArgumentError, match="did you mean 'learners'"):
        listing("lerners", {})


def test_an_explanation_has_arguments_with_defaults():
    found = explain("replay", {})
    assert found["signature"].startswith("replay(model, capacity=500, keep=reservoir(), replay_batch=32")
    assert "Chaudhry" in found["doc"]


def test_a_learner_and_its_study_of_one_name_are_both_told_of():
    found = explain("replay", studies())
    assert found["signature"].startswith("replay(model, capacity=500")
    assert found["also"] == {"studies": dict(listing("studies", studies())["studies"])["replay"]}
    assert explain("derpp", studies())["also"] == {}
    (cited,) = references("replay", studies())
    assert "1811.11682" in cited and "1902.10486" in cited


def test_an_unknown_component_is_answered_with_the_closest():
    with pytest.raises(SpecError, match="did you mean 'replay'"):
        explain("repaly", {})


def test_references_are_the_papers_alone():
    found = references("derpp", {})
    assert any("2004.07211" in line for line in found)
    assert not any("Differs" in line for line in found)
    assert references("prefix", {}) == ["prefix is not from a publication."]


def test_an_agent_is_held_to_the_contract_of_agents():
    assert any("act" in line for line in check_named("uniform(actions=3)"))


def test_an_estimator_is_held_to_the_contract_of_learners():
    assert any("bad input" in line for line in check_named("sklearn(DecisionTreeClassifier(max_depth=3), refit=every(20))"))


def test_ones_own_learner_is_explained_by_its_reference(tmp_path, monkeypatch):
    (tmp_path / "shown_learner.py").write_text(
        "class Mine:\n    '''What mine does.'''\n    def __init__(self, rate=0.5):\n        pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    found = explain("shown_learner:Mine", {})
    assert found["signature"] == "shown_learner:Mine(rate=0.5)"
    assert found["doc"] == "What mine does."
