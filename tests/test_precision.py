"""Leverage to nearly all digits over twenty decades of the ridge, against mpmath."""

import mpmath
import pytest
import torch
from problems import make_problem

from ntk_influence import TwoLayerReLU, finite_width, fit_kernel_ridge

RIDGES = [10.0**k for k in range(-10, 11)]
# The share of the digits that a condition number of a hundred and a sum of twelve terms leave.
RELATIVE = {torch.float32: 1e-5, torch.float64: 1e-12}


def exact(K: torch.Tensor, ridge: float) -> tuple[list, list]:
    """h_i and 1 - h_i in sixty digits, of the kernel as it is stored."""
    with mpmath.workdps(60):
        A = mpmath.matrix(K.tolist()) + mpmath.mpf(ridge) * mpmath.eye(len(K))
        rest = [mpmath.mpf(ridge) * (A**-1)[i, i] for i in range(len(K))]
        return [1 - value for value in rest], rest


def furthest(ours: torch.Tensor, theirs: list) -> float:
    pairs = zip(ours.tolist(), theirs, strict=True)
    return max(float(abs((a - b) / b)) for a, b in pairs)


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("ridge", RIDGES)
def test_leverage_and_one_minus_leverage_do_not_cancel(ridge, dtype):
    problem = make_problem(n=12, dim=12, ridge=ridge, dtype=dtype)
    model = problem.fit()
    h, rest = exact(problem.K, ridge)
    assert furthest(model.leverage, h) <= RELATIVE[dtype]
    assert furthest(model.one_minus_leverage, rest) <= RELATIVE[dtype]


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("ridge", RIDGES[::4])
def test_so_does_leverage_at_finite_width(ridge, dtype):
    X = make_problem(n=12, dim=12).K.to(dtype)  # any inputs
    network = TwoLayerReLU.initialise(12, 4000, 1.0, 0, dtype=dtype)
    h, _ = exact(network.ntk(X), ridge)
    assert furthest(finite_width.leverage(network, X, ridge), h) <= RELATIVE[dtype]


def test_the_shares_add_up_to_one():
    model = fit_kernel_ridge(make_problem().K, make_problem().y, 0.1)
    total = model.leverage + model.one_minus_leverage
    assert torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-15)
