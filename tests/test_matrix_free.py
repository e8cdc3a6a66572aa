"""Products with a kernel that is never stored, and conjugate gradients on them."""

import pytest
import torch
from problems import refused, unit_rows
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence.iterative import KernelSystem, conjugate_gradients, low_rank_kernel

N = 60
X, Z = unit_rows(N, 5), unit_rows(7, 5, seed=1)
K = ni.relu_ntk(X)
B = torch.randn(N, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("chunks", [1, 7, 30, 59, 60, 100])
def test_products_are_those_of_the_dense_matrix(chunks):
    system = KernelSystem(X, 0.3, chunks=chunks)
    assert_close(system.product(B), K @ B + 0.3 * B, rtol=0, atol=1e-13)
    assert_close(system.cross(Z, B), ni.relu_ntk(Z, X) @ B, rtol=0, atol=1e-13)
    assert torch.equal(system.diagonal, torch.full((N,), 0.5).double())


def test_each_tile_is_made_once_for_all_columns():
    entries = []

    def counted(A, C=None):
        entries.append(len(A) * len(A if C is None else C))
        return ni.relu_ntk(A, C)

    system = KernelSystem(X, 0.3, kernel=counted, chunks=20)
    entries.clear()
    system.product(B)
    assert sum(entries) == N * (N + 20) // 2


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, 1e-10])
def test_the_residual_is_what_it_says_and_bounds_the_error(ridge, tolerance):
    system, low_rank = KernelSystem(X, ridge, chunks=25), low_rank_kernel(X, 10)
    found = conjugate_gradients(system, B, low_rank, tolerance=tolerance)
    A = K + ridge * torch.eye(N).double()
    assert_close(found.residual, B - A @ found.x, rtol=0, atol=1e-12)
    assert bool((found.residual.norm(dim=0) <= tolerance * B.norm(dim=0)).all())
    error = (found.x - torch.linalg.solve(A, B)).norm(dim=0)
    assert bool((error <= found.norm / ridge).all())
    assert bool((found.norm > found.residual.norm(dim=0)).all())
    assert bool((found.rounding <= 1e-11 * found.x.norm(dim=0) + 1e-13).all())


def test_the_products_are_counted(capsys):
    calls = []

    class Counting(KernelSystem):
        def product(self, B):
            calls.append(B.shape)
            return super().product(B)

    found = conjugate_gradients(Counting(X, 0.1), B, low_rank_kernel(X, 10))
    assert found.products == len(calls) > 2
    assert capsys.readouterr().err == ""
    conjugate_gradients(KernelSystem(X, 0.1), B, low_rank_kernel(X, 10), progress=True)
    assert f"products with the kernel: {found.products}it" in capsys.readouterr().err


def test_a_preconditioner_of_full_rank_solves_at_once():
    found = conjugate_gradients(KernelSystem(X, 0.1), B, low_rank_kernel(X, N), tolerance=1e-9)
    assert found.products == 2


def test_a_better_preconditioner_needs_fewer_products():
    system = KernelSystem(X, 1e-3)
    counts = [conjugate_gradients(system, B, low_rank_kernel(X, r)).products for r in (1, 20, 50)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] + 3


def test_conjugate_directions_end_after_as_many_steps_as_there_are_eigenvalues():
    # The identity of eight points: K + ridge I has one eigenvalue, two where one point counts more.
    points = torch.eye(8, dtype=torch.float64)
    points[0, 0] = 3
    system = KernelSystem(points, 0.5, kernel=lambda A, C=None: A @ (A if C is None else C).T)
    low_rank = low_rank_kernel(points, 1, kernel=system.kernel, seed=1)
    right = torch.ones(8, 1).double()
    assert conjugate_gradients(system, right, low_rank, tolerance=1e-12).products <= 4


def test_a_column_of_zeros_stays_zero_beside_others():
    right = torch.stack([B[:, 0], torch.zeros(N).double()], dim=1)
    found = conjugate_gradients(KernelSystem(X, 0.1), right, low_rank_kernel(X, 10))
    assert not found.x[:, 1].any()
    assert float(found.norm[1]) == 0
    alone = conjugate_gradients(KernelSystem(X, 0.1), right[:, 1:], low_rank_kernel(X, 10))
    assert alone.products == 0


def test_what_is_not_reached_is_one_sentence():
    system, low_rank = KernelSystem(X, 1e-6), low_rank_kernel(X, 2)
    with pytest.raises(RuntimeError, match=r"^tolerance: expected residuals of 1.0e-08 within 9 "):
        conjugate_gradients(system, B, low_rank, tolerance=1e-8, products=9)
    with pytest.raises(RuntimeError, match=r"^tolerance: expected .*, got .*; try a larger"):
        conjugate_gradients(system, B, low_rank, tolerance=1e-16)


def test_four_tiles_have_to_fit_into_the_memory(monkeypatch):
    tiles = 4 * 20**2 * 8  # of 20 rows, in double precision
    monkeypatch.setattr("ntk_influence._check.free_memory", lambda device: tiles)
    linear = {"kernel": lambda A, C=None: A @ (A if C is None else C).T}  # asks for no memory
    KernelSystem(X, 0.1, chunks=20, **linear)
    refused(lambda: KernelSystem(X, 0.1, chunks=21, **linear), "chunks", "a tile within", "GiB")


@pytest.mark.usefixtures("without_annotations")
def test_bad_input_is_refused():
    system, low_rank = KernelSystem(X, 0.1), low_rank_kernel(X, 5)
    refused(lambda: KernelSystem(X, 0.0), "ridge", "a number > 0", "0.0")
    refused(lambda: KernelSystem(2 * X, 0.1), "X", "unit norm", "off by")
    refused(lambda: KernelSystem(X, 0.1, chunks=0), "chunks", "an integer >= 1", "0")
    refused(lambda: KernelSystem(X, 0.1, kernel=3), "kernel", "a function of points", "int")
    lopsided = {"kernel": lambda A, C=None: ni.relu_ntk(A, C) + A[:, :1]}
    refused(lambda: KernelSystem(X, 0.1, **lopsided), "kernel", "a symmetric one", "|K - K^T|")
    other = {"kernel": lambda A, C=None: A}
    refused(lambda: KernelSystem(X, 0.1, **other), "kernel", "shape (8, 8)", "(8, 5)")
    half = {"kernel": lambda A, C=None: ni.relu_ntk(A, C).float()}
    refused(lambda: KernelSystem(X, 0.1, **half), "kernel", "the dtype of X", "float32")
    solve = conjugate_gradients
    refused(lambda: solve(system, B[:9], low_rank), "B", "60 rows", "9")
    refused(lambda: solve(system, B.float(), low_rank), "B", "the dtype", "float32")
    refused(lambda: solve(system, B, low_rank_kernel(Z, 2)), "low_rank", "60 rows", "7")
    refused(lambda: solve(system, B, K), "low_rank", "a LowRankKernel", "Tensor")
    refused(lambda: solve(K, B, low_rank), "system", "a KernelSystem", "Tensor")
    refused(lambda: solve(system, B, low_rank, tolerance=0), "tolerance", "a number > 0", "0")
    refused(lambda: solve(system, B, low_rank, products=0), "products", "an integer >= 1", "0")
    refused(lambda: solve(system, B * float("nan"), low_rank), "B", "finite entries", "NaN")
