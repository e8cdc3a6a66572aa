"""A small trained CNN for `make report MODEL=report/example_network.py`, on the digits of the demo.

A file of this kind defines `model`, a trained torch module, and where it likes `initial` (the
module before the training), `prepare` (from the features of the table to what the module takes) and
`retrain` (once more, from another seed). The file is run twice, to check it and for the report: a
network that takes long is trained elsewhere, and its weights are loaded here.
"""

import torch
from torch import nn

from livebook import report


def prepare(features):
    """Images (n, 28, 28) as the module takes them."""
    return torch.tensor(features, dtype=torch.float32)[:, None] / 255


def network(seed):
    """Two convolutions and a linear layer, not trained."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 1),
    )


def retrain(seed):
    """Full-batch gradient descent on half the mean squared error."""
    trained, given = network(seed), report.read("digits")
    X, y = prepare(given.table.features), given.prepared.y.float()
    optimiser = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
    for _ in range(150):
        optimiser.zero_grad()
        (trained(X)[:, 0] - y).square().mean().div(2).backward()
        optimiser.step()
    return trained


initial, model = network(0), retrain(0)
