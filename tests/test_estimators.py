"""Estimators of influence against dense matrices, refits and training step by step."""

from dataclasses import replace

import pytest
import torch
from problems import unit_rows
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import estimators
from ntk_influence.estimators import Linearised

RIDGE = 0.3


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy(n=7, n_test=3, p=5, ridge=RIDGE):
    """Features and labels at the minimum of the ridge loss."""
    J, J_test = numbers(n, p), numbers(n_test, p, seed=1)
    y, y_test = numbers(n, seed=2), numbers(n_test, seed=3)
    theta = torch.linalg.solve(J.T @ J + ridge * torch.eye(p).double(), J.T @ y)
    return Linearised(J, J @ theta - y, ridge, J_test, J_test @ theta - y_test)


def wide(**options):
    """More features than points."""
    return toy(n=5, p=9, **options)


def hessian(problem, kept=None):
    J = problem.J if kept is None else problem.J[kept]
    return J.T @ J + problem.ridge * torch.eye(J.shape[1]).double()


def dense(problem, inverse=None):
    """r_i j_i^T H^-1 j_t r_t, by a dense inverse."""
    inverse = torch.linalg.inv(hessian(problem)) if inverse is None else inverse
    bilinear = torch.einsum("ip,pq,tq->it", problem.J, inverse, problem.J_test)
    return torch.einsum("i,it,t->it", problem.residual, bilinear, problem.residual_test)


def network_problem(width=6, n=8, n_test=3, dim=4, kink=0.0):
    points = unit_rows(n + n_test, dim)
    network = ni.TwoLayerReLU.initialise(dim, width, 0.5, 0, smoothing=kink)
    y = numbers(n + n_test)
    data = (points[:n], y[:n], RIDGE, points[n:], y[n:])
    return network, data, Linearised.of_network(network, *data)


# The limit of each, to 1e-8 and better: rounding 2e-16, condition below 1e3, entries of order ten.

FULL = {
    "ihvp": lambda p: estimators.ihvp(p),
    "conjugate gradients": lambda p: estimators.conjugate_gradients(p, iterations=12),
    "many conjugate gradients": lambda p: estimators.conjugate_gradients(p, iterations=400),
    "lissa": lambda p: estimators.lissa(
        p, depth=3000, scale=1.001 * estimators.largest_curvature(p)
    ),
    "lissa, a small scale": lambda p: estimators.lissa(
        p, depth=3000, scale=0.6 * estimators.largest_curvature(p)
    ),
    "nystroem": lambda p: estimators.nystroem(p, rank=len(p.J), seed=0),
    "arnoldi": lambda p: estimators.arnoldi(p, rank=9, iterations=9, seed=0),
    "orthogonal sketch": lambda p: estimators.ihvp(
        p.through(torch.linalg.qr(numbers(p.J.shape[1], p.J.shape[1])).Q)
    ),
    "one long segment": lambda p: estimators.unrolled([p], times=[200.0]),
}


@pytest.mark.parametrize("make", [toy, wide])
@pytest.mark.parametrize("name", FULL)
def test_the_full_limit_is_the_dense_inverse(name, make):
    problem = make()
    assert_close(FULL[name](problem), dense(problem), atol=1e-9, rtol=0)
    damped = problem.damped(0.2)
    assert_close(FULL[name](damped), dense(replace(problem, ridge=RIDGE + 0.2)), atol=1e-9, rtol=0)


@pytest.mark.parametrize("make", [toy, wide])
def test_a_newton_step_is_the_refit_without_each_point(make):
    problem = make()
    newton, first = estimators.newton_step(problem), estimators.leverage_corrected(problem)
    for i in range(len(problem.J)):
        kept = [j for j in range(len(problem.J)) if j != i]
        moved = torch.linalg.solve(hessian(problem, kept), problem.J[i] * problem.residual[i])
        change, r = problem.J_test @ moved, problem.residual_test
        assert_close(newton[i], ((r + change) ** 2 - r**2) / 2, atol=1e-11, rtol=0)
        assert_close(first[i], r * change, atol=1e-11, rtol=0)


def test_a_kernel_gives_the_closed_forms_of_the_library():
    points, y = unit_rows(12, 4), numbers(12)
    K = ni.relu_ntk(points)
    problem = Linearised.of_kernel(K, y[:8], 0.1, y[8:])
    model, k_test = ni.fit_kernel_ridge(K[:8, :8], y[:8], 0.1), K[8:, :8]
    every = torch.cat([problem.J, problem.J_test])
    assert_close(every @ every.T, K, atol=1e-14, rtol=0)
    assert_close(problem.residual, model.predict(K[:8, :8]) - y[:8], atol=1e-13, rtol=0)
    for ours, theirs, options in (
        (estimators.ihvp, ni.ihvp_influence, {}),
        (estimators.leverage_corrected, ni.ihvp_influence, {"correct_leverage": True}),
        (estimators.newton_step, ni.loo_influence, {}),
    ):
        expected = theirs(model, k_test, y[8:], **options)
        assert_close(ours(problem), expected, atol=1e-11, rtol=0)


@pytest.mark.parametrize("kink", [0.0, 0.2])
def test_a_network_gives_the_closed_form_at_its_weights(kink):
    network, data, problem = network_problem(kink=kink)
    expected = ni.finite_width.ihvp_influence(network, *data)
    assert_close(estimators.ihvp(problem), expected, atol=1e-11, rtol=0)
    full = estimators.conjugate_gradients(problem, iterations=60)
    assert_close(full, expected, atol=1e-10, rtol=0)
    X, y, _, X_test, y_test = data
    assert_close(problem.residual, network.predict(X) - y, atol=1e-13, rtol=0)
    assert_close(problem.residual_test, network.predict(X_test) - y_test, atol=1e-13, rtol=0)


def test_the_layer_has_the_gradients_of_automatic_differentiation():
    network, (X, *_), problem = network_problem()
    B, inputs, *_ = problem.layer
    expected = torch.func.jacrev(lambda W: ni.TwoLayerReLU(W, network.a).predict(X))(network.W)
    assert_close(torch.einsum("im,id->imd", B, inputs), expected, atol=1e-14, rtol=0)


def test_the_largest_curvature_is_that_of_the_problem_at_hand():
    problem = toy()
    for changed in (problem, problem.damped(0.5)):
        expected = torch.linalg.eigvalsh(hessian(changed))[-1]
        assert_close(estimators.largest_curvature(changed), float(expected), atol=1e-12, rtol=0)


# What is left out before the limit


def test_conjugate_gradients_minimise_over_krylov_subspaces():
    problem = toy()
    H, g = hessian(problem), problem.J_test[0]
    for k in (1, 2, 3):
        powers = torch.stack([torch.linalg.matrix_power(H, j) @ g for j in range(k)], dim=1)
        v = powers @ torch.linalg.solve(powers.T @ H @ powers, powers.T @ g)
        expected = problem.residual * (problem.J @ v) * problem.residual_test[0]
        found = estimators.conjugate_gradients(problem, iterations=k)[:, 0]
        assert_close(found, expected, atol=1e-10, rtol=0)


def test_a_solved_system_is_left_alone():
    problem = replace(toy(), J_test=torch.zeros(3, 5).double())
    assert (estimators.conjugate_gradients(problem, iterations=3) == 0).all()


def test_lissa_is_the_sum_of_its_series():
    problem = toy()
    scale = 1.2 * estimators.largest_curvature(problem)
    step = torch.eye(5).double() - hessian(problem) / scale
    series = sum(torch.linalg.matrix_power(step, k) for k in range(5)) / scale
    assert_close(estimators.lissa(problem, depth=4, scale=scale), dense(problem, series))


def test_lissa_with_batches_is_right_on_average():
    problem = toy(ridge=3.0)
    scale = 5 * estimators.largest_curvature(problem)
    options = {"depth": 3, "scale": scale}
    whole = estimators.lissa(problem, **options)
    assert torch.equal(estimators.lissa(problem, batch=7, **options), whole)
    drawn = [estimators.lissa(problem, batch=2, seed=s, **options) for s in range(400)]
    drawn = torch.stack(drawn)
    error = drawn.std(dim=0) / 20
    assert (error > 0).all()
    assert ((drawn.mean(dim=0) - whole).abs() < 5 * error).all()


def test_nystroem_replaces_features_by_their_projection():
    problem = wide()
    random = torch.randn(9, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    A = problem.J.T @ problem.J
    AO = A @ random
    approximation = AO @ torch.linalg.solve(random.T @ AO, AO.T)
    inverse = torch.linalg.inv(approximation + RIDGE * torch.eye(9).double())
    found = estimators.nystroem(problem, rank=2, seed=4)
    assert_close(found, dense(problem, inverse), atol=1e-9, rtol=0)


def test_arnoldi_keeps_the_leading_eigenvectors():
    problem = wide()
    values, vectors = torch.linalg.eigh(hessian(problem))
    inverse = vectors[:, -2:] @ torch.diag(1 / values[-2:]) @ vectors[:, -2:].T
    found = estimators.arnoldi(problem, rank=2, iterations=9, seed=0)
    assert_close(found, dense(problem, inverse), atol=1e-9, rtol=0)


def test_arnoldi_before_the_end_stays_in_its_subspace():
    problem = toy()
    H = hessian(problem)
    v = torch.randn(5, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    V = torch.linalg.qr(torch.cat([v, H @ v, H @ H @ v], dim=1)).Q
    inverse = V @ torch.linalg.inv(V.T @ H @ V) @ V.T
    found = estimators.arnoldi(problem, rank=3, iterations=3, seed=1)
    assert_close(found, dense(problem, inverse), atol=1e-9, rtol=0)


def test_arnoldi_goes_on_where_the_subspace_is_all_but_exhausted():
    K = ni.relu_ntk(unit_rows(100, 10))  # forty eigenvalues are the ridge itself
    problem = Linearised.of_kernel(K, numbers(60), 0.01, numbers(40))
    problem = replace(problem, J_test=problem.J, residual_test=problem.residual)
    found = estimators.arnoldi(problem, rank=100, iterations=100, seed=0).diagonal()
    exact = estimators.ihvp(problem).diagonal()
    assert ((found / exact - 1).abs() < 1e-10).all()


def test_a_sketch_keeps_inner_products_on_average_and_at_large_size():
    problem = toy()
    S = estimators.sketch(problem, size=200_000, seed=0)
    assert_close(S @ S.T, torch.eye(5).double(), atol=0.02, rtol=0)  # 6 / sqrt(size)
    found = estimators.random_projection(problem, size=200_000, seed=0)
    assert_close(found, estimators.ihvp(problem.through(S)), atol=0, rtol=0)
    assert float((found - dense(problem)).norm() / dense(problem).norm()) < 0.05


def test_estimates_of_an_inverse_that_never_exceed_it_and_one_that_never_falls_below():
    problem = toy(n=20, p=12, ridge=0.01)
    problem = replace(problem, J_test=problem.J, residual_test=problem.residual)
    exact = estimators.ihvp(problem).diagonal()
    scale = estimators.largest_curvature(problem)
    for below in (
        estimators.conjugate_gradients(problem, iterations=3),
        estimators.lissa(problem, depth=10, scale=scale),
        estimators.arnoldi(problem, rank=3, iterations=6, seed=0),
    ):
        own = below.diagonal()
        assert (own > 0).all()
        assert (own < exact).all()
    assert (estimators.nystroem(problem, rank=3, seed=0).diagonal() > exact).all()


# K-FAC


def dense_of_layer(problem, corrected):
    """The Kronecker product of dense covariances, its diagonal replaced for EK-FAC."""
    B, X, B_test, X_test = problem.layer
    n = len(B)
    J, J_test = (torch.einsum("im,id->imd", *p).flatten(1) for p in ((B, X), (B_test, X_test)))
    curvature = torch.kron(B.T @ B, X.T @ X) / n
    if corrected:
        bases = torch.kron(torch.linalg.eigh(B.T @ B)[1], torch.linalg.eigh(X.T @ X)[1])
        curvature = bases @ torch.diag((J @ bases).square().sum(dim=0)) @ bases.T
    H = curvature + problem.ridge * torch.eye(J.shape[1]).double()
    bilinear = J @ torch.linalg.solve(H, J_test.T)
    return problem.residual[:, None] * bilinear * problem.residual_test


@pytest.mark.parametrize("n", [3, 8])
def test_kfac_and_ekfac_against_dense_kronecker_products(n):
    problem = network_problem(n=n, kink=0.2)[2]  # smoothed, so that no eigenvalue is repeated
    for corrected, function in ((False, estimators.kfac), (True, estimators.ekfac)):
        expected = dense_of_layer(problem, corrected)
        assert_close(function(problem), expected, atol=1e-10, rtol=0)
        assert (expected - estimators.ihvp(problem)).norm() > 0.01 * expected.norm()


def test_kfac_and_ekfac_are_exact_where_all_units_are_on():
    X = unit_rows(9, 4).abs()
    W = unit_rows(5, 4, seed=1).abs()
    network = ni.TwoLayerReLU(W, torch.ones(5).double())
    y = numbers(9)
    problem = Linearised.of_network(network, X[:6], y[:6], RIDGE, X[6:], y[6:])
    for function in (estimators.kfac, estimators.ekfac):
        assert_close(function(problem), estimators.ihvp(problem), atol=1e-10, rtol=0)


# Along training


def course(counts=(1, 5, 40), step=0.02):
    start = replace(toy(), residual=-numbers(7, seed=2), residual_test=-numbers(3, seed=3))
    return start, estimators.descend(start, step=step, counts=counts)


def test_descent_step_by_step_and_at_its_end():
    start, found = course(counts=(1, 2, 3000))
    v = -0.02 * (start.J.T @ start.residual)
    assert_close(found[0].residual, start.residual + start.J @ v, atol=1e-14, rtol=0)
    v = v - 0.02 * (start.J.T @ (start.residual + start.J @ v) + RIDGE * v)
    assert_close(found[1].residual_test, start.residual_test + start.J_test @ v, atol=1e-14, rtol=0)
    assert_close(found[2].residual, toy().residual, atol=1e-10, rtol=0)
    assert_close(found[2].residual_test, toy().residual_test, atol=1e-10, rtol=0)


def test_gradient_dot_is_the_fall_of_the_test_losses_in_short_steps():
    step = 1e-4
    start = replace(course()[0], ridge=1e-12)
    before = [start, *estimators.descend(start, step=step, counts=range(1, 101))]
    scores = estimators.gradient_dot(before[:-1], steps=[step] * 100)
    fall = (start.residual_test.square() - before[-1].residual_test.square()) / 2
    assert_close(scores.sum(dim=0), fall, atol=0, rtol=5e-3)  # first order in the step
    one = numbers(7, 3)
    for i, t in ((0, 1), (4, 2)):
        g = start.residual[i] * start.J[i]
        one[i, t] = 0.5 * g @ (start.residual_test[t] * start.J_test[t])
        found = estimators.gradient_dot([start], steps=[0.5])[i, t]
        assert_close(found, one[i, t], atol=1e-13, rtol=0)


def test_unrolled_is_the_derivative_of_training_by_the_weights():
    step, steps = 1e-3, 800
    start, _ = course()

    def final(weights):
        v = torch.zeros(5).double()
        for _ in range(steps):
            residual = start.residual + start.J @ v
            v = v - step * (start.J.T @ (weights * residual) + RIDGE * v)
        return (start.residual_test + start.J_test @ v).square() / 2

    expected = -torch.autograd.functional.jacobian(final, torch.ones(7).double()).T
    after = estimators.descend(start, step=step, counts=range(10, steps + 1, 10))
    found = estimators.unrolled(after, times=[10 * step] * len(after))
    assert float((found - expected).norm() / expected.norm()) < 0.03  # first order in a segment
    finer = estimators.descend(start, step=step, counts=range(1, steps + 1))
    found = estimators.unrolled(finer, times=[step] * steps)
    assert float((found - expected).norm() / expected.norm()) < 0.005


def test_unrolled_in_two_segments_against_matrix_exponentials():
    _, (_, first, second) = course()
    times = [0.5, 1.25]
    H = hessian(first)
    eye = torch.eye(5).double()
    moved = 0
    for checkpoint, time, later in ((first, 0.5, 1.25), (second, 1.25, 0.0)):
        inside = (eye - torch.matrix_exp(-time * H)) @ torch.linalg.inv(H)
        moved = moved + torch.matrix_exp(-later * H) @ inside @ (
            checkpoint.J.T * checkpoint.residual
        )
    expected = (second.J_test @ moved).T * second.residual_test
    assert_close(estimators.unrolled([first, second], times=times), expected, atol=1e-11, rtol=0)


# One orientation, any dtype, no bad input

SMALL = {
    "conjugate_gradients": {"iterations": 3},
    "lissa": {"depth": 4, "scale": 1e3, "batch": 2},
    "nystroem": {"rank": 3, "seed": 0},
    "arnoldi": {"rank": 2, "iterations": 4, "seed": 0},
    "random_projection": {"size": 20, "seed": 0},
}
EVERY = SMALL | {name: {} for name in ("ihvp", "leverage_corrected", "newton_step")}
EVERY |= {name: {} for name in ("kfac", "ekfac")}


@pytest.mark.parametrize("name", EVERY)
def test_shape_dtype_and_repetition(name):
    problem = network_problem()[2]
    function, options = getattr(estimators, name), EVERY[name]
    found = function(problem, **options)
    assert found.shape == (8, 3)
    assert torch.equal(function(problem, **options), found)
    parts = {key: getattr(problem, key).float() for key in ("J", "residual", "J_test")}
    single = replace(
        problem,
        residual_test=problem.residual_test.float(),
        layer=tuple(part.float() for part in problem.layer),
        **parts,
    )
    low = function(single, **options)
    assert low.dtype == torch.float32
    assert_close(low.double(), found, atol=1e-3, rtol=1e-3)


def refused(call, argument, expected):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .*{expected}.*, got "):
        call()


BAD_OPTIONS = [
    ("conjugate_gradients", {"iterations": 0}, "iterations", "an integer >= 1"),
    ("lissa", {"depth": 1.5, "scale": 1e3}, "depth", "an integer >= 1"),
    ("lissa", {"depth": 1, "scale": 0.1}, "scale", "or it diverges"),
    ("lissa", {"depth": 1, "scale": 1e3, "batch": 9}, "batch", "from 1 to 8"),
    ("lissa", {"depth": 1, "scale": 1e3, "batch": 0}, "batch", "an integer >= 1"),
    ("lissa", {"depth": 1, "scale": 1e3, "seed": -1}, "seed", "an integer from 0"),
    ("nystroem", {"rank": 9, "seed": 0}, "rank", "from 1 to 8"),
    ("nystroem", {"rank": 0, "seed": 0}, "rank", "an integer >= 1"),
    ("arnoldi", {"rank": 5, "iterations": 4, "seed": 0}, "rank", "at most 4"),
    ("arnoldi", {"rank": 1, "iterations": 0, "seed": 0}, "iterations", "an integer >= 1"),
    ("random_projection", {"size": 0, "seed": 0}, "size", "an integer >= 1"),
    ("sketch", {"size": 2, "seed": 0.5}, "seed", "an integer from 0"),
]


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(("name", "options", "argument", "expected"), BAD_OPTIONS)
def test_bad_options_are_refused(name, options, argument, expected):
    problem = network_problem()[2]
    refused(lambda: getattr(estimators, name)(problem, **options), argument, expected)


@pytest.mark.usefixtures("without_annotations")
def test_bad_problems_are_refused():
    good = toy()
    network, data, _ = network_problem()
    X, y, ridge, X_test, y_test = data
    K = ni.relu_ntk(torch.cat([X, X_test]))
    for name, options in EVERY.items():
        f = getattr(estimators, name)
        refused(lambda f=f, o=options: f(good.J, **o), "problem", "a Linearised")
    for f in (estimators.kfac, estimators.ekfac):
        refused(lambda f=f: f(good), "problem", "that of a network")
    for parts, argument, expected in (
        ({"ridge": 0.0}, "ridge", "> 0"),
        ({"J": good.J[0]}, "J", "2 axes"),
        ({"J_test": good.J_test[:, :4]}, "J_test", "5 columns"),
        ({"J_test": good.J_test.float()}, "J_test", "torch.float64"),
        ({"residual": good.residual[:, None]}, "residual", r"\(7,\)"),
        ({"residual_test": good.residual}, "residual_test", r"\(3,\)"),
    ):
        refused(lambda parts=parts: replace(good, **parts), argument, expected)
    refused(lambda: Linearised.of_kernel(K[:8], y, 0.1, y_test), "K", r"\(11, 11\)")
    refused(lambda: Linearised.of_kernel(-K, y, 0.1, y_test), "ridge|K", "")
    refused(lambda: Linearised.of_kernel(K + K.triu(), y, 0.1, y_test), "K", "a symmetric matrix")
    refused(lambda: Linearised.of_kernel(K, y, 0.0, y_test), "ridge", "> 0")
    refused(lambda: Linearised.of_kernel(K, y[:, None], 0.1, y_test), "y", "1 axes")
    refused(lambda: Linearised.of_kernel(K, y, 0.1, y_test.float()), "y_test", "torch.float64")
    refused(lambda: Linearised.of_network(None, *data), "network", "a TwoLayerReLU")
    two = ni.TwoLayerReLU.initialise(4, 6, 0.5, 0, outputs=2)
    refused(lambda: Linearised.of_network(two, *data), "network", "one output")
    refused(lambda: Linearised.of_network(network, X, y[:5], ridge, X_test, y_test), "y", r"\(8,\)")
    refused(lambda: Linearised.of_network(network, X[:, :3], *data[1:]), "X", "4 columns")
    refused(lambda: good.through(good.J), "S", "5 rows")
    refused(lambda: good.through(good.J.T.float()), "S", "torch.float64")
    refused(lambda: good.damped(-1.0), "damping", ">= 0")


@pytest.mark.usefixtures("without_annotations")
def test_bad_courses_are_refused():
    start, (first, second, _) = course()
    refused(lambda: estimators.descend(start, step=10.0, counts=[1]), "step", "or it diverges")
    refused(lambda: estimators.descend(start, step=0.0, counts=[1]), "step", "> 0")
    refused(lambda: estimators.descend(start, step=0.01, counts=[]), "counts", "increasing")
    refused(lambda: estimators.descend(start, step=0.01, counts=[2, 1]), "counts", "increasing")
    refused(lambda: estimators.descend(start, step=0.01, counts=[0]), "counts", "an integer")
    refused(lambda: estimators.descend(None, step=0.01, counts=[1]), "start", "a Linearised")
    for function, name in ((estimators.gradient_dot, "steps"), (estimators.unrolled, "times")):
        refused(lambda f=function, n=name: f([], **{n: []}), "checkpoints", "at least one")
        refused(lambda f=function, n=name: f([first], **{n: [1.0, 1.0]}), name, "1 numbers")
        refused(lambda f=function, n=name: f([first], **{n: [0.0]}), name, "> 0")
        refused(lambda f=function, n=name: f([None], **{n: [1.0]}), "checkpoints", "a Linearised")
    other = replace(second, J=2 * second.J)
    refused(lambda: estimators.unrolled([first, other], times=[1, 1]), "checkpoints", "the same")
