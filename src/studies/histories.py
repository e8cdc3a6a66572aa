r"""How often a change, or an influence, changes its sign in the course of training: exactly.

Predictions are sums $\sum_j c_j (1 - e^{-b_j t})$. Between two times such a sum is a cubic up to a
known error, and the coefficients of a cubic in Bernstein's basis say where it can be zero.
"""

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

    def minus(self, other: "Exponentials") -> "Exponentials":
        """The difference of as many functions."""
        return Exponentials(torch.cat([self.b, other.b]), torch.cat([self.c, -other.c], dim=1))

    def plus(self, other: "Exponentials") -> "Exponentials":
        """The sum of as many functions."""
        return Exponentials(torch.cat([self.b, other.b]), torch.cat([self.c, other.c], dim=1))


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


def on_grid(
    f: Exponentials, times: Float[Tensor, "t"], offset: Float[Tensor, "rows"], order: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""$D^m (f + \text{offset})$ and $D^{m+1} f$ at the times, a bound on $D^{m+4} f$ in between.

    Last, what rounding can do to the first two. ``order`` m is 0 or 1; the offset is a constant.
    """
    s, size = f.b[:, None] * times, f.c.abs()
    value = f.at(times) + offset[:, None] if order == 0 else f.c @ derivative(1, s)
    slope = f.c @ derivative(order + 1, s)
    bound = size @ derivative(order + 4, s[:, :-1], s[:, 1:])
    return value, slope, bound, ROUNDING * (size.sum(dim=1) + offset.abs())


def zeros(
    f: Exponentials,
    times: Float[Tensor, "t"],
    offset: Float[Tensor, "rows"] | None = None,
    *,
    order: int = 0,
) -> tuple[Int64[Tensor, "rows"], Bool[Tensor, "rows"]]:
    r"""How many zeros $f + \text{offset}$ has in the times, and whether the number is certain.

    Over a step h in log time a function is its cubic Hermite interpolant up to $h^4 / 384$ of a
    bound on its fourth derivative, and its slope up to $\sqrt3 h^3 / 216$ of it. No zero is where
    all four Bernstein coefficients have one sign by more than the error; one is where signs at the
    ends differ and the slope has one sign by more than its own. Any other step leaves the number
    uncertain. ``order=1`` counts the extremes of f instead.

    Parameters
    ----------
    f : the functions.
    times : ascending, equally spaced in the logarithm.
    offset : a constant for each function; 0 if left out.

    Returns
    -------
    (rows,) numbers of zeros, and (rows,) whether each is certain.

    Source: Birkhoff and Priver 1967 for the two constants.
    """
    h = float((times[-1] / times[0]).log()) / (len(times) - 1)
    offset = torch.zeros_like(f.c[:, 0]) if offset is None else offset
    value, slope, bound, rounding = on_grid(f, times, offset, order)
    first, last = value[:, :-1], value[:, 1:]
    inner = (first + h / 3 * slope[:, :-1], last - h / 3 * slope[:, 1:])
    cubic = torch.stack([first, *inner, last])
    off, slope_off = h**4 / 384 * bound, 3**0.5 * h**4 / 216 * bound
    none = one_sign(cubic, off + rounding[:, None])
    slopes_off = slope_off + 8 * rounding[:, None]
    differ = one_sign(first[None], rounding[:, None]) & one_sign(last[None], rounding[:, None])
    once = differ & (first * last < 0) & one_sign(3 * cubic.diff(dim=0), slopes_off)
    return once.sum(dim=1), (none | once).all(dim=1)


def one_sign(values: Float[Tensor, "k *rows"], margin: Tensor) -> Bool[Tensor, "*rows"]:
    """Whether all k values are above the margin, or all below minus the margin."""
    return (values > margin).all(dim=0) | (values < -margin).all(dim=0)


def settled(
    f: Exponentials, times: Float[Tensor, "t"], offset: Float[Tensor, "rows"]
) -> Bool[Tensor, "rows"]:
    r"""Whether $f + \text{offset}$ has no zero before the first time, but 0, nor after the last.

    Before, it is its value (or if that is 0, its slope) at 0, up to the next term of Taylor; after,
    its limit up to what is left of each exponential.
    """
    t, size = float(times[0]), f.c.abs()
    second = size @ f.b.square() * t / 2
    start = torch.where(offset == 0, (f.c @ f.b).abs() > second, offset.abs() > size @ f.b * t)
    left = size @ torch.exp(-f.b * float(times[-1]))
    return start & ((f.c.sum(dim=1) + offset).abs() > left + ROUNDING * size.sum(dim=1))


def sign_changes(
    whole: Exponentials,
    without: Exponentials,
    y_test: Float[Tensor, "n_test"],
    times: Float[Tensor, "t"],
) -> tuple[Int64[Tensor, "n_test"], Bool[Tensor, "n_test"]]:
    r"""How often the influence of a point on each test loss changes its sign, and if that is sure.

    The influence is $\frac12 (f^{\setminus i} - f)(f^{\setminus i} + f - 2y)$: zeros of both
    factors, each a sum of exponentials.
    """
    count, sure = 0, torch.ones_like(y_test, dtype=torch.bool)
    factors = ((without.minus(whole), 0 * y_test), (without.plus(whole), -2 * y_test))
    for factor, offset in factors:
        zeros_of, certain = zeros(factor, times, offset)
        count, sure = count + zeros_of, sure & certain & settled(factor, times, offset)
    return count, sure


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
