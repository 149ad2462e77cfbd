"""With answers that come late, what was served scores as River's own delayed evaluation of the same model does."""

import math

import pytest
import torch

from everlearn.core.stream import Schema
from everlearn.learners.river_model import RiverModel
from everlearn.serve.input_spec import InputSpec
from everlearn.serve.local_engine import LocalEngine
from everlearn.serve.options import Options
from everlearn.serve.records import Ask, Told

ROWS = 60


def data():
    """Two drifting clouds, which a linear model learns and must learn again."""
    chance = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (ROWS,), generator=chance)
    x = torch.randn(ROWS, 3, generator=chance)
    turn = torch.where(torch.arange(ROWS) < ROWS // 2, 1.0, -1.0)
    x[:, 0] += (2.0 * y - 1.0) * turn * 1.5
    return x, y


def rivers_hits(x, y, delay):
    from river import evaluate, linear_model, metrics

    rows = [
        ({column: float(value) for column, value in enumerate(row)}, int(label)) for row, label in zip(x, y, strict=True)
    ]
    hits = []

    class Noting(metrics.Accuracy):
        def update(self, y_true, y_pred, *given):
            hits.append(int(y_true == (y_pred or 0)))
            super().update(y_true, y_pred, *given)

    evaluate.progressive_val_score(iter(rows), linear_model.LogisticRegression(), Noting(), delay=delay)
    return sum(hits) / len(hits), len(hits)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [1, 10])
def test_the_score_of_what_was_served_is_rivers(tmp_path, delay):
    from river import linear_model

    x, y = data()
    schema = Schema((3,), torch.float32, ("0", "1"))
    learner = RiverModel(linear_model.LogisticRegression(), classes=2)
    spec = InputSpec.of(learner, schema)
    options = Options(batch=1, every=1, wait=None, guard=False, window=ROWS, keep=2)
    right = 0
    with LocalEngine(learner, spec, tmp_path, options) as engine:
        engine.wait_ready()

        def tell(row):
            engine.feedback([Told(str(row), int(y[row]))]).result()
            assert engine.learned()

        for row in range(ROWS):
            if row >= delay:
                tell(row - delay)
            (given,) = engine.predict([Ask(str(row), spec.row(x[row].tolist()))]).result()
            right += given.output["answer"] == str(int(y[row]))
        for row in range(ROWS - delay, ROWS):
            tell(row)
        score = engine.status()["score"]
    expected, rows = rivers_hits(x, y, delay)
    assert (score["rows"], rows) == (ROWS, ROWS)
    assert math.isclose(score["value"], right / ROWS) and math.isclose(score["value"], expected)
