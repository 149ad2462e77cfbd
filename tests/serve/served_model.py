"""A server as plain Python: dicts, sets and lists, no database, no files, no threads. The slow twin of log, line and learner.

What it folds is one number: chain = (chain * 1,000,003 + what an answer says) mod (2^61 - 1), so that every answer, its place in the order
and its number of times matter.
"""

from dataclasses import dataclass, field, replace

START, PRIME = 7, 2**61 - 1


class Refused(Exception):
    """With the code of the refusal."""


def chained(chain, id, y):
    return (chain * 1_000_003 + sum(map(ord, id)) * 31 + y) % PRIME


@dataclass
class Line:
    """A way from version 0 to here: what was learned, in order, and what was left out."""

    branch: int = 0
    number: int = 0
    applied: int = 0
    chain: int = START
    learned: tuple = ()
    aside: frozenset = frozenset()  # numbers not learned because they were set aside or skipped
    final: frozenset = frozenset()  # those of them that nobody may release
    released: frozenset = frozenset()
    versions: tuple = (0,)


@dataclass
class Kept:
    """A version."""

    line: Line
    parent: int | None
    state: str
    promoted: bool


@dataclass
class Model:
    batch: int
    every: int
    keep: int
    horizon: float
    early: float
    default: int | None
    now: float = 0.0
    last: int = 0
    events: dict = field(default_factory=dict)  # number -> (kind, id, y)
    asked: dict = field(default_factory=dict)  # id -> (x, number, when)
    told: dict = field(default_factory=dict)  # (id, revision) -> (y, number, whether it is the default)
    waiting: dict = field(default_factory=dict)  # (id, revision) -> (y, when)
    closed: int = 0
    counts: dict = field(default_factory=lambda: {"unanswered": 0, "defaulted": 0, "early_expired": 0})
    line: Line = field(default_factory=Line)
    kept: list = field(default_factory=lambda: [Kept(Line(), None, "active", True)])
    base: int = 0  # the version at which the branch begins
    service: int = 0
    parent: int | None = None
    branches: int = 0
    paused: bool = False
    releasing: frozenset = frozenset()
    steps: int = 0

    # ---- what is asked and told ------------------------------------------------------------------------------------------

    def _add(self, kind, id, y=None):
        self.last += 1
        self.events[self.last] = (kind, id, y)
        return self.last

    def ask(self, id, x):
        """(number, whether it is a double)."""
        if id in self.asked:
            if self.asked[id][0] != x:
                raise Refused("conflict")
            return self.asked[id][1], True
        number = self._add("input", id)
        self.asked[id] = (x, number, self.now)
        for key in sorted(key for key in self.waiting if key[0] == id):
            y, _ = self.waiting.pop(key)
            self.told[key] = (y, self._add("answer", id, y), False)
        return number, False

    def tell(self, id, y, revision=0):
        """(number or None, whether it is a double)."""
        key = (id, revision)
        if key in self.told:
            before, number, default = self.told[key]
            if default:
                raise Refused("horizon_passed")
            if before != y:
                raise Refused("conflict")
            return number, True
        if id in self.asked:
            if self.now - self.asked[id][2] > self.horizon:
                raise Refused("horizon_passed")
            self.told[key] = (y, self._add("answer", id, y), False)
            return self.told[key][1], False
        if key in self.waiting:
            if self.waiting[key][0] != y:
                raise Refused("conflict")
            return None, True
        self.waiting[key] = (y, self.now)
        return None, False

    def tick(self, seconds):
        """Time passes, and what is too late is given up."""
        self.now += seconds
        for id, (_, number, when) in sorted(self.asked.items(), key=lambda item: item[1][1]):
            if number <= self.closed or not when < self.now - self.horizon:
                continue
            self.closed = number
            if (id, 0) not in self.told:
                if self.default is not None:
                    self.told[id, 0] = (self.default, self._add("answer", id, self.default), True)
                self.counts["unanswered" if self.default is None else "defaulted"] += 1
        gone = [key for key, (_, when) in self.waiting.items() if when < self.now - self.early]
        for key in gone:
            del self.waiting[key]
        self.counts["early_expired"] += len(gone)

    # ---- what is learned -------------------------------------------------------------------------------------------------

    def learn(self):
        """Every step that is due."""
        while not self.paused:
            span = self._due()
            if span is None:
                return
            self._step(*span)

    def _due(self):
        if self.releasing:
            low = min(self.releasing)
            high = low
            while high + 1 in self.releasing:
                high += 1
            if self.line.applied >= high:
                stop, answers = high, 0
                for number in range(low, high + 1):
                    answers += self.events.get(number, ("",))[0] == "answer"
                    if answers == self.batch:
                        stop = number
                        break
                return low, stop, True
            return self._full() or (self.line.applied + 1, high, False)
        return self._full()

    def _full(self):
        pending = [number for number in sorted(self.events) if number > self.line.applied]
        answers = 0
        for number in pending:
            answers += number not in self.line.aside and self.events[number][0] == "answer"
            if answers == self.batch:
                return pending[0], number, False
        return None

    def _step(self, first, last, released):
        line = self.line
        span = frozenset(range(first, last + 1))
        chain, learned = line.chain, list(line.learned)
        for number in sorted(span & self.events.keys()):
            kind, id, y = self.events[number]
            if kind == "answer" and (released or number not in line.aside):
                chain = chained(chain, id, y)
                learned.append(number)
        self.line = replace(
            line, number=line.number + 1, applied=max(line.applied, last), chain=chain, learned=tuple(learned),
            aside=line.aside - span if released else line.aside, released=line.released | span if released else line.released,
        )  # fmt: skip
        if released:
            self.releasing -= span
        self.steps += 1
        if self.line.number % self.every == 0 and not self._is_kept():
            self._keep("active", True)
            self.kept[self.service].state = "retired"
            self.parent, self.service = self.service, len(self.kept) - 1
            self._prune()

    def _is_kept(self):
        here = (self.line.branch, self.line.number)
        return self.line.number == 0 or any((kept.line.branch, kept.line.number) == here for kept in self.kept)

    def _keep(self, state, promoted):
        self.line = replace(self.line, versions=(*self.line.versions, len(self.kept)))
        self.kept.append(Kept(self.line, self.service, state, promoted))

    def _prune(self):
        count = len(self.kept)
        needed = {0, self.service, self.parent, self.base, count - 1, count - 2}
        standing = [n for n, kept in enumerate(self.kept) if kept.state != "pruned" and n not in needed]
        for number in standing[: max(0, len(standing) - self.keep)]:
            self.kept[number].state = "pruned"

    def stop(self):
        """A clean end keeps what was learned."""
        if not self._is_kept():
            self._keep("candidate", False)

    # ---- what an operator does -------------------------------------------------------------------------------------------

    def rollback(self, version, after, first=None, last=None):
        if version >= len(self.kept):
            raise Refused("unknown_version")
        if self.kept[version].state == "pruned":
            raise Refused("version_pruned")
        start = self.kept[version].line
        low = start.applied + 1 if first is None else first
        high = self.last_stored() if last is None else last
        span = frozenset(range(max(low, start.applied + 1), min(high, self.last_stored()) + 1))
        aside = span if after == "quarantine" else frozenset()
        skipped = span if after == "skip" else frozenset()
        named = frozenset(range(low, high + 1)) if after != "replay" else frozenset()
        self._branch(version, aside, skipped, after == "replay" or first is not None or last is not None, named)

    def last_stored(self):
        return max(self.events, default=0)

    def _branch(self, version, aside, skipped, again, named=frozenset()):
        start, old, cut = self.kept[version].line, self.line, self.kept[version].line.applied

        def below(numbers):
            return frozenset(number for number in numbers if number <= cut)

        def above(numbers):
            return frozenset(number for number in numbers if number > cut)

        left_out = below(start.aside) | above(old.aside) | aside | skipped
        final = below(start.final) | above(old.final) | skipped
        since = (old.released - start.released) | self.releasing
        self.releasing = (since & left_out) - final - named if again else frozenset()
        self.branches += 1
        self.line = replace(start, branch=self.branches, number=0, aside=left_out, final=final)
        for number, kept in enumerate(self.kept):
            if kept.state != "pruned":
                if number > version:
                    kept.state = "withdrawn"
                elif kept.state == "active":
                    kept.state = "retired"
        self.kept[version].state = "active"
        self.base, self.service, self.parent = version, version, None

    def release(self, first, last):
        wanted = {number for number in self.line.aside - self.line.final - self.releasing if first <= number <= last}
        if not wanted:
            raise Refused("nothing_set_aside")
        self.releasing |= wanted

    def erase(self, id, relearn):
        """(rows removed, whether it is learned again without them)."""
        numbers = sorted(number for number, event in self.events.items() if event[1] == id)
        early = [key for key in self.waiting if key[0] == id]
        if not numbers and not early:
            raise Refused("unknown_id")
        first = numbers[0] if numbers else 0
        relearn = relearn and 0 < first <= self.line.applied
        if not relearn and not self._is_kept():
            self._keep("candidate", False)
        for number in numbers:
            del self.events[number]
        for key in early:
            del self.waiting[key]
        self.asked.pop(id, None)
        for key in [key for key in self.told if key[0] == id]:
            del self.told[key]
        if relearn:
            line = reversed(self.line.versions)
            version = next(
                n
                for n in line
                if self.kept[n].promoted and self.kept[n].line.applied < first and self.kept[n].state != "pruned"
            )
            for kept in self.kept:
                if kept.line.applied >= first:
                    kept.state = "pruned"
            self._branch(version, frozenset(), frozenset(), True)
        return len(numbers) + len(early), relearn
