r"""How often a change, or an influence, changes its sign in the course of training: exactly.

Predictions are sums $\sum_j c_j (1 - e^{-b_j t})$. Between two times such a sum is a cubic up to a
known error, and the coefficients of a cubic in Bernstein's basis say where it can be zero.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

import ntk_influence as ni

ROUNDING = 1e-11  # of a value, relative to the sizes that are summed


@dataclass(frozen=True)
class Exponentials:
    """Functions of time, rows of ``c``, that start at 0: sums of c_j (1 - exp(-b_j t))."""

    b: Float[Tensor, "k"]
    c: Float[Tensor, "rows k"]

    def at(self, times: Float[Tensor, "t"]) -> Float[Tensor, "rows t"]:
        """Their values."""
        return self.c @ -torch.expm1(-self.b[:, None] * times)


def course_without(
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"],
    ridge: float,
    k_test: Float[Tensor, "n_test n"],
    removed: list[int],
) -> Exponentials:
    """Predictions at the test points along the flow that trains without some points."""
    keep = torch.ones(len(K), dtype=torch.bool, device=K.device)
    keep[removed] = False
    flow = ni.fit_kernel_flow(K[keep][:, keep], y[keep], ridge)
    return Exponentials(flow.a, (k_test[:, keep] @ flow.U) * (flow.Uy[:, 0] / flow.a))


# With D = t d/dt, D^m (1 - exp(-s)) at s = bt is exp(-s) times a polynomial of alternating signs.
POWERS = {1: (1,), 2: (1, 1), 4: (1, 7, 6, 1), 5: (1, 15, 25, 10, 1)}


def derivative(m: int, s: Tensor, latest: Tensor | None = None) -> Tensor:
    r"""$D^m (1 - e^{-s})$, or with ``latest`` a bound on its size from s to there."""
    at, signs = (s, (1, -1)) if latest is None else (latest, (1, 1))
    terms = (signs[k % 2] * number * at ** (k + 1) for k, number in enumerate(POWERS[m]))
    return sum(terms) * torch.exp(-s)


@dataclass(frozen=True)
class Sampled:
    r"""Functions on ascending times, equally spaced in their logarithm, and bounds.

    Attributes
    ----------
    times : (t,) the grid.
    value, slope : (rows, t) of $D^m f$ and $D^{m+1} f$.
    start, limit : (rows,) of the derivative by t at 0, and of the limit.
    bound : (rows, t - 1), of the size of $D^{m+4} f$ between two times.
    early, late : (rows,) bounds on how far f is, before the first time, from its tangent at 0, over
        t, and after the last from its limit.
    rounding : (rows,) what rounding can do to values and slopes.
    """

    times: Float[Tensor, "t"]
    value: Float[Tensor, "rows t"]
    slope: Float[Tensor, "rows t"]
    start: Float[Tensor, "rows"]
    limit: Float[Tensor, "rows"]
    bound: Float[Tensor, "rows intervals"]
    early: Float[Tensor, "rows"]
    late: Float[Tensor, "rows"]
    rounding: Float[Tensor, "rows"]

    def plus(self, other: "Sampled", sign: int = 1) -> "Sampled":
        """The sum of as many functions on the same grid, or their difference; bounds add up."""
        signed = ("value", "slope", "start", "limit")
        parts = {name: getattr(self, name) + sign * getattr(other, name) for name in signed}
        sizes = ("bound", "early", "late", "rounding")
        parts |= {name: getattr(self, name) + getattr(other, name) for name in sizes}
        return Sampled(self.times, **parts)


def sampled(f: Exponentials, times: Float[Tensor, "t"], *, order: int = 0) -> Sampled:
    r"""Functions, or with ``order=1`` their derivatives D f, on a grid."""
    s, size = f.b[:, None] * times, f.c.abs()
    first = derivative(1, s)
    return Sampled(
        times=times,
        value=f.c @ first if order else f.at(times),
        slope=f.c @ (derivative(2, s) if order else first),
        start=f.c @ f.b,
        limit=f.c.sum(dim=1),
        bound=size @ derivative(order + 4, s[:, :-1], s[:, 1:]),
        early=size @ f.b.square() * float(times[0]) / 2,
        late=size @ torch.exp(-f.b * float(times[-1])),
        rounding=ROUNDING * size.sum(dim=1),
    )


def zeros(
    f: Sampled, offset: Float[Tensor, "rows"] | float = 0.0
) -> tuple[Int64[Tensor, "rows"], Bool[Tensor, "rows"]]:
    r"""How many zeros $f + \text{offset}$ has on the grid, and whether the number is certain.

    Over a step h in log time a function is its cubic Hermite interpolant up to $h^4 / 384$ of a
    bound on its fourth derivative, and its slope up to $\sqrt3 h^3 / 216$ of it. No zero is where
    all four Bernstein coefficients have one sign by more than the error. Where the slope has one
    sign by more than its own, there is one if signs at the ends differ, and else none. Any other
    step leaves the number uncertain. Of D f they are the extremes of f.

    Source: Birkhoff and Priver 1967 for the two constants.
    """
    h = float((f.times[-1] / f.times[0]).log()) / (len(f.times) - 1)
    offset = torch.as_tensor(offset, dtype=f.limit.dtype, device=f.limit.device).expand_as(f.limit)
    value, rise = f.value + offset[:, None], h / 3 * f.slope
    first, last = value[:, :-1], value[:, 1:]
    cubic = torch.stack([first, first + rise[:, :-1], last - rise[:, 1:], last])
    off, slope_off = h**4 / 384 * f.bound, 3**0.5 * h**4 / 216 * f.bound
    rounding = (f.rounding + ROUNDING * offset.abs())[:, None]
    away = one_sign(cubic, off + rounding)
    ends = (first.abs() > rounding) & (last.abs() > rounding)
    monotone = ends & one_sign(3 * cubic.diff(dim=0), slope_off + 8 * rounding)
    return (monotone & (first * last < 0)).sum(dim=1), (away | monotone).all(dim=1)


def one_sign(values: Float[Tensor, "k *rows"], margin: Tensor) -> Tensor:
    """Whether all k values are above the margin, or all below minus the margin."""
    return (values > margin).all(dim=0) | (values < -margin).all(dim=0)


def settled(f: Sampled, offset: Float[Tensor, "rows"] | float = 0.0) -> Bool[Tensor, "rows"]:
    r"""Whether $f + \text{offset}$ has no zero before the grid, but at t = 0, nor after it.

    Before, f is its tangent at 0 up to the next term of Taylor; after, its limit up to the rest.
    """
    offset = torch.as_tensor(offset, dtype=f.limit.dtype, device=f.limit.device).expand_as(f.limit)
    moved = float(f.times[0]) * (f.start.abs() + f.early)
    start = torch.where(offset == 0, f.start.abs() > f.early, offset.abs() > moved)
    return start & ((f.limit + offset).abs() > f.late + f.rounding)


def sign_changes(
    whole: Sampled, without: Sampled, y_test: Float[Tensor, "n_test"]
) -> tuple[Int64[Tensor, "n_test"], Bool[Tensor, "n_test"]]:
    r"""How often the influence of a point on each test loss changes its sign, and if that is sure.

    The influence is $\frac12 (f^{\setminus i} - f)(f^{\setminus i} + f - 2y)$: zeros of both
    factors, each a sum of exponentials.
    """
    change, miss = without.plus(whole, -1), without.plus(whole)
    of_change, of_miss = zeros(change), zeros(miss, -2 * y_test)
    sure = of_change[1] & of_miss[1] & settled(change) & settled(miss, -2 * y_test)
    return of_change[0] + of_miss[0], sure


def of_pairs(
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"],
    ridge: float,
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"],
    members: list[int],
    times: Float[Tensor, "t"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sign changes of the influence and extremes of the change, with the certainty of each.

    A row for each member, a column for each test point. Times end at forty of the longest time
    scale; extremes are counted until that scale, since later a change only settles.
    """
    until = times[times < float(times[-1]) / 40]

    def of(removed: list[int]) -> tuple[Sampled, Sampled]:
        f = course_without(K, y, ridge, k_test, removed)
        return sampled(f, times), sampled(f, until, order=1)

    whole, slope = of([])
    pairs = [of([i]) for i in members]
    changes = [sign_changes(whole, without, y_test) for without, _ in pairs]
    peaks = [zeros(other.plus(slope, -1)) for _, other in pairs]
    return tuple(torch.stack(v) for part in (changes, peaks) for v in zip(*part, strict=True))


def first_below(
    times: Float[Tensor, "t"], losses: Float[Tensor, "t n"], level: float
) -> Float[Tensor, "n"]:
    """The first time at which each column is below a level, between two times; else infinity."""
    below = losses < level
    k = below.int().argmax(dim=0).clamp(min=1)
    before, after = (losses.gather(0, (k - j)[None])[0] for j in (1, 0))
    way = ((before - level) / (before - after)).clamp(0, 1)
    logs = times.log()
    found = torch.exp(logs[k - 1] + way * (logs[k] - logs[k - 1]))
    return found.masked_fill(~below.any(dim=0), math.inf)


def forgetting_events(correct: Bool[Tensor, "visits n"]) -> Float[Tensor, "n"]:
    """How often each point went from right to wrong between two visits; never right: infinity.

    Source: Toneva et al. 2019.
    """
    lost = (correct[:-1] & ~correct[1:]).sum(dim=0).double()
    return lost.masked_fill(~correct.any(dim=0), torch.inf)


def visited(
    model: torch.nn.Module,
    X: Float[Tensor, "n ..."],
    y: Float[Tensor, "n"],
    *,
    epochs: int,
    batch: int,
    step: float,
    seed: int,
) -> Bool[Tensor, "epochs n"]:
    """Trains by stochastic gradient descent on the mean halved square, in a random order.

    Returns whether each point was right when its batch came, before the step with it.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=step)
    correct = torch.zeros(epochs, len(y), dtype=torch.bool, device=y.device)
    for epoch in range(epochs):
        for rows in torch.randperm(len(y), generator=generator).split(batch):
            f = model(X[rows])
            correct[epoch, rows] = f.detach() * y[rows] > 0
            optimiser.zero_grad()
            ((f - y[rows]).square().mean() / 2).backward()
            optimiser.step()
    return correct
