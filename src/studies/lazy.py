"""A network along its gradient flow in small steps, and by which power of the width things fall."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import linregress
from torch import Tensor

import ntk_influence as ni
from ntk_influence import bounds


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
    pull = torch.outer(torch.relu(Z) @ signs - y, signs)
    pull.mul_(torch.ge(Z, 0, out=Z))  # in place: a flow takes thousands of steps
    return (W - start.W).mul_(ridge).addmm_(pull.T, X)


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


def linearised_flow(
    start: ni.TwoLayerReLU,
    X: Tensor,
    points: Tensor,
    y: Tensor,
    ridge: float,
    *,
    step: float,
    duration: float,
    parts: int = 10,
) -> list[Tensor]:
    """Outputs of the linearisation at points, the training points first, at the same times."""
    k_0, f_0 = start.ntk(points, X), start.predict(points)
    f, path = f_0.clone(), [f_0]
    for _ in range(parts):
        for _ in range(round(duration / step / parts)):
            f = f - step * (k_0 @ (f[: len(X)] - y) + ridge * (f - f_0))
        path.append(f)
    return path


def over_the_bounds(
    data: ni.datasets.Dataset,
    *,
    width: int,
    seed: int,
    scale: float,
    ridge: float,
    delta: float,
    duration: float,
) -> dict[str, float]:
    """Left over right side of Lemmas 1 to 4 along the flow, the largest, and of Theorem 1."""
    (X, X_test), n = in_their_span(data), len(data.X)
    start = ni.TwoLayerReLU.initialise(X.shape[1], width, scale, seed, device=X.device)
    K_0, points = start.ntk(X), torch.cat([X, X_test])
    steps = {"step": 1 / float(torch.linalg.eigvalsh(K_0)[-1] + ridge), "duration": duration}
    path = flow(start, X, data.y, ridge, **steps)
    path_lin = linearised_flow(start, X, points, data.y, ridge, **steps)
    left = {name: 0.0 for name in ("movement", "drift", "training gap", "test gap")}
    for W, f_lin in zip(path, path_lin, strict=True):
        now = ni.TwoLayerReLU(W, start.a)
        gap = now.predict(points) - f_lin
        sides = [(W - start.W).norm(dim=1).max(), (now.ntk(X) - K_0).norm()]
        sides += [gap[:n].norm(), gap[n:].abs().max()]
        left = {name: max(left[name], float(s)) for name, s in zip(left, sides, strict=True)}
    model = ni.fit_kernel_ridge(ni.relu_ntk(X), data.y, ridge)
    apart = now.predict(X_test) - model.predict(ni.relu_ntk(X_test, X))
    left["to the kernel"] = float(apart.abs().max())
    given = (n, width, scale, ridge, delta)
    names = (bounds.lemma_1, bounds.lemma_2, bounds.lemma_3, bounds.lemma_4, bounds.theorem_1)
    right = [bound(*given) for bound in names]
    right[1] = right[1].kernel
    return {name: value / r for (name, value), r in zip(left.items(), right, strict=True)}


def root_mean_square(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


def law(widths: Iterable[int], values: Iterable[float]):
    """The line through the logarithms of widths and values: slope, stderr and the rest."""
    return linregress(np.log(list(widths)), np.log(list(values)))


def vacuous(ratio: float) -> str:
    """What a verdict says of a bound that no network of this size can reach, from value / bound."""
    return f"vacuous here: bound / value = {1 / ratio:.2e}"
