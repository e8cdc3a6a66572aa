"""Kernel ridge regression in tiles on Dask, for kernels that no single process holds."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from .. import _check
from ..kernels import relu_ntk
from ..ridge import not_invertible
from ._tiles import Factor, evaluate
from ._workers import Workers

Array = np.ndarray | Tensor
CHUNKS = 2048


class Needs(NamedTuple):
    """Bytes of one worker: what it keeps, or spills to its disk, and what tasks hold at once."""

    kept: int
    at_once: int


def needs(
    n: int,
    chunks: int = CHUNKS,
    dtype: torch.dtype = torch.float64,
    *,
    workers: int = 1,
    threads: int = 1,
) -> Needs:
    r"""What `fit_kernel_ridge` needs of the memory of every worker.

    With $N = \lceil n / c \rceil$ blocks of $c$ points and numbers of $b$ bytes, all workers
    together keep $b (N c)^2$ bytes: the factor, and as much again for what it is made from. Shares
    are taken as equal; Dask does not spread tiles evenly, and a worker may keep more. A
    worker of Dask's that lacks the memory for its share spills it to its disk; threads of one
    process do not. Every thread holds at most $N + 3$ tiles of $b c^2$ bytes at once, the sum that
    ends a row of the factor. These have to fit.

    Parameters
    ----------
    n : number of training points.
    chunks : points in a block.
    dtype : of the points.
    workers : number of workers.
    threads : number of threads of each worker.

    Returns
    -------
    Needs
        ``kept`` and ``at_once``, in bytes a worker.

    Raises
    ------
    ValueError
        A number below one, another dtype.

    Source: ours; the terms are those of the graph of ``dask.array.linalg.cholesky``.
    """
    n, chunks = _check.integer("n", n), _check.integer("chunks", chunks)
    workers, threads = _check.integer("workers", workers), _check.integer("threads", threads)
    size = min(n, chunks)
    blocks, bytes_of_tile = math.ceil(n / size), size**2 * _check.dtype("dtype", dtype).itemsize
    kept = math.ceil(blocks**2 * bytes_of_tile / workers)
    return Needs(kept, threads * (blocks + 3) * bytes_of_tile)


@dataclass(frozen=True, eq=False)
class BlockedKernelRidge:
    r"""A kernel ridge regression of which the factor lies in tiles on the workers.

    It is made by `fit_kernel_ridge` and lives as long as its scheduler.

    Attributes
    ----------
    dual : (n,) or (n, c) array, $\alpha = P y$.
    leverage : (n,) array, the ridge leverage $h_i$.
    ridge : $\lambda$, on the scale of a *sum* of halved squares.
    inverse_diagonal : (n,) array $P_{ii}$.
    dim : number of columns that test points have to have.
    factor : the tiles.
    """

    dual: Float[np.ndarray, "n"] | Float[np.ndarray, "n c"]
    leverage: Float[np.ndarray, "n"]
    ridge: float
    inverse_diagonal: Float[np.ndarray, "n"]
    dim: int
    factor: Any

    @property
    def one_minus_leverage(self) -> Float[np.ndarray, "n"]:
        r"""$1 - h_i = \lambda P_{ii}$, to all digits also where $h_i$ rounds to 1."""
        return self.ridge * self.inverse_diagonal

    def predict(
        self, X_test: Float[Array, "n_test d"]
    ) -> Float[np.ndarray, "n_test"] | Float[np.ndarray, "n_test c"]:
        r"""Predictions $f(x) = k(x)^\top \alpha$, equation (6).

        Parameters
        ----------
        X_test : (n_test, d) test points, of the dtype of the training points.

        Returns
        -------
        (n_test,) or (n_test, c) array, in the unit of the labels.

        Raises
        ------
        ValueError
            As `fit_kernel_ridge` of ``X``; another number of columns.
        ConnectionError
            The scheduler is gone.

        Source: Zhang and Zhang 2022, Eq. (6).
        """
        return product(self, check_test_points(self, X_test), self.dual)


def fit_kernel_ridge(
    X: Float[Array, "n d"],
    y: Float[Array, "n"] | Float[Array, "n c"],
    ridge: float,
    *,
    kernel: Callable[..., Tensor] = relu_ntk,
    chunks: int = CHUNKS,
    scheduler: Any = None,
    checkpoint: Any = None,
    progress: bool = False,
) -> BlockedKernelRidge:
    r"""Fit kernel ridge regression of points whose kernel matrix no single worker holds.

    As `ntk_influence.fit_kernel_ridge` of ``kernel(X)``, equation (5). Tiles of $K + \lambda I$ are
    made where they are needed and factorised by ``dask.array.linalg.cholesky``; the diagonal of $P
    = (K + \lambda I)^{-1}$ is summed from one block column of $L^{-1}$ after the other, and $P$ is
    never stored. About $(n / c)^3 / 3$ tasks for chunks of $c$ points: a thousand rows and more
    keep Dask's own time small. Rounding is that of the dense form; the last bits depend on the
    chunks, and on which worker has which tile.

    Parameters
    ----------
    X : (n, d) training points, a tensor or an array, with unit rows if the kernel asks for them.
    y : (n,) or (n, c) labels, of the same dtype.
    ridge : $\lambda \ge 0$.
    kernel : ``kernel(X)`` is the Gram matrix of some rows and ``kernel(X, Z)`` that with others,
        symmetric, as tensors on the CPU; it is sent to the workers.
    chunks : points in a block, the rows of a square tile; the last block is filled up.
    scheduler : None takes the client that is current (``dask.distributed.Client``), and the threads
        of this process where there is none; ``"threads"``, ``"synchronous"``, a client or the
        address of a scheduler, such as ``"tcp://host:8786"``, say which. Where their memory is
        short, workers of a scheduler spill tiles to their disk, which takes time; threads do not.
    checkpoint : where the tiles of the factor and the block columns of its inverse are kept as soon
        as they are there, so that the same call goes on where it was lost: anything with
        ``save(name, tensor)`` and ``load(name)``, in a place that all workers see.
    progress : show a bar of the tiles of the factor and the block columns of its inverse, and the
        address of Dask's dashboard where there is one.

    Returns
    -------
    BlockedKernelRidge
        With ``dual`` shaped like ``y``; arrays of numpy's.

    Raises
    ------
    ValueError
        Before work is sent out: wrong shapes, NaN or infinity, mixed dtypes, rows not of unit norm
        for `relu_ntk`, a kernel that is not symmetric or does not give such tensors, a negative
        ridge, no such scheduler, and a worker that `needs` more memory than it has. After it: a
        $K + \lambda I$ so close to singular that fewer than three digits of its inverse would be
        right, by an estimate of the condition number that may be up to three times too low.
    ImportError
        Dask is missing: ``pip install 'dask[array,distributed]'``.
    ConnectionError
        The scheduler is gone. A lost worker is none: its tiles are made again by the others.
    RuntimeError
        Several workers died under the same task; a checkpoint has no room.

    Source: Zhang and Zhang 2022, Eq. (5) and (6); Dask's blocked Cholesky factorisation.
    """
    X, y, ridge = _points("X", X, kernel), converted(y), _check.nonnegative("ridge", ridge)
    y = _check.labels("y", y, "X", X, len(X)).detach()
    size = min(_check.integer("chunks", chunks), len(X))
    _refuse_kernel(kernel, X)
    work = Workers(scheduler)
    work.refuse_too_little(len(X), size, X.dtype, needs)
    factor = Factor(work, kernel, X.numpy(), ridge, size, checkpoint)
    with tqdm(total=factor.steps, desc="tiles", disable=not progress) as bar:
        if progress and work.dashboard:
            bar.write(f"dashboard: {work.dashboard}")
        diagonal, small_leverage = _diagonals(factor, X.dtype, bar if progress else None)
    rest = ridge * diagonal
    leverage = np.where(rest < 0.5, 1 - rest, small_leverage)
    dual = factor.solve(y.numpy())
    return BlockedKernelRidge(dual, leverage, ridge, diagonal, X.shape[1], factor)


def _diagonals(
    factor: Factor, dtype: torch.dtype, bar: tqdm | None
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """$P_{ii}$ and $[K P]_{ii}$, unless the system is too close to singular."""
    try:
        factor.factorise(bar)
    except np.linalg.LinAlgError:
        raise not_invertible(dtype, factor.ridge, factor.norm(), None) from None
    norm = factor.norm()
    condition = norm * factor.inverse_norm()
    if not condition <= 1e-3 / torch.finfo(dtype).eps:
        raise not_invertible(dtype, factor.ridge, norm, condition)
    return factor.diagonals(bar)


def converted(value: object) -> object:
    """An array of numpy's as a tensor, a tensor on the CPU; anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        return torch.from_numpy(native) if native.dtype.itemsize <= 8 else value
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _points(argument: str, value: object, kernel: Callable) -> Tensor:
    """Finite points, with unit rows if that is what the kernel is for."""
    X = _check.tensor(argument, converted(value), (2,))
    if (kernel.func if isinstance(kernel, partial) else kernel) is relu_ntk:
        _check.unit_rows(argument, X)
    return X


def check_test_points(model: object, X_test: object) -> Tensor:
    """Test points that fit the model."""
    model = _check.instance("model", model, BlockedKernelRidge)
    Z = _points("X_test", X_test, model.factor.kernel)
    _check.alike("X_test", Z, "the model", torch.from_numpy(model.leverage))
    _check.require(Z.shape[1] == model.dim, "X_test", f"{model.dim} columns", Z.shape[1])
    return Z


def _refuse_kernel(kernel: Callable, X: Tensor) -> None:
    """Try the kernel on a few rows: its shapes, its dtype, its symmetry."""
    _check.require(callable(kernel), "kernel", "a function of points", type(kernel).__name__)
    a, b = X[:8].numpy(), X[-8:].numpy()
    gram, over, back = evaluate(kernel, a), evaluate(kernel, a, b), evaluate(kernel, b, a)
    size = max(float(abs(gram).max()), float(abs(over).max()))
    tolerance = 1e3 * torch.finfo(X.dtype).eps * len(X) * size
    for difference in (gram - gram.T, over - back.T):
        most = float(abs(difference).max())
        _check.require(most <= tolerance, "kernel", "a symmetric one", f"|K - K^T| = {most:.1e}")


def pieces(total: int, size: int) -> Iterator[slice]:
    """Ranges of at most that many."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def product(model: BlockedKernelRidge, Z: Tensor, dual: np.ndarray) -> np.ndarray:
    """Predictions with any dual, as many test points at a time as a block has."""
    parts = pieces(len(Z), model.factor.size)
    return np.concatenate([model.factor.product(Z[part].numpy(), dual) for part in parts])
