"""The kernels of a data set, and the slow and obvious ways that formulas are checked against."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

import ntk_influence as ni


def kernels(
    data: ni.datasets.Dataset, *, smoothing: float = 0.0
) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n_test n"]]:
    """The kernel of the training points, and that of the test points with them, equation (4)."""
    K = ni.relu_ntk(data.X, smoothing=smoothing)
    return K, ni.relu_ntk(data.X_test, data.X, smoothing=smoothing)


def flow_with(
    whole: ni.KernelFlow, ridge: float, y: Float[Tensor, "n"] | Float[Tensor, "n c"] | None = None
) -> ni.KernelFlow:
    """A flow without a ridge, given one and perhaps other labels: its eigenvectors stay."""
    return replace(whole, a=whole.a + ridge, y=whole.y if y is None else y, ridge=ridge)


def refit_without(
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    k_test: Float[Tensor, "n_test n"],
    ridge: float,
    removed: Sequence[int],
) -> Float[Tensor, "n_test"] | Float[Tensor, "n_test c"]:
    """Predictions at the test points of the model that is solved anew without some points."""
    keep = torch.ones(len(K), dtype=torch.bool, device=K.device)
    keep[list(removed)] = False
    A = K[keep][:, keep]
    A.diagonal().add_(ridge)
    return k_test[:, keep] @ torch.linalg.solve(A, y[keep])


def jacobian(network: ni.TwoLayerReLU, X: Float[Tensor, "n d"]) -> Float[Tensor, "nc md"]:
    """Derivatives of all outputs by all weights: a row for each point and output."""

    def outputs(W: Float[Tensor, "m d"]) -> Tensor:
        return ni.TwoLayerReLU(W, network.a, kink=network.kink).predict(X)

    derivatives = torch.func.jacrev(outputs)(network.W)
    return derivatives.reshape(-1, network.W.numel())


def training_loss(
    W: Float[Tensor, "m d"],
    network: ni.TwoLayerReLU,
    start: ni.TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
) -> Float[Tensor, ""]:
    """The loss (2) at the weights W, with the signs and kinks of a network, pulled to a start."""
    f = ni.TwoLayerReLU(W, network.a, kink=network.kink).predict(X)
    return (f - y).square().sum() / 2 + ridge / 2 * (W - start.W).square().sum()


def hessian(
    network: ni.TwoLayerReLU,
    start: ni.TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
) -> Float[Tensor, "md md"]:
    """Second derivatives of the loss by all weights, by automatic differentiation."""

    def loss_at(W: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        return training_loss(W, network, start, X, y, ridge)

    H = torch.autograd.functional.hessian(loss_at, network.W)
    return H.reshape(network.W.numel(), -1)
