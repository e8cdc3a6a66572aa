"""Leave-one-out of chosen points where no kernel matrix is stored: to a tolerance, with its error.

What is to a tolerance comes as `Bounded`, a value and a bound on its error, which follows from the
residuals and the ridge. What is an estimate comes as `LeverageEstimate`, with its confidence.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .iterative_ridge import Bounded, IterativeKernelRidge, fit_kernel_ridge, products_with
from .leverage_estimate import LeverageEstimate, estimate_leverage
from .low_rank import LowRankKernel, low_rank_kernel
from .matrix_free import KernelSystem, Solution, conjugate_gradients

__all__ = [
    "Bounded",
    "IterativeKernelRidge",
    "KernelSystem",
    "LeverageEstimate",
    "LowRankKernel",
    "Solution",
    "conjugate_gradients",
    "estimate_leverage",
    "fit_kernel_ridge",
    "leave_one_out",
    "leverage",
    "loo_influence",
    "low_rank_kernel",
]


def leverage(model: IterativeKernelRidge) -> Bounded:
    r"""The leverage $h_i = 1 - \lambda P_{ii}$ of the chosen points, to a tolerance.

    With an approximate column $\hat p$ of $P$ and its residual r, $P_{ii} = \hat p_i + \hat p^\top
    r + r^\top P r$: the last term lies between 0 and $\|r\|^2 / \lambda$, the others are computed.

    Parameters
    ----------
    model : IterativeKernelRidge

    Returns
    -------
    Bounded
        (k,), in the order of the chosen points.

    Raises
    ------
    ValueError
        Something else than such a model.

    Source: ours; that a quadratic form converges twice as fast as its vector is classical.
    """
    value, error = _inverse_diagonal(_check.instance("model", model, IterativeKernelRidge))
    ridge = model.system.ridge
    return Bounded(1 - ridge * value, ridge * error)


def leave_one_out(model: IterativeKernelRidge, X_test: Float[Tensor, "n_test d"]) -> Bounded:
    r"""Predictions of the models that were fitted without one of the chosen points, to a tolerance.

    Equation (9) from approximate columns. $k_t$ belongs to a point of the same kernel, so that
    $k_t = K^{1/2} u$ with $\|u\|^2 \le k(x_t, x_t)$, and $\sqrt s / (s + \lambda) \le 1 / (2
    \sqrt\lambda)$: a column with residual r changes $k_t^\top P e_i$ by at most
    $\frac12\sqrt{k(x_t, x_t) / \lambda}\,\|r\|$.

    Parameters
    ----------
    model : IterativeKernelRidge
        With k chosen points.
    X_test : (n_test, d) test points.

    Returns
    -------
    Bounded
        (k, n_test) or (k, n_test, c), in the unit of the labels.

    Raises
    ------
    ValueError
        As `IterativeKernelRidge.predict`; a model without chosen points.

    Source: Zhang and Zhang 2022, Eq. (9); the bounds are ours.
    """
    f, change = _changes(model, X_test)
    value, error = f.value + change.value, f.error + change.error
    return Bounded(value[..., 0], error[..., 0]) if model.flat else Bounded(value, error)


def loo_influence(
    model: IterativeKernelRidge,
    X_test: Float[Tensor, "n_test d"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
) -> Bounded:
    r"""Influence of the chosen points on every test loss, to a tolerance.

    Equation (8), $(f_t - y_t)\Delta + \frac12\Delta^2$, summed over outputs.

    Parameters
    ----------
    model, X_test : as in `leave_one_out`.
    y_test : (n_test,) or (n_test, c) labels of the test points, shaped like the model's outputs.

    Returns
    -------
    Bounded
        (k, n_test), in the unit of the loss. Positive: removing the point raises the test loss.

    Raises
    ------
    ValueError
        As `leave_one_out`; other labels.

    Source: Zhang and Zhang 2022, Eq. (8) and Proposition 2; the bounds are ours.
    """
    f, change = _changes(model, X_test)
    shape = f.value.shape[:1] if model.flat else f.value.shape
    y = _check.labels_of("y_test", y_test, "X_test", f.value, shape).reshape(f.value.shape)
    residual, size = f.value - y, change.value.abs()
    value = (residual + change.value / 2) * change.value
    error = (residual.abs() + f.error + size) * change.error + f.error * size + change.error**2 / 2
    return Bounded(value.sum(dim=2), error.sum(dim=2))


def _inverse_diagonal(model: IterativeKernelRidge) -> Bounded:
    """P_ii of the chosen points: the middle of what is sure, and half its length."""
    _check.require(len(model.chosen) > 0, "model", "at least one chosen point", "none")
    p, r, _, _ = columns = model.columns
    at_point = p[model.chosen, range(len(model.chosen))]
    reach = columns.norm**2 / model.system.ridge
    off = reach / 2 + columns.rounding * torch.linalg.vector_norm(p, dim=0)
    return Bounded(at_point + (p * r).sum(dim=0) + reach / 2, off)


def _changes(model: object, X_test: Tensor) -> tuple[Bounded, Bounded]:
    r"""Predictions (n_test, c), and $\Delta_{it} = -(k_t^\top P e_i)\,\alpha_i / P_{ii}$ of all."""
    model = _check.instance("model", model, IterativeKernelRidge)
    dual, columns, S = model.dual, model.columns, model.chosen
    P, P_error = (part[:, None, None] for part in _inverse_diagonal(model))
    f, g = (products_with(model, X_test, part) for part in (dual, columns))
    # e_i' P y with both solutions: what is left over is a product of two residuals
    alpha = (dual.x[S] + columns.x.T @ dual.residual)[:, None, :]
    size = torch.linalg.vector_norm(columns.x, dim=0)[:, None]
    off = columns.norm[:, None] * dual.norm / model.system.ridge + size * dual.rounding
    alpha_error = off[:, None, :]
    reached, g_error = g.value.T[:, :, None], g.error.T[:, :, None]
    # P_ii >= 1 / (k_ii + ridge), whatever was computed
    least = 1 / (model.system.diagonal[S] + model.system.ridge)[:, None, None]
    lowest = torch.maximum(P - P_error, least)
    value = -reached * alpha / P
    error = reached.abs() * alpha_error + g_error * (alpha.abs() + alpha_error)
    return f, Bounded(value, error / lowest + value.abs() * P_error / lowest)
