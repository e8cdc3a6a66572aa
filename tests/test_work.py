"""Work that is counted, against work that is known."""

import pytest
import torch

from studies import work

n, k = 40, 10
A = torch.randn(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
positive = A @ A.T + torch.eye(n).double()


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda: A @ A[:, :k], 2 * n * n * k),
        (lambda: A @ A[0], 2 * n * n),
        (lambda: A + A, 0),
        (lambda: torch.linalg.cholesky(positive), n**3 / 3),
        (lambda: torch.cholesky_inverse(A), 2 * n**3 / 3),
        (lambda: torch.cholesky_solve(A[:, :k], A), 2 * n * n * k),
        (lambda: torch.linalg.qr(A[:, :k]), 4 * n * k**2 - 4 * k**3 / 3),
        (lambda: torch.linalg.eigh(positive), 9 * n**3),
        (lambda: torch.linalg.svd(A[:, :k], full_matrices=False), 6 * n * k**2 + 20 * k**3),
        (lambda: torch.linalg.svd(A[:k], full_matrices=False), 6 * n * k**2 + 20 * k**3),
    ],
)
def test_operations_of_products_and_factorisations(action, expected):
    assert work.counted(action).operations == pytest.approx(expected, rel=1e-12)


def freed():
    """One matrix beside another, which goes; a view keeps its matrix."""
    B = A + 1
    del B
    C = A + 1
    view = C.T
    del C
    return (view + 1).sum()


@pytest.mark.parametrize(
    ("action", "matrices"),
    [
        (lambda: A @ A, 1),
        (lambda: A @ A + A @ A, 3),
        (lambda: A.clone().add_(1), 1),
        (lambda: A.T, 0),
        (freed, 2),
    ],
)
def test_numbers_held_at_once(action, matrices):
    assert round(work.counted(action).held / n**2, 2) == matrices


def test_what_a_call_returns_is_kept():
    assert torch.equal(work.counted(lambda: A @ A).result, A @ A)


def test_calls_are_made_in_turn_and_their_first_round_is_not_counted():
    made = []
    actions = {name: lambda name=name: made.append(name) for name in ("one", "two")}
    found = work.side_by_side(actions, repeats=2)
    assert made == ["one", "two"] * 3
    assert set(found) == {"one", "two"}
    assert all(len(seconds) == 2 and min(seconds) >= 0 for seconds in found.values())
