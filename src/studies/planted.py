"""Data with labels that are wrong on purpose, and how many of them are found."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.datasets import load_breast_cancer
from torch import Tensor

import ntk_influence as ni


def table_of_tumours() -> tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]:
    """Unit rows of standardised columns and a constant one, and labels."""
    X, benign = load_breast_cancer(return_X_y=True)
    X = np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones(len(X))])
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return torch.from_numpy(X), torch.from_numpy(2.0 * benign - 1)


def inputs_and_labels(name: str, n_train: int) -> tuple[Float[Tensor, "n d"], Tensor]:
    """Inputs, and labels of -1 and 1."""
    if name == "breast-cancer":
        return table_of_tumours()
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
    first = score.argsort(descending=True)[: int(wrong.sum())]
    return float(wrong[first].double().mean())
