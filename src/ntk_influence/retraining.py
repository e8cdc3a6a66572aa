"""Training again without a point: the truth that every influence is an estimate of."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from . import _check
from .descent import Descent, Step
from .network import TwoLayerReLU
from .training import (
    Method,
    TrainedTwoLayerReLU,
    check_method,
    digest,
    refuse_rise,
    refuse_trained,
    train,
)


def retrain_without(
    network: TwoLayerReLU,
    X: Float[Tensor, "n d"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    ridge: float,
    indices: Sequence[int],
    X_test: Float[Tensor, "n_test d"],
    *,
    method: Method = "gradient_descent",
    start: Literal["cold", "warm"] = "cold",
    trained: TrainedTwoLayerReLU | None = None,
    finished: Callable[[int, Tensor], None] | None = None,
    progress: bool = False,
) -> Float[Tensor, "k n_test"] | Float[Tensor, "k n_test c"]:
    r"""Predictions at the test points of networks that were trained without one training point.

    A cold start is the paper's definition, equation (7): from the same initial weights, by the same
    schedule as with all points. A warm start goes on from the trained weights, once with and once
    without the point, by the same steps, and adds the difference to the trained network's
    predictions: another quantity, the response near the trained weights. Gradient descent repeats
    its schedule; twelve small Gauss-Newton steps, the shares $s_k$ of the way to the minimum, go
    the share $1 - \prod_k (1 - s_k)$, by which the difference is divided. That is exact while no
    pattern flips. On a GPU, as many points are trained at once as its free memory takes.

    Parameters
    ----------
    network : the common start, not a trained network.
    X, y, ridge, method : as in `train`.
    indices : the points to leave out, one at a time; none gives an empty result.
    X_test : (n_test, d).
    start : ``"cold"`` or ``"warm"``.
    trained : result of `train` on all points with the same arguments, if it is there already; by
        default it is trained first, with the default number of steps and tolerance.
    finished : is called with the index and its (n_test,) predictions as soon as they are there, so
        that a caller can store them and later ask for the missing ones only.
    progress : show a progress bar.

    Returns
    -------
    (k, n_test) or (k, n_test, c) tensor, in the order of ``indices``; gradients of the arguments
    are not followed.

    Raises
    ------
    ValueError
        As `train`, an index that is not one of a training point, and a trained network of another
        problem: other inputs, labels, ridge, start or method.
    TrainingError
        As `train`. Points that were finished before have been handed out.

    Source: Zhang and Zhang 2022, Eq. (7); the warm start is ours.
    """
    refuse_trained(network)
    check_method(method)
    _check.require(start in ("cold", "warm"), "start", "'cold' or 'warm'", repr(start))
    everything = Descent(network, X, y, ridge)
    X_test = network.check_input("X_test", X_test).detach()
    chosen = _check.indices("indices", indices, len(X))
    if not chosen:
        return X_test.new_empty(0, len(X_test), *y.shape[1:])
    if trained is None:
        trained = train(network, X, y, ridge, method=method)
    else:
        _refuse_another_problem(everything, trained, digest(X, y), method)
    B, schedule, way, base = everything.start(), trained.report.schedule, 1.0, X_test.new_zeros(())
    stayed = base
    if start == "warm":
        schedule, way = _warm_schedule(method, schedule)
        B = trained.coefficients[None]
        base = everything.predict(B, X_test)
        stayed = everything.predict(everything.run(B, schedule)[0], X_test)
    results, together = [], everything.copies_that_fit()
    bar = tqdm(total=len(chosen), desc="left out", disable=not progress)
    for first in range(0, len(chosen), together):
        some = torch.tensor(chosen[first : first + together], device="cpu")
        without = everything.leaving_out(some)
        B_without, f = without.run(B, schedule)
        refuse_rise(without, B_without, f)
        moved = without.predict(B_without, X_test)
        for i, prediction in zip(some.tolist(), base + (moved - stayed) / way, strict=True):
            results.append(prediction)
            if finished:
                finished(i, prediction)
            bar.update()
    return torch.stack(results)


def _refuse_another_problem(
    problem: Descent, trained: TrainedTwoLayerReLU, data: str, method: str
) -> None:
    """A network that was trained on anything else gives no schedule and no start here."""
    report = _check.instance("trained", trained, TrainedTwoLayerReLU).report
    same = report.method == method
    _check.require(same, "trained", f"a network trained by {method}", report.method)
    same = report.ridge == problem.ridge
    _check.require(same, "trained", f"training with ridge {problem.ridge}", report.ridge)
    same = report.data == data
    _check.require(same, "trained", "training on these inputs and labels", "on others")
    _check.alike("trained", trained.W, "the network", problem.W_start)
    expected, got = tuple(problem.start().shape[1:]), tuple(trained.coefficients.shape)
    _check.require(got == expected, "trained", f"coefficients of shape {expected}", got)
    way = (problem.weights(trained.coefficients) - trained.W).abs().max()
    rounding = 1e3 * torch.finfo(trained.W.dtype).eps * (1 + trained.W.abs().max())
    _check.require(bool(way <= rounding), "trained", "training from this start", "from another")


def _warm_schedule(method: Method, schedule: Sequence[Step]) -> tuple[Sequence[Step], float]:
    """Small steps from one minimum to the next, and which share of the way they go."""
    if method == "preconditioned":
        steps = [Step(0.1 / (1 + k / 6), damping=0.0) for k in range(12)]
        return steps, 1 - math.prod(1 - step.size for step in steps)
    return schedule, 1.0
