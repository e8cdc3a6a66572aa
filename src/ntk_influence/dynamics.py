r"""Predictions and leave-one-out influence at any time of the training, exact in the kernel regime.

Training time is the sum of the step sizes on the loss (3), a sum of halves of squares.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from . import _check
from .ridge import check_problem, check_test_kernel


@dataclass(frozen=True)
class Contour:
    r"""Nodes and weights with $(1 - e^{-s}) / s \approx \mathrm{Re} \sum_k w_k / (z_k + s)$.

    Attributes
    ----------
    z, w : (N/2,) complex tensors, those of the N nodes that lie in the upper half plane.
    accuracy : largest error over all $s \ge 0$, measured, times $\max(1, s)$.
    """

    z: Complex[Tensor, "half"]
    w: Complex[Tensor, "half"]
    accuracy: float

    @property
    def nodes(self) -> int:
        """The number N of nodes, of which conjugate symmetry saves half."""
        return 2 * len(self.z)


def contour(accuracy: float = 1e-10) -> Contour:
    r"""The shortest quadrature of the inverse Laplace transform that is as accurate as asked.

    $\frac{1 - e^{-s}}{s} = \frac1{2\pi i} \int \frac{e^z}{z} \frac{dz}{z + s}$ by the midpoint rule
    on the parabola $z(\theta) = N (0.1309 - 0.1194\,\theta^2 + 0.25\,i\theta)$. The integral is
    real, so the nodes of the upper half plane count twice.

    Parameters
    ----------
    accuracy : a number from 1e-13 to 1e-2
        Of a direction with eigenvalue $a$ the share $1 - e^{-at}$ is fitted up to this error.

    Returns
    -------
    Contour
        With the accuracy that was reached.

    Raises
    ------
    ValueError
        An accuracy out of range.

    Source: Weideman and Trefethen 2007.
    """
    _check.nonnegative("accuracy", accuracy)
    _check.require(1e-13 <= accuracy <= 1e-2, "accuracy", "a number from 1e-13 to 1e-2", accuracy)
    return _contour(float(accuracy))


@cache
def _contour(accuracy: float) -> Contour:
    """The rule of `contour`, made once."""
    s = torch.cat([torch.zeros(1), torch.logspace(-4, 12, 801)]).double()
    exact = _fitted(s, 1.0)
    return next(
        rule
        for rule in (_parabola(nodes, s, exact) for nodes in range(4, 44, 2))
        if rule.accuracy <= accuracy
    )


def predict_at(
    times: Sequence[float],
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    k_test: Float[Tensor, "n_test n"],
    step: float | None = None,
) -> Float[Tensor, "t n_test"] | Float[Tensor, "t n_test c"]:
    r"""Predictions at the test points in the course of training.

    The solution of equation (20), $\dot f_t(x) = -k(x)^\top (f_t(X) - y) - \lambda f_t(x)$:
    $f_t(x) = k(x)^\top A^{-1} (I - e^{-At})\, y$ with $A = K + \lambda I$.

    Parameters
    ----------
    times : training times $t \ge 0$, in any order; ``math.inf`` is the end of training.
    K : (n, n) symmetric positive semi-definite kernel matrix of the training points.
    y : (n,) or (n, c) labels, of the same dtype and device.
    ridge : $\lambda \ge 0$, on the scale of a *sum* of halved squares.
    k_test : (n_test, n) kernel between test points (rows) and training points (columns).
    step : None for gradient flow, or the size $\eta$ of the steps of gradient descent
        At most one over the largest eigenvalue of $A$. Then $e^{-At}$ is $(I - \eta A)^{t / \eta}$,
        and times are multiples of $\eta$.

    Returns
    -------
    (t, n_test) or (t, n_test, c) tensor, in the unit of the labels and the dtype of ``K``;
    computed in float64.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, a negative ridge or time, a kernel
        with a negative eigenvalue, a time or an end of training that rounding makes meaningless, a
        step that is too large, a time that is no multiple of it.

    Source: Zhang and Zhang 2022, Eq. (20).
    """
    flow = _Flow(times, K, y, ridge, k_test, step, accuracy=1e-10)
    result = torch.stack([flow.predict(t) for t in flow.times])
    return result.reshape(len(flow.times), len(k_test), *y.shape[1:]).to(K.dtype)


def leave_one_out_at(
    times: Sequence[float],
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    k_test: Float[Tensor, "n_test n"],
    step: float | None = None,
    accuracy: float = 1e-10,
    memory: int = 2**28,
) -> Float[Tensor, "t n n_test"] | Float[Tensor, "t n n_test c"]:
    r"""Predictions in the course of training of all models that train without one point.

    Every resolvent of $A_{\setminus i}$ obeys equation (9) with $P(z) = (A + zI)^{-1}$, so with the
    nodes of `contour`, $z_k$ and $w_k$, and $K = U \mathrm{diag}(s) U^\top$

    $f_t^{\setminus i}(x) - f_t(x) = -\sum_j (k(x)^\top U)_j \, U_{ij} M_{ij}$,
    $M_{ij} = \mathrm{Re} \sum_k \dfrac{w_k}{s_j + \lambda + z_k / t} \cdot
    \dfrac{(P(z_k / t)\, y)_i}{P_{ii}(z_k / t)}$.

    Parameters
    ----------
    times, K, y, ridge, k_test, step : as in `predict_at`.
    accuracy : as in `contour`
        Predictions are right to about this, relative to the size of the labels.
    memory : bytes that are used beyond the arguments, the eigendecomposition and the result.

    Returns
    -------
    (t, n, n_test) or (t, n, n_test, c) tensor; entry (t, i, x) is the prediction for test point x
    at that time of the model that never saw training point i.

    Raises
    ------
    ValueError
        As `predict_at`; an accuracy out of range, or out of reach at one of the times; a memory
        that cannot hold one training point.

    Source: the formula is this book's; Zhang and Zhang 2022, Eq. (9) and (20); Weideman and
    Trefethen 2007.
    """
    flow = _Flow(times, K, y, ridge, k_test, step, accuracy)
    f = [flow.predict(t) for t in flow.times]
    result = K.new_empty(len(f), len(K), *f[0].shape)
    for number, rows, c, change in flow.changes(memory):
        result[number, rows, :, c] = change + f[number][:, c]
    return result.reshape(*result.shape[:3], *y.shape[1:])


def loo_influence_at(
    times: Sequence[float],
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
    step: float | None = None,
    accuracy: float = 1e-10,
    memory: int = 2**28,
) -> Float[Tensor, "t n n_test"]:
    r"""Influence of every training point on every test loss in the course of training.

    Equation (8) at time $t$: $\frac12 (f_t^{\setminus i}(x) - y_x)^2 - \frac12 (f_t(x) - y_x)^2$,
    summed over outputs, both models trained from the same start for the same time.

    Parameters
    ----------
    times, K, y, ridge, k_test, step, accuracy, memory : as in `leave_one_out_at`.
    y_test : (n_test,) or (n_test, c) labels of the test points, shaped like ``y``.

    Returns
    -------
    (t, n, n_test) tensor, in the unit of the loss (squared labels). Positive: at that time the
    test loss is higher without the point, the point is helpful.

    Raises
    ------
    ValueError
        As `leave_one_out_at`; ``y_test`` of another shape, dtype or device.

    Source: Zhang and Zhang 2022, Eq. (8) and (20).
    """
    flow = _Flow(times, K, y, ridge, k_test, step, accuracy)
    _check.tensor("y_test", y_test, (1, 2))
    _check.alike("y_test", y_test, "K", K)
    expected, got = (len(k_test), *y.shape[1:]), tuple(y_test.shape)
    _check.require(got == expected, "y_test", f"shape {expected}", f"shape {got}")
    residual = [flow.predict(t) - y_test.double().reshape(len(k_test), -1) for t in flow.times]
    result = K.new_zeros(len(residual), len(K), len(k_test))
    for number, rows, c, change in flow.changes(memory):
        mean = torch.add(
            residual[number][:, c], change, alpha=0.5
        )  # of the residuals of both models
        result[number, rows].addcmul_(mean, change)
    return result


class _Flow:
    """One eigendecomposition, and what follows from it at any time."""

    def __init__(self, times, K, y, ridge, k_test, step, accuracy):
        check_problem(K, y, ridge)
        check_test_kernel(K, k_test, "K")
        self.times = _check.times("times", times)
        self.rule = contour(accuracy)
        s, self.U = torch.linalg.eigh(K.double())
        rounding = float(s[-1]) * torch.finfo(K.dtype).eps
        semidefinite = float(s[0]) >= -1e3 * rounding
        _check.require(semidefinite, "K", "no negative eigenvalue", f"{float(s[0]):.1e}")
        self.a = s + ridge
        self.step = _checked_step(step, self.times, float(self.a[-1]))
        self._refuse_late_times(float(s[-1]) * torch.finfo(s.dtype).eps, accuracy)
        self.Uy = self.U.T @ y.double().reshape(len(K), -1)
        self.kU = k_test.double() @ self.U

    def _refuse_late_times(self, rounding: float, accuracy: float) -> None:
        """Eigenvalues are right up to rounding; it must not matter beside their own size or 1/t."""
        needed, least = rounding / accuracy, float(self.a[0])
        if least <= 0:
            latest = 1 / max(needed - least, 1e-300)
        else:
            latest = math.inf if least >= needed else 1 / (needed - least)
        expected = (
            f"at most {latest:.6g}, beyond which rounding exceeds the accuracy of {accuracy:g}"
        )
        _check.require(
            max(self.times) <= latest,
            "times",
            f"{expected} for this kernel and ridge",
            f"{max(self.times):g} (a larger ridge helps)",
        )

    def predict(self, t: float) -> Float[Tensor, "n_test c"]:
        """Predictions at the test points of the model with all points."""
        return self.kU @ (_fitted(self.a, t, self.step)[:, None] * self.Uy)

    def nodes(self, t: float) -> tuple[Complex[Tensor, "half"], Complex[Tensor, "half"]]:
        r"""Nodes and weights of $A^{-1} (I - e^{-At})$, or of gradient descent after t."""
        if t < 1e-200:  # nothing has been learnt that a float could tell from 0
            z, w = torch.zeros(0), torch.zeros(0)
        elif t == math.inf:
            z, w = torch.zeros(1), torch.ones(1)
        elif self.step is None:
            z, w = self.rule.z / t, self.rule.w
        else:
            z, w = _descent(self.rule, round(t / self.step))
            z = z / self.step
        return z.to(self.a.device, torch.complex128), w.to(self.a.device, torch.complex128)

    def changes(
        self, memory: int
    ) -> Iterator[tuple[int, slice, int, Float[Tensor, "block n_test"]]]:
        r"""The changes $f_t^{\setminus i} - f_t$: time, training points, output, and changes."""
        n, nodes = len(self.U), max(self.rule.nodes, 48)  # as many as a circle has
        _check.positive_integer("memory", memory)
        once, row = 24 * n * nodes, 8 * (3 * n + 4 * nodes + 4 * len(self.kU))
        count = (memory - once) // row
        _check.require(count > 0, "memory", f"at least {once + row} bytes", memory)
        for start in range(0, n, count):
            rows = slice(start, start + count)
            U = self.U[rows]
            squares = U.square()
            for number, t in enumerate(self.times):
                z, w = self.nodes(t)
                R = 1 / (self.a[:, None] + z)
                P_ii = _product(squares, R)
                for c, Uy in enumerate(self.Uy.T):
                    alpha = _product(U, R * Uy[:, None])
                    yield number, rows, c, self.change(U, R, -w * alpha / P_ii)

    def change(self, U, R, C) -> Float[Tensor, "block n_test"]:
        r"""The sum over nodes, $\mathrm{Re}\, C R^\top$, then the product with the test kernel."""
        M = torch.cat([C.real, -C.imag], dim=1) @ torch.cat([R.real, R.imag], dim=1).T
        return M.mul_(U) @ self.kU.T


def _product(A: Tensor, B: Tensor) -> Tensor:
    """A real matrix times a complex one, in one pass over the real one."""
    return torch.complex(*(A @ torch.cat([B.real, B.imag], dim=1)).chunk(2, dim=1))


def _fitted(a: Tensor, t: float, step: float | None = None) -> Tensor:
    r"""$(1 - e^{-at}) / a$; with steps, $e^{-a\eta}$ is $1 - a\eta$ instead."""
    if t == 0:
        return torch.zeros_like(a)
    rate = a if step is None else -torch.log1p((-step * a).clamp(min=-1)) / step
    return torch.where(a == 0, t, -torch.expm1(-rate * t) / a)


def _parabola(nodes: int, s: Tensor, exact: Tensor) -> Contour:
    """The midpoint rule with that many nodes, and its error against exact values."""
    theta = (torch.arange(nodes // 2) + 0.5).double() * (2 * math.pi / nodes)
    z = nodes * torch.complex(0.1309 - 0.1194 * theta.square(), 0.25 * theta)
    velocity = nodes * torch.complex(-2 * 0.1194 * theta, torch.full_like(theta, 0.25))
    w = 2 / (1j * nodes) * torch.exp(z) / z * velocity
    error = ((w / (z + s[:, None])).sum(dim=1).real - exact).abs() * s.clamp(min=1)
    return Contour(z, w, float(error.max()))


def _descent(rule: Contour, count: int) -> tuple[Tensor, Tensor]:
    r"""The same for a number of steps of gradient descent, in the unit of the step.

    $1 + z = e^\omega$ maps the parabola in $\omega$; it needs a few steps to have room, and before
    that a circle around all $1 - \eta a$ is exact to rounding with 48 nodes.
    """
    if count < 8:
        circle = torch.exp(1j * (torch.arange(24) + 0.5).double() * (2 * math.pi / 48))
        zeta = 0.5 + circle
        return zeta - 1, circle / 24 * (1 - zeta**count) / (1 - zeta)
    omega = rule.z / count
    z = torch.expm1(omega)
    return z, rule.w * omega * torch.exp(omega) / z


def _checked_step(step: float | None, times: list[float], largest: float) -> float | None:
    """The step, if it is stable and every time is a multiple of it."""
    if step is None:
        return None
    _check.nonnegative("step", step)
    most = 1 / max(largest, 1e-100)
    expected = f"a number above 0, at most {most:.6g}, 1 over the largest eigenvalue of K + ridge I"
    _check.require(1e-100 < step <= (1 + 1e-9) * most, "step", expected, step)
    for t in times:  # a multiple up to the rounding of t / step, and few enough to be counted
        whole = t == math.inf or (t / step < 1e15 and abs(t / step - round(t / step)) <= 1e-6)
        _check.require(whole, "times", f"multiples of the step {step:g}", f"{t:g}")
    return step
