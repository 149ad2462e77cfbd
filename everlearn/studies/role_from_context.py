"""The study of roles in real sentences: identifiers that are forgotten on purpose are told from the words beside them.

    unseen[active] > unseen[plain]
    iwl_head[plain] >= iwl_head[active] + 0.2
    unseen[temporary] > unseen[plain],  iwl_head[temporary] > iwl_head[active]          full scale

A small encoder tells nouns from adjectives behind identifiers in the English Web Treebank (`data.role_sentences`). The identifiers' rows of
its table are made anew every ten updates: never (plain), until some update (temporary), or without end (active); those of the words
beside them stay. Where positions are made anew instead, or nothing is (probability 0), unseen identifiers must gain nothing (the negative
controls). A linear probe on the rows of identifiers says how far the table knows nouns from adjectives.

Reference: Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch.nn import functional

from everlearn.data.role_sentences import RoleSentences, treebank_roles
from everlearn.measure.route import route
from everlearn.nn.tiny_encoder import TinyEncoder
from everlearn.optim.forgetting import Forgetting, Reset
from everlearn.studies.study import Arm, Claim, Measured, Study

EVERY = 10  # updates between two resets
RATE, DECAY = 1e-3, 0.01
STEPS = {"quick": 600, "full": 3000}
WORDS = {"quick": 1000, "full": None}  # identifiers of each class
JUDGED = 2000  # windows of each kind
POINTS = 10  # of a curve
UNSEEN, HEAD = "Unseen identifiers answered right", "Frequent switched identifiers answered from the weights"
