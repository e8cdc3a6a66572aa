"""Leave-one-out in closed form against refits, and influence against its definitions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Problem, cases, make_problem, unit_rows
from torch import Tensor
from torch.testing import assert_close

from ntk_influence import (
    fit_kernel_ridge,
    ihvp_influence,
    leave_group_out,
    leave_one_out,
    loo_influence,
    relu_ntk,
)

EPS = torch.finfo(torch.float64).eps


def half_square(error: Tensor, axis: int) -> Tensor:
    """The loss: half of the square, summed over the outputs if there are any."""
    loss = error.square() / 2
    return loss.sum(dim=axis) if loss.ndim > axis else loss


def every_influence(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    model, test = problem.fit(), (problem.k_test, problem.y_test)
    corrected = ihvp_influence(model, *test, correct_leverage=True)
    return loo_influence(model, *test), ihvp_influence(model, *test), corrected


# Removing points


@given(case=cases)
def test_leave_one_out_equals_refits(case):
    problem = make_problem(**case)
    closed_form = leave_one_out(problem.fit(), problem.k_test)
    # A model that lost one of two contradicting copies may be larger than the full one.
    atol = problem.rounding() + 100 * EPS * problem.leave_one_out().abs().max()
    assert_close(closed_form, problem.leave_one_out(), atol=atol, rtol=0)


@given(case=cases, choice=st.data())
def test_leave_group_out_equals_a_refit(case, choice):
    problem = make_problem(**case)
    group = choice.draw(st.lists(st.integers(0, problem.n - 1), unique=True))
    f = leave_group_out(problem.fit(), problem.k_test, group)
    assert_close(f, problem.predict_without(group), atol=10 * problem.rounding(), rtol=0)


@given(case=cases)
def test_a_group_of_one_equals_leave_one_out(case):
    problem = make_problem(**case)
    model = problem.fit()
    groups = [leave_group_out(model, problem.k_test, [i]) for i in range(problem.n)]
    single = leave_one_out(model, problem.k_test)
    assert_close(torch.stack(groups), single, atol=problem.rounding(), rtol=0)


@given(case=cases)
def test_without_any_points_the_prediction_is_zero(case):
    problem = make_problem(**case)
    f = leave_group_out(problem.fit(), problem.k_test, range(problem.n))
    assert_close(f, torch.zeros_like(f), atol=10 * problem.rounding(), rtol=0)


@pytest.mark.parametrize("outputs", [None, 3])
def test_an_empty_group_changes_nothing(outputs):
    problem = make_problem(outputs=outputs)
    model = problem.fit()
    f = leave_group_out(model, problem.k_test, [])
    assert torch.equal(f, model.predict(problem.k_test))


def test_the_order_of_a_group_is_irrelevant():
    problem = make_problem()
    model = problem.fit()
    forward, back = (leave_group_out(model, problem.k_test, g) for g in ([1, 4, 8], [8, 1, 4]))
    assert_close(forward, back, atol=1e-14, rtol=0)


def test_removing_a_group_is_not_the_sum_of_removing_its_points():
    problem = make_problem(copies=1)
    model = problem.fit()
    f, single = model.predict(problem.k_test), leave_one_out(model, problem.k_test)
    group = leave_group_out(model, problem.k_test, [0, 8])
    assert (group - f - (single[0] - f) - (single[8] - f)).abs().max() > 0.01


def test_removing_one_of_two_copies_leaves_the_other():
    x, z, y = unit_rows(1, 3), unit_rows(4, 3, seed=1), torch.tensor([0.8, 0.8]).double()
    k = relu_ntk(z, x)
    twice = fit_kernel_ridge(relu_ntk(x.repeat(2, 1)), y, 0.3)
    once = fit_kernel_ridge(relu_ntk(x), y[:1], 0.3)
    without = leave_one_out(twice, k.repeat(1, 2))
    assert_close(without, once.predict(k).repeat(2, 1), atol=1e-14, rtol=0)


def test_removing_an_orthogonal_point_matters_to_itself_only():
    y = torch.tensor([1.0, -1, 0.5]).double()
    model = fit_kernel_ridge(relu_ntk(torch.eye(3).double()), y, 0.5)
    without = leave_one_out(model, relu_ntk(torch.eye(3).double()))
    expected = torch.where(torch.eye(3) == 1, 0, y / 2)
    assert_close(without, expected.double(), atol=4 * EPS, rtol=0)


def test_removing_an_antipodal_point_changes_nothing():
    x, y = unit_rows(1, 3), torch.tensor([1.0, 0.3]).double()
    both = fit_kernel_ridge(relu_ntk(torch.cat([x, -x])), y, 0.1)
    k = relu_ntk(x, torch.cat([x, -x]))
    assert_close(leave_one_out(both, k)[1], both.predict(k), atol=1e-14, rtol=0)


def test_the_only_training_point_by_hand():
    # f = k y / (1/2 + ridge) = 0.08; without the point 0. Leverage 2/3.
    K, y = torch.tensor([[0.5]]).double(), torch.tensor([0.6], dtype=torch.float64)
    model = fit_kernel_ridge(K, y, 0.25)
    test = torch.tensor([[0.1]], dtype=torch.float64), torch.tensor([1.0]).double()
    assert leave_one_out(model, test[0]).item() == pytest.approx(0, abs=EPS)
    first_order = (0.08 - 1) * -0.08
    assert loo_influence(model, *test).item() == pytest.approx(1 / 2 - 0.92**2 / 2, rel=1e-14)
    corrected = ihvp_influence(model, *test, correct_leverage=True)
    assert corrected.item() == pytest.approx(first_order, rel=1e-14)
    assert ihvp_influence(model, *test).item() == pytest.approx(first_order / 3, rel=1e-14)


@given(case=cases)
def test_the_residual_of_a_left_out_point_is_its_residual_over_one_minus_its_leverage(case):
    problem = make_problem(**case)
    model = problem.fit()
    i = range(problem.n)
    left_out = leave_one_out(model, problem.K)[i, i] - problem.y
    residual = model.predict(problem.K) - problem.y
    factor = (1 - model.leverage).reshape(-1, *[1] * (problem.y.ndim - 1))
    size = problem.y.abs().max() * torch.linalg.cond(problem.system)
    assert_close(residual, left_out * factor, atol=100 * EPS * size, rtol=0)


# Influence


@given(case=cases)
def test_loo_influence_equals_the_change_of_the_loss(case):
    problem = make_problem(**case)
    before = problem.predict_without([]) - problem.y_test
    after = problem.leave_one_out() - problem.y_test
    change = half_square(after, 2) - half_square(before, 1)
    size = after.abs().max() + before.abs().max()
    atol = 10 * (problem.rounding() + EPS * size) * size  # an error in f, times the slope
    assert_close(
        loo_influence(problem.fit(), problem.k_test, problem.y_test), change, atol=atol, rtol=0
    )


@given(case=cases)
def test_the_exact_law_of_what_the_first_order_forgets(case):
    problem = make_problem(**case)
    # I - I_hvp = sum over outputs of residual * h * change + change^2 / 2
    loo, ihvp, corrected = every_influence(problem)
    model = problem.fit()
    f, without = model.predict(problem.k_test), leave_one_out(model, problem.k_test)
    residual, change = f - problem.y_test, without - f
    product = residual * change
    first_order = product.sum(dim=2) if product.ndim == 3 else product
    h = model.leverage[:, None]
    size = change.abs().max() + residual.abs().max()
    atol = 100 * (problem.rounding() + EPS * size) * size
    assert_close(loo - ihvp, first_order * h + half_square(change, 2), atol=atol, rtol=0)
    assert_close(corrected, first_order, atol=atol, rtol=0)
    assert_close(ihvp, (1 - h) * corrected, atol=atol, rtol=0)


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("ridge", [0.01, 0.3, 10.0])
def test_ihvp_equals_gradient_inverse_hessian_gradient(ridge, outputs):
    # In features F with F F^T the joint kernel the model is linear, and its Hessian can be held.
    points = unit_rows(12, 6)
    problem = make_problem(n=8, n_test=4, dim=6, ridge=ridge, outputs=outputs)
    F = torch.linalg.cholesky(relu_ntk(points))
    train, test = F[:8], F[8:]
    H = train.T @ train + ridge * torch.eye(12).double()
    w = torch.linalg.solve(H, train.T @ problem.y)
    residuals = train @ w - problem.y, test @ w - problem.y_test
    a, b = (r.reshape(len(r), -1) for r in residuals)
    expected = (a @ b.T) * (train @ torch.linalg.solve(H, test.T))
    ihvp = ihvp_influence(problem.fit(), problem.k_test, problem.y_test)
    assert_close(ihvp, expected, atol=1e-11, rtol=0)  # condition 4e2 at the smallest ridge


def test_ihvp_is_the_slope_of_the_test_loss_in_the_weight_of_a_training_point():
    problem = make_problem(ridge=0.2)
    weights = torch.ones(9).double().requires_grad_()
    dual = torch.linalg.solve(problem.K + torch.diag(0.2 / weights), problem.y)
    loss = (problem.k_test @ dual - problem.y_test).square() / 2
    slopes = [torch.autograd.grad(value, weights, retain_graph=True)[0] for value in loss]
    ihvp = ihvp_influence(problem.fit(), problem.k_test, problem.y_test)
    assert_close(ihvp, -torch.stack(slopes, dim=1), atol=1e-13, rtol=0)


def test_a_point_that_agrees_with_the_test_label_is_helpful_and_one_that_disagrees_harmful():
    x = unit_rows(1, 3)
    model = fit_kernel_ridge(relu_ntk(x.repeat(2, 1)), torch.tensor([1.0, -1]).double(), 0.5)
    test = relu_ntk(x, x.repeat(2, 1)), torch.tensor([1.0]).double()
    helpful, harmful = loo_influence(model, *test)[:, 0]
    # f = 0; without the first point -1/2, without the second 1/2: losses 1/2, 9/8, 1/8.
    assert helpful.item() == pytest.approx(5 / 8, rel=1e-14)
    assert harmful.item() == pytest.approx(-3 / 8, rel=1e-14)
    for correct in (False, True):
        helpful, harmful = ihvp_influence(model, *test, correct_leverage=correct)[:, 0]
        assert helpful > 0 > harmful


def test_without_ridge_ihvp_is_blind_and_the_correction_restores_the_first_order():
    problem = make_problem(ridge=0.0)
    loo, ihvp, corrected = every_influence(problem)
    f = problem.predict_without([])
    change = problem.leave_one_out() - f
    assert (ihvp == 0).all()
    assert_close(corrected, (f - problem.y_test) * change, atol=1e-12, rtol=0)
    assert loo.abs().max() > 0.01


def test_as_the_ridge_grows_every_influence_vanishes_like_its_inverse():
    problem = make_problem(ridge=1e8)
    expected = problem.y[:, None] * problem.k_test.T * problem.y_test / 1e8
    for influence in every_influence(problem):
        # Next order: |K| / ridge, and the halved square, both 1e-8 of sizes up to 10.
        assert_close(influence, expected, atol=1e-15, rtol=1e-5)


def test_tiny_changes_do_not_drown_in_the_loss():
    problem = make_problem(ridge=1e10)
    expected = problem.y[:, None] * problem.k_test.T * problem.y_test / 1e10
    # A difference of two losses would keep six digits of these.
    influence = loo_influence(problem.fit(), problem.k_test, problem.y_test)
    assert_close(influence, expected, atol=1e-20, rtol=1e-8)


def test_several_outputs_are_summed_column_by_column():
    problem = make_problem(outputs=3)
    columns = [
        Problem(problem.K, problem.y[:, j], problem.ridge, problem.k_test, problem.y_test[:, j])
        for j in range(3)
    ]
    by_column = [every_influence(column) for column in columns]
    for total, parts in zip(every_influence(problem), zip(*by_column, strict=True), strict=True):
        assert_close(total, torch.stack(parts).sum(dim=0), atol=1e-14, rtol=0)
    without = [leave_one_out(column.fit(), column.k_test) for column in columns]
    together = leave_one_out(problem.fit(), problem.k_test)
    assert_close(together, torch.stack(without, dim=2), atol=1e-14, rtol=0)


@given(case=cases, order=st.randoms(use_true_random=False))
def test_the_order_of_the_training_points_is_irrelevant(case, order):
    problem = make_problem(**case)
    p = list(range(problem.n))
    order.shuffle(p)
    K, y, k_test = problem.K[p][:, p], problem.y[p], problem.k_test[:, p]
    shuffled = Problem(K, y, problem.ridge, k_test, problem.y_test)
    size = problem.leave_one_out().abs().max() + problem.y_test.abs().max()
    atol = 100 * (problem.rounding() + EPS * size) * size
    for ours, theirs in zip(every_influence(problem), every_influence(shuffled), strict=True):
        assert_close(theirs, ours[p], atol=atol, rtol=0)


@pytest.mark.parametrize("exponent", [-300, 300])
def test_influence_scales_with_the_square_of_the_labels_exactly(exponent):
    problem, scale = make_problem(), 2.0**exponent
    scaled = Problem(
        problem.K, problem.y * scale, problem.ridge, problem.k_test, problem.y_test * scale
    )
    for ours, theirs in zip(every_influence(problem), every_influence(scaled), strict=True):
        assert torch.equal(theirs, ours * scale**2)  # powers of two do not round


def test_single_precision_works_and_stays_single():
    double, single = make_problem(), make_problem(dtype=torch.float32)
    for ours, theirs in zip(every_influence(double), every_influence(single), strict=True):
        assert theirs.dtype == torch.float32
        # Roundings of 6e-8, times a condition number of 20, times errors of order one.
        assert_close(theirs.double(), ours, atol=1e-5, rtol=0)
    group = leave_group_out(single.fit(), single.k_test, [2, 5])
    assert_close(group.double(), double.predict_without([2, 5]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("outputs", [None, 3])
def test_the_arguments_are_left_alone(outputs):
    problem = make_problem(outputs=outputs)
    model = problem.fit()
    tensors = model.dual, model.inverse, problem.k_test, problem.y_test
    before = [tensor.clone() for tensor in tensors]
    every_influence(problem)
    loo_influence(model, problem.k_test, problem.y_test)
    ihvp_influence(model, problem.k_test, problem.y_test)
    leave_one_out(model, problem.k_test)
    leave_group_out(model, problem.k_test, [0, 1])
    for now, then in zip(tensors, before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_real_digits_agree_with_refits(digits, ridge):
    K, k_test = relu_ntk(digits.X), relu_ntk(digits.X_test, digits.X)
    problem = Problem(K, digits.y, ridge, k_test, digits.y_test)
    without = problem.leave_one_out()
    loss = half_square(without - problem.y_test, 2)
    change = loss - half_square(problem.predict_without([]) - problem.y_test, 1)
    assert_close(leave_one_out(problem.fit(), k_test), without, atol=1e-11, rtol=0)
    # Condition number below 2000; errors of f enter times residuals of order one.
    assert_close(loo_influence(problem.fit(), k_test, digits.y_test), change, atol=1e-11, rtol=0)
