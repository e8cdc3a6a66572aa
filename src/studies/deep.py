"""Networks of any depth, trained by plain gradient descent with and without points, and kernels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vjp, vmap

import ntk_influence as ni

from .measures import relative_error
from .retraining import kernel_model


class Perceptron(nn.Module):
    """A network of one output without biases, as `ni.deep_ntk` defines it, kinks perhaps smoothed.

    In the standard parametrisation the factors are inside of the weights.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        seed: int,
        *,
        smoothing: float = 0.0,
        standard: bool = False,
    ) -> None:
        super().__init__()
        generator = torch.Generator("cpu").manual_seed(seed)
        shapes = [(width, dim), *[(width, width)] * (depth - 1), (1, width)]
        factors = [1.0, *[math.sqrt(2 / width)] * (depth - 1), 1 / math.sqrt(width)]
        weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        if standard:
            weights = [factor * W for factor, W in zip(factors, weights, strict=True)]
            factors = [1.0] * len(factors)
        self.factors, self.smoothing = factors, smoothing
        self.weights = nn.ParameterList(weights)

    def forward(self, X: Tensor) -> Tensor:
        *hidden, (last, a) = zip(self.factors, self.weights, strict=True)
        for factor, W in hidden:
            X = smoothed_relu(factor * X @ W.T, self.smoothing)
        return last * (X @ a.T)[..., 0]


def smoothed_relu(u: Tensor, smoothing: float) -> Tensor:
    r"""The mean of ReLU over noise of that size, $u \Phi(u / s) + s \varphi(u / s)$."""
    if smoothing == 0:
        return torch.relu(u)
    z = u / smoothing
    density = torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return smoothing * (nn.functional.gelu(z) + density)


def arc_cosine(cosine: Tensor) -> tuple[Tensor, Tensor]:
    """The arc-cosine kernels of degree zero and one, of a cosine."""
    cosine = cosine.clamp(-1, 1)
    both_active = 1 - torch.arccos(cosine) / math.pi
    return both_active, both_active * cosine + (1 - cosine**2).sqrt() / math.pi


def deep_kernel(
    X: Float[Tensor, "n d"],
    Z: Float[Tensor, "n2 d"],
    gains: Sequence[float],
    smoothing: float = 0.0,
) -> Float[Tensor, "n n2"]:
    """The kernel of wide networks whose layers are trained with these gains, the read-out last.

    Smoothed kinks are kinks of inputs with independent noise: variances of one more than ``q``.
    """
    q, covariance = 1.0, X @ Z.T
    tangent = gains[0] * covariance
    for gain in gains[1:]:
        noisy = q + smoothing**2
        slopes, expected = arc_cosine(covariance / noisy)
        covariance = noisy * expected
        tangent = slopes * tangent + gain * covariance
        q = noisy * float(arc_cosine(torch.tensor(q / noisy, dtype=torch.float64))[1])
    return tangent / 2


def gains_of(width: int, depth: int, standard: bool) -> list[float]:
    """Gains of the layers in one of the two parametrisations, the read-out last."""
    return [1.0] + ([width / 2] * (depth - 1) + [float(width)] if standard else [1.0] * depth)


def trained_copies(
    model: nn.Module,
    X: Tensor,
    y: Float[Tensor, "n"],
    ridge: float,
    removed: Sequence[int],
    *,
    step: float,
    steps: int,
) -> dict[str, Float[Tensor, "copies ..."]]:
    """Weights after gradient descent from one start: with all points, and without each of some.

    The loss is half the sum of squares, and half the ridge times the squared way from the start.
    """
    start = {name: w.detach() for name, w in model.named_parameters()}
    count = 1 + len(removed)
    kept = torch.ones(count, len(y), dtype=y.dtype, device=y.device)
    kept[torch.arange(1, count), list(removed)] = 0
    copies = {name: w.repeat(count, *[1] * w.ndim) for name, w in start.items()}
    for _ in range(steps):
        for w in copies.values():
            w.requires_grad_()
        residuals = outputs_of_copies(model, copies, X) - y
        loss = (kept * residuals.square()).sum() / 2
        gradients = torch.autograd.grad(loss, list(copies.values()))
        copies = {name: w.detach() for name, w in copies.items()}
        for (name, w), gradient in zip(copies.items(), gradients, strict=True):
            w.lerp_(start[name], step * ridge).sub_(gradient, alpha=step)
    return copies


def outputs_of_copies(
    model: nn.Module, copies: dict[str, Tensor], X: Tensor
) -> Float[Tensor, "copies n"]:
    """The outputs of each copy at all points."""
    return vmap(lambda weights: functional_call(model, weights, (X,)))(copies)


@dataclass(frozen=True)
class Task:
    """Training and test points, labels, which points are left out, and for how long is trained.

    The time is in units of one over the ridge: weights that no point pulls are back at the start
    but for the share exp(-time).
    """

    X: Float[Tensor, "n ..."]
    y: Float[Tensor, "n"]
    X_test: Float[Tensor, "n_test ..."]
    removed: list[int]
    time: float
    dtype: torch.dtype


def retrained(
    model: nn.Module, task: Task, ridge: float, *, halvings: int = 0
) -> tuple[dict[str, Tensor], Float[Tensor, "k n_test"]]:
    """Trained weights, and changes of predictions without each point, by retraining.

    The step is one over the curvature at the start, or half of it for each halving.
    """
    model, X, y = model.to(task.dtype), task.X.to(task.dtype), task.y.to(task.dtype)
    curvature = float(torch.linalg.eigvalsh(ni.empirical_ntk(model, X).double())[-1]) + ridge
    step = 2.0**-halvings / curvature
    steps = math.ceil(task.time / (step * ridge))
    copies = trained_copies(model, X, y, ridge, task.removed, step=step, steps=steps)
    with torch.no_grad():
        f = outputs_of_copies(model, copies, task.X_test.to(task.dtype)).double()
    return {name: w[0] for name, w in copies.items()}, f[1:] - f[0]


def kernels_of(model: nn.Module, task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel, test kernel and outputs at the training points, in double precision."""
    model = model.double()
    with torch.no_grad():
        f = model(task.X)
    return ni.empirical_ntk(model, task.X), ni.empirical_ntk(model, task.X_test, task.X), f


def by_inverse_hessian(
    K: Tensor, k_test: Tensor, residual: Float[Tensor, "n"], ridge: float
) -> tuple[Float[Tensor, "n n_test"], Float[Tensor, "n n_test"]]:
    """Changes without each point by IHVP with the network's own residuals; then over 1 - h."""
    fitted = ni.fit_kernel_ridge(K, residual, ridge)
    change = residual[:, None] * (fitted.inverse @ k_test.T)
    return change, change / (1 - fitted.leverage)[:, None]


def by_whole_hessian(
    model: nn.Module, task: Task, ridge: float, residual: Float[Tensor, "n"], *, steps: int = 150
) -> Float[Tensor, "k n_test"]:
    """Leverage-corrected IHVP of the points left out, with the Hessian of the loss as it is.

    Conjugate gradients, one system for each point; curvature is that with all points.
    """
    weights = {name: w.detach() for name, w in model.named_parameters()}

    def outputs(w: dict[str, Tensor], X: Tensor) -> Tensor:
        return functional_call(model, w, (X,))

    def loss(w: dict[str, Tensor]) -> Tensor:
        return (outputs(w, task.X) - task.y).square().sum() / 2

    def curved(v: dict[str, Tensor]) -> dict[str, Tensor]:
        product = vmap(lambda one: vjp(grad(loss), weights)[1](one)[0])(v)
        return {name: product[name] + ridge * v[name] for name in v}

    rows = jacrev(outputs)(weights, task.X[task.removed])
    solved = conjugate_gradients(curved, rows, steps)
    at_tests = jacrev(outputs)(weights, task.X_test)
    pushed = sum(solved[name].flatten(1) @ at_tests[name].flatten(1).T for name in solved)
    leverage = inner(rows, solved)
    return residual[task.removed, None] * pushed / (1 - leverage)[:, None]


def inner(a: dict[str, Tensor], b: dict[str, Tensor]) -> Float[Tensor, "k"]:
    """Inner products of as many vectors, each spread over the layers."""
    return sum((a[name] * b[name]).flatten(1).sum(dim=1) for name in a)


def conjugate_gradients(apply: Callable, rows: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Solutions of as many systems with one positive definite matrix, given as a function.

    Raises ``ValueError`` where a residual is not below 1e-6 of the right-hand side in the end.
    """

    def axpy(a: Tensor, x: dict[str, Tensor], y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: y[name] + a.view(-1, *[1] * (y[name].ndim - 1)) * x[name] for name in y}

    solved = {name: torch.zeros_like(row) for name, row in rows.items()}
    rest, direction, size = rows, rows, inner(rows, rows)
    first = size
    for _ in range(steps):
        if (size <= 1e-20 * first).all():
            break
        image = apply(direction)
        way = size / inner(direction, image)
        solved, rest = axpy(way, direction, solved), axpy(-way, image, rest)
        size, before = inner(rest, rest), size
        direction = axpy(size / before, direction, rest)
    left = float((size / first).max().sqrt())
    if not left <= 1e-6:
        raise ValueError(f"steps: expected enough for a residual of 1e-6, got {left:.1e}")
    return solved


def against_kernels(
    model: nn.Module,
    task: Task,
    ridge: float,
    limit: tuple[Tensor, Tensor] | None = None,
    *,
    with_floor: bool = False,
    with_hessian: bool = False,
) -> dict[str, float]:
    """Errors of the predictions of the retrained changes, drift of the kernel, and the floor.

    All errors are relative to the changes by retraining. ``limit`` is the kernel and test kernel of
    infinite width; models of it and of the kernel at the start are fitted to y - f_0.
    """
    K, k_test, f_0 = kernels_of(model, task)
    weights, change = retrained(model, task, ridge)
    ends = {"ridge": ridge, "change": float(change.square().mean().sqrt())}
    if with_floor:
        ends["floor"] = relative_error(retrained(model, task, ridge, halvings=1)[1], change)
    model.load_state_dict(weights)
    K_end, k_end, f = kernels_of(model, task)
    ihvp, corrected = by_inverse_hessian(K_end, k_end, f - task.y, ridge)
    found = {
        "start": kernel_model(K, k_test, task.y - f_0, ridge).change,
        "end": corrected,
        "IHVP": ihvp,
    }
    if limit:
        found["limit"] = kernel_model(*limit, task.y - f_0, ridge).change
    errors = {name: relative_error(part[task.removed], change) for name, part in found.items()}
    if with_hessian:
        whole = by_whole_hessian(model, task, ridge, f - task.y)
        errors["Hessian"] = relative_error(whole, change)
    return ends | errors | {"drift": relative_error(K_end, K)}
