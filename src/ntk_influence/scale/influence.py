"""The effect of removing training points, of a model whose factor lies in tiles."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .. import _check
from .ridge import Array, BlockedKernelRidge, check_test_points, converted, pieces, product


def leave_one_out(
    model: BlockedKernelRidge, X_test: Float[Array, "n_test d"]
) -> Float[np.ndarray, "n n_test"] | Float[np.ndarray, "n n_test c"]:
    r"""Predictions at the test points of all models that were fitted without one training point.

    Equation (9), as `ntk_influence.leave_one_out`.

    Parameters
    ----------
    model : BlockedKernelRidge
        Fitted to all n training points.
    X_test : (n_test, d) test points.

    Returns
    -------
    (n, n_test) or (n, n_test, c) array; entry (i, t) is the prediction for test point t of the
    model that never saw training point i.

    Raises
    ------
    ValueError
        As `BlockedKernelRidge.predict`; a result that does not fit into the memory here.
    ConnectionError
        The scheduler is gone.

    Source: Zhang and Zhang 2022, Eq. (9).
    """
    Z = check_test_points(model, X_test)
    result = _room(Z, (len(model.leverage), len(Z), *model.dual.shape[1:]))
    f = product(model, Z, model.dual)
    for piece, change in _changes(model, Z):
        result[:, piece] = change + f[piece]
    return result


def loo_influence(
    model: BlockedKernelRidge,
    X_test: Float[Array, "n_test d"],
    y_test: Float[Array, "n_test"] | Float[Array, "n_test c"],
) -> Float[np.ndarray, "n n_test"]:
    r"""Influence of every training point on every test loss.

    Equation (8), as `ntk_influence.loo_influence`: $(f_t - y_t)\Delta + \frac12\Delta^2$.

    Parameters
    ----------
    model : BlockedKernelRidge
        Fitted to all n training points.
    X_test : (n_test, d) test points.
    y_test : (n_test,) or (n_test, c) labels of the test points, shaped like the model's outputs.

    Returns
    -------
    (n, n_test) array, in the unit of the loss. Positive: removing the point raises the test loss,
    the point is helpful.

    Raises
    ------
    ValueError
        As `BlockedKernelRidge.predict`; other labels; a result that does not fit into the memory
        here.
    ConnectionError
        The scheduler is gone.

    Source: Zhang and Zhang 2022, Eq. (8) and Proposition 2.
    """
    Z = check_test_points(model, X_test)
    shape = (len(Z), *model.dual.shape[1:])
    y_test = _check.labels_of("y_test", converted(y_test), "X_test", Z, shape).detach()
    result = _room(Z, (len(model.leverage), len(Z)))
    residual = product(model, Z, model.dual) - y_test.numpy()
    for piece, change in _changes(model, Z):
        influence = (change / 2 + residual[piece]) * change
        result[:, piece] = influence.sum(axis=2) if influence.ndim == 3 else influence
    return result


def leave_group_out(
    model: BlockedKernelRidge, X_test: Float[Array, "n_test d"], group: Sequence[int]
) -> Float[np.ndarray, "n_test"] | Float[np.ndarray, "n_test c"]:
    r"""Predictions at the test points of the model fitted without a group of training points.

    As `ntk_influence.leave_group_out`. The dual of that model is $\alpha - P_{:S} (P_{SS})^{-1}
    \alpha_S$, zero on the group; the columns of $P$ that belong to the group come here.

    Parameters
    ----------
    model : BlockedKernelRidge
        Fitted to all n training points.
    X_test : (n_test, d) test points.
    group : indices of the points to remove, distinct, in any order; none removes nothing.

    Returns
    -------
    (n_test,) or (n_test, c) array, in the unit of the labels.

    Raises
    ------
    ValueError
        As `BlockedKernelRidge.predict`; an index out of range or repeated; columns that do not fit
        into the memory here.
    ConnectionError
        The scheduler is gone.

    Source: An, Liu and Venkatesh 2007; the block form of Zhang and Zhang 2022, Eq. (9).
    """
    Z = check_test_points(model, X_test)
    S = _check.indices("group", group, len(model.leverage))
    if not S:
        return product(model, Z, model.dual)
    columns = _room(Z, (len(model.leverage), len(S)), "group")
    for piece in pieces(len(S), model.factor.size):
        columns[:, piece] = model.factor.inverse_columns(S[piece])
    alpha = model.dual.reshape(len(model.dual), -1)
    root = torch.linalg.cholesky(torch.from_numpy(columns[S]))
    solved = torch.cholesky_solve(torch.from_numpy(alpha[S]), root).numpy()
    without = alpha - columns @ solved
    without[S] = 0
    return product(model, Z, without.reshape(model.dual.shape))


def _room(Z: Tensor, shape: tuple, argument: str = "X_test") -> np.ndarray:
    """Memory for a result, if this process has it three times."""
    _check.fits(argument, "the result", 3 * math.prod(shape) * Z.element_size(), "cpu")
    return np.empty(shape, Z.numpy().dtype)


def _changes(model: BlockedKernelRidge, Z: Tensor) -> Iterator[tuple[slice, np.ndarray]]:
    r"""The changes $\Delta_{it} = -(P k_t)_i \alpha_i / P_{ii}$, for pieces of the test points."""
    for piece in pieces(len(Z), model.factor.size):
        scaled = model.factor.solve_kernel(Z[piece].numpy()) / -model.inverse_diagonal[:, None]
        alpha = model.dual if model.dual.ndim == 2 else model.dual[:, None]
        change = scaled[:, :, None] * alpha[:, None, :]
        yield piece, change if model.dual.ndim == 2 else change[:, :, 0]
