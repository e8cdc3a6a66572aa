"""K-FAC and EK-FAC of one layer: the curvature as a product of two small matrices."""

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .linearised import Linearised


def kfac(problem: Linearised) -> Float[Tensor, "n n_test"]:
    r"""K-FAC: for $J^\top J$ the product of the covariances of a layer's inputs and outputs.

    With gradients $b_i \otimes x_i$ it is $\frac1n (\sum_i b_i b_i^\top) \otimes (\sum_i x_i
    x_i^\top)$: exact if one of the factors is the same at all points.

    Raises
    ------
    ValueError
        A problem that is not that of a network.

    Source: Martens and Grosse 2015; for influence Grosse et al. 2023.
    """
    B, X, b, x = _layer(problem)
    return _in_eigenbases(problem, torch.outer(b, x) / len(B), B, X)


def ekfac(problem: Linearised) -> Float[Tensor, "n n_test"]:
    r"""EK-FAC: the eigenvectors of K-FAC with the diagonal of $J^\top J$ in their basis.

    Raises
    ------
    ValueError
        A problem that is not that of a network.

    Source: George et al. 2018; for influence Grosse et al. 2023.
    """
    B, X, _, _ = _layer(problem)
    return _in_eigenbases(problem, B.square().T @ X.square(), B, X)


def _layer(problem: Linearised) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Factors of the training gradients in the eigenbases of their covariances, and the values."""
    problem = _check.instance("problem", problem, Linearised)
    _check.require(problem.layer is not None, "problem", "that of a network", "one without a layer")
    B, X = (_turned(part, part) for part in problem.layer[:2])
    return B, X, B.square().sum(dim=0), X.square().sum(dim=0)


def _turned(part: Float[Tensor, "q k"], train: Float[Tensor, "n k"]) -> Float[Tensor, "q r"]:
    """Rows in the basis of the right singular vectors of the training points' rows."""
    return part @ torch.linalg.svd(train, full_matrices=False).Vh.T


def _in_eigenbases(
    problem: Linearised,
    values: Float[Tensor, "r k"],
    B: Float[Tensor, "n r"],
    X: Float[Tensor, "n k"],
) -> Float[Tensor, "n n_test"]:
    """Influence with an approximation of J^T J that is diagonal in a product of bases."""
    B_test = _turned(problem.layer[2], problem.layer[0])
    X_test = _turned(problem.layer[3], problem.layer[1])
    inverse = 1 / (values + problem.ridge)
    rows = [
        ((B @ (torch.outer(b, x) * inverse)) * X).sum(1)
        for b, x in zip(B_test, X_test, strict=True)
    ]
    return problem.residual[:, None] * torch.stack(rows).T * problem.residual_test
