"""A trained few-shot model is taught a class from a handful of rows, or made to forget one, without its training data.

    state of lesson n = one call (add_class, refresh_class, remove_class) on the state of lesson n - 1;   lesson 0: as trained

Lessons are snapshots in a folder beside the run, which stays as it is. The folder is a run's folder itself, so that it can be
served and taught again; none of its snapshots is ever removed. No row is kept, only the sha256 of the rows of each lesson.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml
from torch import Tensor

from everlearn.core.errors import ArgumentError, InputError, StateError, closest
from everlearn.core.lock import LOCK, held
from everlearn.core.run_folder import CONFIG, SNAPSHOTS
from everlearn.core.state import capture, digest, load_snapshot, newest_snapshot, same, write_atomic, write_snapshot
from everlearn.learners.few_shot import FewShot
from everlearn.serve.examples import examples
from everlearn.serve.source import SERVER, Source, source_of

TAUGHT = "taught"  # the folder of lessons in that of a run
ORIGIN = "taught_from"  # the key of its config.yaml that marks it
FEW = 12  # classes that are named one by one in words


@dataclass
class Pupil:
    """A model that is taught: its learner in the state of the newest lesson, and the folder that keeps the lessons.

    classes: the name of each column of scores, those of the data first; lessons: what was taught so far, the oldest first; settled:
    whether the folder holds lessons already.
    """

    source: Source
    folder: Path
    classes: list[str]
    lessons: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    settled: bool = False

    @property
    def learner(self) -> FewShot:
        """What is taught."""
        return self.source.served

    @property
    def known(self) -> list[str]:
        """The names of the classes that can be the answer, in the order in which they came."""
        return [self.classes[number] for number in self.learner.answers.known]

    def answers(self, x: Tensor) -> dict[str, int]:
        """How often each class is the answer to some rows, the most frequent first."""
        if not self.known:
            return {}
        counts = Counter(self.learner.predict(x).argmax(dim=1).tolist())
        return {self.classes[number]: count for number, count in counts.most_common()}

    def state(self) -> dict[str, Any]:
        """What a snapshot of it holds."""
        return {"learner": self.learner.state_dict(), "classes": list(self.classes), "lessons": list(self.lessons)}


def teach(
    folder: str | Path,
    *,
    add: str | None = None,
    refresh: str | None = None,
    remove: str | None = None,
    files: Sequence[str | Path] = (),
    output: str | Path | None = None,
    resize: bool = False,
    learner: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Teach a trained few-shot model one class, or make it forget one. Returns what changed, as plain JSON.

    folder: of a run of few_shot, of a comparison that holds one (`learner` and `seed` choose it), or of earlier lessons; add: the name of
    a class to learn from `files` (see `serve.examples.examples`, also for resize); refresh: of a known class to learn anew from `files`
    alone; remove: of a class never to answer with again; output: where lessons are kept (FOLDER/taught, or FOLDER where that is one).

    Keys: folder, lesson (its number), action, class, number (the column of scores), rows, seconds (of the learner's call alone), classes
    (names known now), before and after (how often each class is the answer to the rows given), encoder ("as it was" or "tuned"),
    bytes_per_class, accuracy (None: it is not known), sha256 (of the learner's state).

    Raises StateError (no such folder, or not a run's), ArgumentError (a learner that cannot be taught, or not one thing asked), DataError
    (files), InputError (a name in use, or one that nothing bears); nothing was written then.
    """
    action, name = _asked(add, refresh, remove, files)
    with _opened(folder, output, learner, seed) as pupil:
        made = pupil.learner
        x = examples(files, pupil.source.spec, resize=resize) if action != "remove" else None
        first = pupil.state()
        made.end_base()
        made.call(pupil.classes)
        _refuse(pupil.known, action, name)
        before = {} if x is None else pupil.answers(x)
        encoder = capture(made.encoder)
        started = perf_counter()
        number = _carried_out(made, action, name, x)
        seconds = perf_counter() - started
        if number == len(pupil.classes):
            pupil.classes.append(name)
        rows = 0 if x is None else len(x)
        lesson = {"action": action, "class": name, "rows": rows, "data": None if x is None else digest(x)}
        pupil.lessons.append(lesson)
        place = _kept(pupil, first)
        return {
            "folder": str(pupil.folder),
            "lesson": place,
            "action": action,
            "class": name,
            "number": number,
            "rows": rows,
            "seconds": seconds,
            "classes": pupil.known,
            "before": before,
            "after": {} if x is None else pupil.answers(x),
            "encoder": "as it was" if same(encoder, capture(made.encoder)) else "tuned",
            "bytes_per_class": made.bytes_per_class,
            "accuracy": None,
            "sha256": digest(made.state_dict()),
        }


def sentences(found: dict[str, Any]) -> list[str]:
    """What `teach` changed, in words."""
    name, rows, seconds = found["class"], found["rows"], f"{found['seconds']:.2g} seconds"
    count = f"{rows} row" + "s" * (rows != 1)
    done = {
        "add": f"learned {name!r} from {count} in {seconds}",
        "refresh": f"learned {name!r} anew from {count} in {seconds}",
        "remove": f"{name!r} is no longer an answer",
    }[found["action"]]
    known = found["classes"]
    told = [done, f"classes now: {len(known)}" + (f" ({', '.join(known)})" if len(known) <= FEW else "")]
    if found["before"]:
        told.append(f"these rows were answered {_counted(found['before'])}; now {_counted(found['after'])}")
    if found["encoder"] == "tuned":
        told.append("the encoder was tuned on these rows, so answers about other classes may have changed")
    told.append("accuracy now: not known; it takes labelled rows that the model was not taught with")
    told.append(f"kept as lesson {found['lesson']} in {found['folder']}, with every state before it")
    return [*told, f"serve it: everlearn serve {found['folder']}"]


def _asked(add: str | None, refresh: str | None, remove: str | None, files: Sequence[Any]) -> tuple[str, str]:
    """The one thing that is asked for, and the class."""
    asked = [(action, name) for action, name in (("add", add), ("refresh", refresh), ("remove", remove)) if name is not None]
    if len(asked) != 1:
        raise ArgumentError("teach: name one of --class NAME, --refresh NAME and --remove NAME.")
    action, name = asked[0]
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ArgumentError(f"teach: the name of a class must be a printable text, got {name!r}.")
    if action == "remove" and files:
        raise ArgumentError(f"teach: removing {name!r} takes no files, got {files[0]}.")
    return action, name


def _refuse(known: list[str], action: str, name: str) -> None:
    """Refuse a name that does not fit what is asked."""
    if action == "add" and name in known:
        raise InputError(
            f"class {name!r} is known already. Learn it anew with --refresh {name!r}, or take it away with --remove {name!r}."
        )
    if action != "add" and name not in known:
        raise InputError(closest("class", name, known))
    if action == "remove" and len(known) == 1:
        raise InputError(f"{name!r} is the only class that the model knows; add another one first.")


def _carried_out(learner: FewShot, action: str, name: str, x: Tensor | None) -> int:
    """Teach, and give the number of the class."""
    if action == "add":
        return learner.add_class(x, name)
    number = learner.number(name)
    if action == "refresh":
        learner.refresh_class(x, name)
    else:
        learner.remove_class(name)
    return number


@contextmanager
def _opened(folder: str | Path, output: str | Path | None, learner: str | None, seed: int) -> Iterator[Pupil]:
    """The model of a folder in the state of its newest lesson, its folder of lessons held by this process alone."""
    path = Path(folder)
    if not path.is_dir():
        raise StateError(
            f"{folder}: there is no such folder. `everlearn run few_shot STREAM` makes one and names it at its end."
        )
    if (path / SERVER).exists():
        raise StateError(
            f"{folder} is a server's folder, whose state follows from its log. Teach the run that it came from, and serve that."
        )
    source = source_of(str(folder), learner=learner, seed=seed)
    if not isinstance(source.served, FewShot):
        choose = ", or name one of the comparison with --learner" if Path(source.origin) != path else ""
        raise ArgumentError(
            f"{source.learner} cannot be taught a class from a few rows; few_shot can. Train one with "
            f"`everlearn run few_shot STREAM`{choose}."
        )
    own = Path(source.origin)
    again = ORIGIN in _config(own)
    place = Path(output) if output is not None else own if again else own / TAUGHT
    with _held(place, own):
        yield _pupil(source, own, place, again)


def _pupil(source: Source, own: Path, place: Path, again: bool) -> Pupil:
    """The model as its folder of lessons has it; as its run ended where there are none."""
    pupil = Pupil(source, place, list(source.spec.classes))
    if again:
        _continue(pupil, own)
    if place.resolve() == own.resolve():
        return pupil
    pupil.number, pupil.settled = 0, False
    if newest_snapshot(place / SNAPSHOTS) is not None:
        _, first = load_snapshot(place / SNAPSHOTS / f"{0:09d}.json")
        if digest(first["learner"]) != digest(source.served.state_dict()):
            raise StateError(
                f"{place} holds lessons of another state than that of {own} (trained again since?). Choose another --output, or go "
                f"on with what it has: everlearn teach {place} ..."
            )
        _continue(pupil, place)
    return pupil


def _continue(pupil: Pupil, folder: Path) -> None:
    """Set a model to the newest lesson in a folder."""
    pupil.number, state = newest_snapshot(folder / SNAPSHOTS)
    pupil.classes, pupil.lessons, pupil.settled = list(state["classes"]), list(state["lessons"]), True
    pupil.learner.load_state_dict(state["learner"])


def _kept(pupil: Pupil, first: dict[str, Any]) -> int:
    """Write the state as the next snapshot, in a new folder after the state before; its number."""
    snapshots = pupil.folder / SNAPSHOTS
    if not pupil.settled:
        source = pupil.source
        stream = _config(Path(source.origin))["stream"]
        config = {
            ORIGIN: source.origin,
            "learner": source.learner,
            "model": source.model,
            "seed": source.seed,
            "stream": stream,
        }
        write_atomic(pupil.folder / CONFIG, yaml.safe_dump(config, sort_keys=False).encode())
        write_snapshot(snapshots, 0, first)
    write_snapshot(snapshots, pupil.number + 1, pupil.state())
    return pupil.number + 1


@contextmanager
def _held(place: Path, own: Path) -> Iterator[None]:
    """A folder of lessons, made where there is none, held by this process alone. Refused where it holds something else."""
    fresh = not place.exists()
    strange = not fresh and place.resolve() != own.resolve() and any(item.name != LOCK for item in place.iterdir())
    if strange and ORIGIN not in _config(place):
        raise StateError(f"{place} holds something else than lessons. Choose another --output.")
    with held(place, "choose another --output"):
        try:
            yield
        finally:
            if not any(item.name != LOCK for item in place.iterdir()):  # nothing was taught
                (place / LOCK).unlink(missing_ok=True)
                if fresh:
                    place.rmdir()


def _config(folder: Path) -> dict[str, Any]:
    """The configuration of a run's folder; nothing where there is none."""
    try:
        found = yaml.safe_load((folder / CONFIG).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StateError(f"{folder / CONFIG} cannot be read: {' '.join(str(error).split())}.") from error
    return found if isinstance(found, dict) else {}


def _counted(counts: dict[str, int]) -> str:
    """'7' (3), '1' (2), the most frequent first."""
    shown = [f"{name!r} ({count})" for name, count in list(counts.items())[:FEW]]
    return ", ".join(shown) + (" and others" if len(counts) > FEW else "")
