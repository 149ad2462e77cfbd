"""A server in a few lines, for tests of what watches one: it answers, learns in steps of 32 rows, and can be given faults."""

import copy
from collections.abc import Callable

import torch

from everlearn import Batch, Feedback
from everlearn.core.learner import Learner
from everlearn.serve.alarms import Watch
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.records import Answer, Input, Moment

BATCH = 32


class ToyServer:
    """rows(number) gives (x, answer) of a row; delay(number) its seconds until the answer, None for never.

    Rows come every `gap` seconds. A step learns from what was answered by then; every 10 steps the newest state serves.
    """

    def __init__(
        self, learner, spec: InputSpec, rows: Callable, *, delay: Callable = lambda number: 0.5, gap: float = 0.01,
        respond: Callable | None = None,
    ):  # fmt: skip
        self.learner, self.spec, self.rows, self.delay, self.gap = learner, spec, rows, delay, gap
        self.respond = respond
        self.serving = copy.deepcopy(learner)
        self.number, self.steps, self.seq, self.version = 0, 0, 0, 1
        self.waiting: list[tuple[float, Input, object]] = []

    def outputs(self, x, numbers):
        if self.respond is not None:
            return [self.respond(row, number) for row, number in zip(x, numbers, strict=True)]
        if isinstance(self.serving, Learner):
            return self.spec.outputs(self.serving.predict(x))
        return [self.spec.decided(self.serving.act(row[None], number)) for row, number in zip(x, numbers, strict=True)]

    def step(self) -> Moment:
        """One step: 32 rows are answered, and what was answered for earlier ones is learned from."""
        numbers = range(self.number, self.number + BATCH)
        drawn = [self.rows(number) for number in numbers]
        x = torch.stack([row for row, _ in drawn])
        inputs = []
        for number, row, output, (_, y) in zip(numbers, x, self.outputs(x, numbers), drawn, strict=True):
            self.seq += 1
            created = 1e9 + number * self.gap
            asked = Input(self.seq, f"row-{number}", row.numpy().tobytes(), output, self.version, created)
            inputs.append(asked)
            late = self.delay(number)
            if late is not None:
                self.waiting.append((created + late, asked, y))
        now = inputs[-1].created
        due = sorted((item for item in self.waiting if item[0] <= now), key=lambda item: (item[0], item[1].seq))
        self.waiting = [item for item in self.waiting if item[0] > now]
        answers = []
        for time, asked, y in due:
            self.seq += 1
            y = y(asked.output) if callable(y) else y
            answers.append(Answer(self.seq, asked.id, asked.x, asked.output, asked.version, y, 0, asked.created, time))
        self.number += BATCH
        self.steps += 1
        return Moment(0, self.steps, self.seq - len(inputs) - len(answers) + 1, self.seq, tuple(inputs), tuple(answers))

    def learn(self, moment: Moment) -> dict:
        """Learn from a step as the server's fold does, and put the newest state into service now and then."""
        metrics = {}
        if isinstance(self.learner, Learner):
            if moment.answers:
                x = self.spec.tensor([answer.x for answer in moment.answers])
                metrics = self.learner.update(Batch(x, self.spec.answers([answer.y for answer in moment.answers])))
        else:
            for answer in moment.answers:
                x, given = self.spec.tensor([answer.x]), answer.output
                metrics = self.learner.update(Feedback(answer.id, x, given["answer"], given["propensity"], answer.y))
        if self.steps % 10 == 0:
            self.serving, self.version = copy.deepcopy(self.learner), self.version + 1
        return metrics

    def run(self, watch: Watch, rows: int, before_learning: Callable | None = None) -> list[tuple[int, object]]:
        """[(row number, alarm)] of so many more rows."""
        told = []
        end = self.number + rows
        while self.number < end:
            moment = self.step()
            if before_learning is not None:
                before_learning(self, moment)
            metrics = self.learn(moment)
            told += [(self.number, alarm) for alarm in watch.observe(moment, self.learner, metrics)]
        return told


def blobs(seed: int = 0, features: int = 8, classes: int = 4, noise: float = 1.0):
    """rows(number) of Gaussian classes, a function of the number alone, about 80 % of which can be told."""
    centres = torch.randn(classes, features, generator=torch.Generator().manual_seed(seed))

    def rows(number: int):
        source = torch.Generator().manual_seed(seed * 1_000_003 + number)
        y = int(torch.randint(classes, (1,), generator=source))
        return centres[y] + noise * torch.randn(features, generator=source), y

    return rows
