"""Training: where it ends, what it reports, and what it refuses."""

import math
from contextlib import suppress

import pytest
import torch
from problems import RIDGE, objective, small_network

from ntk_influence import Descent, Step, TrainingError, retrain_without, train
from ntk_influence.training import METHODS, flow_schedule


def test_the_times_of_the_flow_grow_and_end_where_they_should():
    schedule = flow_schedule(largest=100.0, ridge=0.5, steps=40)
    lengths = [1 / step.damping for step in schedule]
    # The first time is that of the series, a factor exp(23 / 40) after 1 / 100.
    assert lengths[0] == pytest.approx(0.01, rel=1)
    assert lengths[1:] == sorted(lengths[1:])
    assert sum(lengths) == pytest.approx(6 / 0.5, rel=1e-6)
    assert all(step.size == 1 for step in schedule)


def test_implicit_steps_follow_the_gradient_flow():
    """The distance to finely resolved gradient descent falls with the length of the steps."""
    network, X, y, X_test = small_network(width=1000)
    bound = float(network.ntk(X).norm()) + RIDGE
    time, steps = 6 / RIDGE, 20_000
    descent = Descent(network, X, y, RIDGE)
    M = descent.run(descent.start(), [Step(time / steps)] * steps)[0]
    flow = descent.predict(M, X_test)[0]
    distance = [
        (
            train(network, X, y, RIDGE, method="preconditioned", max_steps=n).predict(X_test) - flow
        ).norm()
        for n in (20, 80)
    ]
    assert bound * time / steps < 0.1  # the reference is resolved
    # A first-order method gains a factor of four; kinks take part of it.
    assert distance[1] < distance[0] / 2
    assert distance[0] < 0.05 * (flow - network.predict(X_test)).norm()


def test_preconditioned_descent_finds_a_minimum_of_the_loss():
    """A wide network has few kinks nearby: gradient descent from there gains next to nothing."""
    network, X, y, _ = small_network(width=2000)
    trained = train(network, X, y, RIDGE, method="preconditioned")
    other = train(network, X, y, RIDGE)
    losses = [float(objective(t.W, network, X, y)) for t in (trained, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_falls(method):
    network, X, y, _ = small_network()
    trained = train(network, X, y, RIDGE, method=method)
    assert objective(trained.W, network, X, y) < objective(network.W, network, X, y)


@pytest.mark.parametrize("method", METHODS)
def test_the_report_tells_what_happened(method):
    network, X, y, _ = small_network()
    report = train(network, X, y, RIDGE, method=method).report
    assert report.method == method
    assert report.steps == len(report.schedule)
    assert report.stopped in ("settled", "on kinks", "steps")
    assert report.last_change >= 0
    few = train(network, X, y, RIDGE, method=method, max_steps=5).report
    assert (few.steps, few.stopped) == (5, "steps")


def test_gradient_descent_halves_its_step_before_it_stops():
    network, X, y, _ = small_network()
    report = train(network, X, y, RIDGE).report
    assert report.stopped != "steps"
    assert report.schedule[-1].size == report.schedule[0].size / 2


def test_a_smaller_step_of_gradient_descent_is_that_much_smaller():
    network, X, y, _ = small_network()
    whole = train(network, X, y, RIDGE, max_steps=3).report.schedule[0].size
    assert whole == pytest.approx(1 / (float(network.ntk(X).abs().sum(dim=1).max()) + RIDGE))
    half = train(network, X, y, RIDGE, step=whole / 2, max_steps=3).report.schedule[0].size
    assert half == whole / 2


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
    network, X, y, X_test = small_network()
    arguments = {"network": network, "X": X, "y": y, "ridge": RIDGE} | change
    with pytest.raises(ValueError, match=message):
        train(**arguments)
    with pytest.raises(ValueError, match=message):
        retrain_without(**arguments, indices=[0], X_test=X_test)


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
    network, X, y, _ = small_network()
    with pytest.raises(ValueError, match=message):
        train(network, X, y, RIDGE, **change)


def test_a_trained_network_is_no_start():
    network, X, y, _ = small_network()
    with pytest.raises(ValueError, match="network: expected an initial network, got a trained one"):
        train(train(network, X, y, RIDGE), X, y, RIDGE)


@pytest.mark.parametrize("factor", [2.5, 3.0, 5.0, 10.0, 30.0])
@pytest.mark.parametrize("outputs", [None, 2])
def test_a_loss_that_rose_is_never_called_rest(factor, outputs):
    """Random points, and steps beyond stability: it settles where it should or it says so."""
    network, X, y, _ = small_network(n=60, dim=10, width=256, outputs=outputs)
    largest = float(network.ntk(X).abs().sum(dim=1).max()) + RIDGE
    with suppress(TrainingError):
        trained = train(network, X, y, RIDGE, step=factor / largest)
        assert objective(trained.W, network, X, y) < objective(network.W, network, X, y)


def test_a_diverged_training_is_reported():
    network, X, y, _ = small_network(n=60, dim=10, width=256)
    largest = float(network.ntk(X).abs().sum(dim=1).max()) + RIDGE
    with pytest.raises(TrainingError, match=r"training: the loss rose from .* to .*; take a small"):
        train(network, X, y, RIDGE, step=10 / largest)


def test_labels_that_the_start_predicts_are_no_divergence():
    network, X, _, _ = small_network()
    trained = train(network, X, network.predict(X), RIDGE)
    assert torch.allclose(trained.W, network.W, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": 1e-300}, r"ridge: expected one with which training takes at most 1e\+08 steps"),
        ({"step": 1e-300}, r"ridge: expected one with which training takes at most 1e\+08 steps"),
        ({"step": 0.1, "method": "preconditioned"}, "step: expected None for implicit steps"),
    ],
    ids=str,
)
def test_a_training_without_end_is_refused(change, message):
    network, X, y, _ = small_network()
    arguments = {"ridge": RIDGE} | change
    with pytest.raises(ValueError, match=message):
        train(network, X, y, **arguments)
