"""Results depend on the arguments alone, not on the defaults of torch; memory is asked first."""

from contextlib import contextmanager
from importlib import import_module

import pytest
import torch
from problems import make_problem, small_module, small_network, unit_rows

import ntk_influence as ni
from ntk_influence import _check, bounds, datasets, finite_width

RULES = import_module("ntk_influence.contour")._contour


def classified(K, k) -> list[torch.Tensor]:
    """Two classes, by likeness to the first point, with labels and with rows."""
    middle = K[0].median()
    y, y_test = (2 * (likeness > middle).to(K) - 1 for likeness in (K[0], k[:, 0]))
    found = []
    for signs in (True, False):
        of, of_test = (
            (y, y_test) if signs else (torch.stack([s > 0, s < 0], 1).to(K) for s in (y, y_test))
        )
        model = ni.fit_kernel_logistic(K, of, 0.5)
        found += [model.dual, model.leverage, ni.logistic.leave_one_out(model, k)]
        found += [ni.logistic.loo_influence(model, k, of_test)]
        found += [ni.logistic.ihvp_influence(model, k, of_test)]
        found += [ni.logistic.leave_group_out(model, k, [2, 0])]
    return found


def everything() -> list[torch.Tensor]:
    """What the library computes, of data that it loads and draws itself."""
    data = datasets.load("mnist-5k-7v9", 20, 5, seed=1)
    other = datasets.mixture(20, 5, dim=6)
    found = [data.X, data.y, data.index, other.X, other.labels, other.images]
    for d in (data, other):
        K, k = ni.relu_ntk(d.X), ni.relu_ntk(d.X_test, d.X)
        images = d.X[:5].reshape(5, 2, -1)
        found += [ni.deep_ntk(d.X, d.X_test, depth=2), ni.deep_ntk(d.X, depth=2, train="first")]
        found += [ni.conv_ntk(images, images[:2], depth=2, kernel_size=3)]
        found += [ni.conv_ntk(images, depth=2, kernel_size=3)]
        model = ni.fit_kernel_ridge(K, d.y, 0.5)
        found += [K, k, model.leverage, ni.leave_one_out(model, k)]
        found += [ni.loo_influence(model, k, d.y_test), ni.ihvp_influence(model, k, d.y_test)]
        found += [ni.leave_group_out(model, k, [2, 0]), ni.complexity(K, d.y, 0.5)]
        found += classified(K, k)
        flow = ni.fit_kernel_flow(K, d.y, 0.5, step=0.01)
        for times in ([0.0, 0.05, 1.0, float("inf")], [3.0]):
            found += [flow.predict(times, k), flow.leave_one_out(times, k)]
            found += [ni.loo_influence_at(times, K, d.y, 0.5, k, d.y_test)]
        options = {"chosen": [3, 0], "probes": 4, "low_rank": 5}
        model = ni.iterative.fit_kernel_ridge(d.X, d.y, 0.5, **options)
        found += [model.low_rank.pivots, model.signs, *model.predict(d.X_test)]
        found += [*ni.iterative.leverage(model), *ni.iterative.leave_one_out(model, d.X_test)]
        found += [*ni.iterative.loo_influence(model, d.X_test, d.y_test)]
        found += [*ni.iterative.estimate_leverage(model)[:3]]
        network = ni.TwoLayerReLU.initialise(d.X.shape[1], 30, 0.3, 0)
        found += [network.W, network.a, network.ntk(d.X), network.features(d.X)]
        found += [ni.empirical_ntk(small_module(d.X.shape[1]), d.X, d.X_test)]
        for method in ("gradient_descent", "preconditioned"):
            trained = ni.train(network, d.X, d.y, 0.5, method=method, max_steps=20)
            given = (network, d.X, d.y, 0.5, [1, 0], d.X_test)
            for start in ("cold", "warm"):
                how = {"method": method, "start": start, "trained": trained}
                found.append(ni.retrain_without(*given, **how))
        given = (trained, d.X, d.y, 0.5, d.X_test, d.y_test)
        found += [finite_width.ihvp_influence(*given), finite_width.leverage(*given[:2], 0.5)]
        terms = bounds.leverage_on_set(K, 1.0, [0, 3], 3)
        found += [torch.tensor(terms, device="cpu", dtype=torch.float64)]
    rule, known = ni.contour(1e-7), ni.truth.load("relu-1")
    found += [known.influence, known.floor, known.second, known.rows]
    return [*found, rule.z, rule.w]


@contextmanager
def defaults(device, dtype):
    """Another device and dtype for whatever does not say its own."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_device(device)
        torch.set_default_dtype(dtype)
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(before)


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_defaults_of_torch_change_nothing(device, dtype):
    expected = everything()
    RULES.cache_clear()
    with defaults(device, dtype):
        found = everything()
    RULES.cache_clear()
    for a, b in zip(expected, found, strict=True):
        assert (a.dtype, a.device) == (b.dtype, b.device)
        assert torch.equal(a, b)


# Memory


MILLION = unit_rows(1, 3).expand(10**6, 3)
NETWORK, X, Y, X_TEST = small_network()


def wide():
    """A network of a million units that takes no memory of its own."""
    return ni.TwoLayerReLU(unit_rows(1, 3).expand(10**6, 3), torch.ones(10**6).double())


TOO_LARGE = {
    "kernel of a million points": lambda: ni.relu_ntk(MILLION),
    "kernel with a million others": lambda: ni.relu_ntk(MILLION, MILLION),
    "deep kernel of a million points": lambda: ni.deep_ntk(MILLION, depth=2),
    "kernel of a million images": lambda: ni.conv_ntk(MILLION[:, None], depth=2, kernel_size=1),
    "kernel with a million other images": lambda: ni.conv_ntk(
        MILLION[:, None], MILLION[:, None], depth=2, kernel_size=1
    ),
    "weights": lambda: ni.TwoLayerReLU.initialise(10**6, 10**6, 0.1, 0),
    "many more weights": lambda: ni.TwoLayerReLU.initialise(10**99, 10**99, 0.1, 0),
    "outputs of a million units": lambda: wide().predict(MILLION),
    "patterns of a million units": lambda: wide().features(MILLION),
    "kernel of a million units": lambda: wide().ntk(MILLION),
    "training": lambda: ni.train(wide(), MILLION, MILLION[:, 0].contiguous(), 1.0),
    "retraining": lambda: ni.retrain_without(
        wide(), MILLION, MILLION[:, 0].contiguous(), 1.0, [0], MILLION[:2]
    ),
    "leverage at finite width": lambda: finite_width.leverage(wide(), MILLION, 1.0),
    "mixture": lambda: datasets.mixture(10**12, 2),
    "kernel of low rank": lambda: ni.iterative.low_rank_kernel(MILLION, 10**6),
    "a tile": lambda: ni.iterative.KernelSystem(MILLION, 1.0, chunks=10**6),
}


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("call", TOO_LARGE)
def test_what_cannot_fit_is_refused_before_it_is_allocated(call):
    with pytest.raises(ValueError, match=r"^\w+: expected .* within the .* GiB .*, got .* GiB$"):
        TOO_LARGE[call]()


PROBLEM = make_problem(n=6, n_test=3)
MODEL = PROBLEM.fit()
KERNELS = (PROBLEM.K, PROBLEM.y, 0.5)
LOGISTIC = ni.fit_kernel_logistic(PROBLEM.K, PROBLEM.y.sign(), 0.5)
JUST_TOO_LARGE = {
    "kernel": lambda: ni.relu_ntk(unit_rows(6, 4)),
    "deep kernel": lambda: ni.deep_ntk(unit_rows(6, 4), depth=2),
    "kernel of images": lambda: ni.conv_ntk(unit_rows(6, 4)[:, None], depth=2, kernel_size=1),
    "inverse": lambda: ni.fit_kernel_ridge(*KERNELS),
    "complexity": lambda: ni.complexity(*KERNELS),
    "logistic fit": lambda: ni.fit_kernel_logistic(PROBLEM.K, PROBLEM.y.sign(), 0.5),
    "logistic leave_one_out": lambda: ni.logistic.leave_one_out(LOGISTIC, PROBLEM.k_test),
    "leave_one_out": lambda: ni.leave_one_out(MODEL, PROBLEM.k_test),
    "loo_influence": lambda: ni.loo_influence(MODEL, PROBLEM.k_test, PROBLEM.y_test),
    "ihvp_influence": lambda: ni.ihvp_influence(MODEL, PROBLEM.k_test, PROBLEM.y_test),
    "eigendecomposition": lambda: ni.fit_kernel_flow(*KERNELS),
    "initialise": lambda: ni.TwoLayerReLU.initialise(4, 4, 0.1, 0),
    "predict": lambda: NETWORK.predict(X),
    "train": lambda: ni.train(NETWORK, X, Y, 1.0),
    "ihvp at finite width": lambda: finite_width.ihvp_influence(NETWORK, X, Y, 1.0, X, Y),
}


@pytest.mark.parametrize("call", JUST_TOO_LARGE)
def test_the_free_memory_decides(call, monkeypatch):
    monkeypatch.setattr(_check, "free_memory", lambda device: 100)
    with pytest.raises(ValueError, match=r"^\w+: expected .*, got 0\.0 GiB$"):
        JUST_TOO_LARGE[call]()
    monkeypatch.undo()
    JUST_TOO_LARGE[call]()


def test_the_results_over_time_have_to_fit(monkeypatch):
    flow = ni.fit_kernel_flow(*KERNELS)
    monkeypatch.setattr(_check, "free_memory", lambda device: 100)
    for call in (
        lambda: flow.leave_one_out([1.0], PROBLEM.k_test),
        lambda: flow.loo_influence([1.0], PROBLEM.k_test, PROBLEM.y_test),
    ):
        with pytest.raises(ValueError, match="times: expected all results within"):
            call()
