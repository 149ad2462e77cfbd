"""everlearn ask: scripted sessions in the terminal, nothing lost on the way, answers from a file, simulation, refusals."""

import json

import pytest

from everlearn import asking
from everlearn.cli import main
from everlearn.data.query_tables import question_table

TABLE = "animal,flies,swims,barks,big\nduck,yes,yes,no,no\ndog,no,yes,yes,?\nwhale,no,yes,no,yes\neagle,yes,no,no,yes\n"
WHALE = {"flies": "n", "swims": "y", "barks": "n", "big": "y"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path


class Keys:
    """A keyboard that types a script of words, or raises what stands in it, and then is closed."""

    def __init__(self, monkeypatch, script=()):
        self.script = list(script)
        monkeypatch.setattr("builtins.input", self)

    def __call__(self, prompt=""):
        word = self.script.pop(0) if self.script else EOFError
        if isinstance(word, type):
            raise word
        return word


def play(monkeypatch, *options, script=(), truth=None):
    """Run a session, with the questions that were put. Past the script, `truth` answers, or the input ends."""
    asked = []
    keys = Keys(monkeypatch, script)

    def shown(session):
        def reply(question):
            while True:
                asked.append(question)
                if not keys.script and truth is not None:
                    return asking.WORDS[truth[question]]
                return original(session)(question)

        return reply

    original = asking._typed
    monkeypatch.setattr(asking, "_typed", shown)
    code = main(["ask", "t.csv", "--budget", "4", "--sure", "1", *options])
    monkeypatch.setattr(asking, "_typed", original)
    return code, asked


def test_a_whole_session_guesses_right_and_is_kept(place, monkeypatch, capsys):
    code, asked = play(monkeypatch, truth=WHALE)
    told = capsys.readouterr().out
    assert code == 0 and sorted(asked) == sorted(WHALE)
    assert "My guess after 4 answers: whale (9" in told
    assert len(list(place.glob("everlearn-runs/ask-t-*/session.json"))) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt, EOFError, "quit"])
def test_nothing_is_lost_when_a_session_stops(place, monkeypatch, capsys, stop):
    """Stopped after each number of answers, the same command asks the same questions as a session that never stopped."""
    _, whole = play(monkeypatch, "--folder", "whole", truth=WHALE)
    guess = capsys.readouterr().out.split("My guess")[1].split("\n")[0]
    seen = []
    for _ in range(4):
        script = [WHALE[whole[len(seen)]], stop]
        code, asked = play(monkeypatch, "--folder", "parts", script=script)
        seen.append(asked[0])
        assert code == (130 if stop is KeyboardInterrupt and len(seen) < 4 else 0)
    assert seen == whole
    assert capsys.readouterr().out.split("My guess")[1].split("\n")[0] == guess
    code, asked = play(monkeypatch, "--folder", "parts", script=["y"])
    assert (code, asked) == (0, [])  # it is over: the guess is shown again


def test_undo_takes_back_as_if_it_had_not_been_said(place, monkeypatch, capsys):
    _, plain = play(monkeypatch, "--folder", "a", script=["y", "quit"])
    _, undone = play(monkeypatch, "--folder", "b", script=["n", "undo", "y", "quit"])
    assert undone[0] == undone[2] == plain[0] and undone[3] == plain[1]
    assert json.loads((place / "b/session.json").read_text()) == json.loads((place / "a/session.json").read_text())
    assert "no answer to take back" not in capsys.readouterr().out
    play(monkeypatch, "--folder", "c", script=["undo", "what", "quit"])
    told = capsys.readouterr().out
    assert "no answer to take back" in told and "'what' is none of y, n, ?, undo, quit" in told


def test_an_unknown_answer_costs_nothing_and_is_not_asked_again(place, monkeypatch, capsys):
    code, asked = play(monkeypatch, "--budget", "2", script=["?", "y", "y"])
    assert code == 0 and len(set(asked)) == 3
    assert "My guess after 2 answers" in capsys.readouterr().out


def test_it_stops_as_soon_as_it_is_sure(place, monkeypatch, capsys):
    _, asked = play(monkeypatch, "--sure", "0.4", truth=WHALE)
    assert 1 <= len(asked) < 4


def test_answers_come_from_a_file(place, capsys):
    (place / "mine.csv").write_text("question,answer\nflies,no\nswims,yes\nbarks,no\n")
    assert main(["ask", "t.csv", "--answers", "mine.csv", "--json", "--sure", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["guess"], found["finished"], found["session"]) == ("whale", True, None)
    assert {item["question"]: item["answer"] for item in found["answers"]} == {
        "flies": "no", "swims": "yes", "barks": "no", "big": "unknown",
    }  # fmt: skip
    chance = question_table("t.csv").likelihood[2]
    assert found["probability"] == pytest.approx(0.9**3 / (0.9**3 + 0.1 * 0.9 * 0.9 + 0.9 * 0.9 * 0.1 + 0.1 * 0.1 * 0.9))
    assert chance.tolist() == [0.1, 0.9, 0.1, 0.9]


def test_the_rule_changes_what_is_asked(place, capsys):
    """Of three sure questions and one that splits nothing, only chance takes the useless one first."""
    (place / "t.csv").write_text("a,useless,b,c\nw,yes,yes,yes\nx,yes,yes,no\ny,yes,no,yes\nz,yes,no,no\n")
    (place / "mine.csv").write_text("question,answer\nuseless,yes\nb,yes\nc,no\n")
    first = {}
    for rule in ("bald", "sgbs", "uncertainty", *(f"random_query#{seed}" for seed in range(12))):
        name, _, seed = rule.partition("#")
        assert main(["ask", "t.csv", "--answers", "mine.csv", "--json", "--rule", name, "--seed", seed or "0"]) == 0
        first[rule] = json.loads(capsys.readouterr().out)["answers"][0]["question"]
    assert "useless" not in (first["bald"], first["sgbs"], first["uncertainty"])
    assert "useless" in first.values()


def test_a_simulation_measures_the_rule_beside_random_questions(place, capsys):
    lines = ["object," + ",".join(f"q{bit}" for bit in range(9))]
    lines += [
        f"o{number}," + ",".join(str(number >> bit & 1) if bit < 3 else "1" for bit in range(9)) for number in range(8)
    ]
    (place / "t.csv").write_text("\n".join(lines))
    assert main(["ask", "t.csv", "--simulate", "--budget", "3", "--json"]) == 0
    ours, chance = json.loads(capsys.readouterr().out)["rules"]
    assert ours["accuracy"] == pytest.approx(0.9**3, abs=5 * (0.25 / 5000) ** 0.5)  # three questions, each wrong once in ten
    assert chance["accuracy"] < ours["accuracy"] - 0.3 and ours["worst_5"] <= ours["accuracy"]
    assert main(["ask", "t.csv", "--simulate", "--budget", "3"]) == 0
    assert "8 objects, 3 questions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["none.csv"], 3, "cannot be read"),
        (["t.csv", "--rule", "blad"], 2, "did you mean 'bald'"),
        (["t.csv", "--rule", "ucb"], 2, "ucb: the answers must be"),
        (["t.csv", "--budget", "0"], 2, "budget must be an int >= 1"),
        (["t.csv", "--sure", "2"], 2, "sure must be a number between 0 and 1"),
        (["t.csv", "--answers", "bad.csv"], 3, "bad.csv:2: the table has no question 'runs'"),
        (["t.csv", "--json"], 2, "--answers or --simulate"),
        (["t.csv", "--answers", "bad.csv", "--simulate"], 2, "takes no --answers"),
    ],
)
def test_faults_are_one_sentence(place, capsys, options, code, words):
    (place / "bad.csv").write_text("question,answer\nruns,yes\n")
    assert main(["ask", *options]) == code
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_a_session_of_another_table_is_refused(place, monkeypatch, capsys):
    play(monkeypatch, "--folder", "s", script=["y", "quit"])
    (place / "t.csv").write_text(TABLE + "wolf,no,no,yes,yes\n")
    assert main(["ask", "t.csv", "--folder", "s"]) == 4
    assert "another table or other settings" in capsys.readouterr().err
    (place / "s/session.json").write_text("{")
    assert main(["ask", "t.csv", "--folder", "s"]) == 4
    _, asked = play(monkeypatch, "--folder", "s", "--no-resume", script=["y", "quit"])
    assert len(asked) == 2
