"""Training in the dual form against autograd on the weights, and retraining without a point."""

import math

import pytest
import torch

from ntk_influence import TrainingError, TwoLayerReLU, retrain_without, train
from ntk_influence.training import METHODS, _Descent

RIDGE = 0.5


def problem(n=8, dim=6, width=40, outputs=None, seed=0):
    """A small network, unit inputs with labels, and inputs to test on."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n + 3, dim, generator=generator, dtype=torch.float64)
    X /= X.norm(dim=1, keepdim=True)
    shape = (n,) if outputs is None else (n, outputs)
    y = torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-1, 1)
    network = TwoLayerReLU.initialise(dim, width, 1.0, seed, outputs=outputs)
    return network, X[:n], y, X[n:]


def objective(W, network, X, y):
    """The loss (2), written out."""
    f = TwoLayerReLU(W, network.a).predict(X)
    return (f - y).square().sum() / 2 + RIDGE / 2 * (W - network.W).square().sum()


def descend(network, X, y, step_sizes):
    """Gradient descent by automatic differentiation of the loss (2)."""
    W = network.W.clone()
    for size in step_sizes:
        W.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(W, network, X, y), W)
        W = (W - size * gradient).detach()
    return W


@pytest.mark.parametrize("outputs", [None, 3])
def test_gradient_descent_follows_the_gradient_of_the_loss(outputs):
    network, X, y, _ = problem(outputs=outputs)
    trained = train(network, X, y, RIDGE, max_steps=40)
    W = descend(network, X, y, trained.report.step_sizes)
    # Forty steps of the same recursion in two forms: rounding only.
    assert torch.allclose(trained.W, W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("outputs", [None, 3])
def test_a_full_preconditioned_step_solves_the_problem_of_fixed_patterns(outputs):
    """On the features of the initial patterns it is ridge regression about W(0)."""
    network, X, y, _ = problem(outputs=outputs)
    descent = _Descent(network, X, y, RIDGE, "preconditioned")
    C = descent.run(descent.start(), [1.0])[0][0]
    patterns = network.features(X)
    signs = network.a.reshape(len(network.a), -1) / math.sqrt(len(network.a))
    K = network.ntk(X) + RIDGE * torch.eye(len(X), dtype=X.dtype)
    beta = torch.linalg.solve(K, (y - network.predict(X)).reshape(len(X), -1))
    assert torch.allclose(C, patterns * (beta @ signs.T), rtol=0, atol=1e-12)


def test_preconditioned_descent_finds_a_minimum_of_the_loss():
    """A wide network has few kinks nearby: gradient descent from there gains next to nothing."""
    network, X, y, _ = problem(width=2000)
    trained = train(network, X, y, RIDGE, "preconditioned")
    other = train(network, X, y, RIDGE)
    losses = [float(objective(t.W, network, X, y)) for t in (trained, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls(method):
    network, X, y, _ = problem()
    trained = train(network, X, y, RIDGE, method)
    assert objective(trained.W, network, X, y) < objective(network.W, network, X, y)


@pytest.mark.parametrize("method", METHODS)
def test_the_report_tells_what_happened(method):
    network, X, y, _ = problem()
    report = train(network, X, y, RIDGE, method).report
    assert report.method == method
    assert report.steps == len(report.step_sizes)
    assert report.stopped in ("settled", "on kinks", "steps")
    assert report.last_change >= 0
    few = train(network, X, y, RIDGE, method, max_steps=5).report
    assert (few.steps, few.stopped) == (5, "steps")


def test_gradient_descent_halves_its_step_before_it_stops():
    network, X, y, _ = problem()
    report = train(network, X, y, RIDGE).report
    assert report.stopped != "steps"
    assert report.step_sizes[-1] == report.step_sizes[0] / 2


@pytest.mark.parametrize("outputs", [None, 2])
def test_a_cold_start_is_training_on_the_other_points_from_the_same_weights(outputs):
    network, X, y, X_test = problem(outputs=outputs)
    trained = train(network, X, y, RIDGE, max_steps=60)
    f = retrain_without(network, X, y, RIDGE, [5, 2], X_test, trained=trained)
    for row, i in enumerate([5, 2]):
        keep = [j for j in range(len(X)) if j != i]
        W = descend(network, X[keep], y[keep], trained.report.step_sizes)
        expected = TwoLayerReLU(W, network.a).predict(X_test)
        assert torch.allclose(f[row], expected, rtol=0, atol=1e-12)


def test_without_a_trained_network_it_is_trained_first():
    network, X, y, X_test = problem()
    trained = train(network, X, y, RIDGE)
    given, own = (
        retrain_without(network, X, y, RIDGE, [1], X_test, trained=t) for t in (trained, None)
    )
    assert torch.equal(given, own)


@pytest.mark.parametrize("method", METHODS)
def test_a_warm_start_comes_close_to_a_cold_one_where_kinks_are_few(method):
    """Two definitions of one quantity; the width keeps patterns from flipping."""
    network, X, y, X_test = problem(width=4000)
    trained = train(network, X, y, RIDGE, method, tolerance=1e-6)
    before = trained.predict(X_test)
    cold, warm = (
        retrain_without(network, X, y, RIDGE, [0, 3], X_test, method, start, trained) - before
        for start in ("cold", "warm")
    )
    # Within a tenth of the size of the change: a lost factor is far outside.
    assert (cold - warm).abs().max() <= 0.1 * cold.abs().max()


def test_finished_points_are_handed_out_one_by_one():
    network, X, y, X_test = problem()
    kept = {}

    def interrupt(i, f):
        kept[i] = f
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrain_without(network, X, y, RIDGE, [4, 0, 6], X_test, finished=interrupt)
    again = retrain_without(network, X, y, RIDGE, [4, 0, 6], X_test)
    assert list(kept) == [4, 0]
    assert torch.equal(torch.stack(list(kept.values())), again[:2])


def test_outputs_that_run_away_are_reported():
    network, X, y, _ = problem()
    descent = _Descent(network, X, y, RIDGE, "gradient_descent")
    with pytest.raises(TrainingError, match="gradient_descent: the outputs ran away; take"):
        descent.run(descent.start(), [50.0] * 100)


def test_a_full_memory_is_reported(monkeypatch):
    def matmul(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    network, X, y, _ = problem()
    monkeypatch.setattr(torch, "matmul", matmul)
    with pytest.raises(TrainingError, match=r"8 x 40 coefficients .* do not fit"):
        train(network, X, y, RIDGE)


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": 0.0}, "ridge: expected a number > 0, got 0"),
        ({"ridge": -1.0}, "ridge: expected a finite number >= 0, got -1"),
        ({"method": "newton"}, "method: expected one of gradient_descent, preconditioned, got"),
        ({"y": torch.zeros(3, dtype=torch.float64)}, "y: expected 8 rows as in X, got"),
        ({"y": torch.zeros(8, 2, dtype=torch.float64)}, r"y: expected shape \(8,\), got"),
        ({"y": torch.full((8,), math.nan, dtype=torch.float64)}, "y: expected finite entries"),
        ({"X": torch.zeros(8, 5, dtype=torch.float64)}, "X: expected 6 columns, got"),
        ({"X": torch.zeros(8, 6)}, "X: expected the dtype of the network"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_in_one_sentence(change, message):
    network, X, y, X_test = problem()
    arguments = {"network": network, "X": X, "y": y, "ridge": RIDGE} | change
    with pytest.raises(ValueError, match=message):
        train(**arguments)
    with pytest.raises(ValueError, match=message):
        retrain_without(**arguments, indices=[0], X_test=X_test)


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": [8]}, "indices: expected indices from 0 to 7, got 8"),
        ({"indices": [1, 1]}, "indices: expected distinct indices"),
        ({"start": "hot"}, "start: expected 'cold' or 'warm', got 'hot'"),
        ({"method": "preconditioned"}, "trained: expected a network trained by preconditioned"),
        (
            {"X": torch.zeros(3, 6).double(), "y": torch.zeros(3).double()},
            "trained: expected coeff",
        ),
        ({"X_test": torch.zeros(2, 5, dtype=torch.float64)}, "X_test: expected 6 columns, got"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_retraining_refuses_bad_input(change, message):
    network, X, y, X_test = problem()
    arguments = {"network": network, "X": X, "y": y, "ridge": RIDGE, "indices": [0]}
    arguments |= {"X_test": X_test, "trained": train(network, X, y, RIDGE)} | change
    with pytest.raises(ValueError, match=message):
        retrain_without(**arguments)


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_steps": 0}, "max_steps: expected an integer >= 1, got 0"),
        ({"max_steps": 2.5}, "max_steps: expected an integer >= 1, got 2.5"),
        ({"tolerance": math.nan}, "tolerance: expected a finite number >= 0, got nan"),
    ],
    ids=str,
)
def test_training_refuses_a_bad_schedule(change, message):
    network, X, y, _ = problem()
    with pytest.raises(ValueError, match=message):
        train(network, X, y, RIDGE, **change)


def test_a_trained_network_is_no_start():
    network, X, y, _ = problem()
    with pytest.raises(ValueError, match="network: expected an initial network, got a trained one"):
        train(train(network, X, y, RIDGE), X, y, RIDGE)


def test_another_start_than_that_of_the_trained_network_is_refused():
    network, X, y, X_test = problem()
    other = TwoLayerReLU.initialise(6, 40, 1.0, seed=1)
    with pytest.raises(ValueError, match="trained: expected training from this start"):
        retrain_without(network, X, y, RIDGE, [0], X_test, trained=train(other, X, y, RIDGE))


def test_leaving_out_nothing_gives_an_empty_result():
    network, X, y, X_test = problem(outputs=2)
    assert retrain_without(network, X, y, RIDGE, [], X_test).shape == (0, 3, 2)
