r"""Predictions and leave-one-out influence at any time of the training, exact in the kernel regime.

Training time is the sum of the step sizes on the loss (3), a sum of halves of squares.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from . import _check
from .contour import (
    CIRCLE,
    Contour,
    contour,
    fitted,
    of_steps,
    refuse_between_steps,
    refuse_late,
    stable,
    sum_over_nodes,
    weighted,
)
from .ridge import check_problem, check_test_kernel

ACCURACY, MEMORY = 1e-10, 2**28
UNLEARNT = 1e-200  # a time in which nothing is learnt that a float could tell from 0


@dataclass(frozen=True, eq=False)
class KernelFlow:
    r"""Gradient flow of kernel ridge regression; one eigendecomposition carries all of it.

    $A = K + \lambda I = U\, \mathrm{diag}(a)\, U^\top$. Results have the dtype of the labels, are
    computed in float64, and gradients of the arguments are not followed.

    Attributes
    ----------
    a : (n,) float64 tensor, the eigenvalues of $A$ in ascending order.
    U : (n, n) float64 tensor, its eigenvectors in columns.
    y : (n,) or (n, c) tensor, the labels.
    ridge : $\lambda \ge 0$, on the scale of a *sum* of halved squares.
    step : None for gradient flow, or the size $\eta$ of the steps of gradient descent.
    """

    a: Float[Tensor, "n"]
    U: Float[Tensor, "n n"]
    y: Float[Tensor, "n"] | Float[Tensor, "n c"]
    ridge: float
    step: float | None

    @cached_property
    def Uy(self) -> Float[Tensor, "n c"]:
        """The labels in the basis of the eigenvectors."""
        return self.U.T @ self.y.double().reshape(len(self.y), -1)

    def predict(
        self,
        times: Sequence[float],
        k_test: Float[Tensor, "n_test n"],
        *,
        accuracy: float = ACCURACY,
    ) -> Float[Tensor, "t n_test"] | Float[Tensor, "t n_test c"]:
        r"""Predictions at the test points in the course of training.

        The solution of equation (20), $\dot f_t(x) = -k(x)^\top (f_t(X) - y) - \lambda f_t(x)$:
        $f_t(x) = k(x)^\top A^{-1} (I - e^{-At})\, y$. With steps $e^{-At}$ is $(I - \eta A)^{t /
        \eta}$, and times are multiples of $\eta$.

        Parameters
        ----------
        times : training times $t \ge 0$, in any order; ``math.inf`` is the end of training.
        k_test : (n_test, n) kernel between test points (rows) and training points (columns).
        accuracy : as in `contour`; times that rounding makes less accurate are refused.

        Returns
        -------
        (t, n_test) or (t, n_test, c) tensor, in the unit of the labels.

        Raises
        ------
        ValueError
            Wrong shapes, NaN or infinity, mixed dtypes or devices, a negative time, a time or an
            end of training that rounding makes meaningless, a time that is no multiple of the step.

        Source: Zhang and Zhang 2022, Eq. (20).
        """
        times, kU, _ = self._checked(times, k_test, accuracy)
        f = torch.stack([self._at(t, kU) for t in times])
        return f.reshape(len(times), len(k_test), *self.y.shape[1:]).to(self.y.dtype)

    def leave_one_out(
        self,
        times: Sequence[float],
        k_test: Float[Tensor, "n_test n"],
        *,
        accuracy: float = ACCURACY,
        memory: int = MEMORY,
    ) -> Float[Tensor, "t n n_test"] | Float[Tensor, "t n n_test c"]:
        r"""Predictions in the course of training of all models that train without one point.

        Every resolvent of $A_{\setminus i}$ obeys equation (9) with $P(z) = (A + zI)^{-1}$, so with
        the nodes of `contour`, $z_k$ and $w_k$,

        $f_t^{\setminus i}(x) - f_t(x) = -\sum_j (k(x)^\top U)_j \, U_{ij} V_{ij}$,
        $V_{ij} = \mathrm{Re} \sum_k \dfrac{w_k}{a_j + z_k / t} \cdot
        \dfrac{(P(z_k / t)\, y)_i}{P_{ii}(z_k / t)}$.

        Parameters
        ----------
        times, k_test : as in `predict`.
        accuracy : as in `contour`
            Predictions are right to about this, relative to the size of the labels.
        memory : bytes that are used beyond the arguments, the eigendecomposition and the result.

        Returns
        -------
        (t, n, n_test) or (t, n, n_test, c) tensor; entry (t, i, x) is the prediction for test point
        x at that time of the model that never saw training point i.

        Raises
        ------
        ValueError
            As `predict`; an accuracy out of range, or out of reach at one of the times; a memory
            that cannot hold one training point; a result that does not fit into the memory.

        Source: the formula is this book's; Zhang and Zhang 2022, Eq. (9) and (20); Weideman and
        Trefethen 2007.
        """
        times, kU, rule = self._checked(times, k_test, accuracy)
        f = [self._at(t, kU) for t in times]
        result = self._empty(len(times), len(self.a), *f[0].shape)
        for number, rows, c, change in self.changes(times, kU, rule, memory):
            result[number, rows, :, c] = (change + f[number][:, c]).to(result.dtype)
        return result.reshape(*result.shape[:3], *self.y.shape[1:])

    def loo_influence(
        self,
        times: Sequence[float],
        k_test: Float[Tensor, "n_test n"],
        y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
        *,
        accuracy: float = ACCURACY,
        memory: int = MEMORY,
    ) -> Float[Tensor, "t n n_test"]:
        r"""Influence of every training point on every test loss in the course of training.

        Equation (8) at time $t$: $\frac12 (f_t^{\setminus i}(x) - y_x)^2 - \frac12 (f_t(x) -
        y_x)^2$, summed over outputs, both models trained from the same start for the same time.

        Parameters
        ----------
        times, k_test, accuracy, memory : as in `leave_one_out`.
        y_test : (n_test,) or (n_test, c) labels of the test points, shaped like the labels.

        Returns
        -------
        (t, n, n_test) tensor, in the unit of the loss (squared labels). Positive: at that time the
        test loss is higher without the point, the point is helpful.

        Raises
        ------
        ValueError
            As `leave_one_out`; ``y_test`` of another shape, dtype or device.

        Source: Zhang and Zhang 2022, Eq. (8) and (20).
        """
        times, kU, rule = self._checked(times, k_test, accuracy)
        shape = (len(k_test), *self.y.shape[1:])
        y_test = _check.labels_of("y_test", y_test, "the labels", self.y, shape).detach()
        y_test = y_test.double().reshape(len(k_test), -1)
        residual = [self._at(t, kU) - y_test for t in times]
        result = self._empty(len(times), len(self.a), len(k_test)).zero_()
        for number, rows, c, change in self.changes(times, kU, rule, memory):
            # (f - y) change + change^2 / 2, the mean of both residuals times the change
            mean = torch.add(residual[number][:, c], change, alpha=0.5)
            result[number, rows].addcmul_(mean.to(result.dtype), change.to(result.dtype))
        return result

    def _empty(self, *shape: int) -> Tensor:
        """A result, if it fits."""
        needed = math.prod(shape) * self.y.element_size()
        _check.fits("times", "all results", needed, self.y.device)
        return self.y.new_empty(shape)

    def _checked(
        self, times: Sequence[float], k_test: Float[Tensor, "n_test n"], accuracy: float
    ) -> tuple[list[float], Float[Tensor, "n_test n"], Contour]:
        """Times that make sense, the test kernel in the basis of eigenvectors, the quadrature."""
        k_test = check_test_kernel(self.y, k_test, "K")
        times, rule = _check.times("times", times), contour(accuracy)
        for t in times if self.step else ():
            refuse_between_steps(t, self.step)
        refuse_late(max(times), self.a, self.ridge, accuracy)
        return times, k_test.detach().double() @ self.U, rule

    def _at(self, t: float, kU: Float[Tensor, "n_test n"]) -> Float[Tensor, "n_test c"]:
        """Predictions at the test points of the model with all points."""
        return kU @ (fitted(self.a, t, self.step)[:, None] * self.Uy)

    def _nodes(
        self, t: float, rule: Contour
    ) -> tuple[Complex[Tensor, "half"], Complex[Tensor, "half"]]:
        r"""Nodes and weights of $A^{-1} (I - e^{-At})$, or of gradient descent after t."""
        if t < UNLEARNT:
            z = w = torch.zeros(0, device="cpu")
        elif t == math.inf:
            z, w = torch.zeros(1, device="cpu"), torch.ones(1, device="cpu")
        elif self.step is None:
            z, w = rule.z / t, rule.w
        else:
            z, w = of_steps(rule, round(t / self.step))
            z = z / self.step
        return z.to(self.a.device, torch.complex128), w.to(self.a.device, torch.complex128)

    def changes(
        self, times: list[float], kU: Float[Tensor, "n_test n"], rule: Contour, memory: int
    ) -> Iterator[tuple[int, slice, int, Float[Tensor, "block n_test"]]]:
        r"""The changes $f_t^{\setminus i} - f_t$: time, training points, output, and changes."""
        n, nodes = len(self.a), max(rule.nodes, CIRCLE)
        memory = _check.integer("memory", memory)
        once, row = 24 * n * nodes, 8 * (3 * n + 4 * nodes + 4 * len(kU))
        count = (memory - once) // row
        _check.require(count > 0, "memory", f"at least {once + row} bytes", memory)
        outputs = self.Uy.T
        for start in range(0, n, count):
            rows = slice(start, start + count)
            U = self.U[rows]
            squares = U.square()
            for number, t in enumerate(times):
                z, w = self._nodes(t, rule)
                R = 1 / (self.a[:, None] + z)  # resolvents in the basis of eigenvectors
                P_ii = weighted(squares, R)
                for c, Uy in enumerate(outputs):
                    alpha = weighted(U, R * Uy[:, None])
                    yield number, rows, c, sum_over_nodes(U, R, -w * alpha / P_ii) @ kU.T


def fit_kernel_flow(
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    *,
    step: float | None = None,
) -> KernelFlow:
    r"""Decompose $K + \lambda I$ once, for predictions and influence at all times.

    Parameters
    ----------
    K : (n, n) symmetric positive semi-definite kernel matrix of the training points.
    y : (n,) or (n, c) labels, of the same dtype and device.
    ridge : $\lambda \ge 0$, on the scale of a *sum* of halved squares.
    step : None for gradient flow, or the size $\eta$ of the steps of gradient descent
        At most one over the largest eigenvalue of $A = K + \lambda I$.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, a negative ridge, a kernel with a
        negative eigenvalue, a step that is too large, a problem that does not fit into the memory.

    Source: Zhang and Zhang 2022, Eq. (20).
    """
    K, y, ridge = check_problem(K, y, ridge)
    _check.fits("K", "its eigendecomposition", 4 * 8 * K.numel(), K.device)
    s, U = torch.linalg.eigh(K.detach().double())
    rounding = 1e3 * float(s[-1]) * torch.finfo(K.dtype).eps
    least = float(s[0])
    _check.require(least >= -rounding, "K", "no negative eigenvalue", f"{least:.1e}")
    a = s + ridge
    return KernelFlow(a, U, y.detach(), ridge, stable("step", step, float(a[-1])))


def predict_at(times, K, y, ridge, k_test, *, step=None):
    """`KernelFlow.predict` of a flow that is fitted for this call."""
    return fit_kernel_flow(K, y, ridge, step=step).predict(times, k_test)


def leave_one_out_at(times, K, y, ridge, k_test, *, step=None, **options):
    """`KernelFlow.leave_one_out` of a flow that is fitted for this call."""
    return fit_kernel_flow(K, y, ridge, step=step).leave_one_out(times, k_test, **options)


def loo_influence_at(times, K, y, ridge, k_test, y_test, *, step=None, **options):
    """`KernelFlow.loo_influence` of a flow that is fitted for this call."""
    return fit_kernel_flow(K, y, ridge, step=step).loo_influence(times, k_test, y_test, **options)
