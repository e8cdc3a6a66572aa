"""Change every pixel by rounding as it is loaded: a result that shows it is fragile."""

from collections.abc import Callable
from dataclasses import replace

import torch

from ntk_influence import datasets

SIZE = 1e-15


def install(seed: int) -> None:
    """Wrap ``datasets.load`` and ``datasets.mixture`` in this process; no chapter knows of it."""
    plain, shaken = datasets.load, perturbed(datasets.load, seed)

    def load(name: str, *args, **kwargs) -> datasets.Dataset:  # that of a mixture calls `mixture`
        return (plain if name == "mixture" else shaken)(name, *args, **kwargs)

    datasets.load, datasets.mixture = load, perturbed(datasets.mixture, seed)


def perturbed(load: Callable, seed: int) -> Callable:
    r"""The loader with every entry of X and X_test times $1 + 10^{-15} g$, $g \sim N(0, 1)$."""
    generator = torch.Generator().manual_seed(seed)

    def loader(*args, **kwargs) -> datasets.Dataset:
        data = load(*args, **kwargs)
        generator.manual_seed(seed)
        return replace(data, **{k: _shaken(getattr(data, k), generator) for k in ("X", "X_test")})

    return loader


def _shaken(X: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return X * (1 + SIZE * torch.randn(X.shape, generator=generator, dtype=X.dtype))
