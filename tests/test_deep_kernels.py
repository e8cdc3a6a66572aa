"""Kernels of many layers against finite networks, another library's values, and their edges."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import unit_rows
from torch.autograd import gradcheck
from torch.nn.functional import conv2d, normalize
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import conv_ntk, deep_kernels, deep_ntk, relu_ntk

EPS = torch.finfo(torch.float64).eps
TRAINED = ("all", "first")
seeds = st.integers(0, 10**6)


def pictures(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Random images of norm one."""
    return unit_rows(n, math.prod(shape), seed).reshape(n, *shape)


def kappa(c: float) -> tuple[float, float]:
    """The two arc-cosine kernels of a cosine, written out."""
    angle = math.acos(c)
    return (math.pi - angle) / math.pi, (math.sin(angle) + (math.pi - angle) * c) / math.pi


# Fully connected: what is known by hand


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_layer_of_which_the_first_is_trained_is_relu_ntk_to_the_last_bit(dtype):
    X, Z = unit_rows(6, 4, dtype=dtype), unit_rows(3, 4, seed=1, dtype=dtype)
    X = torch.cat([X, X[:1], -X[:1]])
    assert torch.equal(deep_ntk(X, depth=1, train="first"), relu_ntk(X))
    assert torch.equal(deep_ntk(X, Z, depth=1, train="first"), relu_ntk(X, Z))


def test_orthogonal_points_by_hand():
    """cos = 0, 1/pi, ...; of the first layer nothing is left, of the second one half of it."""
    X = torch.eye(2, dtype=torch.float64)
    a = 1 / math.pi
    k0, k1 = kappa(a)
    expected = {(1, "all"): a / 2, (2, "all"): (a * k0 + k1) / 2, (1, "first"): 0, (2, "first"): 0}
    for (depth, train), value in expected.items():
        entry = deep_ntk(X, depth=depth, train=train)[0, 1].item()
        assert entry == pytest.approx(value, abs=4 * EPS)


@pytest.mark.parametrize("train", TRAINED)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_is_the_sum_over_layers_written_out(depth, train):
    X, Z = unit_rows(4, 5), unit_rows(3, 5, seed=1)
    K = deep_ntk(X, Z, depth=depth, train=train)
    for i in range(4):
        for j in range(3):
            cosines = [float(X[i] @ Z[j])]
            for _ in range(depth):
                cosines.append(kappa(cosines[-1])[1])
            # The weights of layer l have the inputs of covariance cosines[l], and pass L - l kinks.
            shares = [
                c * math.prod(kappa(above)[0] for above in cosines[layer:depth])
                for layer, c in enumerate(cosines)
            ]
            expected = (sum(shares) if train == "all" else shares[0]) / 2
            # Some dozen roundings of numbers up to depth + 1.
            assert K[i, j].item() == pytest.approx(expected, abs=50 * EPS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("stretch", [1 - 1e-13, 1, 1 + 1e-13])
@pytest.mark.parametrize("depth", [1, 2, 3, 40])
def test_the_diagonal_is_exact_at_every_depth(depth, stretch, dtype):
    X = (stretch * unit_rows(6, 7)).to(dtype)
    assert (deep_ntk(X, depth=depth).diagonal() == (depth + 1) / 2).all()
    assert (deep_ntk(X, depth=depth, train="first").diagonal() == 0.5).all()


@given(dim=st.integers(1, 200), seed=seeds)
def test_the_same_point_in_both_sets_gives_the_diagonal(dim, seed):
    X = unit_rows(5, dim, seed)
    # Where the cosine comes out as 1 - eps, its arccosine would be wrong by 1e-8 at each layer.
    for train, value in (("all", 2.0), ("first", 0.5)):
        K = deep_ntk(X, X.clone(), depth=3, train=train)
        assert (K.diagonal() == value).all()


def test_copies_among_the_points_give_the_diagonal():
    X = unit_rows(4, 30).repeat(2, 1)
    K = deep_ntk(X, depth=3)
    assert (K.diagonal(4) == 2).all()


def test_points_at_a_tiny_angle_stay_apart():
    angle = 1e-5
    X = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    k0, k1 = kappa(X[1, 0].item())
    expected = (X[1, 0].item() * k0 + k1) / 2
    # An arccosine keeps the angle to eps / angle = 2e-11.
    assert deep_ntk(X, depth=1)[0, 1].item() == pytest.approx(expected, abs=1e-10)
    K = conv_ntk(X[:, None, None], depth=1, kernel_size=1)
    assert K[0, 1].item() == pytest.approx(expected, abs=1e-10)


def test_opposite_points_meet_again_in_the_second_layer():
    """cos = -1, 0, 1/pi: they are as orthogonal points one layer before."""
    X = unit_rows(4, 6)
    assert_close(deep_ntk(X, -X, depth=1).diagonal(), torch.zeros(4).double(), atol=2e-8, rtol=0)
    two = deep_ntk(X, -X, depth=2).diagonal()
    assert_close(two, torch.full((4,), 0.5 / math.pi).double(), atol=2e-8, rtol=0)


@given(n=st.integers(1, 7), n2=st.integers(1, 7), dim=st.integers(1, 8), seed=seeds)
def test_gram_matrices_are_symmetric_positive_and_blocks_of_the_joint_one(n, n2, dim, seed):
    points = unit_rows(n + n2, dim, seed)
    for train in TRAINED:
        K = deep_ntk(points, depth=3, train=train)
        assert_close(K, K.T, atol=1e-7, rtol=0)  # an arccosine near 1 magnifies a rounding
        assert torch.linalg.eigvalsh(K).min() > -1e-6
        block = deep_ntk(points[:n], points[n:], depth=3, train=train)
        assert_close(block, K[:n, n:], atol=1e-7, rtol=0)


def test_very_deep_kernels_stay_finite_and_tend_to_a_quarter_of_their_diagonal():
    """Angles fall like 3 pi / l, so T(l + 1) = (1 - 3 / l) T(l) + 1, which grows like l / 4."""
    X = unit_rows(5, 4)
    K = deep_ntk(torch.cat([X, normalize(X + 1e-9)]), depth=3000)
    assert torch.isfinite(K).all()
    ratio = K[:5, :5] / 1500.5
    assert (ratio.fill_diagonal_(0.25) - 0.25).abs().max() < 0.02  # log(l) / l is a percent or so


@pytest.mark.parametrize("train", TRAINED)
def test_gradients_are_those_of_finite_differences(train):
    V, V2 = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).double() for n in (4, 2))

    def of(V, V2):
        X, Z = normalize(V), normalize(V2)
        return deep_ntk(X, depth=3, train=train), deep_ntk(Z, X, depth=3, train=train)

    assert gradcheck(of, [V.requires_grad_(), V2.requires_grad_()])


def test_equal_and_opposite_points_have_a_finite_gradient():
    X = torch.eye(3, dtype=torch.float64)[[0, 0, 1]].requires_grad_()
    K, k = deep_ntk(X, depth=3), deep_ntk(-X.detach(), X, depth=3)
    (gradient,) = torch.autograd.grad(K.sum() + k.sum(), X)
    assert torch.isfinite(gradient).all()


# Convolutional: what is known by hand


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_one_pixel_is_the_fully_connected_network_of_its_channels(depth):
    X, Z = unit_rows(5, 3), unit_rows(4, 3, seed=1)
    K = conv_ntk(X[:, None, None], Z[:, None, None], depth=depth, kernel_size=1)
    assert_close(K, deep_ntk(X, Z, depth=depth), atol=1e-14, rtol=0)
    K = conv_ntk(X[:, None, None], depth=depth, kernel_size=1)
    assert_close(K, deep_ntk(X, depth=depth), atol=1e-14, rtol=0)


def by_loops(x, z, depth, k, pooled=False):
    """The recursion at all pairs of positions, as it stands before equal ones are singled out."""
    h, w, _ = x.shape
    places = [(p, q) for p in range(h) for q in range(w)]
    moves = [(p - k // 2, q - k // 2) for p in range(k) for q in range(k)]

    def window(values, a, b):
        """The mean over common moves of two positions, zeros outside of the image."""
        moved = [((a[0] + p, a[1] + q), (b[0] + p, b[1] + q)) for p, q in moves]
        return sum(values.get(pair, 0.0) for pair in moved) / k**2

    def every(of):
        return {(a, b): of(a, b) for a in places for b in places}

    def of_products(x, z):
        return every(lambda a, b: h * w * float(x[a] @ z[b]))

    def after_kinks(both, left, right):
        """Covariances and slopes of one layer from the covariances of its pre-activations."""
        covariance, slopes = {}, {}
        for (a, b), value in both.items():
            size = math.sqrt(left[a, a] * right[b, b])
            k0, k1 = kappa(max(-1.0, min(1.0, value / size))) if size else (0.0, 0.0)
            covariance[a, b], slopes[a, b] = size * k1, k0
        return covariance, slopes

    sides = [of_products(x, z), of_products(x, x), of_products(z, z)]
    tangent = every(lambda a, b: 0.0)
    for _ in range(depth):
        sides = [every(lambda a, b, v=v: window(v, a, b)) for v in sides]
        passed = every(lambda a, b, t=tangent: window(t, a, b))
        after = [after_kinks(sides[0], sides[1], sides[2])]
        after += [after_kinks(own, own, own) for own in sides[1:]]
        tangent = {pair: after[0][1][pair] * (sides[0][pair] + passed[pair]) for pair in passed}
        sides = [covariance for covariance, _ in after]
    found = {pair: sides[0][pair] + tangent[pair] for pair in tangent}
    if pooled:
        return sum(found.values()) / (2 * (h * w) ** 2)
    return sum(found[a, a] for a in places) / (2 * h * w)


@pytest.mark.parametrize(
    ("depth", "window", "channels"), [(1, 3, 1), (2, 3, 2), (3, 3, 1), (2, 5, 1)]
)
def test_is_the_recursion_over_all_pairs_of_positions(depth, window, channels):
    images, other = pictures(2, 3, 4, channels), pictures(2, 3, 4, channels, seed=1)
    K = conv_ntk(images, other, depth=depth, kernel_size=window)
    for i, x in enumerate(images):
        for j, z in enumerate(other):
            assert K[i, j].item() == pytest.approx(by_loops(x, z, depth, window), abs=1e-13)


def test_a_position_of_zeros_adds_zero():
    """One lit pixel, and a window that sees it from there alone."""
    images = torch.zeros(2, 3, 3, dtype=torch.float64)
    images[0, 1, 1], images[1, 0, 0] = 1, 1
    K = conv_ntk(images, depth=3, kernel_size=1)
    # The lit position is a network of its own: 9 times its square, over 9 positions; others are 0.
    assert_close(K, 2 * torch.eye(2).double(), atol=1e-14, rtol=0)
    assert torch.isfinite(conv_ntk(images, depth=2, kernel_size=3)).all()


def test_a_window_reaches_over_the_edge_into_zeros():
    """An image of equal pixels, one layer: a corner sees 4 of 9, a side 6 of 9."""
    images = torch.full((1, 3, 3), 1 / 3, dtype=torch.float64)
    mean = (4 * 4 / 9 + 4 * 6 / 9 + 1) / 9
    K = conv_ntk(images, depth=1, kernel_size=3)
    assert K.item() == pytest.approx(mean, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_equal_images_have_no_angle_at_any_layer(shape, dtype):
    """Then the kernel is linear in the variances: a sum over layers of repeated means."""
    images = pictures(5, *shape).to(dtype)
    K = conv_ntk(images, depth=4, kernel_size=3)
    square = 20 * images.reshape(5, 4, 5, -1).square().sum(dim=-1)
    for _ in range(4):
        square = torch.nn.functional.avg_pool2d(square, 3, stride=1, padding=1)
    # L layers and the read-out give the same each. An arccosine of 1 - eps would be off by 1e-8.
    expected = square.mean(dim=(1, 2)) * 5 / 2
    few = 40 * torch.finfo(dtype).eps
    assert_close(K.diagonal(), expected, atol=few, rtol=0)
    assert_close(conv_ntk(images, images.clone(), depth=4, kernel_size=3), K, atol=few, rtol=0)


@given(n=st.integers(1, 5), size=st.integers(1, 4), seed=seeds)
def test_gram_matrices_of_images_are_symmetric_positive_and_blocks_of_the_joint_one(n, size, seed):
    images = pictures(n + 2, size, size + 1, seed=seed)
    K = conv_ntk(images, depth=2, kernel_size=3)
    assert torch.equal(K, K.T)
    assert torch.linalg.eigvalsh(K).min() > -1e-6
    block = conv_ntk(images[:n], images[n:], depth=2, kernel_size=3)
    assert_close(block, K[:n, n:], atol=1e-7, rtol=0)


@pytest.mark.parametrize("pairs", [1, 2, 3, 7, 20, 1000])
def test_the_kernel_does_not_depend_on_the_blocks(pairs):
    images, other = pictures(5, 3, 4, 2), pictures(4, 3, 4, 2, seed=1)
    memory = pairs * deep_kernels.ARRAYS * 12 * 8
    for second in (None, other):
        whole = conv_ntk(images, second, depth=2, kernel_size=3)
        parts = conv_ntk(images, second, depth=2, kernel_size=3, memory=memory)
        assert_close(parts, whole, atol=1e-14, rtol=0)


def test_gradients_of_images_are_those_of_finite_differences():
    V, V2 = (torch.randn(n, 4, generator=torch.Generator().manual_seed(n)).double() for n in (2, 1))

    def of(V, V2):
        images, other = (normalize(v).reshape(-1, 1, 2, 2) for v in (V, V2))
        how = {"depth": 2, "kernel_size": 3, "memory": deep_kernels.ARRAYS * 2 * 8}
        return conv_ntk(images, **how), conv_ntk(images, other, **how)

    assert gradcheck(of, [V.requires_grad_(), V2.requires_grad_()])


def test_equal_images_and_windows_of_zeros_have_a_finite_gradient():
    images = torch.zeros(3, 4, 4, dtype=torch.float64)
    images[0, 0, 0] = images[1, 0, 0] = images[2, 3, 3] = 1
    images.requires_grad_()
    K = conv_ntk(images, depth=2, kernel_size=3) + conv_ntk(-images, images, depth=2, kernel_size=3)
    (gradient,) = torch.autograd.grad(K.sum(), images)
    assert torch.isfinite(gradient).all()


# Both


@pytest.mark.parametrize("window", [2, 4, 9, 11])
def test_windows_without_a_centre_or_beyond_the_image_are_refused(window):
    expected = rf"^kernel_size: expected an odd integer of at most 7 .* 3 x 4, got {window}$"
    with pytest.raises(ValueError, match=expected):
        conv_ntk(pictures(2, 3, 4), depth=1, kernel_size=window)
    conv_ntk(pictures(2, 3, 4), depth=1, kernel_size=7)


def test_single_precision_works_and_stays_single_and_arguments_are_left_alone():
    X, images = unit_rows(5, 6), pictures(4, 3, 4)
    before = X.clone(), images.clone()
    K, single = deep_ntk(X, depth=3), deep_ntk(X.float(), depth=3)
    assert single.dtype == torch.float32
    assert_close(single.double(), K, atol=3e-6, rtol=0)  # cosines here are far from 1
    K, single = (conv_ntk(v, depth=2, kernel_size=3) for v in (images, images.float()))
    assert single.dtype == torch.float32
    assert_close(single.double(), K, atol=3e-6, rtol=0)
    assert torch.equal(X, before[0])
    assert torch.equal(images, before[1])


def written_points(n: int, *shape: int, phase: float = 0.0) -> torch.Tensor:
    """Points of norm one that another program can write down."""
    t = torch.arange(n * math.prod(shape), dtype=torch.float64) + phase
    return normalize(torch.sin(1 + t + t**2 / 7).reshape(n, -1)).reshape(n, *shape)


# Of neural-tangents 0.6.5 with jax 0.4.30 in double precision. Dense(1, W_std=1, b_std=0), then
# depth times Relu(), Dense(1, W_std=1, b_std=0): `ntk` times 2^(depth - 1) for its variances of one
# half, and times 5 because it divides by the dimension. "first" is what is lost of `ntk` where the
# `ntk` after the first Dense is set to zero; at depth 1 it equals 5 (ntk - nngp).
BY_NEURAL_TANGENTS = {
    ("all", 1): [
        [0.7171042705402444, -0.0011650035340122177],
        [0.03532320949376669, -0.06727018496408595],
        [-0.057587041919793025, 0.11303323015904515],
    ],
    ("first", 1): [
        [0.30930001287592146, -0.0735823739561384],
        [-0.058552882127292344, -0.0862684715610855],
        [-0.08929923113273029, -0.022687803487587508],
    ],
    ("all", 2): [
        [0.9960615461165463, 0.19639946897170307],
        [0.2286917365488415, 0.13432008929100342],
        [0.14537435362338574, 0.2993226988368807],
    ],
    ("first", 2): [
        [0.24855276007257024, -0.04019547939961267],
        [-0.03279665112297922, -0.04417787698706169],
        [-0.04645365350447997, -0.013329096685281358],
    ],
    ("all", 3): [
        [1.243507344941033, 0.3937208778198975],
        [0.42343655080977705, 0.3345757698519114],
        [0.3459761247746218, 0.4890460578743482],
    ],
    ("first", 3): [
        [0.20311943509898345, -0.02528029769928067],
        [-0.02089813342730229, -0.026930574936664883],
        [-0.028524567301998968, -0.008720489765031633],
    ],
}
# Likewise: depth times Conv(1, (k, k), padding="SAME", W_std=1, b_std=0), Relu(); then Flatten()
# and Dense(1, W_std=1, b_std=0); times 2^(depth - 1) times 20 pixels times the channels.
CONVOLUTIONS_BY_NEURAL_TANGENTS = {
    (1, 3, 1): [
        [-0.0010282060497241504, 0.07954630750427584],
        [0.1288719153847137, 0.19549341536919038],
    ],
    (1, 3, 2): [
        [0.10185959037753653, 0.1675382236980058],
        [0.20236892804154916, 0.2529781272315274],
    ],
    (2, 3, 2): [
        [0.15343988333347008, 0.21358677305298418],
        [0.20524296885968765, 0.14233496820941166],
    ],
    (2, 5, 3): [
        [0.08117030742679945, 0.09445359243482704],
        [0.09239340478762499, 0.07818534380299563],
    ],
}


@pytest.mark.parametrize(("train", "depth"), BY_NEURAL_TANGENTS)
def test_fully_connected_values_are_those_of_another_library(train, depth):
    X, Z = written_points(3, 5), written_points(2, 5, phase=0.5)
    expected = torch.tensor(BY_NEURAL_TANGENTS[train, depth], dtype=torch.float64)
    assert_close(deep_ntk(X, Z, depth=depth, train=train), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("channels", "window", "depth"), CONVOLUTIONS_BY_NEURAL_TANGENTS)
def test_convolutional_values_are_those_of_another_library(channels, window, depth):
    images, other = (written_points(2, 4, 5, channels, phase=phase) for phase in (0.0, 0.5))
    if channels == 1:  # with windows of zeros
        images[0, :, :2] = 0
        images[0] /= images[0].norm()
    values = CONVOLUTIONS_BY_NEURAL_TANGENTS[channels, window, depth]
    expected = torch.tensor(values, dtype=torch.float64)
    K = conv_ntk(images, other, depth=depth, kernel_size=window)
    assert_close(K, expected, atol=1e-10, rtol=0)


# Finite networks, by automatic differentiation


def finite_kernel(output, shapes, inputs, seed, first):
    """The kernel of one random network, from the gradients by all its weights or its first."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(*shape, generator=generator) for shape in shapes]
    moved = 1 if first else len(weights)

    def of(*chosen):
        return output([*chosen, *weights[moved:]], inputs.float())

    jacobians = torch.func.jacrev(of, argnums=tuple(range(moved)))(*weights[:moved])
    return sum(J.flatten(1) @ J.flatten(1).T for J in jacobians).double()


def fully_connected(weights, X):
    """The network of the docstring, from its weights."""
    first, *hidden, a = weights
    u = X @ first.T
    for W in hidden:
        u = math.sqrt(2 / len(first)) * torch.relu(u) @ W.T
    return torch.relu(u) @ a / math.sqrt(len(a))


def convolutional(weights, images):
    """The network of the docstring, from its weights, with windows of 3 x 3."""
    first, *hidden, a = weights
    h, w = images.shape[1:3]
    u = math.sqrt(h * w) / 3 * conv2d(images.permute(0, 3, 1, 2), first, padding=1)
    for W in hidden:
        u = math.sqrt(2 / len(first)) / 3 * conv2d(torch.relu(u), W, padding=1)
    return torch.relu(u).flatten(1) @ a / math.sqrt(len(a))


def deep_errors(width, depth, train, draws):
    """Kernels of random networks less their limit, one for each seed."""
    X = unit_rows(3, 4)
    shapes = [(width, 4), *[(width, width)] * (depth - 1), (width,)]
    limit = deep_ntk(X, depth=depth, train=train)
    found = [finite_kernel(fully_connected, shapes, X, s, train == "first") for s in range(draws)]
    return torch.stack(found) - limit


def conv_errors(width, depth, draws):
    images = pictures(3, 3, 3, 2)
    shapes = [(width, 2, 3, 3), *[(width, width, 3, 3)] * (depth - 1), (width * 9,)]
    limit = conv_ntk(images, depth=depth, kernel_size=3)
    found = [finite_kernel(convolutional, shapes, images, s, False) for s in range(draws)]
    return torch.stack(found) - limit


def within_five_standard_errors(errors):
    """The mean over draws; its bias of order 1 / width is far below for few enough of them."""
    standard = errors.std(dim=0) / math.sqrt(len(errors))
    return bool((errors.mean(dim=0).abs() <= 5 * standard).all())


@pytest.mark.parametrize("train", TRAINED)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_wide_networks_have_this_kernel_on_average(depth, train):
    assert within_five_standard_errors(deep_errors(400, depth, train, 16))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_wide_convolutional_networks_have_this_kernel_on_average(depth):
    assert within_five_standard_errors(conv_errors(100, depth, 16))


@pytest.mark.parametrize(
    "errors", [lambda m, s: deep_errors(m, 2, "all", s), lambda m, s: conv_errors(m, 2, s)]
)
def test_the_error_of_a_finite_network_falls_like_one_over_the_root_of_its_width(errors):
    # Root mean squares of 24 draws of six entries are known to 15 % at most, and so the slope over
    # a factor of 16 to sqrt(2) 0.15 / log 16 = 0.08; three of these.
    few, many = (errors(m, 24).square().mean().sqrt().item() for m in (16, 256))
    assert math.log(few / many) / math.log(16) == pytest.approx(0.5, abs=0.24)


# What is made of a kernel


KERNELS_OF_DIGITS = {
    "all layers": lambda X, Z=None: deep_ntk(X, Z, depth=3),
    "first layer": lambda X, Z=None: deep_ntk(X, Z, depth=3, train="first"),
    "convolutional": lambda X, Z=None: conv_ntk(
        X.reshape(-1, 28, 28),
        None if Z is None else Z.reshape(-1, 28, 28),
        depth=2,
        kernel_size=3,
    ),
}


@pytest.mark.parametrize("name", KERNELS_OF_DIGITS)
def test_leave_one_out_and_the_law_of_leverage_hold_on_digits(digits, name):
    """Every formula takes a kernel as it is: of real digits, against refits."""
    kernel = KERNELS_OF_DIGITS[name]
    X, y, X_test = digits.X[:40], digits.y[:40], digits.X_test[:5]
    K, k_test, ridge = kernel(X), kernel(X_test, X), 0.1
    model = ni.fit_kernel_ridge(K, y, ridge)
    A = K + ridge * torch.eye(40).double()
    assert torch.linalg.eigvalsh(K).min() > 0
    f, found = model.predict(k_test), ni.leave_one_out(model, k_test)
    for i in range(40):
        kept = [j for j in range(40) if j != i]
        dual = torch.linalg.solve(A[kept][:, kept], y[kept])
        assert_close(found[i], k_test[:, kept] @ dual, atol=1e-9, rtol=0)
        # The residual left out is the residual over 1 - h, and a fit moves by h of it.
        left_out = y[i] - K[i, kept] @ dual
        within = y[i] - model.predict(K)[i]
        assert_close(within, (1 - model.leverage[i]) * left_out, atol=1e-9, rtol=0)
    # The first order is 1 - h of the change.
    y_test = digits.y_test[:5]
    first = ni.ihvp_influence(model, k_test, y_test)
    expected = (1 - model.leverage)[:, None] * (found - f) * (f - y_test)
    assert_close(first, expected, atol=1e-9, rtol=0)
