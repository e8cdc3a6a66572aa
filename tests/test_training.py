"""Training in the dual form against autograd on the weights, and retraining without a point."""

import math

import pytest
import torch

from ntk_influence import TrainingError, TwoLayerReLU, retrain_without, train
from ntk_influence.training import (
    METHODS,
    Step,
    _conjugate_gradients,
    _Descent,
    _flow_schedule,
    _pairs,
)

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


def descend(network, X, y, schedule):
    """Steps -s (H + mu I)^-1 grad by automatic differentiation, with a dense Hessian."""
    W = network.W.clone()
    for step in schedule:
        W.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(W, network, X, y), W)
        if step.damping < math.inf:
            hessian = torch.autograd.functional.hessian(
                lambda V: objective(V, network, X, y), W.detach()
            ).reshape(W.numel(), W.numel())
            damped = hessian + step.damping * torch.eye(W.numel(), dtype=W.dtype)
            gradient = torch.linalg.solve(damped, gradient.flatten()).reshape(W.shape)
        W = (W - step.size * gradient).detach()
    return W


@pytest.mark.parametrize("outputs", [None, 3])
def test_gradient_descent_follows_the_gradient_of_the_loss(outputs):
    network, X, y, _ = problem(outputs=outputs)
    trained = train(network, X, y, RIDGE, max_steps=40)
    W = descend(network, X, y, trained.report.schedule)
    # Forty steps of the same recursion in two forms: rounding only.
    assert torch.allclose(trained.W, W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("dim", [6, 3])  # more and fewer points than twice the dimension: 8
def test_an_implicit_step_is_the_damped_newton_step_of_the_loss(outputs, dim):
    network, X, y, _ = problem(dim=dim, width=10, outputs=outputs)
    trained = train(network, X, y, RIDGE, "preconditioned", max_steps=6)
    W = descend(network, X, y, trained.report.schedule)
    # Several outputs are solved for by conjugate gradients, to half of the digits.
    assert torch.allclose(trained.W, W, rtol=0, atol=1e-11 if outputs is None else 1e-6)


def test_an_undamped_step_solves_the_problem_of_fixed_patterns():
    """On the features of the initial patterns it is ridge regression about W(0)."""
    network, X, y, _ = problem()
    descent = _Descent(network, X, y, RIDGE)
    M = descent.run(descent.start(), [Step(1.0, damping=0.0)])[0][0]
    patterns = network.features(X)
    signs = network.a.reshape(len(network.a), -1) / math.sqrt(len(network.a))
    K = network.ntk(X) + RIDGE * torch.eye(len(X), dtype=X.dtype)
    beta = torch.linalg.solve(K, (y - network.predict(X)).reshape(len(X), -1))
    assert torch.allclose(M, patterns * (beta @ signs.T), rtol=0, atol=1e-12)


def test_the_times_of_the_flow_grow_and_end_where_they_should():
    schedule = _flow_schedule(bound=100.0, ridge=0.5, steps=40)
    lengths = [1 / step.damping for step in schedule]
    # The first time is that of the series, a factor exp(23 / 40) after 1 / 100.
    assert lengths[0] == pytest.approx(0.01, rel=1)
    assert lengths[1:] == sorted(lengths[1:])
    assert sum(lengths) == pytest.approx(6 / 0.5, rel=1e-6)
    assert all(step.size == 1 for step in schedule)


def test_implicit_steps_follow_the_gradient_flow():
    """The distance to finely resolved gradient descent falls with the length of the steps."""
    network, X, y, X_test = problem(width=1000)
    bound = float(network.ntk(X).norm()) + RIDGE
    time, steps = 6 / RIDGE, 20_000
    descent = _Descent(network, X, y, RIDGE)
    M = descent.run(descent.start(), [Step(time / steps)] * steps)[0]
    flow = descent.predict(M, X_test)[0]
    distance = [
        (train(network, X, y, RIDGE, "preconditioned", max_steps=n).predict(X_test) - flow).norm()
        for n in (20, 80)
    ]
    assert bound * time / steps < 0.1  # the reference is resolved
    # A first-order method gains a factor of four; kinks take part of it.
    assert distance[1] < distance[0] / 2
    assert distance[0] < 0.05 * (flow - network.predict(X_test)).norm()


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
    assert report.steps == len(report.schedule)
    assert report.stopped in ("settled", "on kinks", "steps")
    assert report.last_change >= 0
    few = train(network, X, y, RIDGE, method, max_steps=5).report
    assert (few.steps, few.stopped) == (5, "steps")


def test_gradient_descent_halves_its_step_before_it_stops():
    network, X, y, _ = problem()
    report = train(network, X, y, RIDGE).report
    assert report.stopped != "steps"
    assert report.schedule[-1].size == report.schedule[0].size / 2


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("dim", [6, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_cold_start_is_training_on_the_other_points_from_the_same_weights(outputs, dim, method):
    network, X, y, X_test = problem(dim=dim, width=12, outputs=outputs)
    trained = train(network, X, y, RIDGE, method, max_steps=6)
    f = retrain_without(network, X, y, RIDGE, [5, 2], X_test, method, trained=trained)
    for row, i in enumerate([5, 2]):
        keep = [j for j in range(len(X)) if j != i]
        W = descend(network, X[keep], y[keep], trained.report.schedule)
        expected = TwoLayerReLU(W, network.a).predict(X_test)
        exact = outputs is None or method == "gradient_descent"
        assert torch.allclose(f[row], expected, rtol=0, atol=1e-11 if exact else 1e-6)


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
    descent = _Descent(network, X, y, RIDGE)
    with pytest.raises(TrainingError, match="training: the outputs ran away; take a smaller step"):
        descent.run(descent.start(), [Step(50.0)] * 100)


def test_a_smaller_step_of_gradient_descent_is_that_much_smaller():
    network, X, y, _ = problem()
    whole, half = (train(network, X, y, RIDGE, step=s, max_steps=3).report for s in (1.0, 0.5))
    assert half.schedule[0].size == pytest.approx(whole.schedule[0].size / 2, rel=1e-12)


def test_a_ridge_that_drowns_in_rounding_is_reported():
    network, X, y, _ = problem(n=20, dim=2, width=8)
    tiny = TwoLayerReLU(network.W.float(), network.a.float())
    X, y = X.float(), y.float()
    descent = _Descent(tiny, X, y, 1e-12)
    with pytest.raises(TrainingError, match=r"ridge I is singular in .* take a larger ridge"):
        descent.run(descent.start(), [Step(1.0, damping=0.0)])


def test_points_are_left_out_together_as_they_are_one_by_one(monkeypatch):
    """On a GPU they share a batch."""
    network, X, y, X_test = problem(outputs=2)
    arguments = (network, X, y, RIDGE, [4, 0, 6], X_test, "preconditioned")
    alone = retrain_without(*arguments)
    monkeypatch.setattr(_Descent, "copies_that_fit", lambda self: 2)
    order = []
    together = retrain_without(*arguments, finished=lambda i, f: order.append(i))
    assert torch.allclose(alone, together, rtol=0, atol=1e-12)
    assert order == [4, 0, 6]


def test_a_full_memory_is_reported(monkeypatch):
    def push(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    network, X, y, _ = problem()
    monkeypatch.setattr(_Descent, "_push", push)
    with pytest.raises(TrainingError, match=r"8 x 40 pre-activations .* do not fit"):
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
            "trained: expected a movement of",
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
        ({"step": 0.0}, "step: expected a number > 0, got 0"),
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


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_pairs_are_counted_block_by_block(rows):
    A = (torch.rand(2, 8, 50, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    assert torch.equal(_pairs(A, rows).double(), A @ A.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conjugate_gradients_leave_a_solved_copy_alone(dtype):
    """In a batch one copy may be exact at once, while the others still move."""
    A = torch.stack([torch.eye(4, dtype=dtype), torch.diag(torch.arange(1, 5)).to(dtype)])
    b = torch.ones(2, 4, 1, dtype=dtype)
    x = _conjugate_gradients(lambda v: A @ v, lambda v: v, b)
    assert torch.allclose(A @ x, b, rtol=0, atol=10 * math.sqrt(torch.finfo(dtype).eps))
