"""Influence functions of wide two-layer ReLU networks, in closed form through the NTK.

Influence matrices are ``(n_train, n_test)``. Positive means that removing the training point
raises the test loss: the point is helpful. Losses are sums of halves of squares, never means.
"""

from . import bounds, datasets, finite_width
from .influence import ihvp_influence, leave_group_out, leave_one_out, loo_influence
from .kernels import relu_ntk
from .network import TwoLayerReLU
from .ridge import KernelRidge, fit_kernel_ridge
from .training import TrainedTwoLayerReLU, TrainingError, retrain_without, train

__all__ = [
    "KernelRidge",
    "TrainedTwoLayerReLU",
    "TrainingError",
    "TwoLayerReLU",
    "bounds",
    "datasets",
    "finite_width",
    "fit_kernel_ridge",
    "ihvp_influence",
    "leave_group_out",
    "leave_one_out",
    "loo_influence",
    "relu_ntk",
    "retrain_without",
    "train",
]
