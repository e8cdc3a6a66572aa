"""Kernel ridge regression: one factorisation from which every leave-one-out quantity follows."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check


@dataclass(frozen=True, eq=False)
class KernelRidge:
    r"""A fitted kernel ridge regression; $P = (K + \lambda I)^{-1}$ carries all of it.

    Attributes
    ----------
    dual : (n,) or (n, c) tensor, $\alpha = P y$; the residual $y - f(X)$ is $\lambda\alpha$.
    inverse : (n, n) tensor $P$, symmetric.
    ridge : $\lambda \ge 0$, on the scale of a *sum* of halved squares.
    leverage : (n,) tensor, the ridge leverage $h_i = [K (K + \lambda I)^{-1}]_{ii}$, in [0, 1].

    Raises
    ------
    ValueError
        Shapes, dtypes or devices that do not fit each other, NaN or infinity, a negative ridge.
    """

    dual: Float[Tensor, "n"] | Float[Tensor, "n c"]
    inverse: Float[Tensor, "n n"]
    ridge: float
    leverage: Float[Tensor, "n"]

    def __post_init__(self) -> None:
        """Refuse parts that do not belong to one model."""
        P = _check.tensor("inverse", self.inverse, (2,))
        n = len(P)
        _check.require(P.shape[1] == n, "inverse", "a square matrix", f"shape {tuple(P.shape)}")
        dual = _check.tensor("dual", self.dual, (1, 2))
        leverage = _check.tensor("leverage", self.leverage, (1,))
        for argument, value in (("dual", dual), ("leverage", leverage)):
            _check.alike(argument, value, "inverse", P)
            shape = f"shape {tuple(value.shape)}"
            _check.require(len(value) == n, argument, f"{n} rows as in inverse", shape)
        object.__setattr__(self, "ridge", _check.nonnegative("ridge", self.ridge))

    @property
    def one_minus_leverage(self) -> Float[Tensor, "n"]:
        r"""$1 - h_i = \lambda P_{ii}$, to all digits also where $h_i$ rounds to 1."""
        return self.ridge * self.inverse.diagonal()

    def predict(
        self, k_test: Float[Tensor, "n_test n"]
    ) -> Float[Tensor, "n_test"] | Float[Tensor, "n_test c"]:
        r"""Predictions $f(x) = k(x)^\top \alpha$, equation (6).

        Parameters
        ----------
        k_test : (n_test, n) kernel between test points (rows) and training points (columns).

        Returns
        -------
        (n_test,) or (n_test, c) tensor, in the unit of the labels.

        Raises
        ------
        ValueError
            ``k_test`` transposed or of another shape, dtype or device; NaN or infinity.

        Source: Zhang and Zhang 2022, Eq. (6).
        """
        return check_test_kernel(self.inverse, k_test) @ self.dual


def fit_kernel_ridge(
    K: Float[Tensor, "n n"], y: Float[Tensor, "n"] | Float[Tensor, "n c"], ridge: float
) -> KernelRidge:
    r"""Fit kernel ridge regression and keep the inverse $P = (K + \lambda I)^{-1}$.

    Equation (5) minimises $\frac12\|K\beta - y\|^2 + \frac\lambda2\beta^\top K\beta$; its solution
    is $\alpha = P y$. Several outputs are fitted column by column.

    Parameters
    ----------
    K : (n, n) symmetric kernel matrix of the training points.
    y : (n,) or (n, c) labels, of the same dtype and device.
    ridge : $\lambda \ge 0$.

    Returns
    -------
    KernelRidge
        With ``dual`` shaped like ``y`` and ``inverse`` shaped like ``K``.

    Raises
    ------
    ValueError
        ``K`` not square or not symmetric, ``y`` of another length, NaN or infinity, mixed dtypes
        or devices, a negative ridge, or $K + \lambda I$ so close to singular that fewer than three
        digits of its inverse would be right; an inverse that does not fit into the memory.

    Source: Zhang and Zhang 2022, Eq. (5) and (6); Saunders, Gammerman and Vovk 1998.
    """
    K, y, ridge = check_problem(K, y, ridge)
    _check.fits("K", "its inverse", 2 * K.numel() * K.element_size(), K.device)
    eps = torch.finfo(K.dtype).eps
    A = K.clone()
    A.diagonal().add_(ridge)
    norm = _max_row_sum(A)
    factor, failed = torch.linalg.cholesky_ex(A)
    del A
    if not failed:
        P = torch.cholesky_inverse(factor, out=None if factor.requires_grad else factor)
        condition = norm * _max_row_sum(P)
    if failed or not condition <= 1e-3 / eps:
        raise not_invertible(K.dtype, ridge, norm, None if failed else condition)
    return KernelRidge(dual=P @ y, inverse=P, ridge=ridge, leverage=_leverage(K, P, ridge))


def not_invertible(
    dtype: torch.dtype, ridge: float, norm: float, condition: float | None
) -> ValueError:
    """The complaint about a ridge under which no factor or too few digits are left."""
    state = "not positive definite" if condition is None else f"condition number {condition:.0e}"
    least = 1e5 * torch.finfo(dtype).eps * norm
    return ValueError(
        f"ridge: expected a value that makes K + ridge I safely invertible in {dtype}, got "
        f"{ridge} ({state}; repeated points?); try a ridge of {least:.0e} or more"
    )


def _leverage(K: Float[Tensor, "n n"], P: Float[Tensor, "n n"], ridge: float) -> Float[Tensor, "n"]:
    r"""$h_i = 1 - \lambda P_{ii}$ above one half, else $[K P]_{ii}$: so no digit is lost."""
    rest = ridge * P.diagonal()
    return torch.where(rest < 0.5, 1 - rest, torch.einsum("ij,ij->i", K, P))


def check_problem(
    K: Float[Tensor, "n n"], y: Float[Tensor, "n"] | Float[Tensor, "n c"], ridge: float
) -> tuple[Tensor, Tensor, float]:
    """Refuse a kernel that is not symmetric, labels that do not fit it, and a negative ridge."""
    K = _check.tensor("K", K, (2,))
    _check.require(K.shape[0] == K.shape[1], "K", "a square matrix", f"shape {tuple(K.shape)}")
    y = _check.labels("y", y, "K", K, len(K))
    ridge = _check.nonnegative("ridge", ridge)
    eps, asymmetry = torch.finfo(K.dtype).eps, _asymmetry(K)
    symmetric = asymmetry <= 1e3 * eps * _max_row_sum(K)
    _check.require(symmetric, "K", "a symmetric matrix", f"|K - K^T| up to {asymmetry:.1e}")
    return K, y, ridge


def check_test_kernel(
    train: Float[Tensor, "n ..."], k_test: Float[Tensor, "n_test n"], other: str = "the model"
) -> Tensor:
    """Refuse a test kernel that is not (n_test, n_train), finite, and alike what was trained on."""
    k_test = _check.tensor("k_test", k_test, (2,))
    _check.alike("k_test", k_test, other, train)
    n, shape = len(train), tuple(k_test.shape)
    hint = " (transpose it?)" if shape[0] == n else ""
    _check.require(shape[1] == n, "k_test", f"shape (n_test, {n}){hint}", f"shape {shape}")
    return k_test


def _max_row_sum(A: Float[Tensor, "n n"]) -> float:
    """The operator norm of a symmetric matrix from 1 to 1, and from infinity to infinity."""
    return float(torch.linalg.vector_norm(A.detach(), 1, dim=1).max())


def _asymmetry(K: Float[Tensor, "n n"], rows: int = 128) -> float:
    """Largest |K - K^T|, over blocks of the lower triangle that fit into the cache."""
    K, largest = K.detach(), 0.0
    for start in range(0, len(K), rows):
        end = min(start + rows, len(K))
        difference = K[start:end, :end] - K[:end, start:end].T
        largest = max(largest, float(difference.abs_().max()))
    return largest
