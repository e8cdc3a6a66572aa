r"""The cross-entropy of two or more classes, its derivatives, and its minimum by Newton's method.

Here outputs f and labels y are always (n, c): one column of labels +1 and -1, or rows of zeros with
a one.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import _check

MOST_STEPS = 200


def losses(f: Float[Tensor, "*batch c"], y: Float[Tensor, "n c"]) -> Float[Tensor, "*batch"]:
    """Cross-entropies; with all digits where they are small."""
    return -logsigmoid(-_odds_against(f, y))


def _odds_against(f: Float[Tensor, "*batch c"], y: Float[Tensor, "n c"]) -> Tensor:
    """Log odds of all other classes against the one of the label."""
    if y.shape[-1] == 1:
        return -(y * f).squeeze(-1)
    lead = f - (y * f).sum(dim=-1, keepdim=True)
    return torch.where(y > 0, -torch.inf, lead).logsumexp(dim=-1)


def derivatives(f: Float[Tensor, "n c"], y: Float[Tensor, "n c"]) -> tuple[Tensor, Tensor]:
    """First and second derivatives by the outputs, (n, c) and (n, c, c), without cancellation."""
    if y.shape[1] == 1:
        return -y * torch.sigmoid(-y * f), (torch.sigmoid(f) * torch.sigmoid(-f))[:, :, None]
    p = torch.softmax(f, dim=1)
    others = torch.where(y > 0, 0, p)
    W = -p[:, :, None] * p[:, None, :]
    W.diagonal(dim1=1, dim2=2).zero_()
    W.diagonal(dim1=1, dim2=2).copy_(-W.sum(dim=2))  # p (1 - p)
    return others - y * others.sum(dim=1, keepdim=True), W


def system(K: Float[Tensor, "n n"], W: Float[Tensor, "n c c"], ridge: float) -> Tensor:
    r"""$W K + \lambda I$, with a block for each pair of points."""
    size = W.shape[0] * W.shape[1]
    A = torch.einsum("iab,ij->iajb", W, K).reshape(size, size)
    A.diagonal().add_(ridge)
    return A


def minimise(K: Float[Tensor, "n n"], y: Float[Tensor, "n c"], ridge: float) -> Tensor:
    r"""The dual coefficients of the minimum, by Newton's method from 0; see `fit_kernel_logistic`.

    The step is $-(W K + \lambda I)^{-1} (g + \lambda\alpha)$, halved until it goes downhill.
    """
    alpha, f, eps = torch.zeros_like(y), torch.zeros_like(y), torch.finfo(K.dtype).eps
    norm, left = float(K.abs().sum(dim=1).max()), 1.0
    for _ in range(MOST_STEPS):
        g, W = derivatives(f, y)
        gradient = g + ridge * alpha
        left = float(gradient.norm() / g.norm())
        if left <= 100 * eps * (1 + norm * float(alpha.abs().max())):
            return alpha
        step, failed = torch.linalg.solve_ex(system(K, W, ridge), -gradient.reshape(-1, 1))
        if failed:
            break
        alpha = _downhill(K, y, ridge, alpha, step.reshape(y.shape), gradient)
        f = K @ alpha
    raise too_weak(K.dtype, ridge, f"after Newton's method, {left:.0e} of the gradient is left")


def _downhill(
    K: Tensor, y: Tensor, ridge: float, alpha: Tensor, step: Tensor, gradient: Tensor
) -> Tensor:
    """The first of a step, its half, its quarter and so on that lowers the objective."""
    f, change, length = K @ alpha, K @ step, 1.0
    slope, now = float((gradient * change).sum()), _objective(f, alpha, y, ridge)
    highest = now + 10 * torch.finfo(K.dtype).eps * now  # rounding
    while length > 1e-9:
        after = _objective(f + length * change, alpha + length * step, y, ridge)
        if after <= highest + 1e-4 * length * slope:
            break
        length /= 2
    return alpha + length * step


def _objective(f: Tensor, alpha: Tensor, y: Tensor, ridge: float) -> float:
    """What is minimised: a sum of losses and half the ridge times the squared norm."""
    return float(losses(f, y).sum() + ridge / 2 * (f * alpha).sum())


def check_classes(argument: str, y: Tensor) -> None:
    """Labels +1 and -1, or rows of zeros with a one."""
    if y.ndim == 1:
        wrong = y[y.abs() != 1]
        got = f"{float(wrong[0]):.3g}" if len(wrong) else ""
        _check.require(len(wrong) == 0, argument, "labels +1 and -1", got)
        return
    fine = ((y == 0) | (y == 1)).all(dim=1) & (y.sum(dim=1) == 1)
    row = int(fine.long().argmin())
    expected = f"a row of zeros with a one for each class from 0 to {y.shape[1] - 1}"
    _check.require(bool(fine.all()), argument, expected, f"another row {row}")


def too_weak(dtype: torch.dtype, ridge: float, state: str) -> ValueError:
    """The complaint about a ridge at which too few digits are left."""
    return ValueError(
        f"ridge: expected a value at which the minimum is found to three digits in {dtype}, got "
        f"{ridge} ({state}; separable classes, or repeated points?); try a larger ridge"
    )
