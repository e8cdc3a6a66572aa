"""A model that is linear in its parameters, as the estimators of influence see it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .finite_width import outputs_and_kernel
from .network import TwoLayerReLU, slope
from .ridge import KernelRidge, fit_kernel_ridge


@dataclass(frozen=True, eq=False)
class Linearised:
    r"""Features, residuals and ridge; the Hessian of the loss is $H = J^\top J + \lambda I$.

    No estimator uses more than inner products of features. So features may be turned to any basis:
    for a kernel, or a network with more weights than points, they are rows of a factor of the
    kernel of all points. K-FAC alone looks into a layer, and has the factors of its gradients.

    Attributes
    ----------
    J : (n, p) tensor, the gradient of the output by the parameters at every training point.
    residual : (n,) tensor, $f(x_i) - y_i$ at the present parameters.
    ridge : $\lambda > 0$ of a sum of halved squares.
    J_test, residual_test : (n_test, p) and (n_test,), the same at the test points.
    layer : of a network's layer (n, m) gradients by its outputs and (n, d) inputs, whose products
        are the gradients by its weights; then the same for the test points; None without a layer.

    Raises
    ------
    ValueError
        Shapes, dtypes or devices that do not fit each other, NaN or infinity, a ridge that is not
        positive.
    """

    J: Float[Tensor, "n p"]
    residual: Float[Tensor, "n"]
    ridge: float
    J_test: Float[Tensor, "n_test p"]
    residual_test: Float[Tensor, "n_test"]
    layer: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not belong to one problem."""
        J, J_test = _check.tensor("J", self.J, (2,)), _check.tensor("J_test", self.J_test, (2,))
        _check.alike("J_test", J_test, "J", J)
        columns = f"{J.shape[1]} columns as in J"
        _check.require(J_test.shape[1] == J.shape[1], "J_test", columns, tuple(J_test.shape))
        _check.labels_of("residual", self.residual, "J", J, (len(J),))
        _check.labels_of("residual_test", self.residual_test, "J", J, (len(J_test),))
        object.__setattr__(self, "ridge", _check.positive("ridge", self.ridge))

    @staticmethod
    def of_kernel(
        K: Float[Tensor, "q q"],
        y: Float[Tensor, "n"],
        ridge: float,
        y_test: Float[Tensor, "n_test"],
    ) -> "Linearised":
        """Kernel ridge regression, given the kernel of all points, the training points first."""
        y = _check.tensor("y", y, (1,))
        y_test = _check.tensor("y_test", y_test, (1,))
        _check.alike("y_test", y_test, "y", y)
        K, labels, ridge = _of_all_points(K, torch.cat([y, y_test]), ridge)
        n = len(y)
        f = K[:, :n] @ fit_kernel_ridge(K[:n, :n], y, ridge).dual
        J, residual = _factor(K), f - labels
        return Linearised(J[:n], residual[:n], ridge, J[n:], residual[n:])

    @staticmethod
    @torch.no_grad()
    def of_network(
        network: TwoLayerReLU,
        X: Float[Tensor, "n d"],
        y: Float[Tensor, "n"],
        ridge: float,
        X_test: Float[Tensor, "n_test d"],
        y_test: Float[Tensor, "n_test"],
    ) -> "Linearised":
        """A network with one output at its present weights, with the layer that is trained."""
        network = _check.instance("network", network, TwoLayerReLU)
        _check.require(network.a.ndim == 1, "network", "one output", tuple(network.a.shape))
        X, X_test = network.check_input("X", X), network.check_input("X_test", X_test)
        y = _check.labels_of("y", y, "X", X, (len(X),))
        y_test = _check.labels_of("y_test", y_test, "X_test", X_test, (len(X_test),))
        (n, q), points = (len(X), len(X) + len(X_test)), torch.cat([X, X_test])
        f, K = outputs_and_kernel(network, points, q)
        K, labels, ridge = _of_all_points(K, torch.cat([y, y_test]), ridge)
        J, residual = _factor(K), f[:, 0] - labels
        out = slope(points @ network.W.T, network.kink) * (network.a / len(network.a) ** 0.5)
        layer = (out[:n], X, out[n:], X_test)
        return Linearised(J[:n], residual[:n], ridge, J[n:], residual[n:], layer)

    @cached_property
    def curvature(self) -> float:
        """The largest eigenvalue of the Hessian, from a decomposition that is done once."""
        return float(torch.linalg.matrix_norm(self.J, 2)) ** 2 + self.ridge

    @property
    def k_test(self) -> Float[Tensor, "n_test n"]:
        """The kernel between test points (rows) and training points."""
        return self.J_test @ self.J.T

    @property
    def dual(
        self,
    ) -> tuple[KernelRidge, Float[Tensor, "n_test n"], Float[Tensor, "n_test"]]:
        r"""Model, test kernel and test labels of a ridge regression with the same residuals.

        Its coefficients are $\alpha = -(f - y) / \lambda$, its labels what leaves the residuals.
        """
        fitted = fit_kernel_ridge(self.J @ self.J.T, self.residual, self.ridge)
        model, k_test = replace(fitted, dual=-self.residual / self.ridge), self.k_test
        return model, k_test, model.predict(k_test) - self.residual_test

    def hessian_times(self, V: Float[Tensor, "p *k"]) -> Float[Tensor, "p *k"]:
        """The Hessian times a vector, or times each column: two passes over the training points."""
        return self.J.T @ (self.J @ V) + self.ridge * V

    def scores(self, V: Float[Tensor, "p n_test"]) -> Float[Tensor, "n n_test"]:
        r"""Influence $r_i\, j_i^\top v_t\, r_t$, given what stands for $H^{-1} j_t$ in columns."""
        return self.residual[:, None] * (self.J @ V) * self.residual_test

    def damped(self, damping: float) -> "Linearised":
        """The same residuals with a damping added to the ridge in the Hessian alone."""
        return replace(self, ridge=self.ridge + _check.nonnegative("damping", damping))

    def through(self, S: Float[Tensor, "p s"]) -> "Linearised":
        """The same residuals with features that have gone through a sketch: J S and J_test S."""
        S = _check.tensor("S", S, (2,))
        _check.alike("S", S, "J", self.J)
        p = self.J.shape[1]
        _check.require(len(S) == p, "S", f"{p} rows, one a feature", f"shape {tuple(S.shape)}")
        return replace(self, J=self.J @ S, J_test=self.J_test @ S)


def descend(start: Linearised, *, step: float, counts: Sequence[int]) -> list[Linearised]:
    r"""The problem at some numbers of steps of gradient descent on the ridge loss.

    $\theta \leftarrow \theta - \eta\,(J^\top r + \lambda (\theta - \theta_0))$ from the parameters
    of ``start``, to which the ridge pulls.

    Parameters
    ----------
    start : the problem at the start; of a kernel with residuals $-y$ there.
    step : $\eta$, positive and below $2 / \Lambda$, the largest eigenvalue of the Hessian.
    counts : numbers of steps, at least 1, increasing.

    Returns
    -------
    list of Linearised
        One for each count.

    Raises
    ------
    ValueError
        A step that is not positive or too long; counts that do not increase.
    """
    start, step = _check.instance("start", start, Linearised), _check.positive("step", step)
    counts = [_check.integer("counts", count) for count in counts]
    rising = sorted(set(counts)) == counts and len(counts) > 0
    _check.require(rising, "counts", "increasing numbers of steps", counts)
    most = 2 / largest_curvature(start)
    _check.require(step < most, "step", f"less than {most:.3g}, or it diverges", step)
    moved, found = start.J.new_zeros(start.J.shape[1]), []
    for count in range(1, counts[-1] + 1):
        residual = start.residual + start.J @ moved
        moved = moved - step * (start.J.T @ residual + start.ridge * moved)
        if count in counts:
            at_train, at_test = start.J @ moved, start.J_test @ moved
            there = {"residual": start.residual + at_train}
            found.append(replace(start, residual_test=start.residual_test + at_test, **there))
    return found


def largest_curvature(problem: Linearised) -> float:
    """The largest eigenvalue of the Hessian; a problem keeps it."""
    return problem.curvature


def _of_all_points(K: Tensor, labels: Tensor, ridge: float) -> tuple[Tensor, Tensor, float]:
    """Refuse a kernel that is not that of all points, and a ridge that is not positive."""
    K = _check.tensor("K", K, (2,))
    q = len(labels)
    expected = f"shape ({q}, {q}): training points, then test points"
    _check.require(tuple(K.shape) == (q, q), "K", expected, f"shape {tuple(K.shape)}")
    _check.labels("y", labels, "K", K, q)
    difference = float((K - K.T).abs().max())
    symmetric = difference <= 1e3 * torch.finfo(K.dtype).eps * float(K.abs().max())
    _check.require(symmetric, "K", "a symmetric matrix", f"|K - K^T| up to {difference:.1e}")
    return K, labels, _check.positive("ridge", ridge)


def _factor(K: Float[Tensor, "q q"]) -> Float[Tensor, "q q"]:
    """Rows whose inner products are the kernel; equal points get equal rows."""
    values, vectors = torch.linalg.eigh(K)
    least, most = float(values[0]), float(values[-1])
    known = least >= -1e3 * torch.finfo(K.dtype).eps * max(most, 0.0)
    _check.require(known, "K", "no negative eigenvalue", f"{least:.1e}")
    return vectors * values.clamp(min=0).sqrt()
