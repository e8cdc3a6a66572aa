"""Training the first layer of a two-layer ReLU network, by gradient descent or implicit steps."""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .descent import Descent, Step, TrainingError
from .network import TwoLayerReLU

METHODS = ("gradient_descent", "preconditioned")
Method = Literal["gradient_descent", "preconditioned"]
STOPPED = ("settled", "on kinks", "steps")
LONGEST = 10**8  # steps of a training


@dataclass(frozen=True)
class Report:
    r"""How a training went.

    Attributes
    ----------
    method : of training.
    steps : taken.
    stopped : ``"settled"``: the last stretch of steps changed no output by more than the tolerance;
        ``"on kinks"``: it did, but the outputs no longer come closer; ``"steps"``: all were taken.
    last_change : largest change of an output of the training set in the last stretch of steps: the
        time $1 / \lambda$ of gradient descent, the last tenth of the preconditioned steps.
    schedule : every step; a second training with it follows the same schedule.
    ridge : $\lambda$ of the loss that was minimised.
    data : a digest of inputs and labels, by which `retrain_without` knows them again.
    """

    method: str
    steps: int
    stopped: str
    last_change: float
    schedule: tuple[Step, ...]
    ridge: float
    data: str


@dataclass(frozen=True, eq=False)
class TrainedTwoLayerReLU(TwoLayerReLU):
    """A trained network, with the coefficients B of its movement and a report."""

    coefficients: Float[Tensor, "r m"]
    report: Report

    def __post_init__(self) -> None:
        """Refuse parts that do not belong to one network."""
        super().__post_init__()
        B = _check.tensor("coefficients", self.coefficients, (2,))
        _check.alike("coefficients", B, "W", self.W)
        expected, got = f"{len(self.W)} columns, one a unit", f"shape {tuple(B.shape)}"
        _check.require(B.shape[1] == len(self.W), "coefficients", expected, got)
        _check.instance("report", self.report, Report)


def train(
    network: TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    *,
    method: Method = "gradient_descent",
    max_steps: int | None = None,
    tolerance: float = 1e-4,
    step: float | None = None,
    progress: bool = False,
) -> TrainedTwoLayerReLU:
    r"""Minimise the loss (2), $\frac12\sum_i (f(x_i) - y_i)^2 + \frac\lambda2\|W - W(0)\|_F^2$.

    ``"gradient_descent"`` is the paper's: full batch, a fixed step, by default $1 / \Lambda$ with
    $\Lambda$ a bound on the largest eigenvalue of the Hessian at the start. A ReLU network comes to
    rest on kinks, where the gradient does not vanish. So once the outputs change by less than the
    tolerance over the time $1 / \lambda$, or by more than half as much as before, the step is
    halved, and training ends when they rest again.

    ``"preconditioned"`` follows the gradient flow (3) in few long implicit steps. A step of time
    $\eta$ is the linearly implicit Euler step, $-(H + \frac1\eta I)^{-1}\nabla L$: a gradient step
    when $\eta$ is short, a Gauss-Newton step when it is long. $H = J^\top J + \lambda I$ is that of
    the activation patterns of the moment, and the system is solved in the dual. The times grow from
    $1 / \Lambda$ like a geometric series, then evenly, up to $6 / \lambda$.

    Parameters
    ----------
    network : the start, and the weights $W(0)$ to which the ridge pulls.
    X : (n, d) inputs.
    y : (n,) labels, or (n, c) for a network with c outputs.
    ridge : $\lambda > 0$.
    method : as above.
    max_steps : 40 for ``"preconditioned"``, which takes them all: more are closer to the flow;
        the steps of the time $40 / \lambda$ otherwise.
    tolerance : in the unit of the outputs.
    step : size of the first steps of gradient descent; above $2 / \Lambda$ it may be unstable.
    progress : show a progress bar.

    Returns
    -------
    TrainedTwoLayerReLU
        With ``.report``; gradients of the arguments are not followed.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, a ridge or step that is not positive
        or too small to arrive, an unknown method, a problem that does not fit into the memory.
    TrainingError
        The outputs grow without bound, the loss has not fallen, or the memory does not suffice.

    Source: Zhang and Zhang 2022, Eq. (2) and (3); the implicit step is classical (Rosenbrock 1963,
    and Levenberg and Marquardt for least squares); dual form, schedule and stopping rule are ours.
    """
    refuse_trained(network)
    check_method(method)
    descent = Descent(network, X, y, ridge)
    tolerance = _check.nonnegative("tolerance", tolerance)
    max_steps = None if max_steps is None else _check.integer("max_steps", max_steps)
    by_descent = method == "gradient_descent"
    if step is not None:
        step = _check.positive("step", step)
        _check.require(by_descent, "step", "None for implicit steps", step)
    largest = float(torch.linalg.vector_norm(network.ntk(X).detach(), 1, dim=1).max())
    largest += descent.ridge
    if by_descent:
        found = _descend(descent, step or 1 / largest, max_steps, tolerance, progress)
    else:
        schedule = flow_schedule(largest, descent.ridge, max_steps or 40)
        found = _follow(descent, schedule, tolerance, progress)
    B, f, schedule, stopped, change = found
    refuse_rise(descent, B, f)
    data = digest(X, y)
    report = Report(method, len(schedule), stopped, change, tuple(schedule), descent.ridge, data)
    W, a = descent.weights(B)[0], network.a.detach()
    return TrainedTwoLayerReLU(W, a, B[0], report, kink=network.kink)


Found = tuple[Tensor, Tensor, list[Step], str, float]


def _follow(descent: Descent, schedule: list[Step], tolerance: float, progress: bool) -> Found:
    """All steps of a schedule; the outputs may rest in its last tenth."""
    rest = len(schedule) - max(1, len(schedule) // 10)
    B, before = descent.run(descent.start(), schedule[:rest], progress=progress)
    B, f = descent.run(B, schedule[rest:], progress=progress)
    change = float((f - before).abs().max())
    return B, f, schedule, "settled" if change <= tolerance else "steps", change


def _descend(
    descent: Descent, size: float, limit: int | None, tolerance: float, progress: bool
) -> Found:
    """Gradient descent until the outputs rest, and again with half the step."""
    stretch = math.ceil(min(1 / max(size * descent.ridge, 1e-300), LONGEST))
    limit = limit or 40 * stretch
    if limit > LONGEST:
        expected = f"one with which training takes at most {LONGEST:.0e} steps (set max_steps)"
        _check.require(False, "ridge", expected, descent.ridge)
    B, schedule, f, before, halved = descent.start(), [], None, math.inf, False
    while len(schedule) < limit:
        some = [Step(size)] * min(stretch, limit - len(schedule))
        B, new = descent.run(B, some, progress=progress)
        change = math.inf if f is None else float((new - f).abs().max())
        schedule, f = schedule + some, new
        if change <= tolerance or (change > before / 2 and math.isfinite(before)):
            if halved:
                return B, f, schedule, "settled" if change <= tolerance else "on kinks", change
            size, stretch, halved, change = size / 2, 2 * stretch, True, math.inf
        before = change
    return B, f, schedule, "steps", change


def flow_schedule(largest: float, ridge: float, steps: int) -> list[Step]:
    r"""Implicit steps between $t(u) = \frac{1}{3\lambda} \log(1 + e^u)$ at even distances of $u$.

    The first ends near $1 / \Lambda$, the last at $6 / \lambda$.
    """
    ends = (-math.log(largest / (3 * ridge)), 18)
    u = torch.linspace(*ends, steps + 1, dtype=torch.float64, device="cpu")
    times = (u.exp().log1p() / (3 * ridge)).tolist()
    lengths = [after - before for before, after in zip([0.0, *times[1:-1]], times[1:], strict=True)]
    return [Step(1.0, 1 / length) for length in lengths]


def digest(X: Float[Tensor, "n d"], y: Float[Tensor, "n"] | Float[Tensor, "n c"]) -> str:
    """What tells inputs and labels from others, to the last bit."""
    sha = hashlib.sha256()
    for part in (X, y):
        sha.update(repr((part.shape, part.dtype)).encode() + part.detach().cpu().numpy().tobytes())
    return sha.hexdigest()[:16]


def check_method(method: object) -> None:
    """Refuse what is no way of training."""
    _check.require(method in METHODS, "method", f"one of {', '.join(METHODS)}", repr(method))


def refuse_trained(network: object) -> None:
    """A trained network is no start: its weights are not the W(0) of the loss."""
    trained = isinstance(network, TrainedTwoLayerReLU)
    _check.require(not trained, "network", "an initial network", "a trained one")


def refuse_rise(descent: Descent, B: Float[Tensor, "b r m"], f: Float[Tensor, "b n c"]) -> None:
    """A training whose loss has not fallen has not trained, however still its outputs are."""
    before = descent.misfit(descent.outputs(descent.Z_start))
    after, rounding = descent.loss(B, f), 1e3 * torch.finfo(f.dtype).eps
    room = rounding * before + rounding**2 * descent.y.square().sum()
    worse = ~(after <= before + room)
    if worse.any():
        one = int(worse.nonzero()[0])
        raise TrainingError(
            f"training: the loss rose from {float(before[one]):.3g} to {float(after[one]):.3g}; "
            "take a smaller step or a larger ridge"
        )
