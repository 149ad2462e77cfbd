"""The joined rows of the last periods: what a bandit is fitted to.

    row = (id, x, offered, action, reward, propensity, generation that decided)

A row belongs to the period that decided it, whenever its reward comes. Once sorted, rows that came late, twice or out of order are the
rows that came in order and once, to the bit; `sort` is called at the end of each period.
"""

from typing import Any

import numpy
import torch

Array = numpy.ndarray
FIRST_ROWS = 64


class Window:
    """Rows in arrays that grow; `held` is their state.

    known(id) tells the place of a row, or None.
    """

    parts = ("held", "ids")

    def __init__(self, actions: int):
        self.actions = actions
        self.ids: list[str] = []
        self._columns = self._empty(0, numpy.float32)
        self._places: dict[str, int] | None = {}

    def _empty(self, columns: int, kind: Any, rows: int = 0) -> dict[str, Array]:
        return {
            "x": numpy.zeros((rows, columns), kind),
            "offered": numpy.zeros((rows, self.actions), bool),
            "action": numpy.zeros(rows, numpy.int64),
            "reward": numpy.zeros(rows),
            "propensity": numpy.zeros(rows),
            "generation": numpy.zeros(rows, numpy.int64),
        }

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Array:
        """A column of the stored rows: x, offered, action, reward, propensity (NaN where it is not known) or generation."""
        return self._columns[name][: len(self.ids)]

    @property
    def held(self) -> dict[str, torch.Tensor]:
        """The columns as tensors."""
        return {name: tensor_of(self[name]) for name in self._columns}

    @held.setter
    def held(self, columns: dict[str, torch.Tensor]) -> None:
        self._columns = {name: value.numpy().copy() for name, value in columns.items()}
        self._places = None

    def restored(self) -> None:
        """The index of ids is made anew when it is next asked for."""
        self._places = None

    def known(self, id: str) -> int | None:
        """The place of a row, or None."""
        if self._places is None:
            self._places = {name: place for place, name in enumerate(self.ids)}
        return self._places.get(id)

    def append(
        self, id: str, x: Array, offered: Array, action: int, reward: float, propensity: float, generation: int
    ) -> None:
        """Add one row: x (columns,), offered (actions,)."""
        place, columns = len(self.ids), self._columns
        if place == 0 and columns["x"].shape[1] != len(x):
            columns = self._columns = self._empty(len(x), x.dtype)
        if place >= len(columns["action"]):
            room = max(FIRST_ROWS, len(columns["action"]))
            grown = self._empty(columns["x"].shape[1], columns["x"].dtype, room)
            columns = self._columns = {name: numpy.concatenate([columns[name], grown[name]]) for name in columns}
        columns["x"][place] = x
        columns["offered"][place] = offered
        columns["action"][place] = action
        columns["reward"][place] = reward
        columns["propensity"][place] = propensity
        columns["generation"][place] = generation
        self.known(id)
        self._places[id] = place
        self.ids.append(id)

    def sort(self, oldest: int) -> None:
        """Drop the rows decided before generation `oldest`, and put the rest in order of (generation, id), numbers by size."""
        generation = self["generation"].tolist()
        kept = [place for place in range(len(self)) if generation[place] >= oldest]
        kept.sort(key=lambda place: (generation[place], len(self.ids[place]), self.ids[place]))
        self._columns = {name: self[name][kept] for name in self._columns}
        self.ids = [self.ids[place] for place in kept]
        self._places = None


def tensor_of(values: Array) -> torch.Tensor:
    """An array as a tensor of its own. Made without rows, an array gives a tensor whose strides are 0, which states do not take."""
    kind = torch.from_numpy(numpy.zeros(1, values.dtype)).dtype
    return torch.empty(values.shape, dtype=kind).copy_(torch.from_numpy(values))
