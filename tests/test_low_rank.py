"""Randomly pivoted Cholesky: what it must equal, must not exceed, and how it draws."""

import math
from collections import Counter

import pytest
import torch
from problems import refused, unit_rows
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence.iterative import low_rank_kernel

X = unit_rows(40, 5)
K = ni.relu_ntk(X)


def dense(found):
    return found.vectors * found.values @ found.vectors.T


def linear(A, B=None):
    """A kernel of which the rank is the number of columns."""
    return A @ (A if B is None else B).T


@pytest.mark.parametrize("rank", [1, 12, 40])
def test_it_is_the_projection_on_the_columns_of_its_pivots(rank):
    found = low_rank_kernel(X, rank, seed=3)
    S = found.pivots.tolist()
    assert len(set(S)) == rank
    # A rounding times the condition of 12 or 40 columns, at most 1e3.
    assert_close(dense(found), K[:, S] @ torch.linalg.solve(K[S][:, S], K[S]), rtol=0, atol=1e-11)
    assert_close(found.left, (K - dense(found)).diagonal(), rtol=0, atol=1e-11)
    assert_close(found.vectors.T @ found.vectors, torch.eye(rank).double(), rtol=0, atol=1e-12)
    assert float(torch.linalg.eigvalsh(K - dense(found)).min()) > -1e-11


def test_more_pivots_leave_less():
    left = [float(low_rank_kernel(X, rank).left.sum()) for rank in (1, 5, 20, 40)]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 1e-11


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_it_solves_and_its_leverage_is_below(ridge):
    found, eye = low_rank_kernel(X, 12), torch.eye(40).double()
    solved = torch.linalg.inv(dense(found) + ridge * eye)
    assert_close(found.solve(eye, ridge), solved, rtol=0, atol=1e-9)
    assert_close(found.leverage(ridge), 1 - ridge * solved.diagonal(), rtol=0, atol=1e-11)
    full = ni.fit_kernel_ridge(K, K[:, 0], ridge).leverage
    assert bool((found.leverage(ridge) <= full + 1e-12).all())
    assert bool((found.leverage(ridge) < full - 1e-4).any())


def test_a_kernel_of_low_rank_is_found_whole_and_no_pivot_is_wasted():
    found = low_rank_kernel(X, 30, kernel=linear)
    assert len(found.pivots) == 5
    assert_close(dense(found), X @ X.T, rtol=0, atol=1e-12)


def test_pivots_are_drawn_by_what_is_left():
    # Two orthogonal directions, one with a kernel of 3 and one with three points of 1 in it.
    points = torch.tensor([[math.sqrt(3.0), 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]).double()
    draws = [low_rank_kernel(points, 2, kernel=linear, seed=s).pivots.tolist() for s in range(600)]
    first = Counter(pivots[0] for pivots in draws)
    # Half of 600 with a deviation of 12, a sixth with one of 9; the second is of the other kind.
    assert abs(first[0] - 300) < 50
    assert all(abs(first[i] - 100) < 37 for i in (1, 2, 3))
    assert all((0 in pivots) and len(set(pivots)) == 2 for pivots in draws)


def test_later_pivots_too_are_drawn_by_what_is_left():
    generator = torch.Generator().manual_seed(5)
    points = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    G, expected = points @ points.T, Counter()
    for i in range(4):
        rest = (G - torch.outer(G[i], G[i]) / G[i, i]).diagonal().clamp(min=0)
        rest[i] = 0
        for j in range(4):
            expected[i, j] = float(G[i, i] / G.trace() * rest[j] / rest.sum())
    draws = Counter(
        tuple(low_rank_kernel(points, 2, kernel=linear, seed=s).pivots.tolist())
        for s in range(1500)
    )
    for pair, share in expected.items():
        # Four deviations of a binomial count.
        assert abs(draws[pair] - 1500 * share) < 4 * math.sqrt(1500 * share) + 1


def test_the_seed_decides():
    one, two, other = (low_rank_kernel(X, 9, seed=s).pivots for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.usefixtures("without_annotations")
def test_bad_input_is_refused():
    refused(lambda: low_rank_kernel(X, 41), "rank", "at most the 40 points", "41")
    refused(lambda: low_rank_kernel(X, 0), "rank", "an integer >= 1", "0")
    refused(lambda: low_rank_kernel(X[0], 1), "X", "2 axes", "(5,)")
    refused(lambda: low_rank_kernel(X, 3, seed=-1), "seed", "an integer from 0", "-1")
    refused(lambda: low_rank_kernel(2 * X, 3), "X", "unit norm", "off by")
    zero = {"kernel": lambda A, B=None: 0 * linear(A, B)}
    refused(lambda: low_rank_kernel(X, 3, **zero), "kernel", "a positive diagonal", "0.0")
