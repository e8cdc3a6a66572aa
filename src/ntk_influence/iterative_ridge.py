"""Kernel ridge regression by conjugate gradients on a kernel matrix that is never stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .kernels import relu_ntk
from .low_rank import CHUNKS, LowRankKernel, diagonal, low_rank_kernel
from .matrix_free import KernelSystem, Solution, conjugate_gradients


class Bounded(NamedTuple):
    """A result to a tolerance: ``value``, and ``error``, which its error does not exceed."""

    value: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class IterativeKernelRidge:
    r"""Kernel ridge regression solved by conjugate gradients, with some columns of $P$.

    It is made by `fit_kernel_ridge`.

    Attributes
    ----------
    dual : `Solution` of $(K + \lambda I)\alpha = y$, (n, c).
    columns : `Solution` of $(K + \lambda I) P e_i = e_i$ for the chosen points, (n, k).
    chosen : their indices.
    probes : `Solution` for columns of random signs, (n, s), and ``signs`` these columns.
    system, low_rank : what was solved, and the preconditioner.
    flat : whether the labels were (n,).
    """

    dual: Solution
    columns: Solution
    chosen: list[int]
    probes: Solution
    signs: Tensor
    system: KernelSystem
    low_rank: LowRankKernel
    flat: bool

    def predict(self, X_test: Float[Tensor, "n_test d"]) -> Bounded:
        r"""Predictions $f(x) = k(x)^\top \alpha$, equation (6), to a tolerance.

        Parameters
        ----------
        X_test : (n_test, d) test points.

        Returns
        -------
        Bounded
            (n_test,) or (n_test, c), in the unit of the labels. The error is at most
            $\frac12 \sqrt{k(x, x) / \lambda}\,\|r\|$ for the residual r of $\alpha$.

        Raises
        ------
        ValueError
            Test points of another shape, dtype or device; NaN or infinity; what the kernel refuses.

        Source: Zhang and Zhang 2022, Eq. (6); the bound is ours, see `leave_one_out`.
        """
        value, error = products_with(self, X_test, self.dual)
        return Bounded(value[:, 0], error[:, 0]) if self.flat else Bounded(value, error)


def fit_kernel_ridge(
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    *,
    chosen: Sequence[int] = (),
    probes: int = 0,
    kernel: Callable[..., Tensor] = relu_ntk,
    low_rank: int | LowRankKernel = 500,
    tolerance: float = 1e-6,
    products: int = 200,
    chunks: int = CHUNKS,
    seed: int = 0,
    progress: bool = False,
) -> IterativeKernelRidge:
    r"""Fit kernel ridge regression, equation (5), with a kernel matrix that is never stored.

    The labels, the columns of the identity of the chosen points and the probes are right-hand
    sides of the same conjugate gradients. In memory are n numbers for each of them, five times,
    n for every column of the preconditioner, and one tile of the kernel.

    Parameters
    ----------
    X : (n, d) training points, with unit rows if the kernel asks for them.
    y : (n,) or (n, c) labels, of the same dtype and device.
    ridge : $\lambda > 0$.
    chosen : indices of the points that will be left out.
    probes : number of random columns for `estimate_leverage`.
    kernel : ``kernel(X)`` is the Gram matrix of some rows and ``kernel(X, Z)`` that with others,
        symmetric and without negative eigenvalues: on this the bounds rest.
    low_rank : the preconditioner, or its rank (n if that is smaller).
    tolerance : largest norm of a residual, as a share of that of its right-hand side.
    products : largest number of products with the kernel.
    chunks : rows of a tile.
    seed : of the pivots and the probes.
    progress : show a bar of the products.

    Returns
    -------
    IterativeKernelRidge

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, what the kernel refuses, a kernel
        that is not symmetric, a ridge or a tolerance that is not above 0, indices that are none.
    RuntimeError
        The tolerance was not reached with that many products.

    Source: Zhang and Zhang 2022, Eq. (5); preconditioning, Diaz et al. 2023.
    """
    system = KernelSystem(X, ridge, kernel, chunks)
    X, n = system.X, len(system.X)
    y = _check.labels("y", y, "X", X, n).detach()
    chosen = _check.indices("chosen", chosen, n)
    probes = _check.integer("probes", probes) if probes != 0 else 0
    generator = torch.Generator("cpu").manual_seed(_check.seed("seed", seed))
    if not isinstance(low_rank, LowRankKernel):
        rank = min(_check.integer("low_rank", low_rank), n)
        low_rank = low_rank_kernel(X, rank, kernel=kernel, seed=seed)
    labels = y if y.ndim == 2 else y[:, None]
    unit = torch.zeros(n, len(chosen), dtype=X.dtype, device=X.device)
    unit[chosen, range(len(chosen))] = 1
    coins = torch.randint(2, (n, probes), generator=generator, device="cpu")
    signs = (2 * coins - 1).to(X)
    B = torch.cat([labels, unit, signs], dim=1)
    options = {"tolerance": tolerance, "products": products, "progress": progress}
    solved = conjugate_gradients(system, B, low_rank, **options)
    parts = [labels.shape[1], len(chosen), probes]
    pieces = zip(*(part.split(parts, dim=-1) for part in solved[:3]), strict=True)
    dual, columns, probed = (Solution(*piece, solved.products) for piece in pieces)
    return IterativeKernelRidge(dual, columns, chosen, probed, signs, system, low_rank, y.ndim == 1)


def products_with(model: IterativeKernelRidge, X_test: Tensor, solution: Solution) -> Bounded:
    """The products of test kernels with approximate columns, (n_test, m)."""
    system = model.system
    Z = _check.tensor("X_test", X_test, (2,)).detach()
    _check.alike("X_test", Z, "the model", system.X)
    columns = system.X.shape[1]
    _check.require(Z.shape[1] == columns, "X_test", f"{columns} columns", Z.shape[1])
    if system.kernel is relu_ntk:
        _check.unit_rows("X_test", Z)
    reach = torch.sqrt(diagonal(system.kernel, Z) / system.ridge) / 2
    return Bounded(system.cross(Z, solution.x), reach[:, None] * solution.norm)
