"""Flow in stabilised steps and what is measured along it, where the truth is known."""

import math

import pytest
import torch
from networks import Linear, task
from torch.testing import assert_close

import ntk_influence as ni
from studies import deep, long_training, trained

TIMES = [0.1, 1.0, 10.0, 100.0]


@pytest.mark.parametrize("stages", [2, 5, 30])
def test_a_step_is_of_second_order_and_stable_as_far_as_it_says(stages):
    def factor(z):
        one = torch.ones(1).double()
        return float(long_training.chebyshev_step(lambda w: z * w, one, 1.0, stages))

    off = [abs(factor(z) - math.exp(-z)) for z in (0.02, 0.01)]
    assert 7 < off[0] / off[1] < 9  # of third order in one step
    for z in torch.linspace(0.0, 0.65 * (stages**2 - 1), 200).tolist():
        assert abs(factor(z)) <= 1
    assert abs(factor(0.8 * stages**2 + 2)) > 1


def test_where_the_kernel_does_not_move_the_course_is_that_of_the_kernel():
    coarse, fine = (long_training.course(Linear(5), task(), 0.01, TIMES, parts=p) for p in (8, 16))
    rows = long_training.rows(TIMES, coarse, fine)
    assert max(row["drift"] for row in rows) < 1e-14
    for name in ("error", "left out"):
        assert max(row[name] for row in rows) < 0.01  # steps, no kernel
        assert max(row[f"{name}, floor"] for row in rows) > 2 * max(row[name] for row in rows)


def test_the_copies_are_retrained_without_their_points():
    given, model = task(), Linear(5)
    found = long_training.course(model, given, 0.01, TIMES, parts=16)
    K, k_test = given.X @ given.X.T, given.X_test @ given.X.T
    y = given.y - model(given.X).detach()
    for k, i in enumerate(given.removed):
        kept = [j for j in range(len(y)) if j != i]
        without = ni.predict_at(TIMES, K[kept][:, kept], y[kept], 0.01, k_test[:, kept])
        expected = without - ni.predict_at(TIMES, K, y, 0.01, k_test)
        assert_close(found.change_by_kernel[:, k], expected, atol=1e-9, rtol=0)
        assert_close(found.change[:, k], expected, atol=5e-3, rtol=0)


def test_a_network_follows_small_steps_of_descent():
    given = deep.Task(*(getattr(task(), k) for k in ("X", "y", "X_test")), [3], 1.0, torch.float64)
    model = deep.Perceptron(5, 20, 2, 0, smoothing=0.3)
    found = long_training.course(model, given, 0.05, [0.5, 5.0], parts=32)
    how = {"step": 1e-3, "steps": 5000}
    copies = deep.trained_copies(model, given.X, given.y, 0.05, given.removed, **how)
    f = deep.outputs_of_copies(model, copies, given.X_test).detach()
    # Descent is of first order in its step.
    assert_close(found.change[1, 0], f[1] - f[0], atol=1e-3, rtol=0)
    assert_close(found.moved[1], f[0] - model(given.X_test).detach(), atol=2e-3, rtol=0)


def test_the_way_is_that_of_the_linear_weights():
    given, model = task(), Linear(5)
    found = long_training.course(model, given, 0.3, TIMES)
    for t, way in zip(TIMES, found.way, strict=True):
        A = given.X.T @ given.X + 0.3 * torch.eye(5).double()
        pull = given.X.T @ (given.y - model(given.X).detach())
        gone = torch.linalg.solve(A, pull - torch.linalg.matrix_exp(-A * t) @ pull)
        assert abs(float(gone.norm()) - way) < 1e-10


def test_a_line_counts_each_group_the_same_and_tells_what_is_off_it():
    one = [{"x": v, "y": 2 * v**1.5} for v in (1.0, 2.0, 4.0)]
    slope, height, off = trained.common_line({"a": one, "b": one[:2]}, "x", "y")
    assert abs(slope - 1.5) < 1e-12
    assert abs(height - math.log(2)) < 1e-12
    assert max(abs(values).max() for values in off.values()) < 1e-12
    low, high = ([{"x": 1.0, "y": v}, {"x": 2.0, "y": v}] for v in (1.0, math.e))
    _, height, _ = trained.common_line({"low": low * 9, "high": high}, "x", "y")
    assert abs(height - 0.5) < 1e-12
    assert abs(trained.slope_along(one, "x", "y") - 1.5) < 1e-12


def test_a_width_with_one_loud_network_is_set_aside():
    rows = [{"width": 8, "floor": 0.1, "e": 1.0}, {"width": 8, "floor": 0.3, "e": 1.0}]
    rows += [{"width": 16, "floor": 0.1, "e": 1.0}, {"width": 32, "e": 1.0}]
    assert trained.of_quiet_widths(rows, ("e",)) == rows[2:3]


def test_only_what_is_missing_is_measured(monkeypatch, tmp_path):
    there = {"results": {"rows": [{"width": 8, "e": 1.0}]}}
    monkeypatch.setattr(trained.book, "recorded", lambda name: there)
    kept = []
    monkeypatch.setattr(trained.book, "record", lambda *given: kept.append(given))
    wanted = trained.combined([{"width": [8, 16]}], {})
    device = torch.device("cpu")
    rows = trained.with_missing("x", wanted, lambda row: row | {"e": 2.0}, "to", device)
    assert [(row["width"], row["e"]) for row in rows] == [(8, 1.0), (16, 2.0)]
    assert len(kept) == 1
