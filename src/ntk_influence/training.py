"""Training the first layer of a two-layer ReLU network, and training it again without a point.

Weights stay of the form $W = W(0) + C^\\top X$, since every gradient lies in the span of the
inputs. Training therefore moves the (n, m) coefficients $C$ and the pre-activations
$Z = X W^\\top = Z(0) + X X^\\top C$, and never forms a gradient of the shape of $W$.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from . import _check
from .network import TwoLayerReLU

METHODS = ("gradient_descent", "preconditioned")
Method = Literal["gradient_descent", "preconditioned"]


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
    step_sizes : of every step; a second training with them follows the same schedule.
    """

    method: str
    steps: int
    stopped: str
    last_change: float
    step_sizes: tuple[float, ...]


@dataclass(frozen=True)
class TrainedTwoLayerReLU(TwoLayerReLU):
    """A trained network, with its ``report`` and the ``coefficients`` C of its training points."""

    coefficients: Float[Tensor, "n m"]
    report: Report


def train(
    network: TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    method: Method = "gradient_descent",
    max_steps: int | None = None,
    tolerance: float = 1e-4,
    progress: bool = False,
) -> TrainedTwoLayerReLU:
    r"""Minimise the loss (2), $\frac12\sum_i (f(x_i) - y_i)^2 + \frac\lambda2\|W - W(0)\|_F^2$.

    ``"gradient_descent"`` is the paper's: full batch, a fixed step of $1 / (\beta + \lambda)$, with
    $\beta$ a bound on the largest eigenvalue of the kernel at the start. A ReLU network comes to
    rest on kinks, where the gradient does not vanish. So once the outputs change by less than the
    tolerance over the time $1 / \lambda$, or by more than half as much as before, the step is
    halved, and training ends when they rest again.

    ``"preconditioned"`` is a Gauss-Newton step in the dual, with the kernel of the weights of the
    moment: for fixed activation patterns the network is linear in $W$, the minimiser is ridge
    regression in closed form, and the weights go a part $0.35 / (1 + k / 10)$ of the way.

    Parameters
    ----------
    network : the start, and the weights $W(0)$ to which the ridge pulls.
    X : (n, d) inputs.
    y : (n,) labels, or (n, c) for a network with c outputs.
    ridge : $\lambda > 0$.
    method : as above.
    max_steps : 60 for ``"preconditioned"``; $40\,(\beta + \lambda) / \lambda$ otherwise.
    tolerance : in the unit of the outputs.
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

    Source: Zhang and Zhang 2022, Eq. (2) and (3); dual form, stopping rule and preconditioned step
    are ours.
    """
    _check_problem(network, X, y, ridge, method)
    if max_steps is not None:
        _check.positive_integer("max_steps", max_steps)
    _check.nonnegative("tolerance", tolerance)
    bound = float(torch.linalg.vector_norm(network.ntk(X), 1, dim=1).max()) + ridge
    descent = _Descent(network, X, y, ridge, method)
    C = descent.start()
    if method == "preconditioned":
        sizes = [0.35 / (1 + k / 10) for k in range(max_steps or 60)]
        half = 9 * len(sizes) // 10
        C, f = descent.run(C, sizes[:half], progress)
        C, last = descent.run(C, sizes[half:], progress)
        change = float((last - f).abs().max())
        stopped = "settled" if change <= tolerance else "steps"
    else:
        limit = max_steps or math.ceil(40 * bound / ridge)
        C, sizes, stopped, change = _descend(descent, C, bound, limit, tolerance, progress)
    report = Report(method, len(sizes), stopped, change, tuple(sizes))
    C = C[0]
    return TrainedTwoLayerReLU(network.W + C.T @ X, network.a, C, report)


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
    its schedule; twelve small preconditioned steps $\eta_k$ go the part $1 - \prod_k (1 - \eta_k)$
    of the way, by which the difference is divided. That is exact while no pattern flips.

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
    expected, got = (len(X), len(network.W)), tuple(trained.coefficients.shape)
    _check.require(got == expected, "trained", f"coefficients of shape {expected}", f"shape {got}")
    way = (network.W + trained.coefficients.T @ X - trained.W).abs().max()
    here = way <= 1e3 * torch.finfo(X.dtype).eps * (1 + trained.W.abs().max())  # rounding
    _check.require(bool(here), "trained", "training from this start on these inputs", "another one")
    everything = _Descent(network, X, y, ridge, method)
    if start == "cold":
        sizes, C, part = trained.report.step_sizes, everything.start(), 1.0
        base = stayed = torch.zeros(())
    else:
        sizes, part = _warm_schedule(method, trained.report.step_sizes)
        C = trained.coefficients[None]
        base, stayed = (everything.predict(c, X_test) for c in (C, everything.run(C, sizes)[0]))
    results = []
    for i in tqdm(chosen, desc="left out", disable=not progress):
        without = everything.leaving_out(i)
        moved = without.predict(without.run(C, sizes)[0], X_test)
        results.append((base + (moved - stayed) / part)[0])
        if finished:
            finished(i, results[-1])
    return torch.stack(results)


class _Descent:
    """A training problem with a batch of copies that each leave out the points where keep is 0."""

    def __init__(
        self,
        network: TwoLayerReLU,
        X: Float[Tensor, "n d"],
        y: Float[Tensor, "n"] | Float[Tensor, "n c"],
        ridge: float,
        method: Method,
    ) -> None:
        self.network, self.X, self.ridge, self.method = network, X, ridge, method
        self.G, self.Z_start = X @ X.T, X @ network.W.T
        self.signs = network.a.reshape(len(network.a), -1) / math.sqrt(len(network.a))
        self.y = y.reshape(len(y), -1)
        self.keep = X.new_ones(1, len(X))

    def leaving_out(self, i: int) -> "_Descent":
        """The same problem without a point; what does not depend on it is shared."""
        other = copy(self)
        other.keep = self.keep.clone()
        other.keep[:, i] = 0
        return other

    def start(self) -> Float[Tensor, "b n m"]:
        """The coefficients of networks that have not moved."""
        return self.X.new_zeros(len(self.keep), *self.Z_start.shape)

    def run(
        self, C: Float[Tensor, "b n m"], step_sizes: Sequence[float], progress: bool = False
    ) -> tuple[Float[Tensor, "b n m"], Float[Tensor, "b n c"]]:
        """Take the steps; the coefficients after them, and the outputs of the training points."""
        try:
            C, Z = C.clone(), self.Z_start + self.G @ C
            for size in tqdm(step_sizes, disable=not progress):
                if not self._step(C, Z, size):
                    raise TrainingError(f"{self.method}: the outputs ran away; take a larger ridge")
            return C, torch.relu(Z) @ self.signs
        except RuntimeError as problem:
            if "memory" not in str(problem):
                raise
            size = " x ".join(map(str, C.shape[1:]))
            raise TrainingError(
                f"{self.method}: {size} coefficients and what goes with them do not fit into the "
                f"memory of {C.device}; take fewer points, a smaller width, or float32"
            ) from None

    def _step(self, C: Float[Tensor, "b n m"], Z: Float[Tensor, "b n m"], size: float) -> bool:
        """Move coefficients and pre-activations in place; whether the outputs stay bounded."""
        A = (Z >= 0).to(Z.dtype)
        if self.method == "preconditioned":
            shrink, beta = 1 - size, size * self._solve(A)
        else:
            shrink, beta = 1 - size * self.ridge, size * (self.y - (A * Z) @ self.signs)
        C.mul_(shrink).addcmul_(A, (self.keep[:, :, None] * beta) @ self.signs.T)
        torch.matmul(self.G, C, out=Z).add_(self.Z_start)
        return bool(beta.abs().max() < 1e6 * (1 + self.y.abs().max()) / min(1, self.ridge))

    def _solve(self, A: Float[Tensor, "b n m"]) -> Float[Tensor, "b n c"]:
        """Ridge regression on the features of these activation patterns, about W(0)."""
        kept = self.keep[:, :, None]
        K = self.G * (A @ A.mT) / A.shape[-1] * kept * kept.mT
        K.diagonal(dim1=1, dim2=2).add_(self.ridge)
        residual = kept * (self.y - (A * self.Z_start) @ self.signs)
        return torch.cholesky_solve(residual, torch.linalg.cholesky(K))

    def predict(
        self, C: Float[Tensor, "b n m"], X_test: Float[Tensor, "n_test d"]
    ) -> Float[Tensor, "b n_test"] | Float[Tensor, "b n_test c"]:
        """Outputs at test points."""
        Z = X_test @ self.network.W.T + (X_test @ self.X.T) @ C
        f = torch.relu(Z) @ self.signs
        return f if self.network.a.ndim == 2 else f[:, :, 0]


def _descend(
    descent: _Descent,
    C: Float[Tensor, "1 n m"],
    bound: float,
    limit: int,
    tolerance: float,
    progress: bool,
) -> tuple[Float[Tensor, "1 n m"], list[float], str, float]:
    """Gradient descent until the outputs rest, and again with half the step."""
    size, stretch, halved = 1 / bound, math.ceil(bound / descent.ridge), False
    sizes, f, before = [], None, math.inf
    while len(sizes) < limit:
        part = [size] * min(stretch, limit - len(sizes))
        C, new = descent.run(C, part, progress)
        change = math.inf if f is None else float((new - f).abs().max())
        sizes, f = sizes + part, new
        if change <= tolerance or (change > before / 2 and math.isfinite(before)):
            if halved:
                return C, sizes, "settled" if change <= tolerance else "on kinks", change
            size, stretch, halved, change = size / 2, 2 * stretch, True, math.inf
        before = change
    return C, sizes, "steps", change


def _warm_schedule(method: Method, sizes: Sequence[float]) -> tuple[Sequence[float], float]:
    """Small steps from one minimum to the next, and which part of the way they go."""
    if method == "preconditioned":
        steps = [0.1 / (1 + k / 6) for k in range(12)]
        return steps, 1 - math.prod(1 - step for step in steps)
    return sizes, 1.0


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
