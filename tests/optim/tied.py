"""A small model whose output layer shares the table of its embedding, for tests of forgetting."""

import torch
from torch import nn


class Tied(nn.Module):
    """An embedding whose table is the output layer's too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 3)
        self.body = nn.Linear(3, 3)
        self.decoder = nn.Linear(3, 6)
        self.decoder.weight = self.embedding.weight

    def forward(self, ids):
        return self.decoder(torch.tanh(self.body(self.embedding(ids))))


def model_of(seed=0):
    torch.manual_seed(seed)
    return Tied()
