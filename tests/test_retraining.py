"""Training again without a point, against training on the other points."""

from dataclasses import replace

import pytest
import torch
from problems import RIDGE, descend, small_network

from ntk_influence import Descent, TrainingError, TwoLayerReLU, retrain_without, train
from ntk_influence.training import METHODS


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("dim", [6, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_cold_start_is_training_on_the_other_points_from_the_same_weights(outputs, dim, method):
    network, X, y, X_test = small_network(dim=dim, width=12, outputs=outputs)
    trained = train(network, X, y, RIDGE, method=method, max_steps=6)
    f = retrain_without(network, X, y, RIDGE, [5, 2], X_test, method=method, trained=trained)
    for row, i in enumerate([5, 2]):
        keep = [j for j in range(len(X)) if j != i]
        W = descend(network, X[keep], y[keep], trained.report.schedule)
        expected = TwoLayerReLU(W, network.a).predict(X_test)
        exact = outputs is None or method == "gradient_descent"
        assert torch.allclose(f[row], expected, rtol=0, atol=1e-11 if exact else 1e-6)


def test_without_a_trained_network_it_is_trained_first():
    network, X, y, X_test = small_network()
    trained = train(network, X, y, RIDGE)
    given, own = (
        retrain_without(network, X, y, RIDGE, [1], X_test, trained=t) for t in (trained, None)
    )
    assert torch.equal(given, own)


@pytest.mark.parametrize("method", METHODS)
def test_a_warm_start_comes_close_to_a_cold_one_where_kinks_are_few(method):
    """Two definitions of one quantity; the width keeps patterns from flipping."""
    network, X, y, X_test = small_network(width=4000)
    trained = train(network, X, y, RIDGE, method=method, tolerance=1e-6)
    before = trained.predict(X_test)
    cold, warm = (
        retrain_without(
            network, X, y, RIDGE, [0, 3], X_test, method=method, start=start, trained=trained
        )
        - before
        for start in ("cold", "warm")
    )
    # Within a tenth of the size of the change: a lost factor is far outside.
    assert (cold - warm).abs().max() <= 0.1 * cold.abs().max()


def test_finished_points_are_handed_out_one_by_one():
    network, X, y, X_test = small_network()
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


def test_points_are_left_out_together_as_they_are_one_by_one(monkeypatch):
    """On a GPU they share a batch."""
    network, X, y, X_test = small_network(outputs=2)
    arguments = (network, X, y, RIDGE, [4, 0, 6], X_test)
    alone = retrain_without(*arguments, method="preconditioned")
    monkeypatch.setattr(Descent, "copies_that_fit", lambda self: 2)
    order = []
    together = retrain_without(
        *arguments, method="preconditioned", finished=lambda i, f: order.append(i)
    )
    assert torch.allclose(alone, together, rtol=0, atol=1e-12)
    assert order == [4, 0, 6]


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
            "trained: expected training on these inputs and labels, got on others",
        ),
        ({"X_test": torch.zeros(2, 5, dtype=torch.float64)}, "X_test: expected 6 columns, got"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_retraining_refuses_bad_input(change, message):
    network, X, y, X_test = small_network()
    arguments = {"network": network, "X": X, "y": y, "ridge": RIDGE, "indices": [0]}
    arguments |= {"X_test": X_test, "trained": train(network, X, y, RIDGE)} | change
    with pytest.raises(ValueError, match=message):
        retrain_without(**arguments)


def test_another_start_than_that_of_the_trained_network_is_refused():
    network, X, y, X_test = small_network()
    other = TwoLayerReLU.initialise(6, 40, 1.0, seed=1)
    with pytest.raises(ValueError, match="trained: expected training from this start"):
        retrain_without(network, X, y, RIDGE, [0], X_test, trained=train(other, X, y, RIDGE))


def test_leaving_out_nothing_gives_an_empty_result():
    network, X, y, X_test = small_network(outputs=2)
    assert retrain_without(network, X, y, RIDGE, [], X_test).shape == (0, 3, 2)


OTHERS = {
    "labels negated": (lambda X, y: (X, -y), RIDGE, "on these inputs and labels"),
    "one label changed": (lambda X, y: (X, y + (y == y[0]) * 1e-9), RIDGE, "on these inputs"),
    "rows permuted": (lambda X, y: (X.flip(0), y.flip(0)), RIDGE, "on these inputs and labels"),
    "inputs moved": (lambda X, y: (X + 1e-12, y), RIDGE, "on these inputs and labels"),
    "fewer points": (lambda X, y: (X[:-1], y[:-1]), RIDGE, "on these inputs and labels"),
    "another ridge": (lambda X, y: (X, y), 2 * RIDGE, "with ridge 0.5"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("other", OTHERS)
def test_a_network_that_was_trained_on_another_problem_is_refused(other, method):
    network, X, y, X_test = small_network()
    change, ridge, expected = OTHERS[other]
    trained = train(network, *change(X, y), ridge, method=method)
    with pytest.raises(ValueError, match=f"trained: expected training {expected}"):
        retrain_without(network, X, y, RIDGE, [0], X_test, method=method, trained=trained)


def test_a_point_without_which_training_diverges_is_reported():
    """The schedule is that of all points; a schedule that is too long for the rest is no result."""
    network, X, y, X_test = small_network(n=60, dim=10, width=256)
    trained = train(network, X, y, RIDGE)
    long = tuple(replace(step, size=10 * step.size) for step in trained.report.schedule)
    wrong = replace(trained, report=replace(trained.report, schedule=long))
    with pytest.raises(TrainingError, match=r"training: the .*; take a smaller step"):
        retrain_without(network, X, y, RIDGE, [0], X_test, trained=wrong)


def test_smoothed_kinks_make_two_step_sizes_meet_and_kinks_do_not():
    """The noise floor of retraining is that of kinks: it goes with them."""
    floors = []
    for smoothing in (0.0, 1.0):
        _, X, y, X_test = small_network(n=40, dim=10)
        network = TwoLayerReLU.initialise(10, 300, 0.1, 0, smoothing=smoothing)
        size = train(network, X, y, RIDGE).report.schedule[0].size
        changes = []
        for step in (size, size / 2):
            trained = train(network, X, y, RIDGE, step=step, tolerance=1e-7)
            without = retrain_without(network, X, y, RIDGE, [0, 5], X_test, trained=trained)
            changes.append(without - trained.predict(X_test))
        assert trained.kink == 0.1 * smoothing
        floors.append(float((changes[0] - changes[1]).norm() / changes[0].norm()))
    # A tenth of the change and a rounding of the tolerance were seen; a decade of room for both.
    assert floors[0] > 0.01
    assert floors[1] < 1e-4
