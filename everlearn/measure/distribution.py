"""Whether two samples come from one distribution: how far apart they are, and how far chance alone would put them.

    PSI     sum_b (p_b - q_b) ln(p_b / q_b)            shares p, q of the bins b         chance: chi2_{bins-1} (1/(n-bins) + 1/(m-bins))
    KS      max_v |F(v) - G(v)|                         of two empirical distributions    chance: Kolmogorov sqrt(1/n + 1/m)
    MMD^2   mean k(x,x') + mean k(y,y') - 2 mean k(x,y)    k = exp(-|x-y|^2 / scale)      chance: sum_i lambda_i chi2_1 (1/n + 1/m)

with lambda the eigenvalues of the centred kernel, whose first three moments fix the quantile (Hall-Buckley-Eagleson). Each
`*_limit` is what a test of samples of n and m rows exceeds by chance with probability `level`; over d columns ask for level / d.
Reference: Yurdakul (2018), Statistical properties of the population stability index. Smirnov (1939). Gretton et al. (2012), A kernel
two-sample test, JMLR 13. Buckley & Eagleson (1988), An approximation to the distribution of quadratic forms.
"""

import math
from functools import cache

import torch
from torch import Tensor

from everlearn.core.errors import InputError, check_count, check_range

FLOOR = 0.5  # rows of the smaller sample: a bin with fewer counts as having so many
TINY = 1e-12  # added to variances before they divide


def bin_edges(reference: Tensor, bins: int = 10) -> Tensor:
    """(columns, edges), rising: the inner quantiles of each column of (rows, columns), for `bin_counts`.

    A value that holds at least half a bin's share of the rows (zeros, or one of few categories) gets a bin of its own. Edges may
    repeat; what lies between equal ones is empty.

    >>> bin_edges(torch.arange(100.0)[:, None], bins=4).unique().tolist()
    [24.0, 49.0, 74.0]
    """
    check_count("bin_edges", "bins", bins, low=2)
    if reference.ndim != 2 or not len(reference):
        raise InputError(f"bin_edges: reference must be (rows, columns) with rows, got shape {tuple(reference.shape)}.")
    rows = len(reference)
    ordered = reference.sort(dim=0).values.T.contiguous()
    places = [max(0, math.ceil(rows * part / bins) - 1) for part in range(1, bins)]
    edges = ordered[:, places].contiguous()
    held = torch.searchsorted(ordered, edges, right=True) - torch.searchsorted(ordered, edges)
    below = torch.nextafter(edges, torch.full_like(edges, -math.inf))
    alone = held >= rows / (2 * bins)
    if not alone.any():
        return edges
    lower = torch.where(alone, below, edges)
    edges = torch.cat([lower, edges], dim=1).sort(dim=1).values
    return torch.stack([_merged(column, part, rows / (2 * bins)) for column, part in zip(ordered, edges, strict=True)])


def _merged(ordered: Tensor, edges: Tensor, least: float) -> Tensor:
    """The edges of a column without those that part off fewer than `least` rows; a removed edge repeats one that stays.

    Bins without any row stay: values that never occurred are a sign, and chance does not fill them. So do the bins about a single
    value that nearly all rows hold, since one bin tells nothing.
    """
    rising = edges.unique()
    if len(rising) <= 2:
        return edges
    kept: list[float] = []
    below = torch.searchsorted(ordered, rising, right=True).tolist()
    last = 0
    for edge, count in zip(rising.tolist(), below, strict=True):
        if count == last or count - last >= least:
            kept.append(edge)
            last = count
    while len(kept) > 2 and 0 < len(ordered) - last < least:
        kept.pop()
        last = int((ordered <= kept[-1]).sum())
    return torch.tensor(kept + kept[-1:] * (len(edges) - len(kept)), dtype=edges.dtype)


def bin_counts(values: Tensor, edges: Tensor) -> Tensor:
    """(columns, edges + 1) int64: how many of the (rows, columns) lie in each bin; a value equal to an edge belongs below it.

    >>> bin_counts(torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([[2.0, 5.0]])).tolist()
    [[2, 0, 1]]
    """
    columns, width = len(edges), edges.shape[1] + 1
    place = torch.searchsorted(edges, values.T.contiguous(), out_int32=True)
    offset = torch.arange(columns, dtype=torch.int32)[:, None] * width
    return torch.bincount((place + offset).flatten(), minlength=columns * width).reshape(columns, width)


def psi(first: Tensor, second: Tensor) -> Tensor:
    """(..., columns) float64: the population stability index of counts (..., columns, bins). Symmetric; 0 for equal shares.

    A bin without rows counts as if it held half a row of the smaller sample; one that is empty on both sides adds nothing.

    >>> round(float(psi(torch.tensor([[50, 50]]), torch.tensor([[80, 20]]))), 4)
    0.4159
    """
    n, m = first.sum(dim=-1, keepdim=True).double(), second.sum(dim=-1, keepdim=True).double()
    floor = FLOOR / torch.minimum(n, m)
    p, q = torch.maximum(first / n, floor), torch.maximum(second / m, floor)
    return ((p - q) * (p / q).log()).sum(dim=-1)


@cache
def psi_limit(n: int, m: int, bins: int, level: float) -> float:
    """The PSI that counts of n and m rows in `bins` bins exceed by chance with probability `level`; 0 for a single bin.

    Good from about 20 rows a bin on. Without `- bins` the published limit is passed up to 3 times as often as it says there.

    >>> round(psi_limit(1000, 250, 10, 0.05), 4)
    0.0876
    """
    _check("psi_limit", n, m, level)
    if bins < 2:
        return 0.0
    from scipy.special import chdtri

    return float(chdtri(bins - 1, level)) * (1.0 / max(1, n - bins) + 1.0 / max(1, m - bins))


def ks(first: Tensor, second: Tensor) -> Tensor:
    """(columns,) float64: the two-sample Kolmogorov-Smirnov statistic of each column of (n, columns) and (m, columns).

    >>> ks(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([[3.0], [4.0], [5.0], [6.0]])).tolist()
    [0.5]
    """
    one, other = (part.T.contiguous().sort(dim=1).values for part in (first, second))
    places = torch.cat([one, other], dim=1)
    below = torch.searchsorted(one, places, right=True).double() / len(first)
    return (below - torch.searchsorted(other, places, right=True).double() / len(second)).abs().amax(dim=1)


@cache
def ks_limit(n: int, m: int, level: float) -> float:
    """The KS statistic that samples of n and m rows exceed by chance with probability at most `level`.

    >>> round(ks_limit(100, 100, 0.05), 4)
    0.1921
    """
    _check("ks_limit", n, m, level)
    from scipy.special import kolmogi

    return float(kolmogi(level)) * math.sqrt(1.0 / n + 1.0 / m)


def kernel(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """(n, m) float64: exp(-|x - y|^2 / scale) for rows x of (n, features) and y of (m, features)."""
    x, y = first.double(), second.double()
    squared = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2.0 * x @ y.T
    return (-squared.clamp(min=0.0) / scale).exp()


def median_scale(reference: Tensor) -> float:
    """The median of the squared distances between different rows: the usual scale of a kernel. 1 where rows do not differ."""
    x = reference.double()
    squared = torch.pdist(x).square()
    scale = float(squared.median()) if len(squared) else 0.0
    return scale if scale > TINY else 1.0


def mmd(first: Tensor, second: Tensor, scale: float) -> float:
    """The squared maximum mean discrepancy of (n, features) and (m, features), all pairs counted, so never below 0.

    >>> round(mmd(torch.tensor([[0.0]]), torch.tensor([[1.0]]), scale=1.0), 4)
    1.2642
    """
    inside = kernel(first, first, scale).mean() + kernel(second, second, scale).mean()
    return max(0.0, float(inside - 2.0 * kernel(first, second, scale).mean()))


def mmd_limit(reference: Tensor, m: int, scale: float, level: float) -> float:
    """The MMD^2 that `m` more rows of the distribution behind `reference` (n, features) exceed by chance with probability `level`."""
    n = len(reference)
    _check("mmd_limit", n, m, level)
    gram = kernel(reference, reference, scale)
    centred = gram - gram.mean(dim=0) - gram.mean(dim=1, keepdim=True) + gram.mean()
    centred = centred / max(1, n - 1)  # its eigenvalues are those of the covariance in the kernel's space
    square = centred @ centred
    mean, two, three = float(centred.trace()), float(square.trace()), float((square * centred).sum())
    spread, skew = math.sqrt(2.0 * two), 8.0 * three / max((2.0 * two) ** 1.5, TINY**2)
    if spread == 0.0 or skew == 0.0:
        return mean * (1.0 / n + 1.0 / m)
    from scipy.special import chdtri

    freedom = 8.0 / skew**2
    quantile = mean + spread * (float(chdtri(freedom, level)) - freedom) / math.sqrt(2.0 * freedom)
    return quantile * (1.0 / n + 1.0 / m)


def _check(owner: str, n: int, m: int, level: float) -> None:
    check_count(owner, "n", n)
    check_count(owner, "m", m)
    check_range(owner, "level", level, 1e-300, 1.0)
