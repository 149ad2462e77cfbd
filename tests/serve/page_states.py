"""What the tests of the page show it: states of a server, an engine that holds one of them, and a small API over it."""

import copy
import math
from concurrent.futures import Future

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from everlearn.core.errors import ServeError
from everlearn.serve.engine import Engine
from everlearn.serve.page import page_routes

NOW = 1_790_010_000.0
HOSTILE = "<img src=x onerror=alert(1)>\u202e\"'&{{7*7}}</script>"


def versions(number, *, active=None):
    active = number - 1 if active is None else active
    return [
        {
            "version": index,
            "parent": index - 1 if index else None,
            "branch": 0,
            "number": 20 * index,
            "applied_seq": 1000 * index,
            "sha256": f"{index:064x}",
            "state": "active" if index == active else "retired" if index < active else "candidate",
            "created": NOW - 600 * (number - index),
            "score": 0.8 + 0.13 * (1 - math.exp(-index / 3)) if index else None,
            "service_score": 0.8 + 0.13 * (1 - math.exp(-(index - 1) / 3)) if index > 1 else None,
            "rows": 200 if index else 0,
            "bytes": 120_000,
            "reason": "the first version" if not index else "not worse than the version in service by more than 0.02",
        }
        for index in reversed(range(number))
    ]


def series(number=120, measure="accuracy"):
    sign = {"accuracy": 1.0, "error": -1.0, "reward": 2.5}[measure]
    return [
        {
            "time": NOW - 30 * (number - index),
            "seq": 70 * index,
            "score": None if index < 2 else sign * (0.82 + 0.1 * (1 - math.exp(-index / 30)) + 0.015 * math.sin(index / 4)),
            "version": index // 16,
            "lag": int(12 + 10 * math.sin(index / 9)),
            "inputs": 40 * index,
            "answers": 36 * index,
        }
        for index in range(number)
    ]


def status(**changes):
    return {
        "model": "replay(capacity=200)",
        "kind": "classes",
        "engine": "local",
        "measure": "accuracy",
        "version": 7,
        "branch": 0,
        "applied_seq": 8120,
        "last_seq": 8192,
        "lag": {"events": 72, "answers": 31, "seconds": 0.4},
        "queue": {"waiting": 3, "limit": 1000},
        "learning": "running",
        "fault": None,
        "ready": True,
        "counts": {
            "inputs": 4310,
            "answers": 3882,
            "duplicates": 12,
            "early_waiting": 2,
            "early_expired": 0,
            "unanswered": 0,
            "defaulted": 0,
            "steps": 160,
            "versions": 8,
            "alarms": 0,
        },
        "score": {"rows": 200, "value": 0.915},
        "unanswered_share": 0.0993,
        "propensity": None,
        "guard": {"rows": 200, "candidate": 0.92, "service": 0.915, "parent": 0.9},
        "alarms": {"recent": 0, "latest": None},
        "durability": "full",
        "fsync_ms": 0.2,
        "started": NOW - 7300.0,
        "time": NOW,
        "options": {"after": "quarantine"},
        **changes,
    }


def decision(action, ago, before=None, after=None, reason="", who=""):
    return {
        "time": NOW - ago, "seq": int(8192 - ago), "action": action, "before": before, "after": after, "reason": reason, "who": who,
    }  # fmt: skip


def promoted(index):
    return decision("promote", 600 * (8 - index), index - 1, index, "not worse by more than 0.02", "guard")


def alarm(kind, ago, value, limit, message):
    return {"time": NOW - ago, "seq": int(8192 - ago), "kind": kind, "value": value, "limit": limit, "message": message}


def healthy():
    return {
        "status": status(),
        "versions": versions(8),
        "series": series(),
        "alarms": [],
        "decisions": [promoted(index) for index in range(7, 0, -1)],
    }  # fmt: skip


def troubled():
    """Alarms, a rollback, two branches."""
    state = healthy()
    alarms = [
        alarm("input_drift", 240, 0.31, 0.25, "Feature 'age' has drifted from the first rows. Look at what feeds it."),
        alarm("label_delay", 1500, 320.5, 60.0, "Answers come later than they did: half after 320 s. Look at who sends them."),
    ]  # fmt: skip
    state["status"] = status(
        alarms={"recent": 2, "latest": alarms[0]}, version=5, branch=1, delay={"median": 41.0, "p90": 320.5}
    )
    state["alarms"] = alarms
    for item in state["versions"]:
        if item["version"] in (6, 7):
            item["state"] = "withdrawn"
    state["versions"][2]["state"] = "active"
    state["versions"][5]["state"] = "refused"
    state["versions"][5]["reason"] = "worse than the version in service: 84.0 % against 89.0 % over 200 answers"
    state["versions"][7]["state"] = "pruned"
    state["versions"][0]["branch"] = 1
    state["decisions"] = [
        decision("rollback", 200, 7, 5, "labels of the morning came from a broken sensor", "maria"),
        decision("pause", 900, reason="maintenance", who="maria"),
        decision("resume", 800, reason="maintenance is over", who="local"),
        decision("refuse", 2400, 4, 5, "worse by 0.05"),
        decision("freeze", 2500, reason="the alarm performance stops learning"),
        *state["decisions"],
    ]
    return state


def failed():
    state = healthy()
    fault = (
        "The update failed: the loss is not finite at row 8,121. Roll back to version 6 or earlier, leaving that row out."
    )
    state["status"] = status(
        learning="failed", fault=fault, ready=False, lag={"events": 1072, "answers": 931, "seconds": 640.0}
    )
    return state


def paused():
    state = healthy()
    state["status"] = status(learning="paused", lag={"events": 320, "answers": 140, "seconds": 312.0})
    return state


def recovering():
    state = healthy()
    state["status"] = status(learning="recovering", ready=False, lag={"events": 1, "answers": 1, "seconds": 12.5})
    return state


def unstarted():
    """A log that could not be read: nothing answers."""
    state = fresh()
    state["status"] |= {
        "version": None,
        "learning": "failed",
        "ready": False,
        "fault": "The log ends in the middle of a row.",
    }
    state["status"]["counts"] |= {"inputs": 1, "answers": 1}
    return state


def following():
    state = healthy()
    state["status"] = status(learning="following", fsync_ms=None, durability="normal")
    return state


def behind():
    state = healthy()
    state["status"] = status(ready=False, lag={"events": 9000, "answers": 4100, "seconds": 75.0})
    return state


def fresh():
    """A server that nobody asked yet."""
    counts = dict.fromkeys(status()["counts"], 0) | {"versions": 1}
    return {
        "status": status(
            version=0, counts=counts, score={"rows": 0, "value": None}, lag={"events": 0, "answers": 0, "seconds": 0.0},
            unanswered_share=0.0, guard={"rows": 0, "candidate": None, "service": None, "parent": None}, applied_seq=0, last_seq=0,
            started=NOW - 3.2, queue={"waiting": 0, "limit": 1000},
        ),
        "versions": versions(1),
        "series": [],
        "alarms": [],
        "decisions": [],
    }  # fmt: skip


def nothing():
    """No version at all, as before the first was kept."""
    return {**fresh(), "versions": []}


def values():
    state = healthy()
    state["status"] = status(
        kind="values", measure="error", score={"rows": 1, "value": -0.01234},
        guard={"rows": 1, "candidate": -1234.5, "service": -0.0625, "parent": None},
    )  # fmt: skip
    state["series"] = series(measure="error")
    for item in state["versions"]:
        item["score"] = item["score"] and -item["score"]
        item["service_score"] = item["service_score"] and -item["service_score"]
    return state


def actions():
    state = healthy()
    state["status"] = status(
        kind="actions", measure="reward", score={"rows": 200, "value": -3.25}, propensity={"least": 0.05, "effective": 0.705}
    )
    state["series"] = series(measure="reward")
    return state


def hostile():
    """A user's own texts everywhere, made to break out of where they stand."""
    state = troubled()
    state["status"] = status(
        model=HOSTILE, learning="failed", fault=HOSTILE, alarms={"recent": 1, "latest": alarm(HOSTILE, 1, 1.0, 2.0, HOSTILE)}
    )
    for item in state["versions"]:
        item["reason"] = HOSTILE
    state["versions"][3]["state"] = HOSTILE
    state["alarms"] = [
        alarm(HOSTILE, 100, 1.0, 2.0, HOSTILE),
        alarm("lag", 120, 1.0, 2.0, "\u05d4\u05ea\u05d5\u05d5\u05d9\u05d5\u05ea \u05de\u05d0\u05d7\u05e8\u05d5\u05ea"),
    ]
    state["decisions"] = [
        decision("rollback", 50, 7, 5, HOSTILE, HOSTILE),
        decision("constructor", 60, 1, 2, HOSTILE, HOSTILE),
        decision("{before.__class__}", 70, 1, 2, "x" * 900, "y" * 300),
    ]
    return state


def large():
    """Two hundred versions, a long name, large and small figures."""
    state = troubled()
    name = "replay(capacity=200, keep=balanced(), " + "criterion=a_very_long_name_without_any_break_in_it" * 4 + ")"
    counts = dict.fromkeys(state["status"]["counts"], 123_456_789)
    state["status"] = status(
        model=name, version=199, counts=counts, unanswered_share=0.00001, lag={"events": 10**9, "answers": 10**8, "seconds": 90_000.0},
        fsync_ms=1234.5, started=NOW - 10**7, last_seq=10**9, applied_seq=10**9 - 5, score={"rows": 1600, "value": 0.0625},
    )  # fmt: skip
    state["versions"] = versions(200)
    state["alarms"] = [
        alarm(kind, 30 * index, 10.0 ** (index - 20), 1 / (index + 1), f"Alarm {index}.")
        for index, kind in enumerate(["queue", "missing_labels"] * 25)
    ]
    return state


STATES = {
    name: globals()[name]
    for name in (
        "healthy", "troubled", "failed", "paused", "recovering", "unstarted", "following", "behind", "fresh", "nothing", "values",
        "actions", "hostile", "large",
    )
}  # fmt: skip


class StubEngine(Engine):
    """An engine that says what it was told to say, and writes down what it was asked to do."""

    def __init__(self, state):
        self.state = state
        self.asked = []
        self.away = False

    def predict(self, asks):
        return Future()

    def feedback(self, items):
        return Future()

    def status(self):
        if self.away:
            raise ServeError("not_ready", "The server is starting.", 503)
        return copy.deepcopy(self.state["status"])

    def versions(self):
        return copy.deepcopy(self.state["versions"])

    def decisions(self, limit=100):
        return copy.deepcopy(self.state["decisions"][:limit])

    def alarms(self, limit=100):
        return copy.deepcopy(self.state["alarms"][:limit])

    def series(self, limit=500):
        return copy.deepcopy(self.state["series"][-limit:])

    def rollback(self, version, reason, after="quarantine", *, first=None, last=None, who=""):
        if self.state["status"]["learning"] == "recovering":
            raise ServeError("not_ready", "The server is starting; ask again in a moment.", 503)
        self.asked.append(("rollback", version, reason, after, who))
        before = self.state["status"]["version"]
        for item in self.state["versions"]:
            if item["state"] == "active":
                item["state"] = "withdrawn"
            if item["version"] == version:
                item["state"] = "active"
        self.state["status"]["version"] = version
        return self._decided("rollback", before, version, reason, who)

    def release(self, first, last, reason, who=""):
        return self._decided("release", None, None, reason, who)

    def pause(self, reason, who=""):
        self.state["status"]["learning"] = "paused"
        self.asked.append(("pause", reason, who))
        return self._decided("pause", None, None, reason, who)

    def resume(self, reason, who=""):
        self.state["status"]["learning"] = "running"
        self.asked.append(("resume", reason, who))
        return self._decided("resume", None, None, reason, who)

    def erase(self, id, *, relearn=False, reason="", who=""):
        return self._decided("erase", None, None, reason, who)

    def close(self):
        pass

    def _decided(self, action, before, after, reason, who):
        made = decision(action, 0, before, after, reason, who)
        self.state["decisions"].insert(0, made)
        return made


def stub_app(engine, tokens=None, files=None):
    """The page and the part of the API that it uses. tokens: {token: scopes}."""

    def refused(request, scope):
        if tokens is None:
            return None
        scopes = tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if scopes is None:
            return problem(401, "unauthorized", "This server wants a bearer token.")
        if scope not in scopes and "admin" not in scopes:
            return problem(403, "forbidden", f"This token lacks the scope {scope!r}.")
        return None

    def reading(name):
        def answer(request):
            return refused(request, "read") or told(getattr(engine, name))

        return Route(f"/v1/{name}", answer)

    def doing(name):
        async def answer(request):
            body = await request.json()
            return refused(request, "admin") or told(lambda: getattr(engine, name)(**body, who="tester"))

        return Route(f"/v1/{name}", answer, methods=["POST"])

    routes = [reading(name) for name in ("status", "versions", "series", "alarms", "decisions")]
    routes += [doing(name) for name in ("rollback", "pause", "resume")]
    return Starlette(routes=[*page_routes(engine, tokens, files), *routes])


def told(call):
    try:
        return JSONResponse(call())
    except ServeError as error:
        return problem(error.status, error.code, str(error))


def problem(status_code, code, detail):
    body = {"type": "about:blank", "title": code, "status": status_code, "detail": detail, "code": code}
    return JSONResponse(body, status_code, media_type="application/problem+json")
