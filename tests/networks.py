"""A network whose kernel is known, and what it is trained on."""

import torch
from problems import unit_rows
from torch import Tensor

from studies import deep


class Linear(torch.nn.Module):
    """A model whose kernel never moves: x^T x, whatever the weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.arange(dim).double() / dim)

    def forward(self, X: Tensor) -> Tensor:
        return X @ self.w


def task(time: float = 30.0) -> deep.Task:
    """Points, labels and two points to leave out, for networks that train that long."""
    X, X_test = unit_rows(12, 5), unit_rows(4, 5, seed=1)
    y = torch.randn(12, generator=torch.Generator().manual_seed(2)).double()
    return deep.Task(X, y, X_test, [3, 7], time, torch.float64)
