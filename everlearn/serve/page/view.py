"""What an engine says of itself, in the words and figures that the page shows.

`view` is a pure function of the five answers of an engine, and gives texts alone. view.js is its twin in the browser, where the
page goes on; a test holds the two to the same texts.
"""

from collections.abc import Mapping
from typing import Any

from everlearn.measure.report import numbers as say

Record = Mapping[str, Any]
KINDS = {"classes": "classifier", "values": "regressor", "actions": "agent"}
MEASURES = {"accuracy": "Accuracy", "error": "Mean absolute error", "reward": "Mean reward"}
STATES = {
    "active": "in service",
    "candidate": "candidate",
    "refused": "refused",
    "retired": "retired",
    "withdrawn": "withdrawn",
    "pruned": "removed",
}
ACTIONS = {
    "promote": "Version {after} went into service in place of version {before}",
    "refuse": "Version {after} was refused; version {before} stayed in service",
    "rollback": "Version {after} was put back into service in place of version {before}",
    "automatic_rollback": "The guard put version {after} back into service in place of version {before}",
    "set_aside": "A step that cannot be learned from was set aside",
    "release": "Feedback that was set aside was released for learning",
    "pause": "Learning was paused",
    "resume": "Learning was resumed",
    "freeze": "An alarm stopped learning",
    "erase": "What was stored under an id was erased",
}
TONES = {"promote": "good", "rollback": "caution", "automatic_rollback": "caution", "freeze": "bad", "set_aside": "bad"}
LOCAL = "local"  # who acts where no token is asked for
SMALL, LARGE = 1e-4, 1e9  # figures beyond them have an exponent
BACK = ("retired", "withdrawn", "refused", "candidate")  # states of versions that one can go back to


def view(state: Record) -> dict[str, Any]:
    """The texts of the page. state: {"status", "versions", "alarms", "decisions"} as an `Engine` gives them."""
    status = state["status"]
    measure, now = status["measure"], status["time"]
    health = _health(status)
    return {
        **health,
        "title": " – ".join([health["badge"], *([] if status["version"] is None else [_named(status)]), "Everlearn"]),
        "model": status["model"],
        "kind": KINDS.get(status["kind"], status["kind"]),
        "learning": {"running": "pause", "paused": "resume"}.get(status["learning"], ""),
        "tiles": _tiles(state),
        "measure": MEASURES[measure],
        "better": "lower is better" if measure == "error" else "higher is better",
        "guard": _guard(status),
        "alarms": [_alarm(alarm, now) for alarm in state["alarms"]],
        "versions": [_version(version, measure, now) for version in state["versions"]],
        "decisions": [_decision(decision, now) for decision in state["decisions"]],
        "foot": _foot(status),
    }


def blank() -> dict[str, str]:
    """A view that tells nothing."""
    names = "tone badge headline beneath title model kind learning tiles measure better guard alarms versions decisions foot"
    return dict.fromkeys(names.split(), "")


def score(measure: str, value: float | None) -> str:
    """A score as people read it: percent, a positive error, or a reward."""
    if measure == "accuracy":
        return say.percent(value)
    return figure(-value if measure == "error" and say.known(value) else value)


def figure(value: float | None) -> str:
    """Three figures, with an exponent where there would be many zeros: 0.01234 -> '0.0123', 0.0000123 -> '1.23e−5'."""
    if not say.known(value) or value == 0 or SMALL <= abs(value) < LARGE:
        return say.significant(value)
    digits, _, power = f"{abs(value):.2e}".partition("e")
    return f"{say.MINUS if value < 0 else ''}{digits.rstrip('0').rstrip('.')}e{say.MINUS if int(power) < 0 else ''}{abs(int(power))}"


def gap(measure: str, value: float | None, other: float | None) -> str:
    """How far a score is above another, in points or in the unit of the score; '' where one is unknown."""
    if not (say.known(value) and say.known(other)):
        return ""
    if measure == "accuracy":
        return say.signed_points(value - other)
    ahead = other - value if measure == "error" else value - other
    return ("+" if ahead > 0 else "") + figure(ahead)


def age(seconds: float) -> str:
    """How long ago something was: 'just now', '40 s ago', '3 min ago', '2 h ago', '5 days ago'."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length * (2 if unit == "days" else 5 if unit == "s" else 1):
            return f"{say.count(seconds // length)}{say.SPACE}{unit} ago"
    return "just now"


def span(seconds: float) -> str:
    """How long something took, in days where it took two of them or more."""
    return f"{say.count(seconds // 86400)}{say.SPACE}days" if seconds >= 172800 else say.seconds(seconds)


def _health(status: Record) -> dict[str, str]:
    version, lag, fault = _named(status), status["lag"], status["fault"] or ""
    recent, latest = status["alarms"]["recent"], status["alarms"]["latest"]
    waiting = f"{_answers(lag['answers'])} not learned from yet"
    if status["learning"] == "failed" and status["version"] is None:
        words = "bad", "Failed", "Nothing answers: the server could not start from its log.", fault
    elif status["learning"] == "failed":
        words = "bad", "Learning has stopped", f"{version} still answers, but learning has stopped.", fault
    elif status["learning"] == "recovering":
        left = f"{say.plural(lag['events'], 'row')} of the log left to learn again."
        words = "open", "Starting", "The server is starting from its log.", left
    elif status["learning"] == "paused":
        told = f"{waiting}; feedback is kept, and nothing is lost."
        words = "caution", "Paused", f"{version} answers, and learning is paused.", fault or told
    elif status["learning"] == "following":
        words = "open", "Following", f"{version} answers, and another process learns.", fault
    elif fault or not status["ready"]:
        told = f"{waiting}, the oldest for {say.seconds(lag['seconds'])}."
        words = "caution", "Not ready", f"{version} answers, but the server is not ready.", fault or told
    elif recent:
        told = f"{version} is in service and learning, with {say.plural(recent, 'alarm')} in the last hour."
        words = "caution", "Needs a look", told, latest["message"] if latest else ""
    elif not status["counts"]["inputs"]:
        told = "Send a row with POST /v1/predict, and its answer with POST /v1/feedback once it is known."
        words = "open", "Ready", f"{version} waits for its first request.", told
    else:
        words = "good", "Healthy", f"{version} is in service and learning.", ""
    return dict(zip(("tone", "badge", "headline", "beneath"), words, strict=True))


def _tiles(state: Record) -> list[dict[str, str]]:
    status = state["status"]
    counts, lag, queue, measure = status["counts"], status["lag"], status["queue"], status["measure"]
    rows, service = status["score"]["rows"], _service(state)
    newest = "over the newest answer" if rows == 1 else f"over the newest {say.count(rows)} answers"
    waits = f"the oldest for {say.seconds(lag['seconds'])}" if lag["answers"] else "every answer is learned from"
    early = f", {say.count(counts['early_waiting'])} early" if counts["early_waiting"] else ""
    delay = status.get("delay") or {}
    left = f", {say.count(counts['unanswered'])} given up" if counts["unanswered"] else ""
    share = status["unanswered_share"]
    missing = f"{say.count(share * counts['inputs'])} of {say.count(counts['inputs'])} predictions{left}"
    tiles = [
        _tile("score", MEASURES[measure], score(measure, status["score"]["value"]), newest if rows else "no answers yet"),
        _tile("version", "In service", _named(status), _made(service, status["time"])),
        _tile("lag", "Not learned from yet", _answers(lag["answers"]) if lag["answers"] else "Nothing", waits),
    ]
    if say.known(delay.get("median")):
        slow = f"one in ten after {say.seconds(delay['p90'])}" if say.known(delay.get("p90")) else "the median"
        tiles.append(_tile("delay", "Answers come after", say.seconds(delay["median"]), slow))
    tiles.append(_tile("unanswered", "Without an answer", say.percent(share), missing))
    if status["propensity"]:
        least, effective = status["propensity"]["least"], status["propensity"]["effective"]
        tiles.append(_tile("propensity", "Least propensity", figure(least), f"effective sample {say.percent(effective, 0)}"))
    asked = f"{_answers(counts['answers'])} came{early}"
    tiles.append(_tile("requests", "Predictions", say.count(counts["inputs"]), asked))
    tiles.append(
        _tile("queue", "In the queue", say.count(queue["waiting"]), f"of {say.count(queue['limit'])} that may wait")
    )
    return tiles


def _guard(status: Record) -> str:
    guard, measure = status["guard"], status["measure"]
    if not guard or not say.known(guard.get("candidate")):
        return ""
    beside = [f"the one in service at {score(measure, guard['service'])}"] if say.known(guard.get("service")) else []
    beside += [f"its parent at {score(measure, guard['parent'])}"] if say.known(guard.get("parent")) else []
    told = f"The candidate stands at {score(measure, guard['candidate'])}"
    return f"{', '.join([told, *beside])}, over {_answers(guard['rows'])}."


def _alarm(alarm: Record, now: float) -> dict[str, Any]:
    held = f"{figure(alarm['value'])} against a limit of {figure(alarm['limit'])}"
    return {
        "key": f"{alarm['kind']} {alarm['seq']} {alarm['time']:.3f}",
        "kind": _words(alarm["kind"]),
        "message": alarm["message"],
        "held": held,
        "age": age(now - alarm["time"]),
        "time": alarm["time"],
    }


def _version(version: Record, measure: str, now: float) -> dict[str, Any]:
    rows = version["rows"]
    beside = gap(measure, version["score"], version["service_score"])
    return {
        "key": str(version["version"]),
        "number": version["version"],
        "branch": f"branch {version['branch']}" if version["branch"] else "",
        "state": version["state"],
        "word": STATES.get(version["state"], version["state"]),
        "score": score(measure, version["score"]),
        "service": score(measure, version["service_score"]),
        "gap": beside,
        "over": _answers(rows) if rows else "",
        "age": age(now - version["created"]),
        "time": version["created"],
        "reason": version["reason"],
        "back": version["state"] in BACK,
    }


def _decision(decision: Record, now: float) -> dict[str, Any]:
    action, before, after = decision["action"], decision["before"], decision["after"]
    sentence = ACTIONS.get(action, _words(action))
    if before is None:
        sentence = sentence.split(" in place of")[0].split("; version")[0]
    sentence = sentence.replace("{before}", str(before)).replace("{after}", "?" if after is None else str(after))
    return {
        "key": f"{action} {decision['seq']} {decision['time']:.3f}",
        "action": action,
        "tone": TONES.get(action, ""),
        "sentence": f"{sentence}.",
        "reason": decision["reason"],
        "who": f"by {decision['who']}" if decision["who"] not in ("", LOCAL) else "",
        "age": age(now - decision["time"]),
        "time": decision["time"],
    }


def _foot(status: Record) -> str:
    kept = {"full": "kept through a power cut", "normal": "kept through a crash"}
    parts = [
        f"Up for {span(round(max(0.0, status['time'] - status['started'])))}",
        f"log up to row {say.count(status['last_seq'])}, learned up to row {say.count(status['applied_seq'])}",
        f"{say.plural(status['counts']['versions'], 'version')}, {say.plural(status['counts']['steps'], 'step')}",
        f"what is accepted is {kept.get(status['durability'], status['durability'])}",
    ]
    if say.known(status["fsync_ms"]):
        parts.append(f"a write takes {say.milliseconds(status['fsync_ms'])}")
    return "; ".join(parts) + "."


def _named(status: Record) -> str:
    return "No version" if status["version"] is None else f"Version {status['version']}"


def _service(state: Record) -> Record | None:
    return next((item for item in state["versions"] if item["version"] == state["status"]["version"]), None)


def _made(version: Record | None, now: float) -> str:
    if version is None:
        return ""
    branch = f", branch {version['branch']}" if version["branch"] else ""
    return f"made {age(now - version['created'])}{branch}"


def _answers(number: int) -> str:
    return say.plural(number, "answer")


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _tile(key: str, name: str, figure: str, beside: str) -> dict[str, str]:
    return {"key": key, "name": name, "figure": figure, "beside": beside}
