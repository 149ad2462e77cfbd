"""A world of card payments in which each may be treated in one of several ways, and only the chosen one's outcome is seen.

    logit P(approve | x, a) = base_i + eff_ia + mer_ma + amt_a z + xb_a c - 0.6 c - 0.3 d        i issuer, m merchant, z amount
    after each period:  eff_ia += N(0, drift) for a != none,  eff *= 0.98,  base_i += N(0, 0.05)     c cross-border, d debit card

Which treatments a payment may have differs from one to the next: no and forced 3-D Secure always, the others by amount, border, card,
network token, merchant and chance; 4.5 of seven on average. A world is a value: `payments` draws from it and `drifted` gives the next.

Reference: Vangara & Egg (2024), Contextual bandits in payment processing, arXiv 2412.00569. The world is ours, their data are not public.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from everlearn.core.errors import InputError, check_count, check_range
from everlearn.core.random import generator

ACTIONS = ("none", "exempt_3ds", "force_3ds", "network_token", "retry_acquirer", "data_only", "reformat")
NONE, EXEMPT, FORCE, TOKEN, RETRY, DATA_ONLY, REFORMAT = range(len(ACTIONS))
UNEVEN = 0.7  # concentration of the shares of issuers and merchants
BASE, BASE_SPREAD = 2.0, 0.4
ISSUER_SPREAD, MERCHANT_SPREAD, CROSS_SPREAD = 0.7, 0.35, 0.4
AMOUNT, AMOUNT_SPREAD, AMOUNT_OF_NONE = -0.35, 0.15, -0.3
OF_CROSS, OF_DEBIT = -0.6, -0.3
CROSS, DEBIT, TOKENISED, REFORMATTED = 0.3, 0.5, 0.6, 0.3  # shares of payments
EXEMPT_BELOW = 0.5  # amount, in deviations
EVERY_THIRD = 3  # merchants that cannot retry


@dataclass(frozen=True)
class Payments:
    """Payments of one period, before any is treated.

    x: (n, issuers + merchants + 3) float32, the issuer and the merchant as indicators, then amount, cross-border, debit;
    offered: (n, 7) bool; chances: (n, 7) float64, the true probability of approval under each treatment, offered or not;
    luck: (n,) float64 in 0..1: a treatment succeeds where luck < chance, so policies can be compared on the same payments.
    """

    x: Tensor
    offered: Tensor
    chances: Tensor
    luck: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def rewards(self, action: Tensor) -> Tensor:
        """(n,) float64, 1 where the payment is approved under (n,) actions. Raises InputError where one is not offered."""
        self._check(action)
        return (self.luck < self.chances.gather(1, action[:, None])[:, 0]).double()

    def best(self) -> Tensor:
        """(n,) the highest probability of approval among what is offered."""
        return self.chances.masked_fill(~self.offered, 0.0).amax(1)

    def value(self, probabilities: Tensor) -> float:
        """The mean probability of approval under a policy's (n, 7) probabilities; nothing is drawn."""
        return float((probabilities * self.chances).sum(1).mean())

    def regret(self, probabilities: Tensor) -> float:
        """The mean of the best offered probability of approval less that under a policy's (n, 7) probabilities."""
        return float(self.best().mean()) - self.value(probabilities)

    def uniform(self) -> Tensor:
        """(n, 7) float64: each offered treatment alike."""
        return self.offered.double() / self.offered.sum(1, keepdim=True)

    def first(self, count: int) -> "Payments":
        """The first payments alone."""
        return Payments(self.x[:count], self.offered[:count], self.chances[:count], self.luck[:count])

    def _check(self, action: Tensor) -> None:
        if (
            action.dtype != torch.int64
            or action.shape != (len(self),)
            or not ((action >= 0) & (action < len(ACTIONS))).all()
        ):
            raise InputError(f"payments: actions must be {len(self)} int64 in 0..{len(ACTIONS) - 1}, got {action!r}.")
        wrong = (~self.offered.gather(1, action[:, None])[:, 0]).nonzero().flatten()
        if len(wrong):
            row = int(wrong[0])
            offered = self.offered[row].nonzero().flatten().tolist()
            raise InputError(f"payments: row {row}: action {int(action[row])} is not offered; offered are {offered}.")


@dataclass(frozen=True)
class PaymentWorld:
    """Issuers, merchants and what each treatment does, at one point of time. Made by `payment_world`."""

    seed: int
    generation: int  # periods that have passed
    drift: float
    base_drift: float
    decay: float
    issuer_share: Tensor  # (issuers,)
    merchant_share: Tensor  # (merchants,)
    base: Tensor  # (issuers,) logit of approval
    issuer: Tensor  # (issuers, 7) what a treatment adds at an issuer
    merchant: Tensor  # (merchants, 7)
    amount: Tensor  # (7,) for each deviation of the amount
    cross: Tensor  # (7,) across a border

    @property
    def width(self) -> int:
        """The columns of x."""
        return len(self.base) + len(self.merchant) + 3

    def payments(self, count: int, purpose: str = "served") -> Payments:
        """Draw payments of this period; the same ones again for the same purpose, others for another."""
        check_count("payments", "count", count)
        random = generator(self.seed, "payments", purpose, self.generation)
        issuer = torch.multinomial(self.issuer_share, count, replacement=True, generator=random)
        merchant = torch.multinomial(self.merchant_share, count, replacement=True, generator=random)
        amount = torch.randn(count, dtype=torch.float64, generator=random)
        cross, debit, tokenised, reformatted, luck = torch.rand(5, count, dtype=torch.float64, generator=random)
        cross, debit = (cross < CROSS).double(), (debit < DEBIT).double()
        offered = torch.ones(count, len(ACTIONS), dtype=torch.bool)
        offered[:, EXEMPT] = (amount < EXEMPT_BELOW) & (cross == 0)
        offered[:, TOKEN] = tokenised < TOKENISED
        offered[:, RETRY] = merchant % EVERY_THIRD != 0
        offered[:, DATA_ONLY] = debit == 0
        offered[:, REFORMAT] = reformatted < REFORMATTED
        logit = self.issuer[issuer] + self.merchant[merchant] + amount[:, None] * self.amount + cross[:, None] * self.cross
        logit += (self.base[issuer] + OF_CROSS * cross + OF_DEBIT * debit)[:, None]
        x = torch.zeros(count, self.width)
        rows = torch.arange(count)
        x[rows, issuer] = 1.0
        x[rows, len(self.base) + merchant] = 1.0
        x[:, -3:] = torch.stack([amount, cross, debit], 1).float()
        return Payments(x, offered, logit.sigmoid(), luck)

    def drifted(self) -> "PaymentWorld":
        """The world one period later."""
        random = generator(self.seed, "drift", self.generation)
        moved = self.issuer + self.drift * torch.randn(self.issuer.shape, dtype=torch.float64, generator=random)
        moved[:, NONE] = self.issuer[:, NONE]
        base = self.base + self.base_drift * torch.randn(self.base.shape, dtype=torch.float64, generator=random)
        return replace(self, generation=self.generation + 1, issuer=self.decay * moved, base=base)


def payment_world(
    issuers: int = 12,
    merchants: int = 8,
    *,
    drift: float = 0.1,
    base_drift: float = 0.05,
    decay: float = 0.98,
    seed: int = 0,
) -> PaymentWorld:
    """A world before its first period; with drift=0, base_drift=0 and decay=1 it never changes.

    >>> world = payment_world(seed=1)
    >>> payments = world.payments(1000)
    >>> payments.x.shape, round(float(payments.offered.sum(1).double().mean()))
    (torch.Size([1000, 23]), 4)
    """
    check_count("payment_world", "issuers", issuers)
    check_count("payment_world", "merchants", merchants)
    check_range("payment_world", "drift", drift, 0.0)
    check_range("payment_world", "base_drift", base_drift, 0.0)
    check_range("payment_world", "decay", decay, 0.0, 1.0)
    random = generator(seed, "payment_world")

    def normal(*shape: int, mean: float = 0.0, spread: float) -> Tensor:
        return mean + spread * torch.randn(*shape, dtype=torch.float64, generator=random)

    def shares(count: int) -> Tensor:
        drawn = torch._standard_gamma(torch.full((count,), UNEVEN, dtype=torch.float64), generator=random)
        return drawn / drawn.sum()

    kinds = len(ACTIONS)
    issuer, merchant = normal(issuers, kinds, spread=ISSUER_SPREAD), normal(merchants, kinds, spread=MERCHANT_SPREAD)
    issuer[:, NONE] = merchant[:, NONE] = 0.0
    amount = normal(kinds, mean=AMOUNT, spread=AMOUNT_SPREAD)
    amount[NONE] = AMOUNT_OF_NONE
    return PaymentWorld(
        seed=seed,
        generation=0,
        drift=drift,
        base_drift=base_drift,
        decay=decay,
        issuer_share=shares(issuers),
        merchant_share=shares(merchants),
        base=normal(issuers, mean=BASE, spread=BASE_SPREAD),
        issuer=issuer,
        merchant=merchant,
        amount=amount,
        cross=normal(kinds, spread=CROSS_SPREAD),
    )
