"""A kernel matrix of low rank from a few of its columns, chosen at random by what is still left."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import _check
from .kernels import relu_ntk

CHUNKS = 2048
PROPOSALS = 64  # pivots that are drawn at once


@dataclass(frozen=True, eq=False)
class LowRankKernel:
    r"""A kernel matrix $\hat K = F F^\top \preceq K$ that equals $K$ in the columns of its pivots.

    Attributes
    ----------
    pivots : (k,) indices of the points whose columns were taken, in their order.
    vectors : (n, k) orthonormal eigenvectors of $\hat K$.
    values : (k,) eigenvalues of $\hat K$, not below 0.
    left : (n,) diagonal of $K - \hat K$, not below 0.
    """

    pivots: Int[Tensor, "k"]
    vectors: Float[Tensor, "n k"]
    values: Float[Tensor, "k"]
    left: Float[Tensor, "n"]

    def solve(self, B: Float[Tensor, "n m"], ridge: float) -> Float[Tensor, "n m"]:
        r"""$(\hat K + \lambda I)^{-1} B$, in $2 n k$ products a column.

        Parameters
        ----------
        B : (n, m) right-hand sides.
        ridge : $\lambda > 0$.

        Returns
        -------
        (n, m) tensor.

        Source: the preconditioner of Diaz et al. 2023.
        """
        inside = self.vectors.T @ B
        shrunk = inside * (ridge / (self.values + ridge) - 1)[:, None]
        return torch.addmm(B, self.vectors, shrunk) / ridge

    def leverage(self, ridge: float) -> Float[Tensor, "n"]:
        r"""The diagonal of $\hat K (\hat K + \lambda I)^{-1}$: no leverage of $K$ is below it.

        Parameters
        ----------
        ridge : $\lambda > 0$.

        Returns
        -------
        (n,) tensor. Since $\hat K \preceq K$ and $K (K + \lambda I)^{-1}$ grows with $K$, its
        entries are bounds from below.

        Source: classical.
        """
        return self.vectors.square() @ (self.values / (self.values + ridge))


def low_rank_kernel(
    X: Float[Tensor, "n d"],
    rank: int,
    *,
    kernel: Callable[..., Tensor] = relu_ntk,
    seed: int = 0,
) -> LowRankKernel:
    r"""Randomly pivoted Cholesky: a kernel of rank at most ``rank`` from as many of its columns.

    A point becomes the next pivot with a probability proportional to the diagonal of $K - \hat K$,
    of what the pivots before it leave over; its column is then taken away. Several points are
    proposed at once, and each is kept with the share of its diagonal that is left when its turn
    comes, which changes nothing in the distribution of the pivots. Of a kernel matrix, $k (n + k)$
    entries are evaluated, and its diagonal.

    Parameters
    ----------
    X : (n, d) points.
    rank : $k$, at most n; fewer pivots are taken where nothing but rounding is left.
    kernel : ``kernel(X)`` is the Gram matrix of some rows and ``kernel(X, Z)`` that with others,
        symmetric and without negative eigenvalues.
    seed : of the choice of pivots.

    Returns
    -------
    LowRankKernel
        On the device and of the dtype of ``X``.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, what the kernel refuses, a rank below one or above n, a
        factor that does not fit into the memory, a kernel with nothing on its diagonal.

    Source: Chen, Epperly, Tropp and Webber 2023; the proposals, Epperly, Tropp and Webber 2024.
    """
    X = _check.tensor("X", X, (2,)).detach()
    n, k = len(X), _check.integer("rank", rank)
    _check.require(k <= n, "rank", f"at most the {n} points of X", k)
    generator = torch.Generator("cpu").manual_seed(_check.seed("seed", seed))
    _check.fits("rank", "a factor", 3 * n * k * X.element_size(), X.device)
    left = diagonal(kernel, X)
    smallest = 1e4 * torch.finfo(X.dtype).eps * left.max()
    _check.require(bool(smallest > 0), "kernel", "a positive diagonal", f"{float(left.max())}")
    F, pivots = X.new_zeros(n, k), []
    while len(pivots) < k and bool((left > smallest).any()):
        found = _accepted(kernel, X, F[:, : len(pivots)], left, smallest, k, generator)
        done, more = len(pivots), found[: k - len(pivots)]
        columns = kernel(X, X[more])
        columns[more] = kernel(X[more])
        columns -= F[:, :done] @ F[more, :done].T
        root = torch.linalg.cholesky(columns[more])
        new = torch.linalg.solve_triangular(root, columns.T, upper=False).T
        F[:, done : done + len(more)] = new
        left = (left - new.square().sum(dim=1)).clamp(min=0)
        left[more] = 0
        pivots += more
    basis, rest = torch.linalg.qr(F[:, : len(pivots)])
    inner, values, _ = torch.linalg.svd(rest)
    return LowRankKernel(torch.tensor(pivots, device="cpu"), basis @ inner, values.square(), left)


def diagonal(kernel: Callable[..., Tensor], X: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
    """The kernel of every point with itself, from Gram matrices of a few."""
    with torch.no_grad():
        return torch.cat([kernel(some).diagonal() for some in X.split(PROPOSALS)])


def _accepted(
    kernel: Callable,
    X: Tensor,
    F: Tensor,
    left: Tensor,
    smallest: Tensor,
    rank: int,
    generator: torch.Generator,
) -> list[int]:
    """The points that are kept of those that are proposed, at least one."""
    shares = torch.where(left > smallest, left, 0).double().cpu()
    proposed = torch.multinomial(shares, min(PROPOSALS, rank), True, generator=generator).tolist()
    cpu = {"generator": generator, "dtype": torch.float64, "device": "cpu"}
    chances = torch.rand(len(proposed), **cpu).tolist()
    H = kernel(X[proposed]) - F[proposed] @ F[proposed].T
    before, kept = H.diagonal().clone(), []
    for a, chance in enumerate(chances):
        if proposed[a] in kept or H[a, a] <= smallest or chance * before[a] >= H[a, a]:
            continue
        kept.append(proposed[a])
        column = H[:, a] / H[a, a].sqrt()
        H = H - column[:, None] * column
    return kept or [int(left.argmax())]
