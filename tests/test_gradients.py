"""Kernel, ridge, influence, complexity and network differentiate; everything else is detached."""

import pytest
import torch
from problems import RIDGE, make_problem, small_network
from torch.autograd import gradcheck
from torch.nn.functional import normalize

import ntk_influence as ni
from ntk_influence import bounds, finite_width, logistic

PROBLEM = make_problem(n=5, n_test=3)
OF_TWO = make_problem(n=5, n_test=3, outputs=2)
generator = torch.Generator().manual_seed(0)
POINTS = torch.randn(5, 4, generator=generator, dtype=torch.float64)
TEST_POINTS = torch.randn(3, 4, generator=generator, dtype=torch.float64)


def symmetric(V):
    """Entries may be moved one by one, the matrix stays a kernel."""
    return (V + V.T) / 2


def through_kernel(of):
    """A function of points, labels and test labels, by way of their kernels."""

    def call(V, V_test, y, y_test):
        X, X_test = normalize(V), normalize(V_test)
        return of(ni.relu_ntk(X), ni.relu_ntk(X_test, X), y, y_test)

    return call


def fit(K, y):
    return ni.fit_kernel_ridge(K, y, 0.3)


DIFFERENTIABLE = {
    "kernel": lambda K, k, y, z: (K, k),
    "dual, inverse, leverage": lambda K, k, y, z: (
        [getattr(fit(K, y), part) for part in ("dual", "inverse", "leverage", "one_minus_leverage")]
    ),
    "predict": lambda K, k, y, z: fit(K, y).predict(k),
    "leave_one_out": lambda K, k, y, z: ni.leave_one_out(fit(K, y), k),
    "leave_group_out": lambda K, k, y, z: ni.leave_group_out(fit(K, y), k, [3, 1]),
    "loo_influence": lambda K, k, y, z: ni.loo_influence(fit(K, y), k, z),
    "ihvp_influence": lambda K, k, y, z: ni.ihvp_influence(fit(K, y), k, z),
    "corrected": lambda K, k, y, z: ni.ihvp_influence(fit(K, y), k, z, correct_leverage=True),
    "quadratic_form": lambda K, k, y, z: ni.complexity(K, y, 0.3),
    "rkhs_norm": lambda K, k, y, z: ni.complexity(K, y, 0.3, kind="rkhs_norm"),
}


@pytest.mark.parametrize("problem", [PROBLEM, OF_TWO], ids=["one output", "two outputs"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_finite_differences(name, problem):
    inputs = [POINTS, TEST_POINTS, problem.y, problem.y_test]
    inputs = [value.clone().requires_grad_() for value in inputs]

    def call(*values):
        found = through_kernel(DIFFERENTIABLE[name])(*values)
        return tuple(found) if isinstance(found, list | tuple) else found

    assert gradcheck(call, inputs, check_undefined_grad=False)


def test_equal_and_opposite_points_have_a_finite_gradient():
    X = torch.eye(3, dtype=torch.float64)[[0, 0, 1]].requires_grad_()
    K = ni.relu_ntk(X)
    k = ni.relu_ntk(-X.detach(), X)
    (gradient,) = torch.autograd.grad(K.sum() + k.sum(), X)
    assert torch.isfinite(gradient).all()


def test_gradients_do_not_change_values():
    for of in DIFFERENTIABLE.values():
        inputs = [POINTS, TEST_POINTS, PROBLEM.y, PROBLEM.y_test]
        plain = through_kernel(of)(*inputs)
        traced = through_kernel(of)(*(value.clone().requires_grad_() for value in inputs))
        pairs = zip(
            *(v if isinstance(v, list | tuple) else [v] for v in (plain, traced)), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("outputs", [None, 2])
def test_a_network_differentiates_in_weights_and_inputs(outputs):
    network, X, _, X_test = small_network(n=3, dim=4, width=5, outputs=outputs)

    def of(W, X, Z):
        moved = ni.TwoLayerReLU(W, network.a)
        return moved.predict(X), moved.ntk(X), moved.ntk(X, Z)

    inputs = [value.clone().requires_grad_() for value in (network.W, X, X_test)]
    assert gradcheck(of, inputs)


def detached(outputs=None):
    """Everything that does not follow gradients, with arguments that ask for them."""
    network, X, y, X_test = small_network(outputs=outputs)
    problem = make_problem(n=5, n_test=3, outputs=outputs)
    X, y, X_test = (v.clone().requires_grad_() for v in (X, y, X_test))
    K, labels, k, y_test = (
        v.clone().requires_grad_() for v in (problem.K, problem.y, problem.k_test, problem.y_test)
    )
    signs, signs_test = labels.reshape(5, -1)[:, 0].sign(), y_test.reshape(3, -1)[:, 0].sign()
    classes = ni.fit_kernel_logistic(K, signs, 0.3)
    network = ni.TwoLayerReLU(network.W.requires_grad_(), network.a.requires_grad_())
    trained = ni.train(network, X, y, RIDGE)
    three = y[:3]
    return {
        "W": trained.W,
        "a": trained.a,
        "coefficients": trained.coefficients,
        "features": network.features(X),
        "implicit steps": ni.train(network, X, y, RIDGE, method="preconditioned").W,
        "cold": ni.retrain_without(network, X, y, RIDGE, [0], X_test),
        "warm": ni.retrain_without(network, X, y, RIDGE, [0], X_test, start="warm"),
        "nothing": ni.retrain_without(network, X, y, RIDGE, [], X_test),
        "leverage": finite_width.leverage(network, X, RIDGE),
        "ihvp": finite_width.ihvp_influence(network, X, y, RIDGE, X_test, three),
        "predict_at": ni.predict_at([1.0], K, labels, 0.3, k),
        "leave_one_out_at": ni.leave_one_out_at([1.0], K, labels, 0.3, k),
        "loo_influence_at": ni.loo_influence_at([1.0], K, labels, 0.3, k, y_test),
        "logistic fit": classes.dual,
        "logistic predict": classes.predict(k),
        "logistic leave_one_out": logistic.leave_one_out(classes, k),
        "logistic leave_group_out": logistic.leave_group_out(classes, k, [1, 0]),
        "logistic loo_influence": logistic.loo_influence(classes, k, signs_test),
        "logistic ihvp_influence": logistic.ihvp_influence(classes, k, signs_test),
        "theorem_3": torch.tensor(bounds.theorem_3(K.diagonal(), 1.0)),
        "on a set": torch.tensor(bounds.leverage_on_set(K, 1.0, [0, 1], 0)),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("outputs", [None, 2])
def test_everything_else_is_detached(outputs):
    for name, value in detached(outputs).items():
        assert not value.requires_grad, name


def test_gaps_of_theorem_2_keep_their_gradients():
    gap = torch.tensor([0.1, 0.2], requires_grad=True)
    assert bounds.theorem_2(1.0, gap, 0.1).requires_grad
