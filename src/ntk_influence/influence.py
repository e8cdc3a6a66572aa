"""The effect of removing training points, in closed form from one factorisation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .ridge import KernelRidge


def leave_one_out(
    model: KernelRidge, k_test: Float[Tensor, "n_test n"]
) -> Float[Tensor, "n n_test"] | Float[Tensor, "n n_test c"]:
    r"""Predictions at the test points of all models that were fitted without one training point.

    Equation (9): $f^{\setminus i}(x_t) = f(x_t) - \dfrac{(k_t^\top P e_i)\,\alpha_i}{P_{ii}}$.

    Parameters
    ----------
    model : KernelRidge
        Fitted to all n training points.
    k_test : (n_test, n) kernel between test points (rows) and training points (columns).

    Returns
    -------
    (n, n_test) or (n, n_test, c) tensor; entry (i, t) is the prediction for test point t of the
    model that never saw training point i.

    Raises
    ------
    ValueError
        ``k_test`` transposed or of another shape, dtype or device; NaN or infinity.

    Source: Zhang and Zhang 2022, Eq. (9); at the removed point, Allen 1974.
    """
    model = _check.instance("model", model, KernelRidge)
    f = model.predict(k_test)
    return _loo_change(model, k_test).add_(f)


def loo_influence(
    model: KernelRidge,
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
) -> Float[Tensor, "n n_test"]:
    r"""Influence of every training point on every test loss.

    Equation (8): $I(x_i, x_t) = \frac12(f^{\setminus i}(x_t) - y_t)^2 - \frac12(f(x_t) - y_t)^2$,
    summed over outputs. Computed as $(f_t - y_t)\Delta + \frac12\Delta^2$, which does not cancel.

    Parameters
    ----------
    model : KernelRidge
        Fitted to all n training points.
    k_test : (n_test, n) kernel between test points (rows) and training points (columns).
    y_test : (n_test,) or (n_test, c) labels of the test points, shaped like the model's outputs.

    Returns
    -------
    (n, n_test) tensor, in the unit of the loss (squared labels). Positive: removing the point
    raises the test loss, the point is helpful.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices; a result that does not fit into the
        memory.

    Source: Zhang and Zhang 2022, Eq. (8) and Proposition 2.
    """
    residual = _test_residual(model, k_test, y_test)
    change = _loo_change(model, k_test)
    influence = (change / 2).add_(residual).mul_(change)  # (f - y) change + change^2 / 2
    return influence.sum(dim=2) if influence.ndim == 3 else influence


def ihvp_influence(
    model: KernelRidge,
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
    *,
    correct_leverage: bool = False,
) -> Float[Tensor, "n n_test"]:
    r"""Inverse-Hessian-vector-product influence in the kernel regime.

    Equation (13): $I_{hvp}(x_i, x_t) = (f(x_t) - y_t)(f(x_i) - y_i)\,k_t^\top P e_i$, summed over
    outputs. With ``correct_leverage`` it is divided by $1 - h_i$, the ridge leverage, and becomes
    the first-order influence $(f(x_t) - y_t)\,\Delta_{it}$ of equation (15) at any ridge.

    Parameters
    ----------
    model, k_test, y_test : as in `loo_influence`.
    correct_leverage : divide by $1 - h_i$.

    Returns
    -------
    (n, n_test) tensor with the unit and sign of `loo_influence`.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices; a result that does not fit into the
        memory.

    Source: Zhang and Zhang 2022, Eq. (13) and (15); Koh and Liang 2017.
    """
    residual = _test_residual(model, k_test, y_test)
    change = _loo_change(model, k_test)
    first_order = change.mul_(residual)
    if first_order.ndim == 3:
        first_order = first_order.sum(dim=2)
    return first_order if correct_leverage else first_order * model.one_minus_leverage[:, None]


def leave_group_out(
    model: KernelRidge, k_test: Float[Tensor, "n_test n"], group: Sequence[int]
) -> Float[Tensor, "n_test"] | Float[Tensor, "n_test c"]:
    r"""Predictions at the test points of the model fitted without a group of training points.

    $f^{\setminus S}(x_t) = f(x_t) - (k_t^\top P)_S\,(P_{SS})^{-1}\alpha_S$.

    Parameters
    ----------
    model : KernelRidge
        Fitted to all n training points.
    k_test : (n_test, n) kernel between test points (rows) and training points (columns).
    group : indices of the points to remove: distinct integers from 0 to n - 1, in any order. An
        empty group removes nothing; removing every point predicts 0.

    Returns
    -------
    (n_test,) or (n_test, c) tensor, in the unit of the labels.

    Raises
    ------
    ValueError
        An index out of range or repeated; wrong shapes, NaN or infinity, mixed dtypes or devices.

    Source: An, Liu and Venkatesh 2007; the block form of Zhang and Zhang 2022, Eq. (9).
    """
    model = _check.instance("model", model, KernelRidge)
    f = model.predict(k_test)
    S = _check.indices("group", group, len(model.inverse))
    P, alpha = model.inverse, model.dual
    alpha_S = alpha[S] if alpha.ndim == 2 else alpha[S, None]
    solved = torch.cholesky_solve(alpha_S, torch.linalg.cholesky(P[S][:, S]))
    change = -(k_test @ P[:, S]) @ solved
    return f + (change if alpha.ndim == 2 else change[:, 0])


def _loo_change(
    model: KernelRidge, k_test: Float[Tensor, "n_test n"]
) -> Float[Tensor, "n n_test"] | Float[Tensor, "n n_test c"]:
    r"""The change $\Delta_{it} = f^{\setminus i}(x_t) - f(x_t)$ for all pairs."""
    P, alpha = model.inverse, model.dual
    outputs = 1 if alpha.ndim == 1 else alpha.shape[1]
    needed = 2 * k_test.numel() * outputs * k_test.element_size()
    _check.fits("k_test", "all changes of predictions", needed, k_test.device)
    change = (P @ k_test.T).div_(-P.diagonal()[:, None])  # -(k^T P e_i) / P_ii
    if alpha.ndim == 1:
        return change.mul_(alpha[:, None])
    return change[:, :, None] * alpha[:, None, :]


def _test_residual(
    model: KernelRidge,
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
) -> Float[Tensor, "n_test"] | Float[Tensor, "n_test c"]:
    r"""The residual $f(x_t) - y_t$, after checking all three arguments."""
    model = _check.instance("model", model, KernelRidge)
    f = model.predict(k_test)
    shape = (len(k_test), *model.dual.shape[1:])
    return f - _check.labels_of("y_test", y_test, "the model", model.inverse, shape)
