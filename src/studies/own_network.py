"""The kernel of a user's own trained network, and how far it may be believed."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import ntk_influence as ni
from livebook.ledger import QUIET
from livebook.networks import OwnNetwork, evaluated, inputs
from livebook.report import Given

from .lazy import root_mean_square
from .measures import relative_error


def kernels(network: OwnNetwork, given: Given) -> tuple[Tensor, Tensor | None]:
    """The Gram matrix of the network's gradients, and the kernel between test and training."""
    X = inputs(network, given.table, given.prepared.X)
    K = ni.empirical_ntk(network.model, X).double()
    if given.test is None:
        return K, None
    Z = inputs(network, given.test, given.prepared.X_test)
    return K, ni.empirical_ntk(network.model, Z, X).double()


def signs(
    network: OwnNetwork, given: Given, K: Float[Tensor, "n n"], fitted: ni.KernelRidge
) -> Iterator[str]:
    """Sentences on what stands between this kernel and the network itself."""
    X, y = inputs(network, given.table, given.prepared.X), given.prepared.y
    f = outputs(network.model, X, y)
    agree = float(np.corrcoef(f.flatten(), fitted.predict(K).cpu().flatten())[0, 1])
    yield f"Predictions of the kernel model and of the network correlate to **{agree:.3f}**."
    if network.initial is None:
        yield "Drift of the kernel: *not tested* (the file names no network `initial`)."
    else:
        before = ni.empirical_ntk(network.initial, X).double()
        share = relative_error(K.cpu(), before.cpu())
        learnt = (
            " It was learnt from these labels, wrong ones included: such a label can hide from it,"
            " and the kernel before the training is the better witness."
        )
        yield (
            f"The kernel moved by **{share:.0%}** of its size during the training."
            + (learnt if share > 1 else "")
        )
    kinks = near_kinks(network.model, X)
    if kinks is None:
        yield "Inputs near a kink: *not tested* (the network has no module `torch.nn.ReLU`)."
    else:
        yield f"**{kinks:.1%}** of the inputs of ReLU lie within 1 % of their size from the kink."
    if network.retrain is None:
        yield "Noise floor: *not tested* (the file has no function `retrain`)."
        return
    one, other = (outputs(network.retrain(seed), X, y) for seed in (0, 1))
    floor = root_mean_square(one - other)
    change = root_mean_square(ni.leave_one_out(fitted, K) - fitted.predict(K))
    quiet = floor <= QUIET * change
    verdict = "Retraining can tell." if quiet else "Retraining *cannot tell* this effect."
    yield (
        f"Two trainings differ by {floor:.2g} (root mean square); the removal of an example "
        f"changes a prediction by {change:.2g}. {verdict}"
    )


def outputs(model: torch.nn.Module, X: Tensor, y: Tensor) -> Tensor:
    """What a network says, shaped like the targets."""
    return evaluated(model, X).double().reshape(y.shape).cpu()


def near_kinks(model: torch.nn.Module, X: Tensor, reach: float = 0.01) -> float | None:
    """Share of the inputs of ReLU below ``reach`` times their root mean square.

    None where the network has no module torch.nn.ReLU.
    """
    shares = []

    def look(module: torch.nn.Module, args: tuple) -> None:
        u = args[0].detach()
        shares.append((u.abs() < reach * u.square().mean().sqrt()).double().mean())

    parts = [part for part in model.modules() if isinstance(part, torch.nn.ReLU)]
    hooks = [part.register_forward_pre_hook(look) for part in parts]
    try:
        evaluated(model, X)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.stack(shares).mean()) if shares else None
