"""The neural tangent kernel of the infinitely wide two-layer ReLU network."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check


def relu_ntk(
    X: Float[Tensor, "n d"], Z: Float[Tensor, "n2 d"] | None = None, *, smoothing: float = 0.0
) -> Float[Tensor, "n n2"]:
    r"""Neural tangent kernel of a two-layer ReLU network of which the first layer is trained.

    Equation (4): $K(x, z) = \frac{1}{2\pi}\, x^\top z\,(\pi - \arccos x^\top z)$ for unit vectors.
    Without ``Z`` it is the Gram matrix of ``X``, whose diagonal is exactly one half. With
    $\sigma_s(u) = \mathbb E\,\mathrm{ReLU}(u + s\xi)$, $\xi \sim N(0, 1)$ and $s$ the smoothing
    times the scale of the weights, the cosine under $\arccos$ shrinks by the factor $c = 1 / (1 +
    (s / \kappa)^2)$: the probability that $w^\top x + s\xi$ and $w^\top z + s\xi'$ are positive.
    Pairs whose
    cosine differs from 1 by rounding only count as equal: there $\arccos$ keeps half the digits.
    Derivatives pass through; between equal or opposite points, where there is none, they are 0.

    Parameters
    ----------
    X : (n, d) tensor with unit rows.
    Z : (n2, d) tensor with unit rows, of the same dtype and device; ``X`` itself if left out.
    smoothing : $s / \kappa \ge 0$, in units of the scale; 0 is ReLU.

    Returns
    -------
    (n, n2) tensor of the same dtype and device, entries between -0.09 and 0.5, no unit.

    Raises
    ------
    ValueError
        Rows not of unit norm, NaN or infinity, wrong shapes, mixed dtypes or devices, a kernel that
        does not fit into the memory.

    Source: Cho and Saul 2009; Xie, Liang and Song 2017; Zhang and Zhang 2022, Eq. (4). The kernel
    of the smoothed network is this book's, from the orthant probability of Sheppard 1899.
    """
    smoothing = _check.nonnegative("smoothing", smoothing)
    X, Z = _check.unit_points(X, Z)
    rows, columns = len(X), len(X if Z is None else Z)
    _check.fits("X", "a kernel", 3 * rows * columns * X.element_size(), X.device)
    cosine = X @ (X if Z is None else Z).T
    rounding = 16 * torch.finfo(X.dtype).eps
    cosine.masked_fill_(cosine > 1 - rounding, 1).masked_fill_(cosine < rounding - 1, -1)
    shrink = 1 / (1 + smoothing**2)
    angle = torch.arccos(shrink * cosine if smoothing else cosine)
    # (pi - angle) / 2 pi, the share of units that are active on both, in the same memory
    both_active = angle.neg_().add_(math.pi).div_(2 * math.pi)
    kernel = both_active.mul_(cosine)
    return kernel.fill_diagonal_(0.5 - math.acos(shrink) / (2 * math.pi)) if Z is None else kernel
