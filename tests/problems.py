"""Random problems of regression and of training, and the slow and obvious way to solve them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import ntk_influence as ni


def unit_rows(n: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random points on the sphere."""
    X = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (X / X.norm(dim=1, keepdim=True)).to(dtype)


@dataclass(frozen=True)
class Problem:
    """Kernels and labels of a regression, with room to forget some of the training points."""

    K: Tensor
    y: Tensor
    ridge: float
    k_test: Tensor
    y_test: Tensor

    @property
    def n(self) -> int:
        return len(self.K)

    @property
    def system(self) -> Tensor:
        return self.K + self.ridge * torch.eye(self.n, dtype=self.K.dtype)

    def fit(self) -> ni.KernelRidge:
        return ni.fit_kernel_ridge(self.K, self.y, self.ridge)

    def predict_without(self, removed: list[int]) -> Tensor:
        """Predictions of the model that is solved anew without some points."""
        kept = [i for i in range(self.n) if i not in removed]
        return self.k_test[:, kept] @ torch.linalg.solve(self.system[kept][:, kept], self.y[kept])

    def leave_one_out(self) -> Tensor:
        return torch.stack([self.predict_without([i]) for i in range(self.n)])

    def rounding(self) -> Tensor:
        """Forward error of predictions: 100 roundings x condition x the sizes that are summed."""
        dual = torch.linalg.solve(self.system, self.y)
        size = (self.k_test.abs().sum(dim=1).max()) * dual.abs().max()
        return 100 * torch.finfo(self.K.dtype).eps * torch.linalg.cond(self.system) * size


def make_problem(
    n: int = 9,
    n_test: int = 4,
    outputs: int | None = None,
    ridge: float = 0.1,
    copies: int = 0,
    labels: float = 1.0,
    dim: int = 5,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """Random points and labels; the last few points are copies of the first, labels are not."""
    points = unit_rows(n + n_test, dim, seed, dtype)
    X, Z = points[:n], points[n:]
    copies = min(copies, n // 2)
    X[n - copies :] = X[:copies]
    generator = torch.Generator().manual_seed(seed + 1)
    columns = () if outputs is None else (outputs,)
    y = labels * (2 * torch.rand(n + n_test, *columns, generator=generator).to(dtype) - 1)
    return Problem(ni.relu_ntk(X), y[:n], ridge, ni.relu_ntk(Z, X), y[n:])


# Problems of any small size, with ridges and labels over many decades, and repeated points.
cases = st.fixed_dictionaries(
    {
        "n": st.integers(1, 12),
        "n_test": st.integers(1, 4),
        "outputs": st.sampled_from([None, 1, 3]),
        "ridge": st.integers(-6, 6).map(lambda exponent: 10.0**exponent),
        "copies": st.integers(0, 3),
        "labels": st.sampled_from([1.0, 1e-100, 1e100]),
        "dim": st.integers(1, 6),
        "seed": st.integers(0, 10**6),
    }
)


# Training: a small network, and its loss by automatic differentiation

RIDGE = 0.5


def small_network(n=8, dim=6, width=40, outputs=None, seed=0):
    """A small network, unit inputs with labels, and inputs to test on."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n + 3, dim, generator=generator, dtype=torch.float64)
    X /= X.norm(dim=1, keepdim=True)
    shape = (n,) if outputs is None else (n, outputs)
    y = torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-1, 1)
    network = ni.TwoLayerReLU.initialise(dim, width, 1.0, seed, outputs=outputs)
    return network, X[:n], y, X[n:]


def small_module(dim: int, device: str = "cpu") -> torch.nn.Module:
    """Two layers with a smooth activation and two outputs, the same under any default."""
    kind = {"device": device, "dtype": torch.float64}
    layers = torch.nn.Linear(dim, 7, **kind), torch.nn.Tanh(), torch.nn.Linear(7, 2, **kind)
    with torch.no_grad():
        for layer in (layers[0], layers[2]):
            numbers = torch.arange(layer.weight.numel(), **kind).reshape_as(layer.weight)
            layer.weight.copy_(torch.sin(numbers))
            layer.bias.fill_(0.1)
    return torch.nn.Sequential(*layers)


def objective(W, network, X, y):
    """The loss (2), written out."""
    f = ni.TwoLayerReLU(W, network.a).predict(X)
    return (f - y).square().sum() / 2 + RIDGE / 2 * (W - network.W).square().sum()


def descend(network, X, y, schedule):
    """Steps -s (H + mu I)^-1 grad by automatic differentiation, with a dense Hessian."""
    W = network.W.clone()
    for step in schedule:
        W.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(W, network, X, y), W)
        if step.damping < math.inf:
            hessian = torch.autograd.functional.hessian(
                lambda V: objective(V, network, X, y), W.detach()
            ).reshape(W.numel(), W.numel())
            damped = hessian + step.damping * torch.eye(W.numel(), dtype=W.dtype)
            gradient = torch.linalg.solve(damped, gradient.flatten()).reshape(W.shape)
        W = (W - step.size * gradient).detach()
    return W


def refused(call: Callable, argument: str, expected: str, got: str) -> None:
    """The call is refused in one sentence that names argument, expectation and what came."""
    with pytest.raises(ValueError, match=rf"^{argument}: expected ") as caught:
        call()
    expectation, _, came = str(caught.value).partition(", got ")
    assert expected in expectation
    assert got in came
    assert "\n" not in str(caught.value)
