"""The bare PyTorch loop, and Everlearn's learners on the same batches.

`prepared`: the batches lie in a list, as slices made beforehand, for the loop and for Everlearn alike; what is left is the cost of
`run` itself. `indexed`: the rows of each batch are gathered when it is asked for, by Everlearn's own stream, or by the loop.
"""

from collections.abc import Callable
from time import process_time

from digits import BATCH, LR, PASSES, Outcome, Problem, clocked, timed
from torch import Tensor, cat, is_grad_enabled, nn, randperm
from torch.nn.functional import cross_entropy

from everlearn.core.events import Batch, Boundary, Event
from everlearn.core.learner import Learner
from everlearn.core.run import run
from everlearn.core.state import pack
from everlearn.core.stream import Schema, Stream
from everlearn.data.dataset import Data
from everlearn.data.indexed import Indexed, Session
from everlearn.optim.optimizers import SGD

CLASSES = tuple("0123456789")


class Prepared(Stream):
    """Batches that were made beforehand."""

    def __init__(self, given: Problem):
        self.name = "prepared"
        self.schema = Schema((64,), given.x.dtype, CLASSES)
        self.events = [Batch(x, y) for x, y in given.batches()]

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: int) -> Batch:
        return self.events[index]


class Ticking(Stream):
    """A stream that reads the processor's clock whenever a batch is asked for, which is where a step begins."""

    def __init__(self, stream: Stream, stamps: list[float]):
        self.name, self.schema, self.boundaries = stream.name, stream.schema, stream.boundaries
        self.stream, self.stamps = stream, stamps

    def __len__(self) -> int:
        return len(self.stream)

    def __getitem__(self, index: int) -> Event:
        started = process_time()
        event = self.stream[index]
        if isinstance(event, Batch):
            self.stamps.append(started)
        return event


def indexed(given: Problem, announced: bool = False) -> Stream:
    """The same batches from Everlearn's own stream: rows stand mixed up, and an order names those of each batch."""
    mixed = randperm(len(given.x))
    data = Data("digits", given.x[mixed], given.y[mixed], CLASSES)
    starts = [sum(given.sizes[:number]) for number in range(len(given.sizes))]
    sessions = [Session(start, size) for start, size in zip(starts, given.sizes, strict=True)]
    return Indexed(
        data, sessions, batch=given.settings.batch, order=mixed.argsort(), epochs=given.settings.passes, announced=announced
    )


def everlearn(make, given: Problem, stream: Stream) -> Outcome:
    """One run of `make(model, optimizer=..., seed=...)`, without monitors."""
    learner = make(given.network(), optimizer=SGD(lr=LR), seed=given.seed)
    figures = timed(lambda: run(learner, stream), learner.descent.model, given)
    return Outcome(learner.descent.model, *figures, state=len(pack(learner.state_dict())[0]))


def learned(make: Callable[..., Learner], given: Problem) -> Outcome:
    """One run of any learner of the house, with announced boundaries, timed from batch to batch."""
    learner = make(given.network(), optimizer=SGD(lr=given.settings.lr), seed=given.seed)
    stamps: list[float] = []
    stream = Ticking(indexed(given, announced=True), stamps)
    figures = clocked(lambda: run(learner, stream), stamps, given)
    return Outcome(nn.Identity(), *figures, state=len(pack(learner.state_dict())[0]), scores=answers(learner))


def refitted(make: Callable[..., Learner], given: Problem) -> Outcome:
    """The same for a learner that trains at announced changes alone: one more closes the last experience, and times are taken
    from one gradient step to the next."""
    learner = make(given.network(), optimizer=SGD(lr=given.settings.lr), seed=given.seed)
    stamps: list[float] = []

    def stamp(module: nn.Module, inputs: object) -> None:
        if module.training and is_grad_enabled():
            stamps.append(process_time())

    def train() -> None:
        run(learner, indexed(given, announced=True))
        learner.boundary(Boundary(len(given.sizes)))

    handle = learner.descent.model.register_forward_pre_hook(stamp)
    figures = clocked(train, stamps, given)
    handle.remove()
    return Outcome(nn.Identity(), *figures, state=len(pack(learner.state_dict())[0]), scores=answers(learner))


def answers(learner: Learner) -> Callable[[Tensor], Tensor]:
    """What a learner predicts, 500 rows at a time."""
    return lambda x: cat([learner.predict(part) for part in x.split(500)])


def bare(given: Problem, gathered: bool = False) -> Outcome:
    """The loop that one writes without a library, with the optimiser that Everlearn names."""
    model = given.network()
    optimizer = SGD(lr=LR).make(model.parameters())
    batches = given.batches()
    mixed = randperm(len(given.x))
    data_x, data_y, place = given.x[mixed], given.y[mixed], mixed.argsort()
    places = [rows for part in place.split(given.sizes) for _ in range(PASSES) for rows in part.split(BATCH)]

    def prepared() -> None:
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    def gathering() -> None:
        model.train()
        for rows in places:
            x, y = data_x[rows], data_y[rows]
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    figures = timed(gathering if gathered else prepared, model, given)
    return Outcome(model, *figures, state=weights(model))


def weights(model: nn.Module) -> int:
    """Bytes of a model's weights."""
    return sum(value.nbytes for value in model.state_dict().values())
