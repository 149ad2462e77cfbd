"""The measures of the report: what each is called, how its formula reads, how its figures are written, which way is better.

One table serves the page's table of learners, its glossary, and the terminal. a[i][j] is the accuracy on held-out set j after
checkpoint i, T the number of checkpoints, N the number of held-out sets.
"""

from collections.abc import Callable
from dataclasses import dataclass

from everlearn.measure.report import numbers as say


@dataclass(frozen=True)
class Measure:
    """key: in `summary`; title: of its column; words: what it is; formula: HTML of our own; better: 'high', 'low' or '';
    scale and unit: of the figures in tables; write: one figure in full; figures: significant ones in tables, 0 for fixed places."""

    key: str
    title: str
    words: str
    formula: str
    better: str
    scale: float
    unit: str
    write: Callable[[float | None], str]
    interval: bool = True
    figures: int = 0


A = "<i>a</i>"


MEASURES = (
    Measure(
        "score",
        "Score",
        "The headline of this comparison, by which learners are ranked.",
        "",
        "high",
        100,
        "%",
        say.percent,
    ),
    Measure(
        "accuracy",
        "Final accuracy",
        "Share of held-out rows answered right at the end, averaged over the held-out sets.",
        f"1/<i>N</i> Σ<sub>j</sub> {A}<sub>T,j</sub>",
        "high",
        100,
        "%",
        say.percent,
    ),
    Measure(
        "prequential_accuracy",
        "Prequential accuracy",
        "Share of answers that were right, each given before its label was known, from deployment to the end.",
        "right answers / answers scored",
        "high",
        100,
        "%",
        say.percent,
    ),
    Measure(
        "skill",
        "Skill",
        "How much smaller the error is than that of persistence, the newest value as forecast; below zero it is larger.",
        "1 − RMSE / RMSE of persistence",
        "high",
        100,
        "%",
        say.percent,
    ),
    Measure(
        "rmse",
        "RMSE",
        "Root of the mean squared error of forecasts, each given before its answer was known, in units of the target.",
        "√ mean ( <i>f</i> − <i>y</i> )²",
        "low",
        1,
        "",
        say.significant,
        figures=3,
    ),
    Measure(
        "mape",
        "MAPE",
        "Mean absolute error as a share of the answer, whose size counts as 1 at least.",
        "mean |<i>f</i> − <i>y</i>| / max( |<i>y</i>|, 1 )",
        "low",
        100,
        "%",
        say.percent,
    ),
    Measure(
        "anytime_accuracy",
        "Anytime accuracy",
        "Average accuracy on what had been taught by then, averaged over all checkpoints: how good the model was all along.",
        f"1/<i>T</i> Σ<sub>i</sub> mean<sub>j≤i</sub> {A}<sub>i,j</sub>",
        "high",
        100,
        "%",
        say.percent,
    ),
    Measure(
        "forgetting",
        "Forgetting",
        "How far each held-out set fell from its best earlier accuracy, on average.",
        f"mean<sub>j</sub> ( max<sub>i&lt;T</sub> {A}<sub>i,j</sub> − {A}<sub>T,j</sub> )",
        "low",
        100,
        "points",
        say.points,
    ),
    Measure(
        "backward_transfer",
        "Backward transfer",
        "What later learning did to earlier held-out sets; below zero is forgetting.",
        f"mean<sub>j&lt;T</sub> ( {A}<sub>T,j</sub> − {A}<sub>j,j</sub> )",
        "high",
        100,
        "points",
        say.points,
    ),
    Measure(
        "forward_transfer",
        "Forward transfer",
        "What earlier learning did for held-out sets still to come, beside the model before its first event.",
        f"mean<sub>j&gt;1</sub> ( {A}<sub>j−1,j</sub> − <i>b</i><sub>j</sub> ), <i>b</i>: untrained",
        "high",
        100,
        "points",
        say.points,
    ),
    Measure(
        "active_units",
        "Active units",
        "Share of hidden units that fire for at least some inputs at the end.",
        "active units / units",
        "high",
        100,
        "%",
        say.percent,
    ),
    Measure(
        "effective_rank",
        "Effective rank",
        "How many directions the last features really use at the end.",
        "exp( − Σ<sub>k</sub> <i>p</i><sub>k</sub> ln <i>p</i><sub>k</sub> ), <i>p</i><sub>k</sub> = σ<sub>k</sub> / Σ σ",
        "high",
        1,
        "",
        lambda value: say.decimal(value, 1),
    ),
    Measure(
        "update_ms",
        "Update",
        "Time of one update, on average.",
        "time in update / updates",
        "low",
        1,
        "ms",
        say.milliseconds,
    ),
    Measure(
        "update_ms_p99",
        "Update p99",
        "Time within which 99 of 100 updates are done.",
        "99th percentile",
        "low",
        1,
        "ms",
        say.milliseconds,
    ),
    Measure(
        "predict_ms_p50",
        "Predict p50",
        "Time within which half of all predict calls are answered.",
        "median",
        "low",
        1,
        "ms",
        say.milliseconds,
    ),
    Measure(
        "predict_ms_p99",
        "Predict p99",
        "Time within which 99 of 100 predict calls are answered.",
        "99th percentile",
        "low",
        1,
        "ms",
        say.milliseconds,
    ),
    Measure(
        "seconds",
        "Total time",
        "Time in predict and update, over the whole stream.",
        "Σ time in predict and update",
        "low",
        1,
        "s",
        say.seconds,
    ),
    Measure(
        "replay_bytes",
        "Replay memory",
        "Bytes of the rows kept for replay at the end.",
        "Σ bytes of stored rows",
        "low",
        1e-3,
        "kB",
        say.size,
        interval=False,
    ),
    Measure(
        "peak_memory_bytes",
        "Peak memory",
        "The most that the learner held: weights, gradients, optimiser state and memories.",
        "max over the run",
        "low",
        1e-6,
        "MB",
        say.size,
        interval=False,
    ),
    Measure(
        "labels",
        "Labels",
        "Answers that were learned from.",
        "Σ labelled rows admitted by the budget",
        "",
        1,
        "",
        say.count,
        interval=False,
    ),
    Measure(
        "refits",
        "Fits",
        "Times that a forecaster was fitted from deployment on, the first time included where it comes that late.",
        "Σ fits told by the learner",
        "",
        1,
        "",
        say.count,
        interval=False,
    ),
    Measure(
        "turned_back",
        "Turned back",
        "Times that a watched adapter was taken back to an earlier state because its answers collapsed.",
        "Σ times that it went back",
        "",
        1,
        "",
        say.significant,
        interval=False,
    ),
    Measure(
        "updates",
        "Updates",
        "Batches that were learned from.",
        "Σ batches admitted by the budget",
        "",
        1,
        "",
        say.count,
        interval=False,
    ),
)
COLUMNS = (
    "score",
    "rmse",
    "mape",
    "anytime_accuracy",
    "forgetting",
    "update_ms",
    "predict_ms_p99",
    "seconds",
    "refits",
    "turned_back",
    "replay_bytes",
    "peak_memory_bytes",
    "labels",
)
BY_KEY = {item.key: item for item in MEASURES}
