"""The verbs that tell what there is: list, show, cite and check."""

import json

import pytest

from everlearn.cli import main


def test_list_names_every_kind(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"learners", "networks", "scenarios", "data", "values", "studies", "agents"} == set(found)
    assert "derpp" in found["learners"]
    assert all(line for group in found.values() for line in group.values())


def test_show_draws_a_schedule(capsys, tmp_path):
    text = "join(warmup(0.1, steps=4), 4, constant(0.1))"
    assert main(["show", text, "--steps", "8", "--output", str(tmp_path / "rate.png")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("join(warmup(0.1, steps=4), steps=4, second=constant(0.1))")
    assert "2  0.05" in out and (tmp_path / "rate.png").read_bytes().startswith(b"\x89PNG")
    assert main(["show", "warmup(0.1, steps=4)", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1])
    assert main(["show", "infinite(0.001, 50, 30)"]) == 2
    assert "warmup=50 and cooldown_end=30" in capsys.readouterr().err


def test_show_explains_a_component_and_cite_gives_its_reference(capsys):
    assert main(["show", "derpp"]) == 0
    assert "capacity=" in capsys.readouterr().out
    assert main(["cite", "derpp"]) == 0
    assert "2004.07211" in capsys.readouterr().out


def test_show_of_a_name_that_a_learner_and_a_study_share_explains_the_learner(capsys):
    assert main(["show", "replay"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("replay(model, capacity=500")
    assert "Also the name of one of the studies: Replay against fine-tuning" in out


def test_show_of_a_folder_says_what_it_lacks(tmp_path, capsys):
    assert main(["show", str(tmp_path)]) == 4
    assert "no finished comparison lies in the folder" in capsys.readouterr().err


def test_check_holds_a_learner_to_the_contract(capsys):
    assert main(["check", "replay(capacity=50)"]) == 0
    assert "keeps the contract" in capsys.readouterr().out


def test_check_names_what_is_broken(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_learner.py").write_text(
        "import torch\nfrom everlearn import FineTune, Learner\n"
        "class Forgetful(Learner):\n"
        "    name = 'forgetful'\n    parts = ('inner',)\n"
        "    def __init__(self, model, *, seed=0):\n        self.inner = FineTune(model, seed=seed)\n        self.count = 0\n"
        "    def predict(self, x):\n        return self.inner.predict(x) + self.count * torch.arange(3.0)\n"
        "    def update(self, batch):\n        metrics = self.inner.update(batch)\n        self.count += 1\n        return metrics\n"
        "    def boundary(self, boundary):\n        pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["check", "broken_learner:Forgetful"]) == 6
    assert "parts" in capsys.readouterr().err


def test_a_reference_is_cited_once_in_its_longest_words(capsys):
    assert main(["cite", "derpp", "--json"]) == 0
    (cited,) = json.loads(capsys.readouterr().out)["references"]
    assert "Dark experience" in cited
