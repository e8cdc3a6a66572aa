"""Steps in the dual form against automatic differentiation on the weights."""

import math

import pytest
import torch
from problems import RIDGE, descend, objective, small_network

from ntk_influence import Descent, Step, TrainingError, TwoLayerReLU, train
from ntk_influence.descent import conjugate_gradients, count_pairs


@pytest.mark.parametrize("outputs", [None, 3])
def test_gradient_descent_follows_the_gradient_of_the_loss(outputs):
    network, X, y, _ = small_network(outputs=outputs)
    trained = train(network, X, y, RIDGE, max_steps=40)
    W = descend(network, X, y, trained.report.schedule)
    # Forty steps of the same recursion in two forms: rounding only.
    assert torch.allclose(trained.W, W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("dim", [6, 3])  # more and fewer points than twice the dimension: 8
def test_an_implicit_step_is_the_damped_newton_step_of_the_loss(outputs, dim):
    network, X, y, _ = small_network(dim=dim, width=10, outputs=outputs)
    trained = train(network, X, y, RIDGE, method="preconditioned", max_steps=6)
    W = descend(network, X, y, trained.report.schedule)
    # Several outputs are solved for by conjugate gradients, to half of the digits.
    assert torch.allclose(trained.W, W, rtol=0, atol=1e-11 if outputs is None else 1e-6)


def test_an_undamped_step_solves_the_problem_of_fixed_patterns():
    """On the features of the initial patterns it is ridge regression about W(0)."""
    network, X, y, _ = small_network()
    descent = Descent(network, X, y, RIDGE)
    M = descent.run(descent.start(), [Step(1.0, damping=0.0)])[0][0]
    patterns = network.features(X)
    signs = network.a.reshape(len(network.a), -1) / math.sqrt(len(network.a))
    K = network.ntk(X) + RIDGE * torch.eye(len(X), dtype=X.dtype)
    beta = torch.linalg.solve(K, (y - network.predict(X)).reshape(len(X), -1))
    assert torch.allclose(M, patterns * (beta @ signs.T), rtol=0, atol=1e-12)


def test_outputs_that_run_away_are_reported():
    network, X, y, _ = small_network()
    descent = Descent(network, X, y, RIDGE)
    with pytest.raises(TrainingError, match="training: the outputs ran away; take a smaller step"):
        descent.run(descent.start(), [Step(50.0)] * 100)


def test_a_ridge_that_drowns_in_rounding_is_reported():
    network, X, y, _ = small_network(n=20, dim=2, width=8)
    tiny = TwoLayerReLU(network.W.float(), network.a.float())
    X, y = X.float(), y.float()
    descent = Descent(tiny, X, y, 1e-12)
    with pytest.raises(TrainingError, match=r"ridge I is singular in .* take a larger ridge"):
        descent.run(descent.start(), [Step(1.0, damping=0.0)])


def test_a_full_memory_is_reported(monkeypatch):
    def push(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    network, X, y, _ = small_network()
    monkeypatch.setattr(Descent, "pre_activations", push)
    with pytest.raises(TrainingError, match=r"8 x 40 pre-activations .* do not fit"):
        train(network, X, y, RIDGE)


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_pairs_are_counted_block_by_block(rows):
    A = (torch.rand(2, 8, 50, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    assert torch.equal(count_pairs(A, rows=rows).double(), A @ A.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conjugate_gradients_leave_a_solved_copy_alone(dtype):
    """In a batch one copy may be exact at once, while the others still move."""
    A = torch.stack([torch.eye(4, dtype=dtype), torch.diag(torch.arange(1, 5)).to(dtype)])
    b = torch.ones(2, 4, 1, dtype=dtype)
    x = conjugate_gradients(lambda v: A @ v, lambda v: v, b)
    assert torch.allclose(A @ x, b, rtol=0, atol=10 * math.sqrt(torch.finfo(dtype).eps))


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("dim", [6, 3])
def test_the_loss_of_a_copy_is_that_of_its_weights_on_its_points(outputs, dim):
    network, X, y, _ = small_network(dim=dim, outputs=outputs)
    without = Descent(network, X, y, RIDGE).leaving_out(torch.tensor([5, 2]))
    B, f = without.run(without.start()[:1], [Step(0.3)] * 5)
    for copy, i in enumerate([5, 2]):
        keep = [j for j in range(len(X)) if j != i]
        expected = objective(without.weights(B)[copy], network, X[keep], y[keep])
        assert float(without.loss(B, f)[copy]) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"size": 0.0}, "size: expected a number > 0, got 0.0"),
        ({"size": math.nan}, "size: expected a finite number >= 0, got nan"),
        ({"size": 1.0, "damping": -1.0}, "damping: expected a finite number >= 0, got -1.0"),
        ({"size": 1.0, "damping": math.nan}, "damping: expected a finite number >= 0, got nan"),
    ],
    ids=str,
)
def test_a_step_that_leads_nowhere_is_refused(step, message):
    with pytest.raises(ValueError, match=message):
        Step(**step)


# Smoothed kinks


def smooth(network, smoothing=0.5):
    """The same weights with kinks that are smoothed."""
    return TwoLayerReLU(network.W, network.a, kink=smoothing)


def smooth_step(W, network, X, y, step):
    """A step -s (J^T J + (ridge + mu) I)^-1 grad by automatic differentiation."""

    def f(V):
        return TwoLayerReLU(V, network.a, kink=network.kink).predict(X)

    J = torch.autograd.functional.jacobian(f, W).reshape(-1, W.numel())
    gradient = J.T @ (f(W) - y).flatten() + RIDGE * (W - network.W).flatten()
    if step.damping < math.inf:
        system = J.T @ J + (RIDGE + step.damping) * torch.eye(W.numel(), dtype=W.dtype)
        gradient = torch.linalg.solve(system, gradient)
    return W - step.size * gradient.reshape(W.shape)


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("dim", [6, 3])
@pytest.mark.parametrize("step", [Step(0.2), Step(1.0, 3.0), Step(0.5, 0.0)], ids=str)
def test_steps_of_a_smoothed_network_are_those_of_its_derivatives(outputs, dim, step):
    network, X, y, X_test = small_network(dim=dim, width=10, outputs=outputs)
    network = smooth(network)
    descent = Descent(network, X, y, RIDGE)
    B, f = descent.run(descent.start(), [step] * 3)
    W = network.W
    for _ in range(3):
        W = smooth_step(W, network, X, y, step)
    exact = outputs is None or step.damping == math.inf
    # Several outputs are solved for by conjugate gradients, to half of the digits.
    assert torch.allclose(descent.weights(B)[0], W, rtol=0, atol=1e-11 if exact else 1e-6)
    end = TwoLayerReLU(W, network.a, kink=network.kink)
    assert torch.allclose(descent.predict(B, X_test)[0], end.predict(X_test), rtol=0, atol=1e-6)
    assert torch.allclose(f[0].reshape(y.shape), end.predict(X), rtol=0, atol=1e-6)
