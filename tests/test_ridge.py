"""Kernel ridge regression against its definition (5), its limits, and its invariances."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import cases, make_problem, unit_rows
from torch.testing import assert_close

from ntk_influence import fit_kernel_ridge, relu_ntk

EPS = torch.finfo(torch.float64).eps


@given(case=cases)
def test_solves_the_system_with_the_ridge_on_the_diagonal(case):
    problem = make_problem(**case)
    model = problem.fit()
    condition = torch.linalg.cond(problem.system)
    identity = torch.eye(problem.n).double()
    assert_close(problem.system @ model.inverse, identity, atol=100 * EPS * condition, rtol=0)
    size = problem.y.abs().max()
    assert_close(problem.system @ model.dual, problem.y, atol=100 * EPS * condition * size, rtol=0)
    assert model.dual.shape == problem.y.shape
    assert model.ridge == problem.ridge


@given(case=cases)
def test_predictions_equal_those_of_a_fresh_solve(case):
    problem = make_problem(**case)
    f = problem.fit().predict(problem.k_test)
    assert_close(f, problem.predict_without([]), atol=problem.rounding(), rtol=0)


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_the_objective_of_equation_5_is_stationary(ridge):
    problem = make_problem(ridge=ridge)
    beta = problem.fit().dual.requires_grad_()
    misfit = problem.K @ beta - problem.y
    objective = misfit.square().sum() / 2 + ridge / 2 * beta @ problem.K @ beta
    (gradient,) = torch.autograd.grad(objective, beta)
    assert_close(gradient, torch.zeros(9).double(), atol=1e-13, rtol=0)  # terms of order one


@given(case=cases)
def test_the_residual_is_the_ridge_times_the_dual(case):
    problem = make_problem(**case)
    model = problem.fit()
    size = problem.y.abs().max() * torch.linalg.cond(problem.system)
    residual = problem.y - model.predict(problem.K)
    assert_close(residual, problem.ridge * model.dual, atol=100 * EPS * size, rtol=0)


@given(case=cases)
def test_the_leverage_is_the_diagonal_of_the_smoother(case):
    problem = make_problem(**case)
    leverage = problem.fit().leverage
    smoother = torch.linalg.solve(problem.system, problem.K)
    atol = 100 * EPS * torch.linalg.cond(problem.system)
    assert_close(leverage, smoother.diagonal(), atol=atol, rtol=0)
    assert (leverage >= -atol).all()
    assert (leverage <= 1).all()
    eigenvalues = torch.linalg.eigvalsh(problem.K)
    effective = (eigenvalues / (eigenvalues + problem.ridge)).sum()
    assert_close(leverage.sum(), effective, atol=problem.n * atol, rtol=0)


def test_without_ridge_the_labels_are_interpolated():
    problem = make_problem(ridge=0.0)
    model = problem.fit()
    assert_close(model.predict(problem.K), problem.y, atol=1e-12, rtol=0)  # condition below 100
    assert (model.leverage == 1).all()


def test_as_the_ridge_vanishes_the_fit_tends_to_interpolation_at_its_first_power():
    near, nearer = (make_problem(ridge=ridge).fit() for ridge in (1e-4, 1e-5))
    problem = make_problem()
    errors = [(model.predict(problem.K) - problem.y).norm() for model in (near, nearer)]
    # The next order is ridge / smallest eigenvalue, about 1e-3.
    assert errors[0] / errors[1] == pytest.approx(10, rel=1e-2)


def test_as_the_ridge_grows_predictions_vanish_like_its_inverse():
    problem = make_problem(ridge=1e8)
    model = problem.fit()
    f = problem.k_test @ problem.y / problem.ridge
    assert_close(model.predict(problem.k_test), f, atol=0, rtol=1e-6)  # next order: |K| / ridge
    assert_close(model.leverage, torch.full((9,), 0.5 / 1e8).double(), atol=1e-14, rtol=0)


def test_one_training_point_by_hand():
    K, y = torch.tensor([[0.5]]).double(), torch.tensor([0.6], dtype=torch.float64)
    model = fit_kernel_ridge(K, y, 0.25)
    assert model.inverse.item() == pytest.approx(4 / 3, rel=4 * EPS)
    assert model.dual.item() == pytest.approx(0.8, rel=4 * EPS)
    assert model.leverage.item() == pytest.approx(2 / 3, rel=4 * EPS)
    assert model.predict(torch.tensor([[0.1]], dtype=torch.float64)).item() == pytest.approx(
        0.08, rel=4 * EPS
    )


def test_orthogonal_points_are_fitted_one_by_one():
    K, y = relu_ntk(torch.eye(4).double()), torch.tensor([1.0, -1, 0.5, 0]).double()
    model = fit_kernel_ridge(K, y, 0.5)
    assert_close(model.dual, y, atol=4 * EPS, rtol=0)
    assert_close(model.leverage, torch.full((4,), 0.5).double(), atol=4 * EPS, rtol=0)


def test_two_copies_of_a_point_act_as_one_of_half_the_ridge():
    x, y = unit_rows(1, 3), torch.tensor([0.8]).double()
    twice = fit_kernel_ridge(relu_ntk(x.repeat(2, 1)), y.repeat(2), 0.2)
    once = fit_kernel_ridge(relu_ntk(x), y, 0.1)
    k = relu_ntk(unit_rows(4, 3, seed=1), x)
    assert_close(twice.predict(k.repeat(1, 2)), once.predict(k), atol=1e-14, rtol=0)
    assert_close(twice.leverage.sum(), once.leverage[0], atol=1e-14, rtol=0)


def test_several_outputs_are_fitted_column_by_column():
    problem = make_problem(outputs=3)
    model = problem.fit()
    for j in range(3):
        single = fit_kernel_ridge(problem.K, problem.y[:, j], problem.ridge)
        assert_close(model.dual[:, j], single.dual, atol=1e-14, rtol=0)
        f = single.predict(problem.k_test)
        assert_close(model.predict(problem.k_test)[:, j], f, atol=1e-14, rtol=0)


@given(case=cases, order=st.randoms(use_true_random=False))
def test_the_order_of_the_training_points_is_irrelevant(case, order):
    problem = make_problem(**case)
    p = list(range(problem.n))
    order.shuffle(p)
    model, shuffled = (
        problem.fit(),
        fit_kernel_ridge(problem.K[p][:, p], problem.y[p], problem.ridge),
    )
    f = model.predict(problem.k_test)
    assert_close(shuffled.predict(problem.k_test[:, p]), f, atol=problem.rounding(), rtol=0)
    atol = 100 * EPS * torch.linalg.cond(problem.system)
    assert_close(shuffled.leverage, model.leverage[p], atol=atol, rtol=0)


@pytest.mark.parametrize("exponent", [-400, 400])
def test_predictions_scale_with_the_labels_exactly(exponent):
    problem = make_problem()
    scaled = fit_kernel_ridge(problem.K, problem.y * 2.0**exponent, problem.ridge)
    expected = problem.fit().predict(problem.k_test) * 2.0**exponent
    assert torch.equal(scaled.predict(problem.k_test), expected)  # powers of two do not round


def test_single_precision_works_and_stays_single():
    problem, single = make_problem(), make_problem(dtype=torch.float32)
    f = single.fit().predict(single.k_test)
    assert f.dtype == torch.float32
    assert_close(f.double(), problem.predict_without([]), atol=single.rounding().item(), rtol=0)


def test_many_points_are_compared_block_by_block():
    K = relu_ntk(unit_rows(300, 20))
    model = fit_kernel_ridge(K, K[:, 0].clone(), 0.1)
    assert_close(model.predict(K) + 0.1 * model.dual, K[:, 0], atol=1e-12, rtol=0)
    K[290, 150] += 1e-3
    with pytest.raises(ValueError, match="symmetric"):
        fit_kernel_ridge(K, K[:, 0].clone(), 0.1)


def test_the_arguments_are_left_alone_and_the_model_is_frozen():
    problem = make_problem()
    before = [tensor.clone() for tensor in (problem.K, problem.y, problem.k_test)]
    model = problem.fit()
    model.predict(problem.k_test)
    for now, then in zip((problem.K, problem.y, problem.k_test), before, strict=True):
        assert torch.equal(now, then)
    with pytest.raises(FrozenInstanceError):
        model.ridge = 1.0


def test_real_digits_obey_the_normal_equations(digits):
    K = relu_ntk(digits.X)
    model = fit_kernel_ridge(K, digits.y, 1.0)
    assert_close(K @ model.dual + model.dual, digits.y, atol=1e-13, rtol=0)  # condition about 20
    assert (
        model.predict(relu_ntk(digits.X_test, digits.X)).sign() == digits.y_test
    ).double().mean() > 0.8
