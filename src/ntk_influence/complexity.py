"""How much a training point adds to the complexity of the model that is fitted to it."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from . import _check
from .ridge import fit_kernel_ridge

KINDS = ("quadratic_form", "rkhs_norm")


def complexity(
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float = 0.0,
    *,
    kind: Literal["quadratic_form", "rkhs_norm"] = "quadratic_form",
) -> Float[Tensor, "n"]:
    r"""Drop of a complexity of the model when each of the training points is removed.

    With $P = (K + \lambda I)^{-1}$ and $\alpha = P y$, summed over outputs:

    ``quadratic_form``, equation (19) with a ridge: $y^\top P y$ drops by $\alpha_i^2 / P_{ii}$.
    Without a ridge it is the squared RKHS norm of the interpolant.

    ``rkhs_norm``: $\|f\|^2_{\mathcal H} = \alpha^\top K \alpha$ drops by $2 \frac{\alpha_i}{P_{ii}}
    (P K \alpha)_i - \frac{\alpha_i^2}{P_{ii}^2} (P K P)_{ii}$.
    With a ridge it can be negative: removing a point may let the model follow the others further.

    Parameters
    ----------
    K : (n, n) symmetric kernel matrix of the training points.
    y : (n,) or (n, c) labels, of the same dtype and device.
    ridge : $\lambda \ge 0$, on the scale of a *sum* of halved squares.
    kind : which complexity; both are the same without a ridge.

    Returns
    -------
    (n,) tensor, in the unit of squared labels. Positive: the model is less complex without the
    point.

    Raises
    ------
    ValueError
        As `fit_kernel_ridge`; an unknown kind.

    Source: Zhang and Zhang 2022, Eq. (19); the ridge versions are this book's.
    """
    _check.require(kind in KINDS, "kind", f"one of {', '.join(KINDS)}", repr(kind))
    model = fit_kernel_ridge(K, y, ridge)
    P = model.inverse
    alpha = model.dual.reshape(len(K), -1)
    left_out = alpha / P.diagonal()[:, None]  # the residual that the point would leave
    if kind == "quadratic_form":
        return (alpha * left_out).sum(dim=1)
    PKalpha = P @ (K @ alpha)  # in this order nothing cancels at a large ridge
    PKP_ii = (P * (K @ P)).sum(dim=1)
    return (2 * left_out * PKalpha - left_out.square() * PKP_ii[:, None]).sum(dim=1)
