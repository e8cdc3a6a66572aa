"""A network along its gradient flow in small steps, and by which power of the width things fall."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import linregress
from torch import Tensor

import ntk_influence as ni


def in_their_span(
    data: ni.datasets.Dataset,
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n_test k"]]:
    """Training and test points in an orthonormal basis of their span."""
    points = torch.cat([data.X, data.X_test])
    points = points @ torch.linalg.qr(points.T).Q
    return points[: len(data.X)], points[len(data.X) :]


def gradient(W: Tensor, start: ni.TwoLayerReLU, X: Tensor, y: Tensor, ridge: float) -> Tensor:
    """The gradient of the loss (2) of ReLU at the weights W; signs and centre are the start's."""
    Z, signs = X @ W.T, start.a / math.sqrt(len(start.a))
    u = torch.relu(Z) @ signs
    pull = (Z >= 0) * signs * (u - y)[:, None]
    return pull.T @ X + ridge * (W - start.W)


def flow(
    start: ni.TwoLayerReLU,
    X: Tensor,
    y: Tensor,
    ridge: float,
    *,
    step: float,
    duration: float,
    parts: int = 10,
) -> list[Tensor]:
    """Weights along the gradient flow (3), at equal intervals of time."""
    W, path = start.W.clone(), [start.W]
    for _ in range(parts):
        for _ in range(round(duration / step / parts)):
            W -= step * gradient(W, start, X, y, ridge)
        path.append(W.clone())
    return path


def root_mean_square(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


def law(widths: Iterable[int], values: Iterable[float]):
    """The line through the logarithms of widths and values: slope, stderr and the rest."""
    return linregress(np.log(list(widths)), np.log(list(values)))


def vacuous(ratio: float) -> str:
    """What a verdict says of a bound that no network of this size can reach, from value / bound."""
    return f"vacuous here: bound / value = {1 / ratio:.2e}"
