"""An engine of dicts that answers at once and keeps every rule of `Engine`: what fast tests of the HTTP face stand on.

Knobs of a test: `ready`, `full` (turns everybody away), `broken` (the log cannot be written), `held` (predictions wait in `waiting`
until `let_go`), `fault` (an exception that nobody expects), `clock`, `horizon`.
"""

import time
from concurrent.futures import Future

from everlearn.core.errors import ServeError
from everlearn.data.encoder import Categories, Encoder, Numbers
from everlearn.data.scaling import Scale
from everlearn.serve.engine import Engine
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.records import After, Answered, Receipt

CLASSES = InputSpec("classes", (4,), "float32", classes=("cat", "dog", "7"), features=("a", "b", "c", "d"))
VALUES = InputSpec("values", (2,), "float32", targets=("height", "width"))
ACTIONS = InputSpec("actions", (3,), "float32")
IMAGES = InputSpec("classes", (1, 2, 2), "uint8", classes=("0", "1"))

ENCODER = Encoder((Numbers("age", Scale(40.0, 2.0, 41.0)), Categories("colour", ("blue", "red"), missing=True)))
RAW = InputSpec(
    "classes", (4,), "float32", classes=("no", "yes"), features=ENCODER.features, encoder=ENCODER.to_json()
)  # takes rows such as {"age": 41, "colour": "red"}


class FakeEngine(Engine):
    """Predictions are sums of rows; version 0 serves at first."""

    def __init__(self, spec=CLASSES, *, clock=time.time, horizon=None):
        self.spec, self.clock, self.horizon = spec, clock, horizon
        self.ready, self.full, self.broken, self.held, self.fault, self.closed = True, False, False, False, None, False
        self.seq, self.duplicates, self.service, self.learning = 0, 0, 0, "running"
        self.asked, self.told, self.early, self.open, self.aside = {}, {}, {}, set(), []
        self.waiting = []
        self.log = []
        started = clock()
        self.started = started
        self.kept = [
            {
                "version": number, "parent": number - 1 if number else None, "branch": 0, "number": 20 * number, "applied_seq": 0,
                "sha256": f"{number:064x}", "state": state, "created": started, "score": None, "service_score": None, "rows": 0,
                "bytes": 1000, "reason": "",
            }
            for number, state in enumerate(["active", "pruned", "refused"])
        ]  # fmt: skip
        self.rung = []

    def _admit(self):
        if self.fault is not None:
            raise self.fault
        if self.closed:
            raise ServeError("not_ready", "the server is stopping.", 503, retry_after=1.0)
        if not self.ready:
            raise ServeError("not_ready", "the server recovers.", 503, retry_after=2.0)
        if self.full:
            raise ServeError("overloaded", "1000 requests wait already; nothing was stored.", 429, retry_after=1.0)

    def predict(self, asks):
        self._admit()
        for ask in asks:
            if ask.id in self.open:
                raise ServeError("in_progress", f"the id {ask.id!r} is being answered.", 409, retry_after=0.1)
        future = Future()
        future.set_running_or_notify_cancel()
        if self.held:
            self.open |= {ask.id for ask in asks}
            self.waiting.append((list(asks), future))
        else:
            self._answer(list(asks), future)
        return future

    def let_go(self):
        """Answer what was held back."""
        waiting, self.waiting = self.waiting, []
        for asks, future in waiting:
            self.open -= {ask.id for ask in asks}
            self._answer(asks, future)

    def _answer(self, asks, future):
        if self.broken:
            future.set_exception(ServeError("log_unavailable", "the log cannot be written; nothing was stored.", 503))
            return
        seen = {}
        for ask in asks:
            known = self.asked[ask.id][0] if ask.id in self.asked else seen.get(ask.id, ask.x)
            if known != ask.x:
                fault = ServeError(
                    "conflict", f"the id {ask.id!r} was asked before with another x; nothing was stored.", 422
                )
                future.set_exception(fault)
                return
            seen[ask.id] = ask.x
        answered = []
        for ask in asks:
            if ask.id in self.asked:
                self.duplicates += 1
                _, first, _ = self.asked[ask.id]
                answered.append(Answered(first.id, first.output, first.version, first.seq, duplicate=True))
                continue
            self.seq += 1
            answered.append(Answered(ask.id, self._output(ask.x), self.service, self.seq))
            self.asked[ask.id] = (ask.x, answered[-1], self.clock())
            for revision, y in sorted(self.early.pop(ask.id, {}).items()):
                self.seq += 1
                self.told[ask.id, revision] = (y, self.seq)
        future.set_result(answered)

    def _output(self, x):
        total = float(self.spec.tensor([x]).double().sum())
        if self.spec.kind == "values":
            return {"answer": [total] * len(self.spec.targets)}
        if self.spec.kind == "actions":
            return {"answer": 1, "propensity": 0.5}
        count = len(self.spec.classes)
        chosen = int(total) % count
        return {
            "answer": self.spec.classes[chosen],
            "probabilities": [round(0.5 + 0.5 / count, 6) if i == chosen else round(0.5 / count, 6) for i in range(count)],
        }

    def feedback(self, items):
        self._admit()
        future = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(self._take(items))
        except ServeError as error:
            future.set_exception(error)
        return future

    def _take(self, items):
        if self.broken:
            raise ServeError("log_unavailable", "the log cannot be written; nothing was stored.", 503)
        seen = {}
        for item in items:
            key = (item.id, item.revision)
            known = self.told[key][0] if key in self.told else self.early.get(item.id, {}).get(item.revision)
            known = seen.get(key, item.y) if known is None else known
            if known != item.y:
                detail = f"the id {item.id!r} was told another answer before; send a correction with a higher revision."
                raise ServeError("conflict", detail, 422)
            asked = self.asked.get(item.id)
            if key not in self.told and asked and self.horizon is not None and self.clock() - asked[2] > self.horizon:
                raise ServeError(
                    "horizon_passed", f"the id {item.id!r} was answered after its horizon of {self.horizon:g} s.", 410
                )
            seen[key] = item.y
        receipts = []
        for item in items:
            key = (item.id, item.revision)
            if key in self.told or item.revision in self.early.get(item.id, {}):
                self.duplicates += 1
                receipts.append(Receipt(item.id, self.told[key][1] if key in self.told else None, duplicate=True))
            elif item.id in self.asked:
                self.seq += 1
                self.told[key] = (item.y, self.seq)
                receipts.append(Receipt(item.id, self.seq))
            else:
                self.early.setdefault(item.id, {})[item.revision] = item.y
                receipts.append(Receipt(item.id, None))
        return receipts

    def status(self):
        if self.fault is not None:
            raise self.fault
        now = self.clock()
        told = {id for id, revision in self.told if revision == 0}
        late = [id for id, (_, _, at) in self.asked.items() if self.horizon and now - at > self.horizon and id not in told]
        return {
            "model": "replay(capacity=200)", "kind": self.spec.kind, "engine": "fake",
            "measure": {"classes": "accuracy", "values": "error", "actions": "reward"}[self.spec.kind],
            "version": self.service, "branch": 0, "applied_seq": 0, "last_seq": self.seq,
            "lag": {"events": self.seq, "answers": len(self.told), "seconds": 0.0},
            "queue": {"waiting": len(self.waiting), "limit": 1000},
            "learning": self.learning, "fault": None, "ready": self.ready,
            "counts": {
                "inputs": len(self.asked), "answers": len(self.told), "duplicates": self.duplicates,
                "early_waiting": sum(map(len, self.early.values())), "early_expired": 0, "unanswered": len(late), "defaulted": 0,
                "steps": 0, "versions": len(self.kept), "alarms": len(self.rung),
            },
            "score": {"rows": len(self.told), "value": None}, "unanswered_share": 0.0,
            "propensity": {"least": 0.5, "effective": 0.9} if self.spec.kind == "actions" else None,
            "guard": {"rows": 0, "candidate": None, "service": None, "parent": None},
            "alarms": {"recent": len(self.rung), "latest": self.rung[-1] if self.rung else None},
            "durability": "full", "fsync_ms": 0.2, "started": self.started, "time": now, "options": {"batch": 32},
        }  # fmt: skip

    def ring(self, kind, message, value=1.0, limit=0.5):
        """Raise an alarm."""
        self.rung.append(
            {"time": self.clock(), "seq": self.seq, "kind": kind, "value": value, "limit": limit, "message": message}
        )

    def versions(self):
        return [dict(row) for row in reversed(self.kept)]

    def decisions(self, limit=100):
        return [dict(row) for row in reversed(self.log)][:limit]

    def alarms(self, limit=100):
        return [dict(row) for row in reversed(self.rung)][:limit]

    def series(self, limit=500):
        point = {"time": self.clock(), "seq": self.seq, "score": None, "version": self.service, "lag": 0}
        return [point | {"inputs": len(self.asked), "answers": len(self.told)}][:limit]

    def rollback(self, version, reason, after="quarantine", *, first=None, last=None, who=""):
        self._admit()
        if after not in tuple(After):
            raise ServeError("invalid_request", f"after must be one of {', '.join(After)}, got {after!r}.", 422)
        found = next((row for row in self.kept if row["version"] == version), None)
        if found is None:
            raise ServeError("unknown_version", f"there is no version {version}.", 404)
        if found["state"] == "pruned":
            raise ServeError("version_pruned", f"the snapshot of version {version} was removed.", 409)
        for row in self.kept:
            row["state"] = "withdrawn" if row["state"] == "active" else row["state"]
        before, self.service = self.service, version
        found["state"] = "active"
        if after == "quarantine":
            self.aside.append((first or 1, last or self.seq))
        return self._decide("rollback", reason, who, before, version)

    def release(self, first, last, reason, who=""):
        self._admit()
        held = [span for span in self.aside if span[0] <= last and span[1] >= first]
        if not held:
            raise ServeError("nothing_set_aside", f"nothing in {first}..{last} is set aside.", 409)
        self.aside = [span for span in self.aside if span not in held]
        return self._decide("release", reason, who)

    def pause(self, reason, who=""):
        self._admit()
        self.learning = "paused"
        return self._decide("pause", reason, who)

    def resume(self, reason, who=""):
        self._admit()
        self.learning = "running"
        return self._decide("resume", reason, who)

    def erase(self, id, *, relearn=False, reason="", who=""):
        self._admit()
        told = [key for key in self.told if key[0] == id]
        if id not in self.asked and id not in self.early:
            raise ServeError("unknown_id", f"nothing is stored under the id {id!r}.", 404)
        known = self.asked.pop(id, None) is not None
        waited = len(self.early.pop(id, {}))
        for key in told:
            del self.told[key]
        removed = known + len(told) + waited
        return self._decide("erase", reason, who) | {"removed": removed, "relearned": relearn}

    def _decide(self, action, reason, who, before=None, after=None):
        self.log.append(
            {
                "time": self.clock(), "seq": self.seq, "action": action, "before": before, "after": after, "reason": reason,
                "who": who,
            }
        )  # fmt: skip
        return dict(self.log[-1])

    def close(self):
        self.let_go()
        self.closed = True
