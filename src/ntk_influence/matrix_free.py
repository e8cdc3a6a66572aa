"""Kernel systems of which the matrix is never stored: its products, and conjugate gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from . import _check
from .kernels import relu_ntk
from .low_rank import CHUNKS, LowRankKernel, diagonal


@dataclass(frozen=True, eq=False)
class KernelSystem:
    r"""The matrix $K + \lambda I$ of some points, by its products alone.

    Attributes
    ----------
    X : (n, d) points.
    ridge : $\lambda > 0$.
    kernel : ``kernel(X)`` is the Gram matrix of some rows and ``kernel(X, Z)`` that with others.
    chunks : rows of the square tiles that are made, used and forgotten.
    diagonal : (n,) diagonal of $K$.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, what the kernel refuses, a kernel that is not symmetric, a
        ridge that is not above 0, a tile that does not fit into the memory.
    """

    X: Float[Tensor, "n d"]
    ridge: float
    kernel: Callable[..., Tensor] = relu_ntk
    chunks: int = CHUNKS

    def __post_init__(self) -> None:
        """Check what was given, and the kernel on a few points."""
        X, ridge = _check.tensor("X", self.X, (2,)).detach(), _check.positive("ridge", self.ridge)
        if self.kernel is relu_ntk:
            _check.unit_rows("X", X)
        kernel = self.kernel
        _check.require(callable(kernel), "kernel", "a function of points", type(kernel).__name__)
        size = min(_check.integer("chunks", self.chunks), len(X))
        _check.fits("chunks", "a tile", 4 * size**2 * X.element_size(), X.device)
        _refuse_kernel(kernel, X)
        parts = {"X": X, "ridge": ridge, "chunks": size, "diagonal": diagonal(kernel, X)}
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    def product(self, B: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        r"""$(K + \lambda I) B$, from the tiles on and above the diagonal, each made once.

        Parameters
        ----------
        B : (n, m) columns.

        Returns
        -------
        (n, m) tensor; $n (n + c) / 2$ entries of the kernel are evaluated for tiles of c rows.

        Source: classical.
        """
        result, starts = self.ridge * B, range(0, len(self.X), self.chunks)
        with torch.no_grad():
            for start in starts:
                rows = slice(start, start + self.chunks)
                result[rows] += self.kernel(self.X[rows]) @ B[rows]
                for other in starts[start // self.chunks + 1 :]:
                    columns = slice(other, other + self.chunks)
                    K = self.kernel(self.X[rows], self.X[columns])
                    result[rows] += K @ B[columns]
                    result[columns] += K.T @ B[rows]
        return result

    def cross(self, Z: Float[Tensor, "n_test d"], B: Float[Tensor, "n m"]) -> Tensor:
        """The kernel of test points with the points, times columns: (n_test, m)."""
        with torch.no_grad():
            parts = zip(self.X.split(self.chunks), B.split(self.chunks), strict=True)
            return sum(
                torch.cat([self.kernel(some, rows) @ part for some in Z.split(self.chunks)])
                for rows, part in parts
            )


class Solution(NamedTuple):
    r"""Columns $\hat X$ with $(K + \lambda I) \hat X \approx B$, and how far they can be off.

    ``x`` (n, m); ``residual`` (n, m), $B - (K + \lambda I) \hat X$, by a product of its own;
    ``rounding`` (m,), an allowance for the norm of what is rounded away in a residual, eight
    roundings times the trace, as rounding adds up, not the worst case; ``products``, how often the
    kernel was evaluated.
    """

    x: Tensor
    residual: Tensor
    rounding: Tensor
    products: int

    @property
    def norm(self) -> Tensor:
        """(m,) norms of the residuals, with the allowance for rounding."""
        return torch.linalg.vector_norm(self.residual, dim=0) + self.rounding


def conjugate_gradients(
    system: KernelSystem,
    B: Float[Tensor, "n m"],
    low_rank: LowRankKernel,
    *,
    tolerance: float = 1e-6,
    products: int = 200,
    progress: bool = False,
) -> Solution:
    r"""Solve $(K + \lambda I) X = B$ by preconditioned conjugate gradients, all columns at once.

    The preconditioner is $\hat K + \lambda I$ with a kernel of low rank. Every column has its own
    directions; what they share is the kernel, of which each tile is evaluated once for all. When
    the recursion says that all residuals are small enough, they are computed anew, and the
    recursion is started again from them where they are not. With $K \succeq 0$ the error of a
    column is then at most $\|r\| / \lambda$.

    Parameters
    ----------
    system : KernelSystem
        With n points.
    B : (n, m) right-hand sides.
    low_rank : LowRankKernel
        Of the same points and kernel.
    tolerance : largest $\|r\| / \|b\|$ of a column.
    products : largest number of products with the kernel.
    progress : show a bar of the products.

    Returns
    -------
    Solution

    Raises
    ------
    ValueError
        Parts that do not fit each other, a tolerance that is not above 0.
    RuntimeError
        The tolerance was not reached with that many products.

    Source: Hestenes and Stiefel 1952; with this preconditioner, Diaz et al. 2023.
    """
    system = _check.instance("system", system, KernelSystem)
    low_rank = _check.instance("low_rank", low_rank, LowRankKernel)
    B = _check.tensor("B", B, (2,)).detach()
    _check.alike("B", B, "the system", system.X)
    for name, value in (("B", B), ("low_rank", low_rank.vectors)):
        _check.alike(name, value, "the system", system.X)
        rows = len(value)
        _check.require(rows == len(system.X), name, f"{len(system.X)} rows as the system", rows)
    tolerance, limit = _check.positive("tolerance", tolerance), _check.integer("products", products)
    size = torch.linalg.vector_norm(B, dim=0)
    x, r, used = torch.zeros_like(B), B, 0
    with tqdm(desc="products with the kernel", disable=not progress) as bar:
        while bool((torch.linalg.vector_norm(r, dim=0) > tolerance * size).any()):
            if used + 2 > limit:
                reached = float((torch.linalg.vector_norm(r, dim=0) / size).nan_to_num().max())
                raise RuntimeError(
                    f"tolerance: expected residuals of {tolerance:.1e} within {limit} products, "
                    f"got {reached:.1e}; try a larger rank, ridge or tolerance"
                )
            step, more = _descend(system, low_rank, r, tolerance * size, limit - used - 1, bar)
            x, used = x + step, used + more + 1
            r = B - system.product(x)
            bar.update()
    scale = float(system.diagonal.sum()) + system.ridge
    rounding = 8 * torch.finfo(B.dtype).eps * (scale * torch.linalg.vector_norm(x, dim=0) + size)
    return Solution(x, r, rounding, used)


def _descend(
    system: KernelSystem, low_rank: LowRankKernel, B: Tensor, goal: Tensor, limit: int, bar: tqdm
) -> tuple[Tensor, int]:
    """One run of the recursion from 0, until it says that every residual is below its goal."""
    x, r = torch.zeros_like(B), B
    z = low_rank.solve(r, system.ridge)
    p, descent, used = z, (r * z).sum(dim=0), 0
    while used < limit:
        q, used = system.product(p), used + 1
        bar.update()
        curvature = (p * q).sum(dim=0)
        step = torch.where(curvature > 0, descent / curvature, 0)
        x, r = x + step * p, r - step * q
        if bool((torch.linalg.vector_norm(r, dim=0) <= goal).all()):
            break
        z = low_rank.solve(r, system.ridge)
        before, descent = descent, (r * z).sum(dim=0)
        p = z + torch.where(before > 0, descent / before, 0) * p
    return x, used


def _refuse_kernel(kernel: Callable[..., Tensor], X: Float[Tensor, "n d"]) -> None:
    """Try the kernel on a few points: its shapes, its dtype, its symmetry."""
    a, b = X[:8], X[-8:]
    with torch.no_grad():
        over = _check.tensor("kernel", kernel(a, b), (2,))
        back = _check.tensor("kernel", kernel(b, a), (2,))
    _check.alike("kernel", over, "X", X)
    expected, got = (len(a), len(b)), tuple(over.shape)
    _check.require(got == expected, "kernel", f"shape {expected}", f"shape {got}")
    tolerance = 1e3 * torch.finfo(X.dtype).eps * len(X) * float(over.abs().max())
    most = float((over - back.T).abs().max())
    _check.require(most <= tolerance, "kernel", "a symmetric one", f"|K - K^T| = {most:.1e}")
