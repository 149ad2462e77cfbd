"""Forgetting on purpose in a `transformers.Trainer`: a callback that makes embeddings anew every so many updates.

    after update t = `state.global_step`, before update t + 1:      w <- init where `rule.due(t)`,      moments of w <- 0

The reset waits for the beginning of the next update: the trainer evaluates, logs and saves at the end of one, and right after a reset
every model looks broken. So a checkpoint of update t holds the weights of before the reset, and a run that goes on from it makes the
reset first; a model whose training ends with an update that is due is handed over as it was trained.

References: Chen et al. (2023), Improving language plasticity via pretraining with active forgetting, NeurIPS, arXiv 2307.01163.
Anand et al. (2025), Dual process learning, ICLR, arXiv 2406.00053.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from everlearn.core.errors import ArgumentError, optional
from everlearn.optim.forgetting import Forgetting, Reset, ResetReport


def forgetting_callback(
    rule: Reset, *, select: str | Sequence[str] | None = None, tied: str | None = "together", seed: int = 0
) -> Any:
    """A callback for `transformers.Trainer(callbacks=[...])`; its list `reports` tells what each reset of a training did.

    rule: when, from what law, how much; special tokens stay by `exclude_rows=tuple(tokenizer.all_special_ids)`, and BERT began with
    `init=Normal(0.02)`. select: names of parameters or patterns; None: the table that `model.get_input_embeddings()` gives, whatever its
    name. tied="together": with an output layer that shares the table; None refuses such a table. seed: of new values, which are a
    function of it and the number of the update, so that training resumes to the same bits.

    Raises MissingExtraError without `transformers`. When training begins: ArgumentError where nothing or something unknown is selected,
    rows are out of range, or the optimiser does not hold the table (it is sharded over devices, say).

        trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[forgetting_callback(Reset(every=1000))])
    """
    transformers = optional("transformers", "hub", "forgetting_callback(...)")
    if not isinstance(rule, Reset):
        raise ArgumentError(f"forgetting_callback: rule must be a rule such as Reset(every=1000), got {rule!r}.")

    class ForgettingCallback(transformers.TrainerCallback):
        """Makes chosen parameters anew between two updates; see `forgetting_callback`."""

        def __init__(self) -> None:
            self.reports: list[ResetReport] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **others: Any) -> None:
            """Refuse what cannot be reset before anything is trained."""
            self.reports.clear()
            bound(model, optimizer)

        def on_step_begin(self, args: Any, state: Any, control: Any, *, model: Any, optimizer: Any, **others: Any) -> None:
            """The reset that follows the last update."""
            if rule.due(state.global_step):
                self.reports.append(bound(model, optimizer).after(state.global_step))

    def bound(model: nn.Module, optimizer: Optimizer) -> Forgetting:
        chosen = input_embeddings(model) if select is None else select
        return Forgetting(model, chosen, optimizer, rule, tied=tied, seed=seed)

    return ForgettingCallback()


def input_embeddings(model: nn.Module) -> list[str]:
    """The name of the table of a Hugging Face model's tokens, as `model.get_input_embeddings()` finds it.

    Raises ArgumentError where the model has none.
    """
    layer = model.get_input_embeddings()
    table = getattr(layer, "weight", None)
    names = [name for name, parameter in model.named_parameters() if parameter is table]
    if not names:
        raise ArgumentError(
            f"forgetting_callback: {type(model).__name__}.get_input_embeddings() gives {type(layer).__name__}, whose weight is not among "
            "the model's parameters; name what is made anew by select=..."
        )
    return names
