"""A kernel matrix in square tiles on Dask: factorised, solved with, never whole in one place."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import add, sub
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor
from tqdm import tqdm

from .. import _check
from ._kept import Kept
from ._workers import Workers

Kernel = Callable[..., Tensor]


def evaluate(kernel: Kernel, a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """The kernel of two blocks of rows, or the Gram matrix of one, checked like an argument."""
    # A copy: what came from another worker cannot be written to, and torch warns of that.
    given = [torch.tensor(rows, device="cpu") for rows in (a, b) if rows is not None]
    with torch.no_grad():
        K = _check.tensor("kernel", kernel(*given), (2,))
    expected, dtype = (len(a), len(a if b is None else b)), given[0].dtype
    _check.require(K.dtype == dtype, "kernel", f"values of {dtype}", K.dtype)
    _check.require(tuple(K.shape) == expected, "kernel", f"shape {expected}", tuple(K.shape))
    return K.detach().cpu().numpy()


def tile(
    kernel: Kernel, size: int, ridge: float, a: np.ndarray, b: np.ndarray | None
) -> np.ndarray:
    """A tile of K + ridge I; beyond the last point it is one of the identity."""
    K = evaluate(kernel, a, b)
    if b is None:
        K = K.copy()
        K[np.diag_indices(len(K))] += ridge
    if K.shape == (size, size):
        return K
    padded = np.eye(size, dtype=K.dtype) if b is None else np.zeros((size, size), K.dtype)
    padded[: K.shape[0], : K.shape[1]] = K
    return padded


def gram_diagonal(kernel: Kernel, size: int, a: np.ndarray) -> np.ndarray:
    """The diagonal of a tile without the ridge; beyond the last point 0."""
    return padded_rows(size, evaluate(kernel, a).diagonal())


def cross(kernel: Kernel, size: int, a: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """The kernel of a block of training points (rows) and some test points (columns)."""
    return padded_rows(size, evaluate(kernel, Z, a).T)


def padded_rows(size: int, B: np.ndarray) -> np.ndarray:
    """A block with rows of zeros up to the size of a tile."""
    return np.concatenate([B, np.zeros((size - len(B), *B.shape[1:]), B.dtype)])


def columns_of_identity(size: int, dtype: np.dtype, first: int, indices: np.ndarray) -> np.ndarray:
    """The rows from ``first`` on of the columns of the identity with the given indices."""
    return (np.arange(first, first + size)[:, None] == indices).astype(dtype)


def weighted(kernel: Kernel, a: np.ndarray, Z: np.ndarray, dual: np.ndarray) -> np.ndarray:
    """What a block of training points adds to the predictions."""
    return evaluate(kernel, Z, a) @ dual


def minus(rest: np.ndarray, L: np.ndarray, v: np.ndarray, transposed: bool = False) -> np.ndarray:
    """One step of a substitution."""
    return rest - (L.T if transposed else L) @ v


def divide(L: np.ndarray, rest: np.ndarray, transposed: bool = False) -> np.ndarray:
    """The last step of a substitution, with the tile on the diagonal."""
    return solve_triangular(L, rest, lower=True, trans=int(transposed), check_finite=False)


def absolute_sums(A: np.ndarray) -> np.ndarray:
    """Absolute sums of a tile over its rows, and over its columns: rows of its mirror image."""
    return np.stack([np.abs(A).sum(axis=1), np.abs(A).sum(axis=0)])


def squares(L: np.ndarray, axis: int, strict: bool = False) -> np.ndarray:
    """Sums of squares over an axis; if strict, of what lies below the diagonal alone."""
    return np.square(np.tril(L, -1) if strict else L).sum(axis=axis)


class Factor:
    r"""The lower tiles of the Cholesky factor of $K + \lambda I = L L^\top$, wherever they are.

    A block is what stands in one row of tiles; the last one is filled up with rows of the identity.
    A matrix that is not positive definite raises ``LinAlgError`` in `factorise`.
    """

    def __init__(
        self,
        work: Workers,
        kernel: Kernel,
        X: np.ndarray,
        ridge: float,
        size: int,
        checkpoint: Any = None,
    ) -> None:
        """Send the points out; the rest is made of tasks on them."""
        self.kept = Kept(checkpoint, X, ridge, size, kernel) if checkpoint is not None else None
        self.work, self.kernel, self.size, self.ridge = work, kernel, size, ridge
        self.n, self.dtype, self.starts = len(X), X.dtype, range(0, len(X), size)
        self.rows = work.persist([self._task(np.array, X[s : s + size]) for s in self.starts])
        self.A = self._system()

    @property
    def steps(self) -> int:
        """How many tiles and block columns there are to report when they are done."""
        N = len(self.rows)
        return N * (N + 1) // 2 + N

    def factorise(self, bar: tqdm | None = None) -> None:
        """The lower tiles of the factor, kept by the workers, and its diagonal, here."""
        array, N = self.work.dask.array.linalg.cholesky(self.A, lower=True), len(self.rows)
        places = [(i, j) for i in range(N) for j in range(i + 1)]
        tiles = self._kept_tiles(array, places) if self.kept else self._tiles(array, places)
        self.L = dict(zip(places, self.work.persist(tiles, bar), strict=True))
        roots = self.work.compute([self._task(np.diagonal, self.L[i, i]) for i in range(N)])
        self.root = np.concatenate(roots)[: self.n]

    def _tiles(self, array: Any, places: list) -> list:
        """Tasks that give some tiles of an array."""
        tiles = array.to_delayed(optimize_graph=False)
        return [tiles[place] for place in places]

    def _kept_tiles(self, array: Any, places: list) -> list:
        """The same, with every tile kept as soon as it is there, and those that were not made."""
        dask, kept = self.work.dask, self.kept
        done = {place for place in places if kept.load(place) is not None}
        graph = dict(array.__dask_graph__())
        graph |= {(array.name, *place): (kept.load, place) for place in done}
        graph, _ = dask.optimization.cull(graph, [(array.name, *place) for place in places])
        array = dask.array.Array(graph, array.name, array.chunks, dtype=self.dtype)
        tiles = zip(places, self._tiles(array, places), strict=True)
        return [t if place in done else self._task(kept.save, place, t) for place, t in tiles]

    def _task(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """The function of these arguments, some of which may be tasks."""
        return self.work.dask.delayed(function, pure=False, traverse=False)(*arguments, **options)

    def _system(self) -> Any:
        """K + ridge I as an array of Dask's, of which only the upper tiles are ever asked for."""
        part = partial(tile, self.kernel, self.size, self.ridge)
        name, graph, N = f"system-{uuid4().hex}", {}, len(self.rows)
        for i in range(N):
            graph[name, i, i] = (part, self.rows[i].key, None)
            for j in range(i + 1, N):
                graph[name, i, j] = (part, self.rows[i].key, self.rows[j].key)
                graph[name, j, i] = (np.transpose, (name, i, j))
        dask = self.work.dask
        graph = dask.highlevelgraph.HighLevelGraph.from_collections(name, graph, self.rows)
        return dask.array.Array(graph, name, ((self.size,) * N,) * 2, dtype=self.dtype)

    def norm(self) -> float:
        r"""The largest absolute sum of a row of $K + \lambda I$; makes the kernel once more."""
        tiles, N = self.A.to_delayed(optimize_graph=False), len(self.rows)
        places = [(i, j) for i in range(N) for j in range(i, N)]
        found = self.work.compute([self._task(absolute_sums, tiles[p]) for p in places])
        total = np.zeros((N, self.size), self.dtype)
        for (i, j), (over_rows, over_columns) in zip(places, found, strict=True):
            total[i] += over_rows
            if i < j:
                total[j] += over_columns
        return float(total.ravel()[: self.n].max())

    def inverse_norm(self) -> float:
        r"""An estimate of $\|P\|_1$ from below, rarely by more than a factor of three.

        Source: Hager 1984; Higham 1988, with the alternating vector of LAPACK's ``pocon``.
        """
        n, last = self.n, None
        x = np.full(n, 1 / n, self.dtype)
        for _ in range(5):
            v = self.solve(x)
            z = self.solve(np.where(v < 0, -1, 1).astype(self.dtype))
            found, most = float(np.abs(v).sum()), int(np.abs(z).argmax())
            if last is not None and (most == last or abs(z[most]) <= z @ x):
                break
            last, x = most, np.eye(1, n, most, dtype=self.dtype)[0]
        alternating = (1 + np.arange(n) / max(n - 1, 1)) * (-1.0) ** np.arange(n)
        other = 2 * np.abs(self.solve(alternating.astype(self.dtype))).sum() / (3 * n)
        return max(found, float(other))

    def solve(self, B: np.ndarray) -> np.ndarray:
        r"""$P B$ for a few columns, (n,) or (n, m)."""
        columns = B if B.ndim == 2 else B[:, None]
        blocks = [padded_rows(self.size, columns[s : s + self.size]) for s in self.starts]
        return self._solved(blocks).reshape(B.shape)

    def solve_kernel(self, Z: np.ndarray) -> np.ndarray:
        r"""$P k$ for the kernel with a piece of the test points, (n, m)."""
        cross_of = partial(cross, self.kernel, self.size)
        return self._solved([self._task(cross_of, rows, Z) for rows in self.rows])

    def inverse_columns(self, indices: Sequence[int]) -> np.ndarray:
        r"""The columns of $P$ with these indices, (n, m)."""
        unit, chosen = partial(columns_of_identity, self.size, self.dtype), np.array(indices)
        return self._solved([self._task(unit, s, chosen) for s in self.starts])

    def _solved(self, blocks: list) -> np.ndarray:
        """Both substitutions, by one tile of the factor at a time, in an order that is fixed."""
        v, u, N = [], [None] * len(blocks), len(blocks)
        for i, rest in enumerate(blocks):
            for k in range(i):
                rest = self._task(minus, rest, self.L[i, k], v[k])
            v.append(self._task(divide, self.L[i, i], rest))
        for i in reversed(range(N)):
            rest = v[i]
            for k in reversed(range(i + 1, N)):
                rest = self._task(minus, rest, self.L[k, i], u[k], transposed=True)
            u[i] = self._task(divide, self.L[i, i], rest, transposed=True)
        return np.concatenate(self.work.compute(u))[: self.n]

    def product(self, Z: np.ndarray, dual: np.ndarray) -> np.ndarray:
        r"""$k^\top \beta$ for the kernel with a piece of the test points, (m, c)."""
        total = None
        for start, rows in zip(self.starts, self.rows, strict=True):
            part = self._task(weighted, self.kernel, rows, Z, dual[start : start + self.size])
            total = part if total is None else self._task(add, total, part)
        return self.work.compute([total])[0]

    def diagonals(self, bar: tqdm | None = None) -> tuple[np.ndarray, np.ndarray]:
        r"""$P_{ii}$ and $[K P]_{ii}$, from $L$ and, block column by block column, $L^{-1}$.

        With $W = L^{-1}$, $o_i = \sum_{k > i} W_{ki}^2$ and $s_i = K_{ii} - \sum_{j < i} L_{ij}^2 =
        L_{ii}^2 - \lambda$, $P_{ii} = L_{ii}^{-2} + o_i$ and $[K P]_{ii} = s_i / (\lambda + s_i) -
        \lambda o_i$, which keeps its digits where the leverage is small.
        """
        N, kept = len(self.rows), self.kept
        schur = self.work.compute([self._schur(i) for i in range(N)])
        off = {j: kept.load(j) if kept else None for j in range(N)}
        missing, together = [j for j in range(N) if off[j] is None], self.work.threads
        for first in range(0, len(missing), together):
            some = missing[first : first + together]
            found = self.work.compute([self._squares_of_inverse(j) for j in some])
            for j, sums in zip(some, found, strict=True):
                off[j] = kept.save(j, sums) if kept else sums
            if bar is not None:
                bar.update(len(some))
        s, o = (np.concatenate(part)[: self.n] for part in (schur, list(off.values())))
        return 1 / self.root**2 + o, s / (self.ridge + s) - self.ridge * o

    def _schur(self, i: int) -> Any:
        """The diagonal of K in a block, less the squares to the left of the diagonal of L."""
        rest = self._task(gram_diagonal, self.kernel, self.size, self.rows[i])
        for j in range(i + 1):
            rest = self._task(sub, rest, self._task(squares, self.L[i, j], 1, strict=i == j))
        return rest

    def _squares_of_inverse(self, j: int) -> Any:
        """Sums of squares below the diagonal of one block column of the inverse of L."""
        unit = self._task(np.eye, self.size, dtype=self.dtype)
        W = [self._task(divide, self.L[j, j], unit)]
        total = self._task(squares, W[0], 0, strict=True)
        for i in range(j + 1, len(self.rows)):
            rest = 0
            for k, above in enumerate(W):
                rest = self._task(minus, rest, self.L[i, j + k], above)
            W.append(self._task(divide, self.L[i, i], rest))
            total = self._task(add, total, self._task(squares, W[-1], 0))
        return total
