"""Every scenario by its call name: functions of a data set (or a stream, or a file) and a seed that give a stream.

| scenario | what changes |
|---|---|
| `split`, `tasks`, `blurry` | which classes come |
| `few_shot` | which classes come, the later ones with a few rows each |
| `permuted`, `rotated` | what inputs look like |
| `corruptions` | what inputs look like, and answers end with deployment |
| `label_shift` | how often each class comes |
| `label_swaps` | what labels mean: classes exchange them |
| `recurring` | which few classes a task has; they come back |
| `forecast` | whatever changed in the series of a table |
| `link_forecast` | the load of a network's links, when some of them fail |
| `prequential` | whatever changed in the data set, in the order of time |
| `iid` | nothing: the control |
| `noisy` | nothing: a share of the answers is wrong |
| `delayed` | when answers come, if they come |
| `prefix` | how long the stream is |
| `served` | whatever changed for a deployed server, as its log has it |
"""

from collections.abc import Callable
from typing import Any

from everlearn.core.stream import Stream
from everlearn.data.class_schedule import Imbalanced
from everlearn.data.corruption import Corrupted
from everlearn.data.corruption_stream import corruptions
from everlearn.data.delayed import delayed
from everlearn.data.domain import permuted, rotated
from everlearn.data.few_shot import few_shot
from everlearn.data.forecast import forecast
from everlearn.data.label_shift import label_shift
from everlearn.data.label_swaps import label_swaps
from everlearn.data.link_forecast import link_forecast
from everlearn.data.link_loads import LinkDown, LinkUp, NodeDown, NodeUp
from everlearn.data.noisy import noisy
from everlearn.data.prefix import prefix
from everlearn.data.prequential import iid, prequential
from everlearn.data.recurring import recurring
from everlearn.data.served import served
from everlearn.data.split import blurry, split, tasks

SCENARIOS: dict[str, Callable[..., Stream]] = {
    "split": split,
    "tasks": tasks,
    "blurry": blurry,
    "few_shot": few_shot,
    "permuted": permuted,
    "rotated": rotated,
    "corruptions": corruptions,
    "label_shift": label_shift,
    "label_swaps": label_swaps,
    "recurring": recurring,
    "forecast": forecast,
    "link_forecast": link_forecast,
    "prequential": prequential,
    "iid": iid,
    "noisy": noisy,
    "delayed": delayed,
    "prefix": prefix,
    "served": served,
}
VALUES: dict[str, Any] = {  # arguments that are named by calls themselves
    item.name: item for item in (Imbalanced, Corrupted, LinkDown, LinkUp, NodeDown, NodeUp)
}
