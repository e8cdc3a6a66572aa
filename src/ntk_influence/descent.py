r"""The engine of training: steps on the first layer of a two-layer ReLU network.

Weights stay of the form $W = W(0) + B^\top X$, since every gradient lies in the span of the inputs.
So a step moves the (n, m) coefficients $B$ and the pre-activations $Z = X W^\top = Z(0) + X X^\top
B$, and never forms a gradient of the shape of $W$. With more than $2d$ points it is cheaper to move
the weights themselves: then $B$ is (d, m) and stands for $W = W(0) + B^\top$.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import tqdm

from . import _check
from .network import TwoLayerReLU, activation, slope

BUSY = 2e8  # pre-activations that keep a card busy: more at once only delay the first result
RUNAWAY = 1e6  # of the labels: no minimum of the loss has dual variables as large


@dataclass(frozen=True)
class Step:
    r"""A step of $-s\,(H + \mu I)^{-1}\nabla L$ with the Hessian $H$ of the patterns of the moment.

    Infinite damping $\mu$ stands for a gradient step $-s\,\nabla L$.
    """

    size: float
    damping: float = math.inf

    def __post_init__(self) -> None:
        """Refuse a step that leads nowhere."""
        object.__setattr__(self, "size", _check.positive("size", self.size))
        if self.damping != math.inf:
            object.__setattr__(self, "damping", _check.nonnegative("damping", self.damping))


class TrainingError(RuntimeError):
    """Training ran away or ran out of memory; the message says where, and what to change."""


class Descent:
    r"""A training problem, and what a step does to its coefficients $B$.

    It holds a batch of copies that start alike and each leave out the points where ``keep`` is 0;
    a copy is $B$ of shape (r, m) with r = n or d. Gradients of the arguments are not followed.

    Parameters
    ----------
    network : the start, and the weights $W(0)$ to which the ridge pulls.
    X, y : (n, d) inputs; (n,) labels, or (n, c) for a network with c outputs.
    ridge : $\lambda > 0$.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, a ridge that is not positive, a
        problem that does not fit into the memory.

    Source: the loss is equation (2) of Zhang and Zhang 2022; the dual form is ours.
    """

    def __init__(
        self,
        network: TwoLayerReLU,
        X: Float[Tensor, "n d"],
        y: Float[Tensor, "n"] | Float[Tensor, "n c"],
        ridge: float,
    ) -> None:
        network = _check.instance("network", network, TwoLayerReLU)
        X = network.check_input("X", X).detach()
        y = _check.labels("y", y, "X", X, len(X)).detach()
        outputs = network.a.shape[1:]
        y = _check.labels_of("y", y, "X", X, (len(X), *outputs))
        self.ridge = _check.positive("ridge", ridge)
        self.X, self.y = X, y.reshape(len(y), -1)
        self.W_start, self.kink, self.one_output = network.W.detach(), network.kink, not outputs
        m = len(self.W_start)
        _check.fits("X", "training", self._bytes_each(), X.device)
        self.signs = network.a.detach().reshape(m, -1) / math.sqrt(m)
        self.Z_start = X @ self.W_start.T
        self.in_span = len(X) <= 2 * X.shape[1]
        self.G = X @ X.T
        self.keep = X.new_ones(1, len(X))

    def _bytes_each(self) -> int:
        """Memory that one copy takes while it moves."""
        n, m = len(self.X), len(self.W_start)
        return self.X.element_size() * (7 * n * m + 4 * n * n)

    def leaving_out(self, points: Int64[Tensor, "b"]) -> "Descent":
        """The same problem without a point, once for each; what all share is not repeated."""
        other = copy(self)
        other.keep = self.keep.repeat(len(points), 1)
        other.keep[list(range(len(points))), points.tolist()] = 0
        return other

    def copies_that_fit(self) -> int:
        """How many left-out points can be trained at once: one on a CPU, where it saves nothing."""
        if self.X.device.type != "cuda":
            return 1
        fit = int(0.8 * _check.free_memory(self.X.device)) // self._bytes_each()
        return max(1, min(fit, int(BUSY // self.Z_start.numel())))

    def start(self) -> Float[Tensor, "b r m"]:
        """The coefficients of networks that have not moved."""
        rows = len(self.X) if self.in_span else self.X.shape[1]
        return self.X.new_zeros(len(self.keep), rows, len(self.W_start))

    def weights(self, B: Float[Tensor, "*b r m"]) -> Float[Tensor, "*b m d"]:
        """The weights that belong to coefficients."""
        return self.W_start + self._movement(B).mT

    def loss(self, B: Float[Tensor, "b r m"], f: Float[Tensor, "b n c"]) -> Float[Tensor, "b"]:
        r"""The loss (2) of each copy, $\frac12\|f - y\|^2 + \frac\lambda2\|W - W(0)\|_F^2$.

        The way is $\mathrm{tr}(B^\top G B)$ with $G = X X^\top$, or $\|B\|_F^2$ of the weights.
        """
        moved = self.G @ B if self.in_span else B
        return self.misfit(f) + self.ridge / 2 * (B * moved).sum(dim=(1, 2))

    def misfit(self, f: Float[Tensor, "*like n c"]) -> Float[Tensor, "b"]:
        """The part of the loss that is of the outputs, which copies may share."""
        return (self.keep[:, :, None] * (f - self.y)).square().sum(dim=(1, 2)) / 2

    def outputs(self, Z: Float[Tensor, "*b n m"]) -> Float[Tensor, "*b n c"]:
        """The outputs that belong to pre-activations."""
        return activation(Z, self.kink) @ self.signs

    def run(
        self, B: Float[Tensor, "b0 r m"], schedule: Sequence[Step], *, progress: bool = False
    ) -> tuple[Float[Tensor, "b r m"], Float[Tensor, "b n c"]]:
        """Take the steps; the coefficients after them, and the outputs of the training points.

        Coefficients of a single network are where all copies start.
        """
        try:
            B = B.repeat(len(self.keep) // len(B), 1, 1)
            Z = self.Z_start + self.pre_activations(B)
            for step in tqdm(schedule, disable=not progress):
                self.take(step, B, Z)
            return B, self.outputs(Z)
        except RuntimeError as problem:
            if isinstance(problem, TrainingError) or "memory" not in str(problem):
                raise
            size = " x ".join(map(str, self.Z_start.shape))
            raise TrainingError(
                f"training: {size} pre-activations and what goes with them do not fit into the "
                f"memory of {self.X.device}; take fewer points, a smaller width, or float32"
            ) from None

    def predict(
        self, B: Float[Tensor, "b r m"], X_test: Float[Tensor, "n_test d"]
    ) -> Float[Tensor, "b n_test"] | Float[Tensor, "b n_test c"]:
        """Outputs at test points."""
        X_test = X_test.detach()
        moved = (X_test @ self.X.T if self.in_span else X_test) @ B
        f = activation(X_test @ self.W_start.T + moved, self.kink) @ self.signs
        return f[:, :, 0] if self.one_output else f

    def _movement(self, B: Float[Tensor, "*b r m"]) -> Float[Tensor, "*b d m"]:
        """How far the weights are from their start."""
        return self.X.T @ B if self.in_span else B

    def pre_activations(self, B: Float[Tensor, "b r m"]) -> Float[Tensor, "b n m"]:
        """What coefficients add to the pre-activations."""
        return (self.G if self.in_span else self.X) @ B

    def coefficients(self, D: Float[Tensor, "b n m"]) -> Float[Tensor, "b r m"]:
        """The coefficients of a movement that is given point by point."""
        return D if self.in_span else self.X.T @ D

    def take(self, step: Step, B: Float[Tensor, "b r m"], Z: Float[Tensor, "b n m"]) -> None:
        """Move coefficients and pre-activations in place."""
        A = slope(Z, self.kink)
        residual = self.y - activation(Z, self.kink, A) @ self.signs
        if step.damping == math.inf:
            shrink, pull = 1 - step.size * self.ridge, step.size * residual
        else:
            nu = self.ridge + step.damping
            share = self.ridge / nu
            target = self._target(A, Z, residual, share)
            shrink = 1 - step.size * share
            pull = step.size * self._solve(A, target, nu)
        if not pull.abs().max() < RUNAWAY * (1 + self.y.abs().max()) / min(1, self.ridge):
            raise TrainingError(
                "training: the outputs ran away; take a smaller step or a larger ridge"
            )
        D = ((self.keep[:, :, None] * pull) @ self.signs.T).mul_(A)
        if self.in_span:
            B.mul_(shrink).add_(D)
        else:
            B.baddbmm_(self.X.T.expand(len(B), -1, -1), D, beta=shrink)
        rows = (self.G if self.in_span else self.X).expand(len(B), -1, -1)
        torch.baddbmm(self.Z_start, rows, B, out=Z)

    def _target(
        self,
        A: Float[Tensor, "b n m"],
        Z: Float[Tensor, "b n m"],
        residual: Float[Tensor, "b n c"],
        share: float,
    ) -> Float[Tensor, "b n c"]:
        r"""Residuals of the linearisation, $y - f + \frac\lambda\nu J\,\mathrm{vec}(W - W(0))$.

        ReLU is homogeneous, $f = J\,\mathrm{vec} W$, and needs no difference of pre-activations.
        """
        if self.kink == 0:
            return (1 - share) * residual + share * (self.y - (A * self.Z_start) @ self.signs)
        return residual + share * ((A * (Z - self.Z_start)) @ self.signs)

    def _solve(
        self, A: Float[Tensor, "b n m"], target: Float[Tensor, "b n c"], nu: float
    ) -> Float[Tensor, "b n c"]:
        """Ridge regression on the features of these activation patterns, of the points kept."""
        kept = self.keep[:, :, None]
        pairs = count_pairs(A).to(A.dtype) if self.kink == 0 else A @ A.mT
        K = pairs.mul_(self.G / A.shape[-1]).mul_(kept).mul_(kept.mT)
        K.diagonal(dim1=1, dim2=2).add_(nu)
        factor, failed = torch.linalg.cholesky_ex(K)
        if failed.any():
            state = f"training: K + ridge I is singular in {A.dtype}"
            raise TrainingError(f"{state}; take a larger ridge")
        if self.signs.shape[1] == 1:
            return torch.cholesky_solve(kept * target, factor)

        def apply(v: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
            moved = self.coefficients((v @ self.signs.T).mul_(A))
            return kept * (self.pre_activations(moved).mul_(A) @ self.signs) + nu * v

        def precondition(v: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
            return torch.cholesky_solve(v, factor)

        return conjugate_gradients(apply, precondition, kept * target)


def conjugate_gradients(
    apply: Callable, precondition: Callable, b: Float[Tensor, "b n c"], *, most: int = 200
) -> Float[Tensor, "b n c"]:
    """Solve to half of the digits. Outputs share hidden units, which couples them by O(m^-1/2)."""
    tiny = torch.finfo(b.dtype).tiny  # a copy that is solved exactly stays where it is
    x = precondition(b)
    r = b - apply(x)
    p = z = precondition(r)
    for _ in range(most):
        if r.norm() <= math.sqrt(torch.finfo(b.dtype).eps) * b.norm():
            break
        q, rz = apply(p), (r * z).sum(dim=(1, 2), keepdim=True)
        along = rz / (p * q).sum(dim=(1, 2), keepdim=True).clamp(min=tiny)
        x, r = x + along * p, r - along * q
        z = precondition(r)
        p = z + p * (r * z).sum(dim=(1, 2), keepdim=True) / rz.clamp(min=tiny)
    return x


def count_pairs(A: Float[Tensor, "b n m"], *, rows: int | None = None) -> Float[Tensor, "b n n"]:
    """In how many units two points are both active: exact in float32; one triangle is computed.

    Blocks have so many rows, by default a quarter of the points.
    """
    A, rows = A.float(), rows or -(-A.shape[1] // 4)
    pairs = A.new_empty(*A.shape[:2], A.shape[1])
    for start in range(0, A.shape[1], rows):
        block = A[:, start : start + rows] @ A[:, : start + rows].mT
        pairs[:, start : start + rows, : start + rows] = block
        pairs[:, : start + rows, start : start + rows] = block.mT
    return pairs
