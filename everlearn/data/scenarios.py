"""Every scenario by its call name: functions of a data set (or a stream) and a seed that give a stream.

| scenario | what changes |
|---|---|
| `split`, `tasks`, `blurry` | which classes come |
| `permuted`, `rotated` | what inputs look like |
| `label_shift` | how often each class comes |
| `prequential` | whatever changed in the data set, in the order of time |
| `iid` | nothing: the control |
| `delayed` | when answers come, if they come |
| `prefix` | how long the stream is |
"""

from collections.abc import Callable

from everlearn.core.stream import Stream
from everlearn.data.delayed import delayed
from everlearn.data.domain import permuted, rotated
from everlearn.data.label_shift import label_shift
from everlearn.data.prefix import prefix
from everlearn.data.prequential import iid, prequential
from everlearn.data.split import blurry, split, tasks

SCENARIOS: dict[str, Callable[..., Stream]] = {
    "split": split,
    "tasks": tasks,
    "blurry": blurry,
    "permuted": permuted,
    "rotated": rotated,
    "label_shift": label_shift,
    "prequential": prequential,
    "iid": iid,
    "delayed": delayed,
    "prefix": prefix,
}
