"""The IHVP estimate of a network of finite width, exactly, without a matrix of the size of W.

ReLU is piecewise linear, so the Hessian of the loss (2) is $H = J^\\top J + \\lambda I$ wherever no
unit stands on a kink. The push-through identity $H^{-1} J^\\top = J^\\top (J J^\\top + \\lambda
I)^{-1}$ then replaces the $md \\times md$ system by one of the size of the training outputs. With a
smoothed kink this is the Gauss-Newton part of the Hessian: its curvature term is left out.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .network import TwoLayerReLU, activation, slope
from .ridge import fit_kernel_ridge


@torch.no_grad()
def leverage(network: TwoLayerReLU, X: Float[Tensor, "n d"], ridge: float) -> Float[Tensor, "n"]:
    r"""Ridge leverage $h_i = [K (K + \lambda I)^{-1}]_{ii}$ at the network's weights.

    Parameters
    ----------
    network : its current weights give the kernel $K = J J^\top$.
    X : (n, d) training inputs.
    ridge : $\lambda > 0$ of a sum of halved squares.

    Returns
    -------
    (n,) tensor in [0, 1); with several outputs the mean over the outputs of a point. Gradients of
    the arguments are not followed, here and below.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, a ridge that is not positive or too
        small for the dtype; a kernel that does not fit into the memory.

    Source: Cook 1977; Zhang and Zhang 2022, Theorems 3 and 4, bound it.
    """
    network = _check.instance("network", network, TwoLayerReLU)
    X, ridge = network.check_input("X", X), _check.positive("ridge", ridge)
    f, K = outputs_and_kernel(network, X, len(X))
    h = fit_kernel_ridge(K, f.flatten(), ridge).leverage
    return h.reshape(f.shape).mean(dim=1)


@torch.no_grad()
def ihvp_influence(
    network: TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    X_test: Float[Tensor, "n_test d"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
    *,
    correct_leverage: bool = False,
) -> Float[Tensor, "n n_test"]:
    r"""Inverse-Hessian-vector-product influence at the network's weights, equation (12).

    $I_{hvp}(x_i, x_t) = \nabla\ell(x_t)^\top H^{-1} \nabla\ell(x_i) = (f_t - y_t)(f_i - y_i)\,
    j_t^\top J^\top (J J^\top + \lambda I)^{-1} e_i$. With ``correct_leverage`` the residual of the
    point is divided by $1 - h_i$: a Newton step on the loss without the point. Several outputs are
    coupled through their hidden units: $J J^\top$ is then (n c, n c), $1 - h_i$ a (c, c) block, the
    cost $O(n^2 c^2 (m + n c))$ and the memory $O(n^2 c^2 + m d)$.

    Parameters
    ----------
    network : trained, or at any other weights.
    X, y : (n, d) training inputs; (n,) labels, or (n, c) for a network with c outputs.
    ridge : $\lambda > 0$ of a sum of halved squares.
    X_test, y_test : the same for the test points.
    correct_leverage : divide by $1 - h_i$.

    Returns
    -------
    (n, n_test) tensor, in the unit of the loss; positive for a helpful point.

    Raises
    ------
    ValueError
        As `leverage`, and labels that do not fit the points or the outputs.

    Source: Zhang and Zhang 2022, Prop. 1; Koh and Liang 2017; the dual form also in Sun and Valaee
    2026; the correction: Rad and Maleki 2020, Rubinstein and Hopkins 2025.
    """
    network = _check.instance("network", network, TwoLayerReLU)
    X, y = _checked_points(network, "X", X, "y", y)
    X_test, y_test = _checked_points(network, "X_test", X_test, "y_test", y_test)
    ridge = _check.positive("ridge", ridge)
    f, K = outputs_and_kernel(network, torch.cat([X, X_test]), len(X))
    residual = f - torch.cat([y, y_test]).reshape(f.shape)
    (n, c), n_test = (len(X), f.shape[1]), len(X_test)
    P = fit_kernel_ridge(K[: n * c], y.flatten(), ridge).inverse
    left, right = residual[:n], residual[n:]
    if correct_leverage:
        blocks = P.reshape(n, c, n, c).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        left = torch.linalg.solve(ridge * blocks, left)
    terms = (P @ K[n * c :].T).mul_(left.reshape(-1, 1)).mul_(right.reshape(1, -1))
    return terms.reshape(n, c, n_test, c).sum(dim=(1, 3))


def outputs_and_kernel(
    network: TwoLayerReLU, points: Float[Tensor, "p d"], n: int, *, units: int = 1024
) -> tuple[Float[Tensor, "p c"], Float[Tensor, "pc nc"]]:
    """Outputs, and the kernel with the first n points, by point and output, block by block."""
    a = network.a.reshape(len(network.a), -1)
    f, c, p = 0, a.shape[1], len(points)
    needed = 4 * c * p * c * n * points.element_size()
    _check.fits("X", "the kernel of all points and outputs", needed, points.device)
    exact = torch.float32 if network.kink == 0 else points.dtype
    pairs = points.new_zeros(c * p, c * n, dtype=exact)
    for W, s in zip(network.W.split(units), a.split(units), strict=True):
        Z = points @ W.T
        A = (slope(Z, network.kink).to(pairs.dtype)[:, None] * s.T.to(pairs.dtype)).flatten(0, 1)
        f = f + activation(Z, network.kink) @ s
        pairs.addmm_(A, A[: c * n].T)  # of patterns integers, exact in float32
    gram = (points @ points[:n].T).div_(len(a))[:, None, :, None]
    K = (gram * pairs.view(p, c, n, c)).view(p * c, n * c)
    return f / math.sqrt(len(a)), K


def _checked_points(
    network: TwoLayerReLU, name: str, X: Tensor, labels: str, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Refuse points and labels that do not belong to each other and to the network."""
    X = network.check_input(name, X)
    shape = (len(X), *network.a.shape[1:])
    return X, _check.labels_of(labels, y, name, X, shape)
