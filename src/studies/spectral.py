"""Influence at many ridges from one eigendecomposition of the kernel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class AtRidge:
    """Both terms of the influence at one ridge, summed over outputs, and the diagonal of P."""

    ridge: float
    first_order: Float[Tensor, "n n_test"]
    quadratic: Float[Tensor, "n n_test"]
    inverse_diagonal: Float[Tensor, "n"]
    dual: Float[Tensor, "n c"]

    @property
    def influence(self) -> Float[Tensor, "n n_test"]:
        """Equation (8), exact."""
        return self.first_order + self.quadratic

    @property
    def ihvp(self) -> Float[Tensor, "n n_test"]:
        """Equation (13): the first-order term times one minus the leverage."""
        return self.first_order * (self.ridge * self.inverse_diagonal)[:, None]


def at_each(
    ridges: Sequence[float], eigen: tuple[Tensor, Tensor], k_test: Tensor, y: Tensor, y_test: Tensor
) -> Iterator[AtRidge]:
    """Influences of all points at each ridge, one after the other; ``eigen`` is ``eigh(K)``."""
    sigma, V = eigen
    Y, Y_test = y.reshape(len(y), -1), y_test.reshape(len(y_test), -1)
    squares, k_basis, Y_basis = V.square(), V.T @ k_test.T, V.T @ Y
    for ridge in ridges:
        w = 1 / (sigma + ridge)[:, None]
        P_ii, dual = squares @ w, V @ (w * Y_basis)
        factor = (V @ (w * k_basis)).div_(-P_ii)  # the change is this times the dual
        first_order = factor * (dual @ (k_test @ dual - Y_test).T)
        quadratic = factor.square_().mul_(dual.square().sum(dim=1, keepdim=True) / 2)
        yield AtRidge(ridge, first_order, quadratic, P_ii[:, 0], dual)
