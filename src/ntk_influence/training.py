"""Training the first layer of a two-layer ReLU network, and training it again without a point.

Weights stay of the form $W = W(0) + C^\\top X$, since every gradient lies in the span of the
inputs. Training therefore moves the (n, m) coefficients $C$ and the pre-activations
$Z = X W^\\top = Z(0) + X X^\\top C$, and never forms a gradient of the shape of $W$.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from . import _check
from .network import TwoLayerReLU

METHODS = ("gradient_descent", "preconditioned")
Method = Literal["gradient_descent", "preconditioned"]


class Step(NamedTuple):
    r"""A step of $-s\,(H + \mu I)^{-1}\nabla L$ with the Hessian $H$ of the patterns of the moment.

    Infinite damping $\mu$ stands for a gradient step $-s\,\nabla L$.
    """

    size: float
    damping: float = math.inf


class TrainingError(RuntimeError):
    """Training ran away or ran out of memory; the message says where, and what to change."""


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
    """

    method: str
    steps: int
    stopped: str
    last_change: float
    schedule: tuple[Step, ...]


@dataclass(frozen=True)
class TrainedTwoLayerReLU(TwoLayerReLU):
    """A trained network, with its ``report`` and the ``movement`` M of its weights."""

    movement: Float[Tensor, "r m"]
    report: Report


def train(
    network: TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    method: Method = "gradient_descent",
    max_steps: int | None = None,
    tolerance: float = 1e-4,
    step: float = 1.0,
    progress: bool = False,
) -> TrainedTwoLayerReLU:
    r"""Minimise the loss (2), $\frac12\sum_i (f(x_i) - y_i)^2 + \frac\lambda2\|W - W(0)\|_F^2$.

    ``"gradient_descent"`` is the paper's: full batch, a fixed step of $1 / \beta$, with $\beta$ a
    bound on the largest eigenvalue of the Hessian at the start. A ReLU network comes to
    rest on kinks, where the gradient does not vanish. So once the outputs change by less than the
    tolerance over the time $1 / \lambda$, or by more than half as much as before, the step is
    halved, and training ends when they rest again.

    ``"preconditioned"`` follows the gradient flow (3) in few long implicit steps. A step of time
    $\eta$ is the linearly implicit Euler step, $-(H + \frac1\eta I)^{-1}\nabla L$: a gradient step
    when $\eta$ is short, a Gauss-Newton step when it is long. $H = J^\top J + \lambda I$ is that of
    the activation patterns of the moment, and the system is solved in the dual. The times grow from
    $1 / \beta$ like a geometric series, then evenly, up to $6 / \lambda$.

    Parameters
    ----------
    network : the start, and the weights $W(0)$ to which the ridge pulls.
    X : (n, d) inputs.
    y : (n,) labels, or (n, c) for a network with c outputs.
    ridge : $\lambda > 0$.
    method : as above.
    max_steps : 40 for ``"preconditioned"``, which takes them all: more are closer to the flow;
        $40\,\beta / \lambda$ otherwise.
    tolerance : in the unit of the outputs.
    step : of gradient descent, in units of $1 / \beta$; 2 is the limit of stability.
    progress : show a progress bar.

    Returns
    -------
    TrainedTwoLayerReLU
        With ``.report``.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, a ridge that is not positive, an
        unknown method.
    TrainingError
        The outputs grow without bound, or the memory does not suffice.

    Source: Zhang and Zhang 2022, Eq. (2) and (3); the implicit step is classical (Rosenbrock 1963,
    and Levenberg and Marquardt for least squares); dual form, schedule and stopping rule are ours.
    """
    _check_problem(network, X, y, ridge, method)
    if max_steps is not None:
        _check.positive_integer("max_steps", max_steps)
    _check.nonnegative("tolerance", tolerance)
    _check.nonnegative("step", step)
    _check.require(step > 0, "step", "a number > 0", step)
    bound = float(torch.linalg.vector_norm(network.ntk(X), 1, dim=1).max()) + ridge
    descent = _Descent(network, X, y, ridge)
    M = descent.start()
    if method == "preconditioned":
        schedule = _flow_schedule(bound, ridge, max_steps or 40)
        rest = len(schedule) - max(1, len(schedule) // 10)
        M, f = descent.run(M, schedule[:rest], progress)
        M, last = descent.run(M, schedule[rest:], progress)
        change = float((last - f).abs().max())
        stopped = "settled" if change <= tolerance else "steps"
    else:
        bound = bound / step
        limit = max_steps or math.ceil(40 * bound / ridge)
        M, schedule, stopped, change = _descend(descent, M, bound, limit, tolerance, progress)
    report = Report(method, len(schedule), stopped, change, tuple(schedule))
    return TrainedTwoLayerReLU(descent.weights(M)[0], network.a, M[0], report)


def retrain_without(
    network: TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    indices: Sequence[int],
    X_test: Float[Tensor, "n_test d"],
    method: Method = "gradient_descent",
    start: Literal["cold", "warm"] = "cold",
    trained: TrainedTwoLayerReLU | None = None,
    finished: Callable[[int, Tensor], None] | None = None,
    progress: bool = False,
) -> Float[Tensor, "k n_test"] | Float[Tensor, "k n_test c"]:
    r"""Predictions at the test points of networks that were trained without one training point.

    A cold start is the paper's definition, equation (7): from the same initial weights, by the same
    schedule as with all points. A warm start goes on from the trained weights, once with and once
    without the point, by the same steps, and adds the difference to the trained network's
    predictions: another quantity, the response near the trained weights. Gradient descent repeats
    its schedule; twelve small Gauss-Newton steps, the parts $s_k$ of the way to the minimum, go the
    part $1 - \prod_k (1 - s_k)$, by which the difference is divided. That is exact while no pattern
    flips. On a GPU, as many points are trained at once as its free memory takes.

    Parameters
    ----------
    network : the common start, not a trained network.
    X, y, ridge, method : as in `train`.
    indices : the points to leave out, one at a time; none gives an empty result.
    X_test : (n_test, d).
    start : ``"cold"`` or ``"warm"``.
    trained : result of `train` on all points with the same arguments, if it is there already; by
        default it is trained first, with the default number of steps and tolerance.
    finished : is called with the index and its (n_test,) predictions as soon as they are there, so
        that a caller can store them and later ask for the missing ones only.
    progress : show a progress bar.

    Returns
    -------
    (k, n_test) or (k, n_test, c) tensor, in the order of ``indices``.

    Raises
    ------
    ValueError
        As `train`, and an index that is not one of a training point.
    TrainingError
        As `train`. Points that were finished before have been handed out.

    Source: Zhang and Zhang 2022, Eq. (7); the warm start is ours.
    """
    _check_problem(network, X, y, ridge, method)
    _check.require(start in ("cold", "warm"), "start", "'cold' or 'warm'", repr(start))
    network.check_input("X_test", X_test)
    chosen = _check.indices("indices", indices, len(X))
    if not chosen:
        return X_test.new_empty(0, len(X_test), *y.shape[1:])
    if trained is None:
        trained = train(network, X, y, ridge, method)
    same = trained.report.method == method
    _check.require(same, "trained", f"a network trained by {method}", trained.report.method)
    everything = _Descent(network, X, y, ridge)
    M, schedule, part = everything.start(), trained.report.schedule, 1.0
    expected, got = tuple(M.shape[1:]), tuple(trained.movement.shape)
    _check.require(got == expected, "trained", f"a movement of shape {expected}", f"shape {got}")
    way = (everything.weights(trained.movement) - trained.W).abs().max()
    here = way <= 1e3 * torch.finfo(X.dtype).eps * (1 + trained.W.abs().max())  # rounding
    _check.require(bool(here), "trained", "training from this start on these inputs", "another one")
    base = stayed = torch.zeros(())
    if start == "warm":
        schedule, part = _warm_schedule(method, schedule)
        M = trained.movement[None]
        base, stayed = (everything.predict(s, X_test) for s in (M, everything.run(M, schedule)[0]))
    results = []
    bar = tqdm(total=len(chosen), desc="left out", disable=not progress)
    for some in torch.tensor(chosen).split(everything.copies_that_fit()):
        without = everything.leaving_out(some)
        moved = without.predict(without.run(M, schedule)[0], X_test)
        for i, f in zip(some.tolist(), base + (moved - stayed) / part, strict=True):
            results.append(f)
            if finished:
                finished(i, f)
            bar.update()
    return torch.stack(results)


class _Descent:
    """A training problem with a batch of copies that each leave out the points where keep is 0."""

    def __init__(
        self,
        network: TwoLayerReLU,
        X: Float[Tensor, "n d"],
        y: Float[Tensor, "n"] | Float[Tensor, "n c"],
        ridge: float,
    ) -> None:
        self.network, self.X, self.ridge = network, X, ridge
        self.G, self.Z_start = X @ X.T, X @ network.W.T
        self.signs = network.a.reshape(len(network.a), -1) / math.sqrt(len(network.a))
        self.y = y.reshape(len(y), -1)
        self.keep = X.new_ones(1, len(X))
        self.dual = len(X) <= 2 * X.shape[1]

    def leaving_out(self, points: Int64[Tensor, "b"]) -> "_Descent":
        """The same problem without a point, once for each; what all share is not repeated."""
        other = copy(self)
        other.keep = self.keep.repeat(len(points), 1)
        other.keep[torch.arange(len(points)), points] = 0
        return other

    def copies_that_fit(self) -> int:
        """How many left-out points can be trained at once: one on a CPU, where it saves nothing."""
        if self.X.device.type != "cuda":
            return 1
        n, m = self.Z_start.shape
        bytes_each = self.X.element_size() * (7 * n * m + 4 * n * n)
        return max(1, int(0.8 * torch.cuda.mem_get_info(self.X.device)[0]) // bytes_each)

    def start(self) -> Float[Tensor, "b r m"]:
        """The movement of networks that have not moved."""
        rows = len(self.X) if self.dual else self.X.shape[1]
        return self.X.new_zeros(len(self.keep), rows, self.Z_start.shape[1])

    def _pull(self, D: Float[Tensor, "b n m"]) -> Float[Tensor, "b r m"]:
        """The movement to which coefficients of the training points add up."""
        return D if self.dual else self.X.T @ D

    def _push(self, M: Float[Tensor, "b r m"]) -> Float[Tensor, "b n m"]:
        """The pre-activations that a movement adds."""
        return (self.G if self.dual else self.X) @ M

    def weights(self, M: Float[Tensor, "*b r m"]) -> Float[Tensor, "*b m d"]:
        """The weights after a movement."""
        return self.network.W + ((self.X.T @ M) if self.dual else M).mT

    def run(
        self, M: Float[Tensor, "b0 r m"], schedule: Sequence[Step], progress: bool = False
    ) -> tuple[Float[Tensor, "b r m"], Float[Tensor, "b n c"]]:
        """Take the steps; the movement after them, and the outputs of the training points.

        A single movement is where all copies start.
        """
        try:
            M = M.repeat(len(self.keep) // len(M), 1, 1)
            Z = self.Z_start + self._push(M)
            for step in tqdm(schedule, disable=not progress):
                self._take(step, M, Z)
            return M, torch.relu(Z) @ self.signs
        except RuntimeError as problem:
            if isinstance(problem, TrainingError) or "memory" not in str(problem):
                raise
            size = " x ".join(map(str, self.Z_start.shape))
            raise TrainingError(
                f"training: {size} pre-activations and what goes with them do not fit into the "
                f"memory of {self.X.device}; take fewer points, a smaller width, or float32"
            ) from None

    def _take(self, step: Step, M: Float[Tensor, "b r m"], Z: Float[Tensor, "b n m"]) -> None:
        """Move weights and pre-activations in place."""
        A = torch.ge(Z, 0, out=torch.empty_like(Z))  # no detour over bool: a fifth of the time
        residual = self.y - torch.relu(Z) @ self.signs
        if step.damping == math.inf:
            shrink, beta = 1 - step.size * self.ridge, step.size * residual
        else:
            part = self.ridge / (self.ridge + step.damping)
            at_start = self.y - (A * self.Z_start) @ self.signs
            target = (1 - part) * residual + part * at_start
            shrink = 1 - step.size * part
            beta = step.size * self._solve(A, target, self.ridge + step.damping)
        if not beta.abs().max() < 1e6 * (1 + self.y.abs().max()) / min(1, self.ridge):
            raise TrainingError(
                "training: the outputs ran away; take a smaller step or a larger ridge"
            )
        D = ((self.keep[:, :, None] * beta) @ self.signs.T).mul_(A)
        if self.dual:
            M.mul_(shrink).add_(D)
        else:
            M.baddbmm_(self.X.T.expand(len(M), -1, -1), D, beta=shrink)
        rows = (self.G if self.dual else self.X).expand(len(M), -1, -1)
        torch.baddbmm(self.Z_start, rows, M, out=Z)

    def _solve(
        self, A: Float[Tensor, "b n m"], target: Float[Tensor, "b n c"], damping: float
    ) -> Float[Tensor, "b n c"]:
        """Ridge regression on the features of these activation patterns, of the points kept."""
        kept = self.keep[:, :, None]
        K = _pairs(A).to(A.dtype).mul_(self.G / A.shape[-1]).mul_(kept).mul_(kept.mT)
        K.diagonal(dim1=1, dim2=2).add_(damping)
        factor, failed = torch.linalg.cholesky_ex(K)
        if failed.any():
            state = f"training: K + ridge I is singular in {A.dtype}"
            raise TrainingError(f"{state}; take a larger ridge")
        if self.signs.shape[1] == 1:
            return torch.cholesky_solve(kept * target, factor)

        def apply(v: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
            moved = self._pull((v @ self.signs.T).mul_(A))
            return kept * (self._push(moved).mul_(A) @ self.signs) + damping * v

        def precondition(v: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
            return torch.cholesky_solve(v, factor)

        return _conjugate_gradients(apply, precondition, kept * target)

    def predict(
        self, M: Float[Tensor, "b r m"], X_test: Float[Tensor, "n_test d"]
    ) -> Float[Tensor, "b n_test"] | Float[Tensor, "b n_test c"]:
        """Outputs at test points."""
        Z = X_test @ self.network.W.T + (X_test @ self.X.T if self.dual else X_test) @ M
        f = torch.relu(Z) @ self.signs
        return f if self.network.a.ndim == 2 else f[:, :, 0]


def _conjugate_gradients(
    apply: Callable, precondition: Callable, b: Float[Tensor, "b n c"]
) -> Float[Tensor, "b n c"]:
    """Solve to half of the digits. Outputs share hidden units, which couples them by O(m^-1/2)."""
    tiny = torch.finfo(b.dtype).tiny  # a copy that is solved exactly stays where it is
    x = precondition(b)
    r = b - apply(x)
    p = z = precondition(r)
    for _ in range(200):
        if r.norm() <= math.sqrt(torch.finfo(b.dtype).eps) * b.norm():
            break
        q, rz = apply(p), (r * z).sum(dim=(1, 2), keepdim=True)
        along = rz / (p * q).sum(dim=(1, 2), keepdim=True).clamp(min=tiny)
        x, r = x + along * p, r - along * q
        z = precondition(r)
        p = z + p * (r * z).sum(dim=(1, 2), keepdim=True) / rz.clamp(min=tiny)
    return x


def _pairs(A: Float[Tensor, "b n m"], rows: int = 1000) -> Float[Tensor, "b n n"]:
    """In how many units two points are both active: exact in float32; one triangle is computed."""
    A = A.float()
    pairs = A.new_empty(*A.shape[:2], A.shape[1])
    for start in range(0, A.shape[1], rows):
        block = A[:, start : start + rows] @ A[:, : start + rows].mT
        pairs[:, start : start + rows, : start + rows] = block
        pairs[:, : start + rows, start : start + rows] = block.mT
    return pairs


def _descend(
    descent: _Descent,
    M: Float[Tensor, "1 r m"],
    bound: float,
    limit: int,
    tolerance: float,
    progress: bool,
) -> tuple[Float[Tensor, "1 r m"], list[Step], str, float]:
    """Gradient descent until the outputs rest, and again with half the step."""
    size, stretch, halved = 1 / bound, math.ceil(bound / descent.ridge), False
    schedule, f, before = [], None, math.inf
    while len(schedule) < limit:
        part = [Step(size)] * min(stretch, limit - len(schedule))
        M, new = descent.run(M, part, progress)
        change = math.inf if f is None else float((new - f).abs().max())
        schedule, f = schedule + part, new
        if change <= tolerance or (change > before / 2 and math.isfinite(before)):
            if halved:
                return M, schedule, "settled" if change <= tolerance else "on kinks", change
            size, stretch, halved, change = size / 2, 2 * stretch, True, math.inf
        before = change
    return M, schedule, "steps", change


def _flow_schedule(bound: float, ridge: float, steps: int) -> list[Step]:
    r"""Implicit steps between $t(u) = \frac{1}{3\lambda} \log(1 + e^u)$ at even distances of $u$.

    The first ends near $1 / \beta$, the last at $6 / \lambda$.
    """
    u = torch.linspace(-math.log(bound / (3 * ridge)), 18, steps + 1, dtype=torch.float64)
    times = (u.exp().log1p() / (3 * ridge)).tolist()
    lengths = [after - before for before, after in zip([0.0, *times[1:-1]], times[1:], strict=True)]
    return [Step(1.0, 1 / length) for length in lengths]


def _warm_schedule(method: Method, schedule: Sequence[Step]) -> tuple[Sequence[Step], float]:
    """Small steps from one minimum to the next, and which part of the way they go."""
    if method == "preconditioned":
        steps = [Step(0.1 / (1 + k / 6), damping=0.0) for k in range(12)]
        return steps, 1 - math.prod(1 - step.size for step in steps)
    return schedule, 1.0


def _check_problem(network: TwoLayerReLU, X: Tensor, y: Tensor, ridge: float, method: str) -> None:
    """Refuse what `train` cannot work with, before any work is done."""
    known = ", ".join(METHODS)
    fresh = not isinstance(network, TrainedTwoLayerReLU)
    _check.require(fresh, "network", "an initial network", "a trained one")
    _check.require(method in METHODS, "method", f"one of {known}", repr(method))
    network.check_input("X", X)
    _check.tensor("y", y, (1, 2))
    _check.alike("y", y, "X", X)
    _check.require(len(y) == len(X), "y", f"{len(X)} rows as in X", f"shape {tuple(y.shape)}")
    outputs = tuple(network.a.shape[1:])
    got = tuple(y.shape)
    _check.require(got[1:] == outputs, "y", f"shape {(len(X), *outputs)}", f"shape {got}")
    _check.nonnegative("ridge", ridge)
    _check.require(ridge > 0, "ridge", "a number > 0", ridge)
