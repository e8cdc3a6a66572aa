"""Training over time against the matrix exponential of every reduced problem."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import Problem, make_problem
from torch import Tensor
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import contour, leave_one_out_at, loo_influence_at, predict_at

INF = math.inf
FIVE_DECADES = [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]


def arguments(problem: Problem) -> tuple:
    return problem.K, problem.y, problem.ridge, problem.k_test


def fit_without(problem: Problem, removed: list[int], t: float, step: float | None) -> Tensor:
    """Predictions at time t of the model that trains without some points, by dense algebra."""
    kept = [i for i in range(problem.n) if i not in removed]
    A = problem.system[kept][:, kept].double()
    one = torch.eye(len(kept)).double()
    if t == INF:
        rest = 0 * one
    elif step is None:
        rest = torch.linalg.matrix_exp(-A * t)
    else:
        rest = torch.linalg.matrix_power(one - step * A, round(t / step))
    fitted = torch.linalg.solve(A, (one - rest) @ problem.y[kept].double())
    return problem.k_test[:, kept].double() @ fitted


def brute_force(problem: Problem, times, step=None, points=None) -> Tensor:
    points = range(problem.n) if points is None else points
    return torch.stack(
        [torch.stack([fit_without(problem, [i], t, step) for i in points]) for t in times]
    )


@pytest.fixture(scope="module")
def sevens():
    """Real sevens and nines with their labels."""
    data = ni.datasets.load("mnist-5k-7v9", 60, 20)
    kernels = ni.relu_ntk(data.X), ni.relu_ntk(data.X_test, data.X)
    return lambda ridge: Problem(kernels[0], data.y, ridge, kernels[1], data.y_test)


# Against brute force


@pytest.mark.parametrize("ridge", [0.0, 0.01, 1.0, 100.0])
def test_every_model_without_a_point_on_real_digits_over_five_decades(sevens, ridge):
    problem = sevens(ridge)
    f = leave_one_out_at(FIVE_DECADES, *arguments(problem))
    # The contour is asked for 1e-10; labels are of size one, and predictions not much larger.
    assert_close(f, brute_force(problem, FIVE_DECADES), atol=1e-9, rtol=0)


@given(
    outputs=st.sampled_from([None, 1, 3]),
    n=st.integers(1, 9),
    ridge=st.sampled_from([0.05, 1.0, 50.0]),
    times=st.lists(st.sampled_from([0.0, 1e-3, 0.3, 7.0, 4e3, INF]), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_any_small_problem_at_any_times_in_any_order(outputs, n, ridge, times, seed):
    problem = make_problem(n=n, outputs=outputs, ridge=ridge, seed=seed)
    f = leave_one_out_at(times, *arguments(problem))
    assert_close(f, brute_force(problem, times), atol=1e-9, rtol=0)
    full = torch.stack([fit_without(problem, [], t, None) for t in times])
    # The closed form has no quadrature in it: only the rounding of a few dozen operations.
    assert_close(predict_at(times, *arguments(problem)), full, atol=1e-12, rtol=0)


@pytest.mark.parametrize("outputs", [None, 3])
def test_influence_is_the_difference_of_two_losses_at_that_time(outputs):
    problem = make_problem(outputs=outputs)
    times = [0.5, INF, 3.0]
    influence = loo_influence_at(times, *arguments(problem), problem.y_test)

    def loss(f):
        terms = (f - problem.y_test).square() / 2
        return terms if outputs is None else terms.sum(dim=-1)

    without = leave_one_out_at(times, *arguments(problem))
    expected = loss(without) - loss(predict_at(times, *arguments(problem)))[:, None]
    assert_close(influence, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 9, 40, 3000])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_gradient_descent_after_any_number_of_steps(sevens, count, share):
    problem = sevens(0.5)
    step = share / float(torch.linalg.eigvalsh(problem.system)[-1])
    times = [count * step, 2 * count * step]
    f = leave_one_out_at(times, *arguments(problem), step=step)
    points = [0, 17, 59]
    assert_close(f[:, points], brute_force(problem, times, step, points), atol=1e-9, rtol=0)
    full = torch.stack([fit_without(problem, [], t, step) for t in times])
    assert_close(predict_at(times, *arguments(problem), step=step), full, atol=1e-12, rtol=0)


# Limits


def test_nothing_is_learnt_and_nothing_missed_at_the_start(sevens):
    problem = sevens(1.0)
    for of in (predict_at, leave_one_out_at):
        assert not of([0.0, 0.0], *arguments(problem)).any()
    assert not loo_influence_at([0.0], *arguments(problem), problem.y_test).any()


@pytest.mark.parametrize("step", [None, 0.01])
def test_the_end_is_kernel_ridge_regression(sevens, step):
    problem = sevens(0.5)
    end = loo_influence_at([INF, 1e4], *arguments(problem), problem.y_test, step=step)
    expected = ni.loo_influence(problem.fit(), problem.k_test, problem.y_test)
    assert_close(end[0], expected, atol=1e-12, rtol=0)
    assert_close(end[1], expected, atol=1e-9, rtol=0)


def test_at_first_a_point_acts_alone(sevens):
    """Over a short time every point adds t times its kernel times its label."""
    problem, t = sevens(1.0), 1e-7
    lost = predict_at([t], *arguments(problem)) - leave_one_out_at([t], *arguments(problem))
    # The next order is smaller by the time over the time scale of the largest eigenvalue.
    alone = t * problem.y[:, None] * problem.k_test.T
    assert_close(lost[0] / t, alone / t, atol=1e-4, rtol=0)


def test_two_orthogonal_points_by_hand():
    """Each fits itself alone at the rate 1/2 + ridge, and nothing of the other."""
    K, y, t = torch.eye(2).double() / 2, torch.tensor([1.0, -1.0]).double(), 0.8
    share = 0.5 / 0.7 * (1 - math.exp(-0.7 * t))
    f = leave_one_out_at([t], K, y, 0.2, K)
    expected = share * torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    assert_close(f[0], expected, atol=1e-10, rtol=0)


def test_small_steps_are_gradient_flow_to_first_order(sevens):
    problem = sevens(0.5)
    flow = leave_one_out_at([1.0], *arguments(problem))
    gap = [
        float((leave_one_out_at([1.0], *arguments(problem), step=1 / k) - flow).norm())
        for k in (400, 800, 1600)
    ]
    ratios = [gap[0] / gap[1], gap[1] / gap[2]]
    # Halving a first-order error: 2, up to the next order, a few steps per time scale.
    assert all(abs(ratio - 2) < 0.1 for ratio in ratios)


# The contour, memory, dtype


@pytest.mark.parametrize("accuracy", [1e-2, 1e-5, 1e-10, 1e-13])
def test_the_contour_keeps_its_promise_and_no_more_nodes_than_needed(accuracy):
    rule = contour(accuracy)
    s = torch.cat(
        [torch.zeros(1), torch.logspace(-3, 9, 997)]
    ).double()  # not those it was tuned on
    exact = torch.where(s == 0, 1.0, -torch.expm1(-s) / s)
    error = ((rule.w / (rule.z + s[:, None])).sum(dim=1).real - exact).abs() * s.clamp(min=1)
    assert error.max() <= 1.1 * rule.accuracy <= 1.1 * accuracy
    assert contour(accuracy * 100 if accuracy < 1e-4 else 1e-2).nodes <= rule.nodes <= 42


def test_a_coarser_contour_is_less_accurate_and_within_its_accuracy(sevens):
    problem = sevens(0.0)
    exact = brute_force(problem, [10.0])
    error = {
        accuracy: float(
            (leave_one_out_at([10.0], *arguments(problem), accuracy=accuracy) - exact).abs().max()
        )
        for accuracy in (1e-3, 1e-6, 1e-12)
    }
    # Predictions sum the fitted shares of directions, of size one on average.
    assert all(got <= 10 * accuracy for accuracy, got in error.items())
    assert error[1e-3] > error[1e-6] > error[1e-12]


def test_a_small_memory_changes_nothing_but_the_blocks(sevens):
    problem = sevens(1.0)
    whole = leave_one_out_at([1.0], *arguments(problem))
    nodes = 48  # those of a circle, which is what is planned for
    enough = 24 * problem.n * nodes + 7 * 8 * (3 * problem.n + 4 * nodes + 4 * len(problem.k_test))
    small = leave_one_out_at([1.0], *arguments(problem), memory=enough)
    assert_close(small, whole, atol=1e-13, rtol=0)


def test_float32_in_float32_out_computed_in_float64(sevens):
    problem = sevens(1.0)
    single = [v.float() if isinstance(v, Tensor) else v for v in arguments(problem)]
    f = leave_one_out_at([3.0], *single)
    assert f.dtype == torch.float32
    assert_close(f.double(), leave_one_out_at([3.0], *arguments(problem)), atol=1e-5, rtol=0)


def test_repeated_points_train_for_a_while_without_a_ridge():
    problem = make_problem(copies=3, ridge=0.0)
    times = [1.0, 1e4]
    f = leave_one_out_at(times, *arguments(problem), accuracy=1e-8)
    for k, t in enumerate(times):
        for i in range(problem.n):
            kept = [j for j in range(problem.n) if j != i]
            s, U = torch.linalg.eigh(problem.K[kept][:, kept])
            s = s.clamp(min=1e-30)
            alpha = U @ (-torch.expm1(-s * t) / s * (U.T @ problem.y[kept]))
            # Copies with different labels are pulled apart for ever: alpha is of the size of t.
            assert_close(f[k, i], problem.k_test[:, kept] @ alpha, atol=1e-7, rtol=0)
