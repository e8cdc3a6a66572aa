"""Networks along their gradient flow over decades of time, beside the flow of their kernel."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import ntk_influence as ni

from .deep import Task, kernels_of, outputs_of_copies
from .measures import relative_error

SAFETY = 1.5  # curvature may grow until the kernel is looked at again


def chebyshev_step(gradient: Callable, w: Tensor, step: float, stages: int) -> Tensor:
    """One step of gradient flow, Runge-Kutta-Chebyshev of the second order.

    Stable for a curvature of up to 0.65 (stages^2 - 1) over the step; stages are at least two.

    Source: Sommeijer, Shampine and Verwer 1998.
    """
    T, b, w0, w1 = chebyshev_weights(stages)
    first = gradient(w)
    before, now = w, w - step * b[1] * w1 * first
    for j in range(2, stages + 1):
        mu, nu, pull = 2 * w0 * b[j] / b[j - 1], -b[j] / b[j - 2], 2 * w1 * b[j] / b[j - 1]
        change = gradient(now) - (1 - b[j - 1] * T[j - 1]) * first
        before, now = now, (1 - mu - nu) * w + mu * now + nu * before - step * pull * change
    return now


def chebyshev_weights(stages: int) -> tuple[list[float], list[float], float, float]:
    """Chebyshev polynomials at a point just above one, and the weights of the stages."""
    w0 = 1 + 2 / (13 * stages**2)
    T, slope, bend = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for _ in range(2, stages + 1):
        bend.append(4 * slope[-1] + 2 * w0 * bend[-1] - bend[-2])
        slope.append(2 * T[-1] + 2 * w0 * slope[-1] - slope[-2])
        T.append(2 * w0 * T[-1] - T[-2])
    b = [bend[j] / slope[j] ** 2 for j in range(2, stages + 1)]
    return T, [b[0], b[0], *b], w0, slope[-1] / bend[-1]


def flow_of_copies(
    model: nn.Module, task: Task, ridge: float, times: Sequence[float], parts: int
) -> Iterator[tuple[Float[Tensor, "copies p"], nn.Module, Float[Tensor, "n n"]]]:
    """Weights with all points and without each of some, the network with all, and its kernel.

    Each stretch between two times is made of so many steps, and of more where they need few
    stages; stages follow from the kernel.
    """
    model = deepcopy(model)
    start = parameters_to_vector(model.parameters()).detach()
    kept = torch.ones(1 + len(task.removed), len(task.y), dtype=task.y.dtype, device=start.device)
    kept[torch.arange(1, len(kept)), task.removed] = 0

    def gradient(copies: Tensor) -> Tensor:
        copies = copies.detach().requires_grad_()
        residuals = outputs_of_flat(model, copies, task.X) - task.y
        loss = (kept * residuals.square()).sum() / 2
        return torch.autograd.grad(loss, copies)[0] + ridge * (copies.detach() - start)

    copies, now, K = start.repeat(len(kept), 1), 0.0, ni.empirical_ntk(model, task.X)
    for t in times:
        step, now = (t - now) / parts, t
        curvature = float(torch.linalg.eigvalsh(K)[-1]) + ridge
        more = max(1, 8 // stages_for(curvature * step))
        step = step / more
        for _ in range(parts * more):
            copies = chebyshev_step(gradient, copies, step, stages_for(curvature * step))
        vector_to_parameters(copies[0], model.parameters())
        K = ni.empirical_ntk(model, task.X)
        yield copies, model, K


def stages_for(curvature: float) -> int:
    """Stages for a step over which the curvature is this now and may grow."""
    return 1 + math.ceil(math.sqrt(1 + SAFETY * curvature / 0.65))


def outputs_of_flat(
    model: nn.Module, copies: Float[Tensor, "copies p"], X: Tensor
) -> Float[Tensor, "copies n"]:
    """The outputs of each copy, whose weights are a row, at all points."""
    named = list(model.named_parameters())
    columns = copies.split([w.numel() for _, w in named], dim=1)
    weights = {
        name: part.view(-1, *w.shape) for (name, w), part in zip(named, columns, strict=True)
    }
    return outputs_of_copies(model, weights, X)


@dataclass(frozen=True)
class Course:
    """A network at several times of its training, beside what the kernel of its start predicts.

    ``moved`` is the change of the predictions since the start, ``change`` what they change by
    without a point; ``way`` is how far the weights of the linearised network have gone, and
    ``loss`` the mean squared residual at the training points.
    """

    drift: list[float]
    way: list[float]
    loss: list[float]
    moved: Float[Tensor, "t n_test"]
    moved_by_kernel: Float[Tensor, "t n_test"]
    change: Float[Tensor, "t k n_test"]
    change_by_kernel: Float[Tensor, "t k n_test"]


def course(
    model: nn.Module, task: Task, ridge: float, times: Sequence[float], *, parts: int = 4
) -> Course:
    """Train a network and its copies without each of some points, and their linearisations."""
    K, k_test, f_0 = kernels_of(model, task)
    flow = ni.fit_kernel_flow(K, task.y - f_0, ridge)
    moved_by_kernel = flow.predict(times, k_test)
    left_out = torch.stack([flow.leave_one_out([t], k_test)[0, task.removed] for t in times])
    drift, loss, outputs = [], [], []
    with torch.no_grad():
        f_0_test = model(task.X_test)
    for copies, trained, K_t in flow_of_copies(model, task, ridge, times, parts):
        with torch.no_grad():
            outputs.append(outputs_of_flat(trained, copies, task.X_test))
            loss.append(float((trained(task.X) - task.y).square().mean()))
        drift.append(relative_error(K_t, K))
    f = torch.stack(outputs)
    by_kernel = left_out - moved_by_kernel[:, None]
    seen = f[:, 0] - f_0_test, moved_by_kernel, f[:, 1:] - f[:, :1], by_kernel
    return Course(drift, ways(flow, times), loss, *seen)


def ways(flow: ni.KernelFlow, times: Sequence[float]) -> list[float]:
    r"""How far the weights of a linearised network have gone, $\lVert w_t - w_0 \rVert$."""
    size, y = flow.a - flow.ridge, flow.Uy[:, 0]
    gone = [size.clamp(min=0).sqrt() * y * -torch.expm1(-flow.a * t) / flow.a for t in times]
    return [float(v.norm()) for v in gone]


def rows(times: Sequence[float], found: Course, finer: Course) -> list[dict[str, float]]:
    """Drift, errors and floors at each time, from a course and one of half the steps.

    Errors are those of the kernel, relative to what the network does with the finer steps; the
    floor is how far the network is from that with the coarser ones, on the same scale.
    """
    table = []
    for k, t in enumerate(times):
        row = {"time": t, "drift": found.drift[k], "way": found.way[k], "loss": found.loss[k]}
        pairs = {"error": ("moved", "moved_by_kernel"), "left out": ("change", "change_by_kernel")}
        for name, (seen, predicted) in pairs.items():
            network, again, kernel = (
                getattr(of, key)[k]
                for of, key in ((finer, seen), (found, seen), (finer, predicted))
            )
            if len(network):
                row[name] = relative_error(kernel, network)
                row[f"{name}, floor"] = relative_error(again, network)
        table.append(row)
    return table
