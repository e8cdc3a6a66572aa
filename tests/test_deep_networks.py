"""Training of copies, the four predictions and the smoothed recursion, where the truth is known."""

import math

import pytest
import torch
from networks import Linear, task
from numpy.polynomial.hermite_e import hermegauss
from problems import unit_rows
from torch.testing import assert_close

import ntk_influence as ni
import studies
from studies import deep


def test_copies_reach_the_minimum_with_and_without_each_point():
    given, model = task(), Linear(5)
    _, change = deep.retrained(model, given, 0.3)
    y, K, k_test = given.y - model(given.X).detach(), given.X @ given.X.T, given.X_test @ given.X.T
    whole = ni.fit_kernel_ridge(K, y, 0.3).predict(k_test)
    for found, i in zip(change, given.removed, strict=True):
        expected = studies.refit_without(K, y, k_test, 0.3, [i]) - whole
        # The slowest weights have exp(-30) of their way left.
        assert_close(found, expected, atol=1e-11, rtol=0)


def test_all_predictions_are_the_truth_where_the_kernel_does_not_move():
    given = task()
    limit = given.X @ given.X.T, given.X_test @ given.X.T
    how = {"with_floor": True, "with_hessian": True}
    found = deep.against_kernels(Linear(5), given, 0.3, limit, **how)
    for name in ("start", "end", "limit", "Hessian", "floor", "drift"):
        assert found[name] < 1e-9, name
    assert 0.1 < found["IHVP"] < 1  # a leverage of some tenths is missed


def test_too_short_a_training_shows_in_the_errors_of_all():
    assert deep.against_kernels(Linear(5), task(time=1.0), 0.3)["start"] > 0.05


def test_too_few_steps_of_conjugate_gradients_are_an_error():
    given, model = task(), Linear(5)
    with pytest.raises(ValueError, match="steps: expected enough for a residual of 1e-6, got"):
        deep.by_whole_hessian(model, given, 0.3, model(given.X).detach() - given.y, steps=2)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_without_smoothing_the_recursion_is_the_librarys(depth):
    X, Z = unit_rows(5, 4), unit_rows(3, 4, seed=1)
    for train, gains in (("all", [1] * (depth + 1)), ("first", [1] + [0] * depth)):
        expected = ni.deep_ntk(X, Z, depth=depth, train=train)
        assert_close(deep.deep_kernel(X, Z, gains), expected, atol=1e-14, rtol=0)


def test_of_the_first_layer_smoothed_it_is_relu_ntk_smoothed():
    X, Z = unit_rows(5, 4), unit_rows(3, 4, seed=1)
    expected = ni.relu_ntk(X, Z, smoothing=0.4)
    assert_close(deep.deep_kernel(X, Z, [1, 0], 0.4), expected, atol=1e-14, rtol=0)


def test_smoothed_relu_is_the_mean_over_noise():
    u = torch.tensor([-1.0, 0.0, 0.5]).double()
    x, w = (torch.from_numpy(v) for v in hermegauss(200))
    noisy = (u[:, None] + 0.3 * x).relu() @ w / math.sqrt(2 * math.pi)
    assert_close(deep.smoothed_relu(u, 0.3), noisy, atol=1e-3, rtol=0)  # a kink, 200 nodes
    assert torch.equal(deep.smoothed_relu(u, 0.0), u.relu())


def test_both_parametrisations_start_as_one_function():
    X = unit_rows(6, 4)
    one, other = (deep.Perceptron(4, 20, 3, 0, smoothing=0.3, standard=s) for s in (False, True))
    assert_close(one(X), other(X), atol=1e-14, rtol=0)
