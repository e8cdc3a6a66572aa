"""Data with labels that are wrong on purpose, and how many of them are found."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import ntk_influence as ni


def inputs_and_labels(name: str, n_train: int) -> tuple[Float[Tensor, "n d"], Tensor]:
    """Inputs, and labels of -1 and 1; tables are prepared as for a report."""
    if name == "breast-cancer":
        from livebook import demos, prepare  # with pandas and scikit-learn: only where it is asked

        tumours = prepare.prepare(demos.tumours())
        return tumours.X, tumours.y
    data = ni.datasets.load(name, n_train, 2)
    return data.X, data.y if data.y.ndim == 1 else 2 * data.y - 1


def flipped(y: Tensor, rate: float, draw: int) -> tuple[Tensor, Bool[Tensor, "n"]]:
    """Labels of which some are wrong, and which."""
    generator, n = torch.Generator().manual_seed(5000 + draw), len(y)
    wrong = (torch.rand(n, generator=generator) < rate).to(y.device)
    if y.ndim == 1:
        return torch.where(wrong, -y, y), wrong
    by = torch.randint(1, y.shape[1], (n,), generator=generator).to(y.device)
    other = (y.argmax(dim=1) + by * wrong) % y.shape[1]
    return 2 * torch.nn.functional.one_hot(other, y.shape[1]).to(y) - 1, wrong


def first_found(score: Float[Tensor, "n"], wrong: Bool[Tensor, "n"]) -> float:
    """Share of the wrong labels among as many of the largest scores."""
    first = score.argsort(descending=True, stable=True)[: int(wrong.sum())]
    return float(wrong[first].double().mean())
