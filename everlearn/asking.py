"""The verb of those who ask: twenty questions from a table of one's own, in the terminal, from a file, or simulated.

Each answer is written to FOLDER/session.json before the next question is shown, so a session ends at any moment and the same
command goes on with it. What is asked next is a function of the answers so far, of the rule and of the seed.
"""

import csv
import hashlib
import json as json_text
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everlearn.console import console, print_json, say
from everlearn.core.errors import ArgumentError, DataError, StateError, check_count, check_range

FOLDER = Path("everlearn-runs")
WORDS = {
    "y": "yes",
    "yes": "yes",
    "j": "yes",
    "n": "no",
    "no": "no",
    "?": "unknown",
    "u": "unknown",
    "unknown": "unknown",
    "": "unknown",
}
ORDERS = {"undo": "undo", "back": "undo", "b": "undo", "quit": "quit", "q": "quit", "exit": "quit"}
VALUE = {"yes": 1.0, "no": -1.0}
LEADERS = 3  # shown after each answer
EPISODES = 5000  # of a simulation, at least one for each object


def ask(
    table: str,
    budget: int = 20,
    rule: str = "bald",
    sure: float = 0.99,
    flip: float | None = None,
    answers: str | None = None,
    folder: str | None = None,
    seed: int = 0,
    *,
    simulate: bool,
    resume: bool,
    json: bool,
) -> int:
    """Guess a row of your table by yes-or-no questions: which question next, and what it is most likely to be.

    Args:
        table: a CSV, one row an object, one column a question; cells are yes/no/?, probabilities of yes, or strengths of any scale
        budget: questions that may be answered; one answered with ? is not counted, and not asked again
        rule: which question next: bald, sgbs, uncertainty or random_query, with arguments as in sgbs(beta=0.1)
        sure: stop as soon as the leader is as probable as this; 1 asks all questions
        flip: take only the sides of the table, wrong with this probability, instead of its own probabilities
        answers: a CSV with the columns question and answer (yes, no, ?) that answers in your place
        folder: where the session is kept (default: a folder of everlearn-runs/ named by table and settings)
        seed: decides between questions that are equally good
    """
    from everlearn.agents.query_names import query_rule
    from everlearn.agents.query_policy import Policy
    from everlearn.data.query_tables import question_table

    check_count("ask", "budget", budget)
    check_range("ask", "sure", sure, 0.0, 1.0)
    problem = question_table(table, budget, flip=flip)
    chosen = query_rule(rule)
    Policy(chosen, problem)  # refuses a rule that means nothing here
    if simulate:
        if answers is not None:
            raise ArgumentError("ask: --simulate plays every object by itself; it takes no --answers.")
        return _simulate(problem, chosen, seed, json)
    if json and answers is None:
        raise ArgumentError(
            "ask: --json prints nothing but its document, so nobody can be asked; it goes with --answers or --simulate."
        )
    known = None if answers is None else _read_answers(Path(answers), problem.query_names)
    settings = {
        "table": hashlib.sha256(Path(table).read_bytes()).hexdigest(),
        "rule": repr(chosen),
        "flip": flip,
        "seed": seed,
    }
    mark = hashlib.sha256(json_text.dumps(settings).encode()).hexdigest()[:8]
    file = None
    if known is None or folder is not None:
        file = Path(folder or FOLDER / f"ask-{Path(table).stem}-{mark}") / "session.json"
    session = Session(problem, chosen, seed, sure, min(budget, problem.size), file, settings)
    if file is not None and resume:
        session.resume()
    reply = _typed(session) if known is None else lambda question: known.get(question, "unknown")
    finished = _play(session, reply, quiet=known is not None)
    return _close(session, finished, json)


class Session:
    """Answers so far, and the agent that they lead to: the agent is made anew from them, which is what undo and resume need."""

    def __init__(self, problem: Any, rule: Any, seed: int, sure: float, budget: int, file: Path | None, settings: dict):
        self.problem, self.rule, self.seed, self.sure, self.budget = problem, rule, seed, sure, budget
        self.file, self.settings = file, settings
        self.said: list[list[str]] = []  # [question, answer]
        self.agent = self._agent()

    def _agent(self) -> Any:
        from everlearn.agents.query import Query

        agent = Query(self.problem, self.rule, seed=self.seed)
        for question, answer in self.said:
            self._tell(agent, question, answer)
        return agent

    def _tell(self, agent: Any, question: str, answer: str) -> None:
        import torch

        from everlearn.core.events import Feedback

        index = self.problem.query_names.index(question)
        if answer == "unknown":
            if int(agent.withheld.sum()) < agent.actions - 1:
                agent.withhold(index)
            return
        agent.update(Feedback(question, torch.zeros(1, 1), index, None, VALUE[answer]))

    @property
    def counted(self) -> int:
        """Answers that count against the budget."""
        return sum(answer != "unknown" for _, answer in self.said)

    @property
    def over(self) -> bool:
        """Whether nothing is left to ask: the budget is used, the leader is sure, or every question was shown."""
        sure = self.sure < 1.0 and self.leaders()[0][1] >= self.sure
        return sure or self.counted >= self.budget or len(self.said) >= len(self.problem.query_names)

    def question(self) -> str:
        """The next question: a function of the answers so far."""
        import torch

        return self.problem.query_names[self.agent.act(torch.zeros(1, 1), len(self.said)).action]

    def add(self, question: str, answer: str) -> None:
        """Take an answer, and keep it on disk before anything else happens."""
        self.said.append([question, answer])
        self._save()
        self._tell(self.agent, question, answer)

    def undo(self) -> bool:
        """Take the last answer back; False where there is none."""
        if not self.said:
            return False
        self.said.pop()
        self._save()
        self.agent = self._agent()
        return True

    def leaders(self) -> list[tuple[str, float]]:
        """The most probable objects, [(name, probability)]."""
        chance = self.agent.scores().exp()
        order = chance.argsort(descending=True, stable=True)[:LEADERS].tolist()
        return [(self.problem.answer_names[index], float(chance[index])) for index in order]

    def resume(self) -> None:
        """Go on with the answers of the file, where there is one. Raises StateError where it belongs to something else."""
        if self.file is None or not self.file.is_file():
            return
        try:
            kept = json_text.loads(self.file.read_text(encoding="utf8"))
            settings, said = kept["settings"], [[str(question), str(answer)] for question, answer in kept["answers"]]
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{self.file}: no session of ask can be read from it; --no-resume starts anew.") from error
        names = set(self.problem.query_names)
        if settings != self.settings or not all(question in names and answer in WORDS.values() for question, answer in said):
            raise StateError(f"{self.file}: holds a session of another table or other settings; --no-resume starts anew.")
        self.said = said
        self.agent = self._agent()

    def _save(self) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = json_text.dumps({"settings": self.settings, "answers": self.said}, indent=1, ensure_ascii=False)
        part = self.file.with_suffix(".part")
        with open(part, "w", encoding="utf8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, self.file)


def _play(session: Session, reply: Callable[[str], str], quiet: bool) -> bool:
    """Ask until it is over; False where the player left before."""
    while not session.over:
        question = session.question()
        word = reply(question)
        if word == "quit":
            return False
        if word == "undo":
            session.undo()
            continue
        session.add(question, word)
        if not quiet:
            say(f"    {_standing(session)}")
    return True


def _typed(session: Session) -> Callable[[str], str]:
    """Answers from the keyboard. The end of the input is the same as quit."""
    from rich.markup import escape

    screen = console()
    screen.print(
        "Answer [b]y[/b]es, [b]n[/b]o or [b]?[/b]; [b]undo[/b] takes the last answer back, [b]quit[/b] leaves and keeps all."
    )
    if session.said:
        count = len(session.said)
        screen.print(f"Going on after {count} answer{'s' if count > 1 else ''}: {escape(_standing(session))}")

    def reply(question: str) -> str:
        while True:
            try:
                text = screen.input(f"{session.counted + 1}/{session.budget}  [b]{escape(question)}[/b]? ")
            except EOFError:
                say("")
                return "quit"
            word = text.strip().lower()
            if word in WORDS and word != "":
                return WORDS[word]
            if ORDERS.get(word) == "undo" and not session.said:
                say("    There is no answer to take back.")
            elif word in ORDERS:
                return ORDERS[word]
            else:
                say(f"    {text.strip()!r} is none of y, n, ?, undo, quit.")

    return reply


def _standing(session: Session) -> str:
    return ", ".join(f"{name} {chance:.0%}" for name, chance in session.leaders())


def _close(session: Session, finished: bool, json: bool) -> int:
    found = session.leaders()
    if json:
        return print_json(
            {
                "guess": found[0][0],
                "probability": found[0][1],
                "leaders": [{"name": name, "probability": chance} for name, chance in found],
                "answers": [{"question": question, "answer": answer} for question, answer in session.said],
                "finished": finished,
                "session": None if session.file is None else str(session.file),
            }
        )
    if finished:
        say(f"My guess after {session.counted} answers: {found[0][0]} ({found[0][1]:.0%}); then {_rest(found)}.")
    else:
        say(f"Left after {session.counted} answers; the same command goes on. So far: {_standing(session)}.")
    if finished and session.file is not None:
        say(f"Kept in {session.file}; --no-resume plays again.")
    return 0


def _rest(found: list[tuple[str, float]]) -> str:
    return ", ".join(f"{name} ({chance:.0%})" for name, chance in found[1:])


def _read_answers(path: Path, questions: tuple[str, ...]) -> dict[str, str]:
    """{question: yes, no or unknown} of a CSV; refuses questions that the table does not have."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV: {getattr(error, 'strerror', None) or error}.") from error
    if rows and not {"question", "answer"} <= set(rows[0]):
        raise DataError(f"{path}:1: the columns question and answer are expected, got {', '.join(map(str, rows[0]))}.")
    found = {}
    for line, row in enumerate(rows, start=2):
        question, word = row["question"].strip(), (row["answer"] or "").strip().lower()
        if question not in questions:
            raise DataError(f"{path}:{line}: the table has no question {question!r}.")
        if word not in WORDS:
            raise DataError(f"{path}:{line}: the answer to {question!r} must be yes, no or ?, got {word!r}.")
        found[question] = WORDS[word]
    return found


def _simulate(problem: Any, rule: Any, seed: int, json: bool) -> int:
    """Every object plays, answering as its row of the table says: how often it is guessed, beside random questions."""
    from everlearn.agents.query_policy import hit_rates
    from everlearn.agents.query_rules import Random

    rows = []
    for played in (rule, Random()):
        rate = hit_rates(played, problem, max(1, EPISODES // len(problem.answers)), seed)
        worst = rate.sort().values[:5]
        least = rate.argsort(stable=True)[:5].tolist()
        rows.append(
            {
                "rule": repr(played),
                "accuracy": float(rate.mean()),
                "worst_5": float(worst.mean()),
                "hardest": [problem.answer_names[index] for index in least],
            }
        )
    if json:
        return print_json({"budget": problem.horizon, "objects": len(problem.answers), "rules": rows})
    from rich.table import Table

    shown = Table(title=f"{len(problem.answers)} objects, {problem.horizon} questions", title_justify="left")
    for name in ("rule", "guessed", "worst 5", "hardest"):
        shown.add_column(name)
    for row in rows:
        shown.add_row(row["rule"], f"{row['accuracy']:.1%}", f"{row['worst_5']:.1%}", ", ".join(row["hardest"]))
    console().print(shown)
    return 0
