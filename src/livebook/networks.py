"""A user's own trained network, from a Python file that names it."""

import runpy
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import ntk_influence as ni

from .tables import Table

if typing.TYPE_CHECKING:
    from .report import Given


@dataclass(frozen=True)
class OwnNetwork:
    """What the file defines: ``model``, and the others where it likes."""

    model: nn.Module
    initial: nn.Module | None = None  # the same module as it was before the training
    prepare: Callable | None = None  # from the features of the table to what the module takes
    retrain: Callable[[int], nn.Module] | None = None  # once more, from another seed


def load(path: Path) -> OwnNetwork:
    """Run the file, and check what it defines; ``ValueError`` with one sentence otherwise."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a Python file that defines model, got no such file")
    try:
        found = runpy.run_path(str(path))
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{path}: expected a Python file that runs, got {reason}") from error
    for name, kind in (("model", nn.Module), ("initial", nn.Module)):
        value = found.get(name)
        if not isinstance(value, kind) and (value is not None or name == "model"):
            raise ValueError(f"{path}: expected {name} to be a torch module, got {value!r}")
    for name in ("prepare", "retrain"):
        if found.get(name) is not None and not callable(found[name]):
            raise ValueError(f"{path}: expected {name} to be a function, got {found[name]!r}")
    return OwnNetwork(*(found.get(name) for name in ("model", "initial", "prepare", "retrain")))


def inputs(network: OwnNetwork, table: Table, vectors: Tensor) -> Tensor:
    """What the module takes: by ``prepare`` from the features, else the unit vectors."""
    dtype = next(network.model.parameters()).dtype
    if network.prepare is None:
        return vectors.to(dtype)
    features = table.features
    X = torch.as_tensor(network.prepare(features.copy()))
    if len(X) != len(vectors):
        raise ValueError(f"MODEL: expected prepare to return {len(vectors)} inputs, got {len(X)}")
    return X.to(dtype)


def evaluated(model: nn.Module, X: Tensor) -> Tensor:
    """What a module says in eval mode: neither dropout nor a change of its buffers."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return model(X)
    finally:
        for part, training in modes:
            part.training = training


def check(network: OwnNetwork, given: "Given") -> None:
    """Try the module on two rows; ``ValueError`` with one sentence if it does not take them."""
    try:
        X = inputs(network, given.table, given.prepared.X)[:2]
        outputs = evaluated(network.model, X)
        ni.empirical_ntk(network.model, X)
    except ValueError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"MODEL: expected a module that takes the inputs, got {reason}") from error
    wanted = given.prepared.y[0].numel()
    got = outputs.reshape(2, -1).shape[1]
    if got != wanted:
        raise ValueError(f"MODEL: expected {wanted} outputs for these labels, got {got}")
