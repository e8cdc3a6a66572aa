"""IHVP at finite width against dense Hessians from automatic differentiation."""

import pytest
import torch
from problems import unit_rows
from torch.testing import assert_close

from ntk_influence import TwoLayerReLU, fit_kernel_ridge, ihvp_influence, relu_ntk, train
from ntk_influence.finite_width import ihvp_influence as ihvp
from ntk_influence.finite_width import leverage, outputs_and_kernel


def problem(outputs=None, width=10, n=7, n_test=3, dim=4, seed=0):
    """A network that was trained for a few steps, so that its weights are not the initial ones."""
    points = unit_rows(n + n_test, dim, seed)
    shape = (n + n_test,) if outputs is None else (n + n_test, outputs)
    y = 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double() - 1
    start = TwoLayerReLU.initialise(dim, width, 0.5, seed, outputs=outputs)
    network = train(start, points[:n], y[:n], 0.05, max_steps=60)
    assert (network.features(points) != start.features(points)).any()  # the kernel has moved
    return start, network, points[:n], y[:n], points[n:], y[n:]


def loss(W, network, X, y):
    """Half the squared errors of some points."""
    return (TwoLayerReLU(W, network.a).predict(X) - y).square().sum() / 2


def dense(start, network, X, y, ridge, X_test, y_test, without=None):
    """gradient^T H^-1 gradient with the Hessian of the loss (2), maybe of the other points only."""

    def hessian(kept):
        def objective(W):
            away = (W - start.W).square().sum()
            return loss(W, network, X[kept], y[kept]) + ridge / 2 * away

        H = torch.autograd.functional.hessian(objective, network.W)
        return H.reshape(2 * [network.W.numel()])

    def gradient(x, label):
        return torch.func.grad(loss)(network.W, network, x[None], label[None]).flatten()

    rows = []
    train_gradients = torch.stack([gradient(*pair) for pair in zip(X, y, strict=True)])
    test_gradients = torch.stack([gradient(*pair) for pair in zip(X_test, y_test, strict=True)])
    for i, own in enumerate(train_gradients):
        kept = [j for j in range(len(X)) if not (without and j == i)]
        H = hessian(kept)
        assert torch.linalg.eigvalsh(H)[0] > ridge - 1e-12  # never indefinite
        rows.append(test_gradients @ torch.linalg.solve(H, own))
    return torch.stack(rows)


@pytest.mark.parametrize("ridge", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_ihvp_equals_gradient_inverse_hessian_gradient(outputs, ridge):
    start, network, *data = problem(outputs)
    X, y, X_test, y_test = data
    expected = dense(start, network, X, y, ridge, X_test, y_test)
    # Rounding 2e-16, condition below 1e3, gradients of order one over the least ridge.
    assert_close(ihvp(network, X, y, ridge, X_test, y_test), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("ridge", [0.01, 0.3, 10.0])
@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_the_corrected_one_takes_the_hessian_of_the_loss_without_the_point(outputs, ridge):
    start, network, X, y, X_test, y_test = problem(outputs)
    expected = dense(start, network, X, y, ridge, X_test, y_test, without=True)
    corrected = ihvp(network, X, y, ridge, X_test, y_test, correct_leverage=True)
    assert_close(corrected, expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("outputs", [None, 3])
def test_leverage_equals_the_diagonal_of_the_dense_hat_matrix(outputs):
    _, network, X, *_ = problem(outputs)
    J = torch.func.jacrev(lambda W: TwoLayerReLU(W, network.a).predict(X))(network.W)
    J = J.reshape(-1, network.W.numel())
    H = J.T @ J + 0.3 * torch.eye(J.shape[1]).double()
    hat = J @ torch.linalg.solve(H, J.T)
    expected = hat.diagonal().reshape(len(X), -1).mean(dim=1)
    assert_close(leverage(network, X, 0.3), expected, atol=1e-13, rtol=0)


def test_the_kernel_is_that_of_the_network_whatever_the_blocks():
    _, network, X, _, X_test, _ = problem(width=50)
    points = torch.cat([X, X_test])
    for units in (1, 7, 50, 1024):
        f, K = outputs_and_kernel(network, points, len(X), units=units)
        assert_close(f[:, 0], network.predict(points), atol=1e-14, rtol=0)
        assert_close(K, network.ntk(points, X), atol=1e-15, rtol=0)


def test_a_single_output_with_and_without_its_axis_is_the_same():
    _, network, X, y, X_test, y_test = problem()
    column = TwoLayerReLU(network.W, network.a[:, None])
    for correct in (False, True):
        one = ihvp(network, X, y, 0.3, X_test, y_test, correct_leverage=correct)
        assert torch.equal(
            one, ihvp(column, X, y[:, None], 0.3, X_test, y_test[:, None], correct_leverage=correct)
        )


@pytest.mark.parametrize("outputs", [None, 3])
def test_train_and_test_points_are_symmetric(outputs):
    _, network, X, y, *_ = problem(outputs)
    scores = ihvp(network, X, y, 0.3, X, y)
    assert_close(scores, scores.T, atol=1e-14, rtol=0)
    assert (scores.diagonal() > 0).all()  # gradient^T H^-1 gradient


@pytest.mark.parametrize("outputs", [None, 3])
def test_the_order_of_the_points_is_irrelevant(outputs):
    _, network, X, y, X_test, y_test = problem(outputs)
    p, q = [3, 1, 6, 0, 2, 5, 4], [2, 0, 1]
    for correct in (False, True):
        scores = ihvp(network, X, y, 0.3, X_test, y_test, correct_leverage=correct)
        shuffled = ihvp(network, X[p], y[p], 0.3, X_test[q], y_test[q], correct_leverage=correct)
        assert_close(shuffled, scores[p][:, q], atol=1e-14, rtol=0)


def test_influence_scales_with_the_square_of_outputs_and_labels():
    _, network, X, y, X_test, y_test = problem()
    larger = TwoLayerReLU(4 * network.W, network.a)  # the same patterns, outputs times four
    scores = ihvp(network, X, y, 0.3, X_test, y_test)
    scaled = ihvp(larger, X, 4 * y, 0.3, X_test, 4 * y_test)
    assert_close(scaled, 16 * scores, atol=1e-14, rtol=0)


def test_the_ridge_belongs_to_a_sum_every_point_twice_is_half_the_ridge():
    # The losses of every point twice are twice the losses: J^T J doubles, lambda does not.
    _, network, X, y, X_test, y_test = problem()
    twice = ihvp(network, X.repeat(2, 1), y.repeat(2), 0.6, X_test, y_test)[: len(X)]
    assert_close(2 * twice, ihvp(network, X, y, 0.3, X_test, y_test), atol=1e-13, rtol=0)


def test_the_correction_divides_by_one_minus_the_leverage():
    _, network, X, y, X_test, y_test = problem()
    scores, corrected = (
        ihvp(network, X, y, 0.3, X_test, y_test, correct_leverage=c) for c in (False, True)
    )
    h = leverage(network, X, 0.3)
    assert h.min() > 0.05
    assert h.max() < 0.95
    assert_close(corrected * (1 - h)[:, None], scores, atol=1e-14, rtol=0)


def test_a_very_wide_network_comes_close_to_the_kernel():
    X, X_test = unit_rows(7, 4), unit_rows(3, 4, seed=1)
    y, y_test = X[:, 0].sign(), X_test[:, 0].sign()
    start = TwoLayerReLU.initialise(4, 200_000, 0.01, 0)
    network = train(start, X, y, 1.0, method="preconditioned")
    model = fit_kernel_ridge(relu_ntk(X), y, 1.0)
    for correct in (False, True):
        scores = ihvp(network, X, y, 1.0, X_test, y_test, correct_leverage=correct)
        limit = ihvp_influence(model, relu_ntk(X_test, X), y_test, correct_leverage=correct)
        # The start is of size 0.007, flips at this scale and the kernel's error are of that order.
        assert_close(scores, limit, atol=0.03 * limit.abs().max().item(), rtol=0)


def test_single_precision_works_and_stays_single():
    _, network, *tensors = problem()
    X, y, X_test, y_test = (t.float() for t in tensors)
    single = TwoLayerReLU(network.W.float(), network.a.float())
    scores = ihvp(single, X, y, 0.3, X_test, y_test)
    assert scores.dtype == leverage(single, X, 0.3).dtype == torch.float32
    double = ihvp(network, tensors[0], tensors[1], 0.3, tensors[2], tensors[3])
    assert_close(scores.double(), double, atol=1e-5, rtol=0)


@pytest.mark.parametrize("outputs", [None, 3])
def test_the_arguments_are_left_alone(outputs):
    _, network, *tensors = problem(outputs)
    before = [t.clone() for t in (network.W, network.a, *tensors)]
    X, y, X_test, y_test = tensors
    ihvp(network, X, y, 0.3, X_test, y_test, correct_leverage=True)
    leverage(network, X, 0.3)
    for now, then in zip((network.W, network.a, *tensors), before, strict=True):
        assert torch.equal(now, then)
