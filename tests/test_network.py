"""The network (1): its formula, its initialisation, its kernel against autograd."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import unit_rows
from torch.testing import assert_close

from ntk_influence import TwoLayerReLU, relu_ntk
from ntk_influence.network import activation, slope


def networks() -> st.SearchStrategy[TwoLayerReLU]:
    return st.builds(
        TwoLayerReLU.initialise,
        dim=st.just(4),
        width=st.integers(1, 30),
        scale=st.sampled_from([1e-3, 0.3, 1.0, 50.0]),
        seed=st.integers(0, 10**6),
    )


def jacobian(network: TwoLayerReLU, X: torch.Tensor) -> torch.Tensor:
    """Gradients of every output in the first layer, (n, m d), by automatic differentiation."""
    outputs = torch.autograd.functional.jacobian(
        lambda W: TwoLayerReLU(W, network.a).predict(X), network.W
    )
    return outputs.flatten(start_dim=1)


@given(network=networks(), seed=st.integers(0, 10**6))
def test_predicts_the_signed_sum_of_active_units_over_the_root_of_the_width(network, seed):
    X, m = unit_rows(5, 4, seed), len(network.a)
    for x, f in zip(X, network.predict(X), strict=True):
        units = [a * max(w @ x, 0) for w, a in zip(network.W, network.a, strict=True)]
        size = float(network.W.norm())
        assert float(f) == pytest.approx(float(sum(units)) / math.sqrt(m), abs=1e-14 * size)


def test_one_unit_by_hand():
    network = TwoLayerReLU(torch.tensor([[3.0, 4.0]]), torch.tensor([-1.0]))
    X = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    assert network.predict(X).tolist() == [-3, -8, 0]
    assert network.features(X).tolist() == [[1], [1], [0]]
    assert network.ntk(X).tolist() == [[1, 0, 0], [0, 4, 0], [0, 0, 0]]


@given(network=networks(), seed=st.integers(0, 10**6))
def test_features_are_the_activation_patterns(network, seed):
    X = unit_rows(5, 4, seed)
    A = network.features(X)
    assert A.shape == (5, len(network.a))
    assert torch.equal(A, (torch.relu(X @ network.W.T) > 0).double())


def test_a_unit_on_its_kink_counts_as_active():
    network = TwoLayerReLU(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]))
    assert network.features(torch.tensor([[0.0, 1.0]])).item() == 1


@given(network=networks(), seed=st.integers(0, 10**6))
def test_the_kernel_is_the_product_of_autograd_jacobians(network, seed):
    X, Z = unit_rows(5, 4, seed), 3 * unit_rows(3, 4, seed + 1)  # any norm will do
    J_X, J_Z = jacobian(network, X), jacobian(network, Z)
    assert_close(network.ntk(X), J_X @ J_X.T, atol=1e-14, rtol=0)
    assert_close(network.ntk(X, Z), J_X @ J_Z.T, atol=1e-14, rtol=0)


@given(network=networks(), factor=st.sampled_from([0.25, 4.0]))
def test_outputs_are_homogeneous_in_the_inputs(network, factor):
    X = unit_rows(5, 4)
    assert torch.equal(network.predict(factor * X), factor * network.predict(X))


def test_one_seed_is_one_network_and_another_seed_another():
    first, again, other = (TwoLayerReLU.initialise(4, 50, 0.3, seed) for seed in (1, 1, 2))
    assert torch.equal(first.W, again.W)
    assert torch.equal(first.a, again.a)
    assert not torch.equal(first.W, other.W)
    assert not torch.equal(first.a, other.a)


def test_another_scale_only_stretches_the_weights():
    unit, small = (TwoLayerReLU.initialise(4, 50, scale, 0) for scale in (1.0, 0.25))
    assert torch.equal(small.W, 0.25 * unit.W)
    assert torch.equal(small.a, unit.a)


def test_initialisation_leaves_the_global_random_numbers_alone():
    state = torch.random.get_rng_state()
    TwoLayerReLU.initialise(4, 50, 0.3, 0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_single_precision_holds_the_rounded_weights_of_the_same_seed():
    double = TwoLayerReLU.initialise(4, 50, 0.3, 0)
    single = TwoLayerReLU.initialise(4, 50, 0.3, 0, dtype=torch.float32, device="cpu")
    assert single.W.dtype == single.a.dtype == torch.float32
    assert torch.equal(single.W, double.W.float())
    X = unit_rows(6, 4)
    f = single.predict(X.float())
    assert f.dtype == torch.float32
    assert_close(f.double(), double.predict(X), atol=1e-6, rtol=0)  # terms of order 0.3
    assert_close(single.ntk(X.float()).double(), double.ntk(X), atol=1e-6, rtol=0)


def test_weights_are_normal_with_the_given_scale_and_signs_are_fair():
    network, draws = TwoLayerReLU.initialise(10, 10_000, 0.3, 0), 100_000
    assert network.W.shape == (10_000, 10)
    assert set(network.a.tolist()) == {-1.0, 1.0}
    # Six standard errors each: 1/sqrt(2 N) for a standard deviation, 1/sqrt(N) for means.
    assert float(network.W.std()) == pytest.approx(0.3, rel=6 / math.sqrt(2 * draws))
    assert float(network.W.mean()) == pytest.approx(0, abs=6 * 0.3 / math.sqrt(draws))
    assert float(network.a.mean()) == pytest.approx(0, abs=6 / math.sqrt(10_000))
    within = float((network.W.abs() < 0.3).double().mean())
    assert within == pytest.approx(math.erf(1 / math.sqrt(2)), abs=6 * 0.5 / math.sqrt(draws))


def test_outputs_at_initialisation_have_variance_half_the_squared_scale():
    x = unit_rows(1, 4)
    f = [float(TwoLayerReLU.initialise(4, 100, 0.6, seed).predict(x)) for seed in range(1000)]
    # The square of a normal variable has standard deviation sqrt(2) times its mean; six errors.
    mean = sum(value**2 for value in f) / 1000
    assert mean == pytest.approx(0.6**2 / 2, rel=6 * math.sqrt(2 / 1000))


@pytest.mark.parametrize("width", [100, 10_000])
def test_the_kernel_of_a_wide_network_is_close_to_the_limit(width):
    X, Z = unit_rows(8, 5), unit_rows(6, 5, seed=1)
    network = TwoLayerReLU.initialise(5, width, 0.1, 0)
    # An entry is an average over units with a standard deviation of at most a half; six of them.
    atol = 3 / math.sqrt(width)
    assert_close(network.ntk(X), relu_ntk(X), atol=atol, rtol=0)
    assert_close(network.ntk(X, Z), relu_ntk(X, Z), atol=atol, rtol=0)


def test_the_arguments_are_left_alone_and_the_network_is_frozen():
    network, X, Z = TwoLayerReLU.initialise(4, 20, 0.3, 0), unit_rows(5, 4), unit_rows(3, 4, seed=1)
    tensors = X, Z, network.W, network.a
    before = [tensor.clone() for tensor in tensors]
    network.predict(X), network.features(X), network.ntk(X), network.ntk(X, Z)
    for now, then in zip(tensors, before, strict=True):
        assert torch.equal(now, then)
    with pytest.raises(FrozenInstanceError):
        network.W = X


def test_real_digits_see_a_kernel_close_to_the_limit(digits):
    network = TwoLayerReLU.initialise(digits.X.shape[1], 4000, 0.1, 0)
    assert_close(network.ntk(digits.X), relu_ntk(digits.X), atol=3 / math.sqrt(4000), rtol=0)


# Smoothed kinks


def test_the_smoothed_activation_is_the_mean_of_relu_under_noise():
    z, s = torch.linspace(-3, 3, 41, dtype=torch.float64), 0.4
    xi = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    weight = torch.exp(-(xi**2) / 2)
    mean = (torch.relu(z[:, None] + s * xi) @ weight) / weight.sum()
    # The trapezoidal rule across a kink: its step squared over the number of steps.
    assert_close(activation(z, s), mean, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kink", [0.05, 1.0])
def test_the_slope_is_the_derivative_of_the_activation(kink):
    z = torch.linspace(-3, 3, 41, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(activation(z, kink).sum(), z)
    assert_close(slope(z, kink).detach(), derivative, atol=1e-13, rtol=0)


def test_a_tiny_kink_is_nearly_relu():
    z = torch.linspace(-3, 3, 41, dtype=torch.float64)
    assert_close(activation(z, 1e-9), torch.relu(z), atol=1e-9, rtol=0)


@pytest.mark.parametrize("outputs", [None, 2])
def test_the_smoothed_kernel_of_a_network_is_that_of_its_derivatives(outputs):
    network = TwoLayerReLU.initialise(4, 7, 0.5, 0, outputs=outputs, smoothing=0.3)
    assert network.kink == 0.15
    X = unit_rows(5, 4)
    J = torch.autograd.functional.jacobian(
        lambda W: TwoLayerReLU(W, network.a, kink=network.kink).predict(X), network.W
    ).reshape(5, outputs or 1, -1)
    for j in J.unbind(dim=1):
        assert_close(network.ntk(X), j @ j.T, atol=1e-14, rtol=0)


def test_a_wide_smoothed_network_has_the_smoothed_kernel_at_any_scale():
    X = unit_rows(5, 4)
    for scale in (0.1, 1.0):
        network = TwoLayerReLU.initialise(4, 200_000, scale, 0, smoothing=0.3)
        # Five standard errors of a mean of values in [0, 1].
        atol = 5 * 0.5 / 200_000**0.5
        assert_close(network.ntk(X), relu_ntk(X, smoothing=0.3), atol=atol, rtol=0)


def test_smoothing_does_not_change_the_weights_that_are_drawn():
    plain, smooth = (TwoLayerReLU.initialise(4, 7, 0.5, 0, smoothing=s) for s in (0.0, 0.3))
    assert torch.equal(plain.W, smooth.W)
    assert torch.equal(plain.a, smooth.a)


@pytest.mark.parametrize("smoothing", [-0.1, math.nan, math.inf])
def test_what_is_no_smoothing_is_refused(smoothing):
    with pytest.raises(ValueError, match="smoothing: expected a finite number >= 0, got"):
        TwoLayerReLU.initialise(4, 7, 0.5, 0, smoothing=smoothing)
    with pytest.raises(ValueError, match="kink: expected a finite number >= 0, got"):
        TwoLayerReLU(torch.ones(2, 3), torch.ones(2), kink=smoothing)
