"""The complexity of a point against the model that is fitted without it."""

import pytest
import torch
from hypothesis import given
from problems import Problem, cases, make_problem
from torch import Tensor
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import complexity, fit_kernel_ridge, leave_one_out, relu_ntk

EPS = torch.finfo(torch.float64).eps


def of_model(K: Tensor, y: Tensor, ridge: float, kind: str) -> Tensor:
    """The complexity of the whole model, solved anew."""
    alpha = torch.linalg.solve(K + ridge * torch.eye(len(K), dtype=K.dtype), y)
    other = y if kind == "quadratic_form" else K @ alpha
    return (alpha * other).sum()


def by_removal(problem: Problem, kind: str) -> Tensor:
    drops = []
    for i in range(problem.n):
        kept = [j for j in range(problem.n) if j != i]
        rest = problem.K[kept][:, kept], problem.y[kept]
        whole = of_model(problem.K, problem.y, problem.ridge, kind)
        drops.append(whole - of_model(*rest, problem.ridge, kind))
    return torch.stack(drops)


@pytest.mark.parametrize("kind", ["quadratic_form", "rkhs_norm"])
@given(case=cases)
def test_it_is_what_removing_the_point_takes_away(case, kind):
    problem = make_problem(**{**case, "labels": 1.0})
    drop = complexity(problem.K, problem.y, problem.ridge, kind=kind)
    # Two large numbers are subtracted in the brute force: the rounding of the larger one.
    dual = torch.linalg.solve(problem.system, problem.y)
    size = dual.square().sum() * (problem.ridge + problem.K.sum()) + 1
    atol = 100 * EPS * torch.linalg.cond(problem.system) * size
    assert_close(drop, by_removal(problem, kind), atol=float(atol), rtol=1e-9)


@pytest.mark.parametrize("kind", ["quadratic_form", "rkhs_norm"])
@pytest.mark.parametrize("ridge", [0.0, 0.1, 10.0])
def test_real_sevens_and_nines(ridge, kind):
    data = ni.datasets.load("mnist-5k-7v9", 60, 20)
    K = relu_ntk(data.X)
    problem = Problem(K, data.y, ridge, relu_ntk(data.X_test, data.X), data.y_test)
    # Condition numbers are below 1e4 here, and complexities of the order of one.
    assert_close(
        complexity(K, data.y, ridge, kind=kind), by_removal(problem, kind), atol=1e-10, rtol=0
    )


def test_without_a_ridge_both_are_the_norm_of_the_interpolant():
    problem = make_problem(ridge=0.0)
    one, other = (complexity(problem.K, problem.y, kind=k) for k in ("quadratic_form", "rkhs_norm"))
    assert_close(one, other, atol=1e-10, rtol=0)
    assert torch.equal(complexity(problem.K, problem.y), one)  # the default, equation (19)


def test_the_closed_form_of_equation_19():
    problem = make_problem(ridge=0.3)
    model = problem.fit()
    expected = model.dual.square() / model.inverse.diagonal()
    assert_close(complexity(problem.K, problem.y, 0.3), expected, atol=1e-14, rtol=0)


def test_it_is_the_leave_one_out_residual_squared_over_what_is_left_unexplained():
    problem = make_problem(ridge=0.3)
    model = problem.fit()
    residual = problem.y - leave_one_out(model, problem.K).diagonal()
    expected = model.inverse.diagonal() * residual.square()
    assert_close(complexity(problem.K, problem.y, 0.3), expected, atol=1e-13, rtol=0)


def test_outputs_add_up():
    problem = make_problem(outputs=3, ridge=0.2)
    for kind in ("quadratic_form", "rkhs_norm"):
        columns = [complexity(problem.K, y, 0.2, kind=kind) for y in problem.y.T]
        whole = complexity(problem.K, problem.y, 0.2, kind=kind)
        assert_close(whole, sum(columns), atol=1e-13, rtol=0)


def test_a_lone_point_by_hand():
    """K = 1/2, y = 1, ridge 1/2: alpha = 1, f = 1/2 of squared norm 1/2."""
    K, y = torch.full((1, 1), 0.5).double(), torch.ones(1).double()
    assert_close(complexity(K, y, 0.5), torch.ones(1).double(), atol=EPS, rtol=0)
    assert_close(complexity(K, y, 0.5, kind="rkhs_norm"), torch.full((1,), 0.5).double())
    assert_close(complexity(K, y), torch.full((1,), 2.0).double())


def test_a_point_that_is_predicted_without_being_seen_adds_nothing():
    twins = relu_ntk(torch.eye(2).double().repeat(2, 1))
    y, ridge = torch.tensor([1.0, 0.0, 0.0, 0.0]).double(), 0.3
    model = fit_kernel_ridge(twins, y, ridge)
    y[2] = leave_one_out(model, twins)[2, 2]
    assert_close(complexity(twins, y, ridge)[2], torch.tensor(0.0).double(), atol=1e-15, rtol=0)


def test_a_ridge_that_is_far_larger_than_the_kernel_costs_no_accuracy():
    """To leading order f is K y / ridge, whose squared norm is y^T K y / ridge^2."""
    problem, ridge = make_problem(ridge=1e12), 1e12
    K, y = problem.K, problem.y
    leading = (2 * y * (K @ y) - y.square() * K.diagonal()) / ridge**2
    drop = complexity(K, y, ridge, kind="rkhs_norm")
    assert_close(drop, leading, atol=0, rtol=1e-9)  # the next order is K / ridge


def test_float32_stays_float32():
    problem = make_problem(ridge=0.5)
    single = complexity(problem.K.float(), problem.y.float(), 0.5)
    assert single.dtype == torch.float32
    assert_close(single.double(), complexity(problem.K, problem.y, 0.5), atol=1e-5, rtol=1e-4)
