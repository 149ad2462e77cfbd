"""Reading a comparison record: who stands in it, in which part, with which figures. Pure functions of plain dicts.

A learner's entry counts only if it has no error and a score. `role` says what it is here for:

    frozen      what never learns, once deployed: the frozen model, or persistence
    learner     may be recommended
    reference   a yardstick above any budget     outside   broke the budget           failed   ended in an error
"""

from collections.abc import Mapping, Sequence
from typing import Any

from everlearn.measure.report.numbers import known

Entry = Mapping[str, Any]
HELD_OUT = "accuracy"
PREQUENTIAL = "prequential_accuracy"
SKILL = "skill"
STILL = ("frozen", "persistence")  # names of what never learns, once deployed
_HEADLINES = {"held_out": HELD_OUT, "prequential": PREQUENTIAL}


def headline(name: str | None) -> str:
    """The headline measure, whether it was named by the stream ('held_out') or by the measure ('accuracy')."""
    return _HEADLINES.get(name or "held_out", name or HELD_OUT)


def measure(entry: Entry | None, name: str) -> dict[str, Any] | None:
    """A learner's summary of one measure (mean, low, high, values); None where it has none."""
    found = ((entry or {}).get("summary") or {}).get(name)
    return found if isinstance(found, Mapping) and known(found.get("mean")) else None


def mean(entry: Entry | None, name: str) -> float | None:
    """The mean over seeds of one measure; None where there is none."""
    found = measure(entry, name)
    return None if found is None else found["mean"]


def half_width(entry: Entry | None, name: str) -> float | None:
    """Half the width of the 95 % interval of one measure; None where there is none (one seed)."""
    found = measure(entry, name)
    if found is None or not (known(found.get("low")) and known(found.get("high"))):
        return None
    return (found["high"] - found["low"]) / 2


def role(entry: Entry) -> str:
    """What a learner stands in the comparison for."""
    if entry.get("error") or mean(entry, "score") is None:
        return "failed"
    if entry.get("name") in STILL:
        return "frozen"
    if entry.get("reference"):
        return "reference"
    return "learner" if entry.get("within_budget", True) else "outside"


def still(entry: Entry | None) -> str:
    """What never learns, in words: the frozen model, or persistence."""
    return "persistence" if (entry or {}).get("name") == "persistence" else "the frozen model"


def of_role(learners: Sequence[Entry], *roles: str) -> list[Entry]:
    """The learners of these roles, best score first."""
    found = [entry for entry in learners if role(entry) in roles]
    return sorted(found, key=lambda entry: -(mean(entry, "score") or 0.0))


def ranked(learners: Sequence[Entry]) -> list[Entry]:
    """All learners, best score first, those that failed at the end."""
    return of_role(learners, "frozen", "learner", "outside", "reference") + of_role(learners, "failed")


def masked(entry: Entry) -> bool:
    """Whether a learner's loss is masked to the classes at hand, as its call string tells."""
    return "masked(" in str(entry["label"])


def plain(entry: Entry) -> bool:
    """Whether a learner is plain fine-tuning: no memory, no penalty, the loss over all classes."""
    return entry.get("name") == "fine_tune" and not masked(entry)


def find(learners: Sequence[Entry], label: str | None) -> Entry | None:
    """The learner of a label."""
    return next((entry for entry in learners if entry["label"] == label), None)


def short_names(learners: Sequence[Entry]) -> dict[str, str]:
    """{label: the name without its arguments}, where no other learner bears it; the label itself where one does."""
    names = [str(entry["label"]).partition("(")[0] for entry in learners]
    return {
        entry["label"]: name if name and names.count(name) == 1 else entry["label"]
        for entry, name in zip(learners, names, strict=True)
    }


def retrained(learners: Sequence[Entry]) -> Entry | None:
    """The best of the learners named retrain; any other reference where none bears that name."""
    references = of_role(learners, "reference")
    return next((entry for entry in references if entry.get("name") == "retrain"), references[0] if references else None)


def contrast(pairs: Sequence[Mapping[str, Any]], first: str, second: str) -> dict[str, Any] | None:
    """The paired difference `first` minus `second`, whichever way round the record holds it."""
    for pair in pairs:
        if (pair["first"], pair["second"]) == (first, second):
            return {key: pair.get(key) for key in ("difference", "low", "high", "p", "clear")}
        if (pair["first"], pair["second"]) == (second, first):
            low, high = pair.get("low"), pair.get("high")
            return {
                "difference": -pair["difference"],
                "low": -high if known(high) else None,
                "high": -low if known(low) else None,
                "p": pair.get("p"),
                "clear": pair.get("clear"),
            }
    return None


def difference(pairs: Sequence[Mapping[str, Any]], first: Entry, second: Entry) -> dict[str, Any]:
    """The paired difference of two scores; a plain difference without interval where the record has no such pair."""
    found = contrast(pairs, first["label"], second["label"])
    if found is not None:
        return found
    gap = (mean(first, "score") or 0.0) - (mean(second, "score") or 0.0)
    return {"difference": gap, "low": None, "high": None, "p": None, "clear": False}


def figures(entry: Entry | None, monitor: str) -> list[Mapping[str, Any]]:
    """One monitor's figures, seed by seed, of the runs that have them."""
    runs = (entry or {}).get("runs") or []
    return [run["figures"][monitor] for run in runs if (run.get("figures") or {}).get(monitor)]


def seed_count(learners: Sequence[Entry]) -> int:
    """The number of seeds behind the scores: the fewest of any learner that counts."""
    counts = [len(found.get("values") or [0]) for entry in learners if (found := measure(entry, "score"))]
    return min(counts, default=0)
