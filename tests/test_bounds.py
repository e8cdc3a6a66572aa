"""The bounds: values computed by hand, exponents, and the networks that they speak of."""

import math

import pytest
import torch
from problems import make_problem

from ntk_influence import TwoLayerReLU, bounds, datasets, fit_kernel_ridge, relu_ntk

GIVEN = {"n_train": 4, "width": 100, "scale": 0.5, "ridge": 2.0, "delta": 0.125}
K_3 = torch.eye(3, dtype=torch.float64)
ALL = ("lemma_1", "lemma_2", "lemma_3", "lemma_4", "theorem_1")


def flat(name, **changes):
    """The value of a bound at the given arguments as a list."""
    value = getattr(bounds, name)(**(GIVEN | changes))
    return list(value) if isinstance(value, tuple) else [value]


def test_the_values_are_those_computed_by_hand():
    """rho = 2, R = 4/10 and p = 1.6 / sqrt(2 pi), so that p / delta = 12.8 / sqrt(2 pi)."""
    share = 12.8 / math.sqrt(2 * math.pi)
    e_3 = (2 * 16 * share * 2 * 2 + 2 * 4 * 4 * share) / 2
    e_4 = (2 * 4 * share * 2 * 2 + 2 * 4 * share + 2 * e_3) / 2
    assert flat("lemma_1") == pytest.approx([0.4], rel=1e-12)
    drift = [32 * share, math.sqrt(4 * share), 8 * share, math.sqrt(share)]
    assert flat("lemma_2") == pytest.approx(drift, rel=1e-12)
    assert flat("lemma_3") == pytest.approx([e_3], rel=1e-12)
    assert flat("lemma_4") == pytest.approx([e_4], rel=1e-12)


def test_theorem_1_is_the_sum_of_its_three_parts():
    """With a fifth of delta, 0.025: sqrt(2 * 0.025) = sqrt(0.05), and (16 + 12) / 0.025 = 1120."""
    start = 0.5 / math.sqrt(0.05) * (1 + 2 / (2 * math.sqrt(2)))
    tau = math.sqrt(math.log(1120) / 200)
    kernel = 4 * tau / 2 + 4**1.5 * tau / (2 * math.sqrt(2) * 2**1.5)
    expected = flat("lemma_4", delta=0.025)[0] + start + kernel
    assert flat("theorem_1") == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "powers"),
    [
        # Of n, m, kappa and lambda, where rho is nearly one; each drift of Lemma 2 in turn.
        ("lemma_1", [(1, -1 / 2, 0, -1)]),
        (
            "lemma_2",
            [
                (3, -1 / 2, -1, -1),
                (1, -1 / 4, -1 / 2, -1 / 2),
                (2, -1 / 2, -1, -1),
                (1 / 2, -1 / 4, -1 / 2, -1 / 2),
            ],
        ),
    ],
)
def test_the_exponents_are_those_derived(name, powers):
    small = {"scale": 1e-9}
    arguments = ("n_train", "width", "scale", "ridge")
    for k, argument in enumerate(arguments):
        low = GIVEN | small
        changed = small | {argument: 16 * low[argument]}
        for after, before, power in zip(
            flat(name, **changed), flat(name, **small), powers, strict=True
        ):
            assert math.log(after / before, 16) == pytest.approx(power[k], abs=1e-6)


@pytest.mark.parametrize(("name", "power"), [("lemma_3", (3.5, -2)), ("lemma_4", (4, -3))])
def test_the_gaps_grow_with_the_paper_s_power_of_n(name, power):
    """Lemma 3: n^3.5 / (lambda^2 kappa delta sqrt m). Lemma 4 adds sqrt(n) / lambda."""
    big = {"n_train": 10**8, "scale": 1e-9}
    after, before = (flat(name, **(big | {"n_train": n}))[0] for n in (10**10, 10**8))
    assert math.log(after / before, 100) == pytest.approx(power[0], abs=1e-3)
    for argument, exponent in (("ridge", power[1]), ("width", -1 / 2), ("scale", -1)):
        value = 16 * (GIVEN | big)[argument]
        ratio = flat(name, **(big | {argument: value}))[0] / flat(name, **big)[0]
        assert math.log(ratio, 16) == pytest.approx(exponent, abs=1e-6)


def test_the_part_of_the_start_alone_is_left_at_an_unlimited_width():
    start = 0.5 / math.sqrt(0.05) * (1 + math.sqrt(0.5))
    assert flat("theorem_1", width=10**40) == pytest.approx([start], rel=1e-9)


# Trained networks


def problem(seed, n=6, dim=4, width=200, scale=1.0):
    """A small network, unit inputs with labels, and one input to test on."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n + 1, dim, generator=generator, dtype=torch.float64)
    X /= X.norm(dim=1, keepdim=True)
    y = 2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1
    return TwoLayerReLU.initialise(dim, width, scale, seed), X, y


def flow(network, X, y, ridge, linear, step=0.02, steps=400):
    """Weights along the flow of the network, or of its linearisation, with their outputs."""
    n, signs = len(y), network.a / math.sqrt(len(network.a))
    W, A = network.W.clone(), network.features(X)
    for k in range(steps + 1):
        A = A if linear else (X @ W.T >= 0).double()
        f = (A * (X @ W.T)) @ signs
        if k % 20 == 0:
            yield W, f
        W = W - step * ((A[:n] * signs * (f[:n] - y)[:, None]).T @ X[:n] + ridge * (W - network.W))


@pytest.mark.parametrize("seed", range(12))
def test_no_lemma_is_violated_along_training(seed):
    """A bound of a small delta, so that a failure is a mistake and no bad luck."""
    network, X, y = problem(seed)
    n, ridge, delta, width = len(y), 0.5, 0.05, 200
    given = (n, width, 1.0, ridge, delta)
    drift = bounds.lemma_2(*given)
    start = TwoLayerReLU(network.W, network.a)
    pairs = zip(flow(network, X, y, ridge, False), flow(network, X, y, ridge, True), strict=True)
    for (W, f), (_, f_lin) in pairs:
        now = TwoLayerReLU(W, network.a)
        flips = (now.features(X) != start.features(X)).double().mean(dim=1)
        kernel = (now.ntk(X) - start.ntk(X))[:, :n]
        assert (W - network.W).norm(dim=1).max() <= bounds.lemma_1(*given)
        assert kernel[:n].norm() <= drift.kernel
        assert flips[:n].sum().sqrt() <= drift.jacobian
        assert kernel[n].abs().sum() <= drift.test_kernel
        assert flips[n].sqrt() <= drift.test_jacobian
        assert (f - f_lin)[:n].norm() <= bounds.lemma_3(*given)
        assert (f - f_lin)[n].abs() <= bounds.lemma_4(*given)
    model = fit_kernel_ridge(relu_ntk(X[:n]), y, ridge)
    gap = (f[n] - model.predict(relu_ntk(X[n:], X[:n]))[0]).abs()
    assert gap <= bounds.theorem_1(*given)


@pytest.mark.parametrize("seed", range(5))
def test_an_even_pull_comes_within_a_factor_of_the_radius(seed):
    """All points the same and the ridge large: the residuals stay, and pull one way."""
    network, X, _ = problem(seed, scale=0.01)
    X, y, ridge = X[:1].repeat(6, 1), torch.ones(6, dtype=torch.float64), 100.0
    W = [W for W, _ in flow(network, X, y, ridge, False, step=0.005)][-1]
    moved = float((W - network.W).norm(dim=1).max())
    assert 0.9 <= moved / bounds.lemma_1(6, 200, 0.01, ridge, 0.5) <= 1


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_units_near_a_kink_are_as_rare_as_the_bound_says(scale):
    """The share of units within R of a kink is p where p is small, and never more."""
    given = (3, 40_000, scale, 10.0, 0.5)
    R = bounds.lemma_1(*given)
    p = 0.5 * bounds.lemma_2(*given).test_jacobian ** 2
    shares = []
    for seed in range(10):
        network, X, _ = problem(seed, width=40_000, scale=scale)
        shares.append(float(((X @ network.W.T).abs() <= R).double().mean()))
    # 28 million draws of which a few percent count: three digits.
    assert sum(shares) / len(shares) == pytest.approx(p, rel=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_kernel_entries_keep_to_hoeffding(seed):
    """What Theorem 1 holds beyond flips and start is above the gap of the two kernels."""
    _, X, y = problem(seed)
    n, ridge, width = len(y), 0.5, 500
    network = TwoLayerReLU.initialise(X.shape[1], width, 1.0, seed)
    K, k = relu_ntk(X[:n]), relu_ntk(X[n:], X[:n])
    own = fit_kernel_ridge(network.ntk(X[:n]), y, ridge).predict(network.ntk(X[n:], X[:n]))
    gap = (own - fit_kernel_ridge(K, y, ridge).predict(k)).abs()
    parts = bounds.lemma_4(n, width, 1.0, ridge, 0.01)
    parts += 1.0 / math.sqrt(0.02) * (1 + math.sqrt(n / ridge) / 2)
    assert float(gap) <= bounds.theorem_1(n, width, 1.0, ridge, 0.05) - parts


# Theorem 2


def test_theorem_2_is_reached_by_predictions_on_one_side():
    """At f_nn = C = 3, label -1 and a small gap, the factor is C + 1 to first order."""
    gap = 1e-6
    influence = ((3.0 + 1) ** 2 - (3.0 - gap + 1) ** 2) / 2
    assert influence == pytest.approx(bounds.theorem_2(3.0, 0.0, gap), rel=1e-5)


def test_theorem_2_holds_for_random_predictions():
    generator = torch.Generator().manual_seed(0)
    f = 4 * torch.rand(4, 1000, generator=generator, dtype=torch.float64) - 2
    label = 2 * torch.rand(1000, generator=generator, dtype=torch.float64) - 1
    loss = (f - label) ** 2 / 2
    left = ((loss[0] - loss[1]) - (loss[2] - loss[3])).abs()
    right = bounds.theorem_2(2.0, (f[0] - f[2]).abs(), (f[1] - f[3]).abs())
    assert (left <= right).all()
    assert bounds.theorem_2(1.0, 0.25, 0.5) == 1.5


# Theorems 3 and 4: the leverage


def leverage(K, ridge):
    """Diagonal of K (K + ridge I)^-1, by brute force."""
    return (K @ torch.linalg.inv(K + ridge * torch.eye(len(K), dtype=K.dtype))).diagonal()


def kernels():
    """Kernels of random points, some of them repeated, each with a weak and a strong ridge."""
    for seed in range(30):
        K = make_problem(n=2 + seed % 9, copies=seed % 3, dim=2 + seed % 4, seed=seed).K
        yield from ((K, ridge) for ridge in (1e-3, 0.3, 40.0))


def test_theorem_3_by_hand():
    eigenvalues = torch.tensor([3.0, 0.5, 1.0], dtype=torch.float64)
    assert bounds.theorem_3(eigenvalues, 2.0) == pytest.approx((0.2, 0.6), rel=1e-12)
    assert bounds.theorem_3(eigenvalues - 0.5 - 1e-16, 2.0).low == 0


def test_theorem_3_holds_and_is_reached():
    for K, ridge in kernels():
        h = leverage(K, ridge)
        low, high = bounds.theorem_3(torch.linalg.eigvalsh(K), ridge)
        assert low - 1e-9 <= h.min() <= h.max() <= high + 1e-9
    eigenvalues = torch.tensor([0.1, 2.0, 7.0], dtype=torch.float64)
    h = leverage(eigenvalues.diag(), 0.7)
    low, high = bounds.theorem_3(eigenvalues, 0.7)
    assert (float(h.min()), float(h.max())) == pytest.approx((low, high), rel=1e-12)


def test_any_set_bounds_the_leverage():
    generator = torch.Generator().manual_seed(0)
    for K, ridge in kernels():
        h = leverage(K, ridge)
        for i in range(len(K)):
            size = int(torch.randint(1, len(K) + 1, (1,), generator=generator))
            S = torch.randperm(len(K), generator=generator)[:size].tolist()
            rarity, distance = bounds.leverage_on_set(K, ridge, S, i)
            assert h[i] <= rarity + distance + 1e-9
            # The cost of the weights 1 / n_S, and the features from a factor of the kernel.
            c = torch.zeros(len(K), dtype=K.dtype)
            c[S] = 1 / size
            phi = torch.linalg.eigh(K)
            phi = phi.eigenvectors * phi.eigenvalues.clamp(min=0).sqrt()
            assert rarity == pytest.approx(float(c @ c), rel=1e-12)
            assert distance == pytest.approx(
                float((phi[i] - phi.T @ c).square().sum()) / ridge, rel=1e-6, abs=1e-9
            )


def test_copies_of_a_point_bound_it_by_their_number():
    """h = 1 / (n + 2 lambda) for n copies, and the bound is 1 / n whatever the ridge."""
    K = torch.full((8, 8), 0.5, dtype=torch.float64)
    assert bounds.leverage_on_set(K, 0.25, range(8), 3) == (1 / 8, 0.0)
    assert leverage(K, 0.25)[3] == pytest.approx(1 / 8.5, rel=1e-12)


def test_theorem_4_by_hand():
    """n p = 50, log(1 / delta) = 1 and an angle of 60 degrees."""
    radius, delta = 2 * math.sin(math.pi / 12), math.exp(-1)
    rarity, distance = bounds.theorem_4(200, 0.25, radius, 2.0, delta)
    assert rarity == pytest.approx(1 / 40, rel=1e-12)
    assert distance == pytest.approx((1 - 2 / 3 / 2) / 2, rel=1e-12)
    assert bounds.theorem_4(10, 0.01, 0.1, 1.0, 0.5).rarity == 1


def test_the_distance_of_theorem_4_is_that_of_opposite_points_in_feature_space():
    """Points on both sides of a centre: 1 - 2 K(x, x'), which the mean of two has a quarter of."""
    for radius in (0.01, 0.2, 0.7):
        half = 2 * math.asin(radius / 2)
        X = [[math.cos(half), math.sin(half)], [math.cos(half), -math.sin(half)]]
        K = relu_ntk(torch.tensor(X, dtype=torch.float64))
        squared = 1 - 2 * float(K[0, 1])
        assert bounds.theorem_4(5, 1.0, radius, 1.0, 0.5).distance == pytest.approx(squared)
        near = bounds.leverage_on_set(K, 1.0, [0, 1], 0).distance
        assert near == pytest.approx(squared / 4, rel=1e-9)


@pytest.mark.parametrize("radius", [0.0, 0.01, 0.3])
def test_theorem_4_holds_on_mixtures_as_often_as_it_says(radius):
    """With delta of one half the number of points fails now and then; the bound rarely does."""
    probabilities, ridge, failed, few = (0.5, 0.3, 0.1, 0.1), 0.5, [], []
    for seed in range(25):
        data = datasets.mixture(80, 1, probabilities=probabilities, radius=radius, dim=5, seed=seed)
        h = leverage(relu_ntk(data.X), ridge)
        for j, p in enumerate(probabilities):
            own = h[data.labels == j]
            bound = bounds.theorem_4(80, p, radius, ridge, 0.5)
            failed.append(bool((own > sum(bound)).any()))
            few.append(len(own) < 1 / bound.rarity)
    assert sum(failed) <= sum(few) <= 0.5 * len(few)
    assert sum(few) > 0


# Bad input


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.theorem_3(K_3[0], 0.0), "ridge: expected a number > 0, got 0"),
        (lambda: bounds.theorem_3(K_3, 1.0), "eigenvalues: expected 1 axes"),
        (lambda: bounds.theorem_3(K_3[0] / 0, 1.0), "eigenvalues: expected finite entries"),
        (lambda: bounds.leverage_on_set(K_3, 0.0, [0], 0), "ridge: expected a number > 0"),
        (lambda: bounds.leverage_on_set(K_3[:2], 1.0, [0], 0), "K: expected a square matrix"),
        (lambda: bounds.leverage_on_set(K_3, 1.0, [], 0), "group: expected at least one index"),
        (lambda: bounds.leverage_on_set(K_3, 1.0, [0, 3], 0), "group: expected indices from 0"),
        (lambda: bounds.leverage_on_set(K_3, 1.0, [1, 1], 0), "group: expected distinct"),
        (lambda: bounds.leverage_on_set(K_3, 1.0, [0], -1), "i: expected indices from 0 to 2"),
        (lambda: bounds.theorem_4(0, 0.5, 0.1, 1.0, 0.5), "n_train: expected an integer >= 1"),
        (lambda: bounds.theorem_4(5, 0.0, 0.1, 1.0, 0.5), "probability: expected a number > 0"),
        (lambda: bounds.theorem_4(5, 1.5, 0.1, 1.0, 0.5), "probability: expected a number <= 1"),
        (lambda: bounds.theorem_4(5, 0.5, -0.1, 1.0, 0.5), "radius: expected a finite number"),
        (lambda: bounds.theorem_4(5, 0.5, 0.8, 1.0, 0.5), "radius: expected a number <= 0.765"),
        (lambda: bounds.theorem_4(5, 0.5, 0.1, 0.0, 0.5), "ridge: expected a number > 0"),
        (lambda: bounds.theorem_4(5, 0.5, 0.1, 1.0, 1.0), "delta: expected a number < 1, got 1"),
    ],
)
def test_theorems_3_and_4_refuse_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_train": 0}, "n_train: expected an integer >= 1, got 0"),
        ({"width": 2.5}, "width: expected an integer >= 1, got 2.5"),
        ({"scale": 0.0}, "scale: expected a number > 0, got 0"),
        ({"ridge": -1.0}, "ridge: expected a finite number >= 0, got -1"),
        ({"ridge": 0.0}, "ridge: expected a number > 0, got 0"),
        ({"delta": math.nan}, "delta: expected a finite number >= 0, got nan"),
        ({"delta": 1.0}, "delta: expected a number < 1, got 1"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_sentence(name, change, message):
    with pytest.raises(ValueError, match=message):
        flat(name, **change)


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 0.1, 0.1), "C: expected a finite number >= 0, got -1"),
        ((1.0, -0.1, 0.1), "gap_without: expected a finite number >= 0, got -0.1"),
        (
            (1.0, 0.1, torch.tensor([0.1, math.nan])),
            "gap_with: expected finite entries, got 1 NaN",
        ),
        ((1.0, 0.1, math.inf), "gap_with: expected a finite number >= 0, got inf"),
        ((1.0, 0.1, torch.tensor([0.1, -0.2])), "gap_with: expected entries >= 0, got -0.2"),
        ((1.0, torch.zeros(0), 0.1), "gap_without: expected at least one entry"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_theorem_2_refuses_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        bounds.theorem_2(*arguments)


def test_the_distance_in_a_tiny_component_does_not_cancel():
    """Two points at a small angle are at the squared distance of the angle over pi."""
    for radius in (1e-9, 1e-12, 1e-15):
        distance = bounds.theorem_4(100, 0.5, radius, 1.0, 0.1).distance
        assert distance == pytest.approx(2 * radius / math.pi, rel=1e-8, abs=0)
