"""The convolutional kernel with global average pooling; without it, see test_deep_kernels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import unit_rows
from test_deep_kernels import by_loops, finite_kernel, pictures, within_five_standard_errors
from test_deep_kernels import written_points as written
from torch.autograd import gradcheck
from torch.nn.functional import conv2d, normalize
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import deep_kernels, deep_ntk


def pooled(images, other=None, *, depth=2, kernel_size=3, **options):
    """The kernel with pooling."""
    how = {"depth": depth, "kernel_size": kernel_size, "pooling": "average"}
    return ni.conv_ntk(images, other, **how, **options)


@pytest.mark.parametrize(
    ("depth", "window", "channels"), [(1, 3, 1), (2, 3, 2), (3, 3, 1), (2, 5, 1), (1, 7, 1)]
)
def test_is_the_recursion_over_all_pairs_of_positions(depth, window, channels):
    images, other = pictures(2, 3, 4, channels), pictures(2, 3, 4, channels, seed=1)
    K = pooled(images, other, depth=depth, kernel_size=window)
    for i, x in enumerate(images):
        for j, z in enumerate(other):
            expected = by_loops(x, z, depth, window, pooled=True)
            assert K[i, j].item() == pytest.approx(expected, abs=1e-13)


def test_a_window_may_be_far_wider_than_a_narrow_image():
    images = pictures(2, 1, 4)
    K = pooled(images, kernel_size=7)
    assert K[0, 1].item() == pytest.approx(by_loops(*images[..., None], 2, 7, True), abs=1e-13)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_one_pixel_is_the_fully_connected_network_of_its_channels(depth):
    X, Z = unit_rows(5, 3), unit_rows(4, 3, seed=1)
    K = pooled(X[:, None, None], Z[:, None, None], depth=depth, kernel_size=1)
    assert_close(K, deep_ntk(X, Z, depth=depth), atol=1e-14, rtol=0)


@pytest.mark.parametrize("depth", [1, 2])
def test_images_whose_ink_is_moved_within_the_frame_keep_their_kernel(depth):
    """Two positions of room are enough for two windows of three; without pooling they move."""
    ink = pictures(3, 2, 3)
    frames = []
    for down, right in ((2, 2), (3, 2), (2, 4)):
        frame = torch.zeros(3, 7, 9, dtype=torch.float64)
        frame[:, down : down + 2, right : right + 3] = ink
        frames.append(frame)
    K = pooled(frames[0], depth=depth)
    for moved in frames[1:]:
        assert_close(pooled(moved, frames[0], depth=depth), K, atol=1e-14, rtol=0)
    fixed = ni.conv_ntk(frames[1], frames[0], depth=depth, kernel_size=3)
    assert (fixed - ni.conv_ntk(frames[0], depth=depth, kernel_size=3)).abs().max() > 0.1


def test_equal_images_have_no_angle_at_equal_positions():
    """Of equal pixels in a window of one all pairs of positions are alike: as for one pixel."""
    flat = torch.full((1, 3, 4), 1 / math.sqrt(12), dtype=torch.float64)
    for depth in (1, 4):
        K = pooled(flat, depth=depth, kernel_size=1)
        assert K.item() == pytest.approx((depth + 1) / 2, abs=1e-14)


def test_positions_of_zeros_add_zero_and_have_a_finite_gradient():
    images = torch.zeros(3, 4, 4, dtype=torch.float64)
    images[0, 0, 0] = images[1, 0, 0] = images[2, 3, 3] = 1
    images.requires_grad_()
    K = pooled(images) + pooled(-images, images)
    (gradient,) = torch.autograd.grad(K.sum(), images)
    assert torch.isfinite(K).all()
    assert torch.isfinite(gradient).all()
    # With a window of one a lit position is a network of its own: 16 of its square, in 256 pairs.
    lit = pooled(images.detach(), depth=3, kernel_size=1)
    assert_close(lit, torch.full((3, 3), 2 / 16).double(), atol=1e-14, rtol=0)


@given(n=st.integers(1, 4), size=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_gram_matrices_are_symmetric_positive_and_blocks_of_the_joint_one(n, size, seed):
    images = pictures(n + 2, size, size + 1, seed=seed)
    K = pooled(images)
    assert_close(K, K.T, atol=1e-14, rtol=0)
    assert torch.linalg.eigvalsh(K).min() > -1e-6  # an arccosine near 1 magnifies a rounding
    assert_close(pooled(images[:n], images[n:]), K[:n, n:], atol=1e-7, rtol=0)


@pytest.mark.parametrize("pairs", [1, 3, 7, 1000])
def test_the_kernel_does_not_depend_on_the_blocks(pairs):
    images, other = pictures(5, 2, 3, 2), pictures(4, 2, 3, 2, seed=1)
    memory = pairs * deep_kernels.ARRAYS * 36 * 8
    for second in (None, other):
        parts = pooled(images, second, memory=memory)
        assert_close(parts, pooled(images, second), atol=1e-14, rtol=0)


def test_a_memory_that_cannot_hold_one_pair_is_refused_in_one_sentence():
    """All pairs of positions: the 784 of a digit squared, and not once 784."""
    needed = deep_kernels.ARRAYS * 784**2 * 8
    expected = f"^memory: expected at least {needed} bytes for a pair of images, got {needed - 1}$"
    with pytest.raises(ValueError, match=expected):
        pooled(pictures(2, 28, 28), memory=needed - 1)


@pytest.mark.parametrize("word", ["max", "Average", ""])
def test_another_kind_of_pooling_is_refused(word):
    with pytest.raises(ValueError, match=r"^pooling: expected one of none, average, got "):
        ni.conv_ntk(pictures(2, 3, 3), depth=1, kernel_size=3, pooling=word)


def test_gradients_of_images_are_those_of_finite_differences():
    V, V2 = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).double() for n in (2, 1))

    def of(V, V2):
        images, other = (normalize(v).reshape(-1, 1, 2, 2) for v in (V, V2))
        memory = deep_kernels.ARRAYS * 4 * 8
        return pooled(images, memory=memory), pooled(images, other, memory=memory)

    assert gradcheck(of, [V.requires_grad_(), V2.requires_grad_()])


# Of neural-tangents 0.6.5 with jax 0.4.30 in double precision, as in test_deep_kernels, with
# GlobalAvgPool() in the place of Flatten(); times 2^(depth - 1) times 20 pixels times the channels.
BY_NEURAL_TANGENTS = {
    (1, 3, 1): [
        [0.11269691402336705, 0.12557093491325066],
        [0.13218615447976337, 0.14403111949166864],
    ],
    (1, 3, 2): [
        [0.15733524516676706, 0.1718970548630857],
        [0.17095844697615967, 0.1849637870074528],
    ],
    (2, 3, 2): [
        [0.16443413519103975, 0.1626215466259347],
        [0.1606781165260766, 0.1531484230930782],
    ],
    (2, 5, 3): [
        [0.05549630312168141, 0.055649104395255236],
        [0.05530199835464326, 0.053378728687848015],
    ],
}


@pytest.mark.parametrize(("channels", "window", "depth"), BY_NEURAL_TANGENTS)
def test_values_are_those_of_another_library(channels, window, depth):
    images, other = (written(2, 4, 5, channels, phase=phase) for phase in (0.0, 0.5))
    if channels == 1:  # with windows of zeros
        images[0, :, :2] = 0
        images[0] /= images[0].norm()
    expected = torch.tensor(BY_NEURAL_TANGENTS[channels, window, depth], dtype=torch.float64)
    K = pooled(images, other, depth=depth, kernel_size=window)
    assert_close(K, expected, atol=1e-10, rtol=0)


def network(weights, images):
    """The network of the docstring with pooling, from its weights, with windows of 3 x 3."""
    first, *hidden, a = weights
    h, w = images.shape[1:3]
    u = math.sqrt(h * w) / 3 * conv2d(images.permute(0, 3, 1, 2), first, padding=1)
    for W in hidden:
        u = math.sqrt(2 / len(first)) / 3 * conv2d(torch.relu(u), W, padding=1)
    return torch.relu(u).mean(dim=(-2, -1)) @ a / math.sqrt(len(a))


def errors_of(width, depth, draws):
    """Kernels of random networks less their limit, one for each seed."""
    images = pictures(3, 3, 3, 2)
    shapes = [(width, 2, 3, 3), *[(width, width, 3, 3)] * (depth - 1), (width,)]
    found = [finite_kernel(network, shapes, images, seed, False) for seed in range(draws)]
    return torch.stack(found) - pooled(images, depth=depth)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_wide_networks_have_this_kernel_on_average(depth):
    assert within_five_standard_errors(errors_of(100, depth, 16))


def test_the_error_of_a_finite_network_falls_like_one_over_the_root_of_its_width():
    # As in test_deep_kernels: three times what is known of the slope from so many draws.
    few, many = (errors_of(m, 2, 24).square().mean().sqrt().item() for m in (16, 256))
    assert math.log(few / many) / math.log(16) == pytest.approx(0.5, abs=0.24)


def test_leave_one_out_and_the_law_of_leverage_hold_on_digits(digits):
    """Every formula takes a kernel as it is: of real digits of 7 x 7, against refits."""
    X, X_test = (
        normalize(torch.nn.functional.avg_pool2d(v.reshape(-1, 28, 28), 4).flatten(1))
        for v in (digits.X[:20], digits.X_test[:3])
    )
    y, images, tests = digits.y[:20], X.reshape(-1, 7, 7), X_test.reshape(-1, 7, 7)
    K, k_test, ridge = pooled(images), pooled(tests, images), 0.1
    model = ni.fit_kernel_ridge(K, y, ridge)
    f, found = model.predict(k_test), ni.leave_one_out(model, k_test)
    for i in range(20):
        kept = [j for j in range(20) if j != i]
        A = K[kept][:, kept] + ridge * torch.eye(19).double()
        expected = k_test[:, kept] @ torch.linalg.solve(A, y[kept])
        assert_close(found[i], expected, atol=1e-9, rtol=0)
    y_test = digits.y_test[:3]
    expected = (1 - model.leverage)[:, None] * (found - f) * (f - y_test)
    assert_close(ni.ihvp_influence(model, k_test, y_test), expected, atol=1e-9, rtol=0)
