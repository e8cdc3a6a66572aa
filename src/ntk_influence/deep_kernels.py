"""Neural tangent kernels of infinitely wide ReLU networks with many layers, in closed form."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check

TRAINED = ("all", "first")
# What is alive at once of a layer: covariances, kernels, angles and what they are made from.
ARRAYS = 13


def deep_ntk(
    X: Float[Tensor, "n d"],
    Z: Float[Tensor, "n2 d"] | None = None,
    *,
    depth: int,
    train: str = "all",
) -> Float[Tensor, "n n2"]:
    r"""Neural tangent kernel of a fully connected ReLU network with several hidden layers.

    The network is $f(x) = \frac{1}{\sqrt m}\sum_r a_r\,\sigma(u^L_r)$ with $L$ hidden layers,
    $u^1 = W^1 x$ and $u^{l+1} = \sqrt{2/m}\,W^{l+1} \sigma(u^l)$. All weights are $N(0, 1)$, of $a$
    perhaps signs, and without biases; the factors stay outside of what is trained (NTK
    parametrisation). So every pre-activation has variance one, as $\mathbb E\,\sigma(u)^2 =
    \frac12$, and the output has variance one half at any depth. With one hidden layer this is the
    network of equation (1).

    In the limit of width $\mathbb E[u^l(x)\,u^l(z)] = \rho_l$, with $\rho_1 = x^\top z$ and
    $\rho_{l+1} = \kappa_1(\rho_l)$. For a pair $(u, v)$ of variances one and covariance $\rho =
    \cos\theta$

    .. math::

        \kappa_0(\rho) &= 2\,\mathbb E\,\sigma'(u)\,\sigma'(v) = \frac{\pi - \theta}{\pi}, \\
        \kappa_1(\rho) &= 2\,\mathbb E\,\sigma(u)\,\sigma(v)
        = \frac{\sin\theta + (\pi - \theta)\,\rho}{\pi}.

    The gradients by the weights of layer $l + 1$ have the product $\kappa_1(\rho_l)$; those by the
    weights below reach it through the kink, which multiplies by $\kappa_0(\rho_l)$. From $\Theta_1
    = \rho_1$,

    - all layers, read-out $a$ included: $\Theta_{l+1} = \kappa_0(\rho_l)\,\Theta_l + \rho_{l+1}$,
    - the first alone: $\Theta_{l+1} = \kappa_0(\rho_l)\,\Theta_l$, a product of $L$ factors,

    and the kernel is $\frac12 \Theta_{L+1}$. On the diagonal it is exactly $(L + 1) / 2$ and
    $\frac12$. With ``depth=1, train="first"`` it is `relu_ntk`, to the last bit.

    **The two are not multiples of each other.** At depth one the read-out adds $\frac12 \kappa_1$
    to equation (4), which doubles the diagonal, but not the rest: a ridge that suits one does not
    suit the other, and a library that trains all layers does not compute (4). Another factor
    in front of a layer, though, multiplies both kernels by its square: without the $\sqrt 2$ of the
    $L - 1$ layers between the first and the read-out they are $2^{1-L}$ times these.

    Pairs whose cosine differs from 1 by rounding only count as equal, as in `relu_ntk`. Derivatives
    pass through; between equal or opposite points, where there is none, they are 0.

    Parameters
    ----------
    X : (n, d) tensor with unit rows.
    Z : (n2, d) tensor with unit rows, of the same dtype and device; ``X`` itself if left out.
    depth : number $L \ge 1$ of hidden layers.
    train : ``"all"`` layers, or the ``"first"`` alone as in the paper.

    Returns
    -------
    (n, n2) tensor of the same dtype and device, no unit.

    Raises
    ------
    ValueError
        Rows not of unit norm, NaN or infinity, wrong shapes, mixed dtypes or devices, a depth that
        is no positive integer, another word than those two, a kernel that does not fit into the
        memory.

    Source: Cho and Saul 2009; Jacot et al. 2018; Arora et al. 2019 (exact computation).
    """
    depth = _check.integer("depth", depth)
    known = isinstance(train, str) and train in TRAINED
    _check.require(known, "train", f"one of {', '.join(TRAINED)}", repr(train))
    X, Z = _check.unit_points(X, Z)
    entries = len(X) * len(X if Z is None else Z)
    kept = depth + 1 if _followed(X, Z) else 1
    _check.fits("X", "a kernel", kept * ARRAYS * entries * X.element_size(), X.device)
    cosine = X @ (X if Z is None else Z).T
    cosine = _snapped(cosine.fill_diagonal_(1) if Z is None else cosine)
    tangent = cosine
    for _ in range(depth):
        slopes, cosine = _arc_cosine(cosine)
        tangent = slopes * tangent
        if train == "all":
            tangent = tangent + cosine
    return tangent / 2


def _arc_cosine(
    cosine: Float[Tensor, "*pairs"],
) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]]:
    r"""$\kappa_0$ and $\kappa_1$ of a cosine; both are exactly 1 at 1 and 0 at -1."""
    cosine = _snapped(cosine)
    both_active = (math.pi - torch.arccos(cosine)) / math.pi
    sine = ((1 - cosine) * (1 + cosine)).sqrt()
    return both_active, both_active * cosine + sine / math.pi


def _snapped(cosine: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """Cosines, those that miss 1 or -1 by rounding put there and held."""
    rounding = 16 * torch.finfo(cosine.dtype).eps
    cosine = cosine.masked_fill(cosine > 1 - rounding, 1)
    return cosine.masked_fill(cosine < rounding - 1, -1)


def _followed(*tensors: Tensor | None) -> bool:
    """Whether derivatives are kept of what is computed now."""
    asked = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return asked and torch.is_grad_enabled()
