"""Published methods as settings of one objective, each with the convention in which its strength is meant.

    preset("ewc", strength=20)      preset("derpp", strength=0.2, labels=0.5)

Hard constraints on directions (orthogonal weight modification, gradient projection memory) are no settings of it: they are the
limit of a quadratic penalty with a projector as its matrix as the weight goes to infinity.

Reference: Wang et al. (2024), A unified and general framework for continual learning, arXiv 2403.13249, table 1.
"""

from collections.abc import Callable
from typing import Any

from everlearn.core.errors import SpecError, closest
from everlearn.core.spec import invoke
from everlearn.learners.objective import Objective, OutputTerm, WeightTerm
from everlearn.nn.bregman import BinaryNegEntropy, LogNorm, NegEntropy, Quadratic, Squared


def finetune() -> Objective:
    """The task loss alone."""
    return Objective()


def l2sp(strength: float = 0.01) -> Objective:
    """strength |w - w_start|^2. Li et al. (2018), Explicit inductive bias for transfer learning, arXiv 1802.01483."""
    return Objective(weight=(WeightTerm(strength, Squared(), "start"),))


def online_l2(strength: float = 0.01) -> Objective:
    """strength |w - w_last|^2, w_last the weights at the last change."""
    return Objective(weight=(WeightTerm(strength, Squared()),))


def ewc(strength: float = 20.0, importance: str = "fisher_sampled") -> Objective:
    """strength / 2 * sum over past tasks of (w - w_t)' F_t (w - w_t). Kirkpatrick et al. (2017), arXiv 1612.00796."""
    return Objective(weight=(WeightTerm(strength, Quadratic(), "each_task", importance),))


def online_ewc(strength: float = 20.0, decay: float = 1.0, importance: str = "fisher_sampled") -> Objective:
    """strength / 2 * (w - w_last)' F (w - w_last), F <- decay F + F_t. Schwarz et al. (2018), arXiv 1805.06370."""
    return Objective(weight=(WeightTerm(strength, Quadratic(), "last_task", importance, decay),))


def si(strength: float = 0.1, damping: float = 0.1) -> Objective:
    """strength * (w - w_last)' O (w - w_last), without a half; O the path integral. Zenke et al. (2017), arXiv 1703.04200."""
    return Objective(weight=(WeightTerm(2.0 * strength, Quadratic(), "last_task", "path_integral", damping=damping),))


def mas(strength: float = 1.0) -> Objective:
    """strength * (w - w_last)' O (w - w_last), without a half; O = E |grad |scores|^2|. Aljundi et al. (2018), arXiv 1711.09601."""
    return Objective(weight=(WeightTerm(2.0 * strength, Quadratic(), "last_task", "output_norm"),))


def lwf(strength: float = 1.0, temperature: float = 2.0) -> Objective:
    """strength * KL(old, new) of softened answers among old classes, without the factor T^2. Li & Hoiem (2017), arXiv 1606.09282."""
    term = OutputTerm(strength, NegEntropy(), "probs", "current", "old_model", temperature=float(temperature), classes="old")
    return Objective(output=(term,))


def er(strength: float = 1.0) -> Objective:
    """CE(batch) + strength * CE(draw), two means. Chaudhry et al. (2019), arXiv 1902.10486, weigh rows alike: see replay."""
    return Objective(output=(_replayed_labels(strength),))


def replay() -> Objective:
    """The mean cross-entropy over batch and draw together, as `replay()` has it."""
    return Objective(source="both")


def der(strength: float = 0.3) -> Objective:
    """strength * mean over rows and classes of (scores - stored)^2. Buzzega et al. (2020), arXiv 2004.07211."""
    return Objective(output=(_replayed_scores(strength),))


def derpp(strength: float = 0.2, labels: float = 0.5) -> Objective:
    """`der` plus labels * CE(draw), on two independent draws. Buzzega et al. (2020), arXiv 2004.07211."""
    return Objective(output=(_replayed_scores(strength), _replayed_labels(labels)))


def icarl(strength: float = 1.0) -> Objective:
    """Binary cross-entropies: labels for new classes, the old model's answers for old ones. Rebuffi et al. (2017), arXiv 1611.07725.

    The training loss only: the nearest mean of exemplars and their choice by herding stand outside an objective.
    """
    term = OutputTerm(strength, BinaryNegEntropy(), "sigmoid", "both", "old_model", classes="old")
    return Objective("binary_cross_entropy", (term,), source="both", task_classes="new")


def cpr(strength: float = 0.5, ewc: float = 20.0) -> Objective:
    """strength * KL(answers, uniform) beside online EWC. Cha et al. (2021), CPR, arXiv 2006.07326."""
    term = OutputTerm(strength, NegEntropy(), "probs", "current", "uniform", "model_first")
    return Objective(output=(term,), weight=online_ewc(ewc).weight)


def vcl(strength: float = 0.001) -> Objective:
    """E_q CE + strength * KL(q, q of the last task), q independent Gaussians. Nguyen et al. (2018), arXiv 1710.10628.

    Their strength is 1 beside the summed loss of a task's rows; beside a mean it is 1 / rows, here of tasks of 1,000 rows.
    """
    return Objective(weight=(WeightTerm(strength, LogNorm()),))


def ncl(strength: float = 20.0, damping: float = 1.0, importance: str = "fisher_sampled") -> Objective:
    """The penalty of online EWC with a natural step: w <- w - lr ((L + damping)^-1 grad CE + w - w_last), L = strength * sum F_t.

    Kao et al. (2021), Natural continual learning, arXiv 2106.08085.
    """
    return Objective(weight=online_ewc(strength, importance=importance).weight, natural=float(damping))


def _replayed_scores(strength: float) -> OutputTerm:
    return OutputTerm(strength, Squared(), "logits", "memory", "stored_logits", reduce="mean")


def _replayed_labels(strength: float) -> OutputTerm:
    return OutputTerm(strength, NegEntropy(), "probs", "memory", "label")


PRESETS: dict[str, Callable[..., Objective]] = {
    builder.__name__: builder
    for builder in (
        *(finetune, l2sp, online_l2, ewc, online_ewc, si, mas, lwf),
        *(er, replay, der, derpp, icarl, cpr, vcl, ncl),
    )
}


def preset(name: str, **options: Any) -> Objective:
    """The objective of a method by name. Raises SpecError for a name or an option that there is not.

    >>> preset("er", strength=0.5)
    objective(output=(output(weight=0.5, potential=negentropy(), view='probs', source='memory', target='label'),))

    Reference: Wang et al. (2024), arXiv 2403.13249.
    """
    if name not in PRESETS:
        raise SpecError(closest("preset", str(name), PRESETS))
    return invoke(f"preset({name!r})", PRESETS[name], [], options)


def special_cases() -> str:
    """A table of markdown: every preset with its terms, and in what convention its strength is meant."""
    lines = ["| preset | output terms | weight terms | loss beside the task loss |", "|---|---|---|---|"]
    for name, builder in PRESETS.items():
        made = builder()
        outputs = "; ".join(map(repr, made.output)) or ("-" if made.source == "current" else "task loss on batch and draw")
        weights = "; ".join(map(repr, made.weight)) or "-"
        first = (builder.__doc__ or "").strip().splitlines()[0].replace("|", "\\|")
        lines.append(f"| `{name}` | {_code(outputs)} | {_code(weights)} | {first} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    return text if "(" not in text else f"`{text}`"
