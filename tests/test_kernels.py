"""The closed form (4) against its definition, at angles known by hand, and at its edges."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from problems import unit_rows
from torch.testing import assert_close

from ntk_influence import relu_ntk

EPS = torch.finfo(torch.float64).eps
sizes = st.integers(1, 8)
seeds = st.integers(0, 10**6)


def on_circle(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.mark.parametrize(
    ("degrees", "value"),
    [(0, 1 / 2), (45, 3 * math.sqrt(2) / 16), (60, 1 / 6), (90, 0), (120, -1 / 12), (180, 0)],
)
def test_angles_known_by_hand(degrees, value):
    kernel = relu_ntk(on_circle(0), on_circle(degrees))
    assert kernel.item() == pytest.approx(value, abs=4 * EPS)  # a cosine, an arccosine, a product


def test_equals_the_average_over_directions():
    # Only the part of w in the plane of x and z matters, and its direction is uniform. An
    # indicator over a grid of angles is off by at most one grid cell at each of its two edges.
    x, z, grid = on_circle(20), on_circle(0, 37, 90, 143, 180, 250, 333), 100_000
    w = on_circle(*((torch.arange(grid) + 0.5) * 360 / grid).tolist())
    both_active = ((x @ w.T >= 0) & (z @ w.T >= 0)).double().mean(dim=1)
    assert_close(relu_ntk(x, z)[0], (x @ z.T)[0] * both_active, atol=2 / grid, rtol=0)


def test_equals_the_expectation_over_gaussian_weights():
    X, Z, draws = unit_rows(4, 6), unit_rows(5, 6, seed=1), 100_000
    w = unit_rows(draws, 6, seed=2)  # the length of w does not matter
    A, B = (X @ w.T >= 0).double(), (Z @ w.T >= 0).double()
    # A probability is estimated with a standard error of at most 0.5 / sqrt(draws); six of them.
    assert_close(relu_ntk(X, Z), X @ Z.T * (A @ B.T / draws), atol=3 / math.sqrt(draws), rtol=0)


@given(n=sizes, dim=sizes, seed=seeds)
def test_a_gram_matrix_is_symmetric_positive_and_one_half_on_the_diagonal(n, dim, seed):
    X = unit_rows(n, dim, seed)
    K = relu_ntk(X)
    assert (K.diagonal() == 0.5).all()
    assert_close(K, K.T, atol=EPS, rtol=0)
    assert K.min() > -0.09
    assert K.max() <= 0.5
    assert torch.linalg.eigvalsh(K).min() > -1e-12  # eigenvalues up to 4, a dozen roundings each


@given(n=sizes, n2=sizes, dim=sizes, seed=seeds)
def test_two_sets_of_points_give_a_block_of_the_joint_gram_matrix(n, n2, dim, seed):
    points = unit_rows(n + n2, dim, seed)
    X, Z = points[:n], points[n:]
    # Products of another shape may round otherwise, and an arccosine near 1 magnifies that to
    # sqrt(32 eps) just outside of the snapped zone.
    assert_close(relu_ntk(X, Z), relu_ntk(points)[:n, n:], atol=1e-7, rtol=0)
    assert_close(relu_ntk(X, Z), relu_ntk(Z, X).T, atol=1e-7, rtol=0)


@given(dim=st.integers(1, 200), seed=seeds)
def test_the_same_point_in_both_sets_gives_one_half(dim, seed):
    X = unit_rows(5, dim, seed)
    # Where the cosine comes out as 1 - eps, the formula as it stands is wrong by 3e-9.
    assert_close(relu_ntk(X, X.clone()).diagonal(), torch.full((5,), 0.5).double(), atol=0, rtol=0)


def test_points_at_a_tiny_angle_stay_apart():
    angle = 1e-5
    kernel = relu_ntk(on_circle(0), on_circle(math.degrees(angle))).item()
    # An arccosine keeps the angle to eps / angle = 2e-11.
    assert kernel == pytest.approx(math.cos(angle) * (0.5 - angle / (2 * math.pi)), abs=1e-10)


@pytest.mark.parametrize("stretch", [1 - 1e-13, 1 + 1e-13])
def test_norms_that_are_off_within_the_tolerance_leave_the_diagonal_exact(stretch):
    X = stretch * unit_rows(6, 4)
    assert (relu_ntk(X).diagonal() == 0.5).all()


@pytest.mark.parametrize("stretch", [1 - 1e-13, 1, 1 + 1e-13])
def test_antipodal_points_have_nothing_in_common(stretch):
    X = stretch * unit_rows(6, 4)
    # Zero, up to an arccosine of -1 + 2e-13, which is sqrt(4e-13) = 6e-7 away from pi.
    assert_close(relu_ntk(X, -X).diagonal(), torch.zeros(6).double(), atol=2e-7, rtol=0)


@given(seed=seeds)
def test_orthogonal_points_have_kernel_zero(seed):
    X = torch.linalg.qr(unit_rows(6, 6, seed)).Q
    X = X / X.norm(dim=1, keepdim=True)
    assert_close(relu_ntk(X), 0.5 * torch.eye(6).double(), atol=10 * EPS, rtol=0)


@given(seed=seeds)
def test_a_rotation_changes_nothing(seed):
    X, Q = unit_rows(5, 4, seed), torch.linalg.qr(unit_rows(4, 4, seed + 1)).Q
    assert_close(relu_ntk(X @ Q), relu_ntk(X), atol=1e-12, rtol=0)


def test_single_precision_works_and_stays_single():
    X, Z = unit_rows(6, 4), unit_rows(3, 4, seed=1)
    single = relu_ntk(X.float(), Z.float())
    assert single.dtype == torch.float32
    # A cosine is off by 1e-7, and no cosine here is close enough to 1 to magnify that tenfold.
    assert_close(single.double(), relu_ntk(X, Z), atol=1e-6, rtol=0)
    assert (relu_ntk(X.float()).diagonal() == 0.5).all()


def test_the_arguments_are_left_alone():
    X, Z = unit_rows(6, 4), unit_rows(3, 4, seed=1)
    before = X.clone(), Z.clone()
    relu_ntk(X, Z), relu_ntk(X)
    assert torch.equal(X, before[0])
    assert torch.equal(Z, before[1])


def test_real_digits_have_a_positive_definite_kernel(digits):
    K = relu_ntk(digits.X)
    assert (K.diagonal() == 0.5).all()
    assert torch.linalg.eigvalsh(K).min() > 1e-3  # distinct points, far above rounding


def test_the_shape_annotations_are_enforced_in_these_tests():
    with pytest.raises(TypeCheckError):
        relu_ntk(unit_rows(3, 4)[0])


# Smoothed kinks


@pytest.mark.parametrize("smoothing", [0.1, 0.3, 1.0, 5.0])
def test_the_smoothed_kernel_is_a_monte_carlo_mean(smoothing):
    """Of the product of slopes, with the noise of the kink drawn or integrated out."""
    X = unit_rows(5, 3)
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(400_000, 3, generator=generator, dtype=torch.float64)
    slopes = torch.special.ndtr(w @ X.T / smoothing)
    estimate = (X @ X.T) * (slopes.T @ slopes) / len(w)
    # Five standard errors of a mean of values in [0, 1].
    assert_close(relu_ntk(X, smoothing=smoothing), estimate, atol=5 * 0.5 / len(w) ** 0.5, rtol=0)


def test_no_smoothing_is_relu_to_the_last_bit():
    X, Z = unit_rows(6, 4), unit_rows(3, 4, seed=1)
    for smoothing in (0.0, -0.0):
        assert torch.equal(relu_ntk(X, smoothing=smoothing), relu_ntk(X))
        assert torch.equal(relu_ntk(X, Z, smoothing=smoothing), relu_ntk(X, Z))


@pytest.mark.parametrize("smoothing", [1e-2, 1e-4, 1e-6])
def test_a_little_smoothing_is_nearly_relu(smoothing):
    """Between different points the kernel is smooth in s^2; on the diagonal it moves like s."""
    X = unit_rows(6, 4)
    difference = (relu_ntk(X, smoothing=smoothing) - relu_ntk(X)).abs()
    assert difference.diagonal().max() <= smoothing
    assert difference.fill_diagonal_(0).max() <= 10 * smoothing**2


def test_much_smoothing_is_a_linear_kernel_over_four():
    X = unit_rows(6, 4)
    assert_close(relu_ntk(X, smoothing=1e6), X @ X.T / 4, atol=1e-12, rtol=0)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_the_diagonal_of_the_smoothed_kernel_is_that_of_equal_points(smoothing):
    X = unit_rows(6, 4)
    diagonal = relu_ntk(X, smoothing=smoothing).diagonal()
    assert_close(
        diagonal, relu_ntk(X, X.clone(), smoothing=smoothing).diagonal(), atol=1e-14, rtol=0
    )
    c = 1 / (1 + smoothing**2)
    expected = 0.5 - math.acos(c) / (2 * math.pi)
    assert_close(diagonal, torch.full_like(diagonal, expected), atol=1e-15, rtol=0)
    assert expected < 0.5
