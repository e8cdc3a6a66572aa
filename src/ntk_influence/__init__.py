"""Influence functions of wide two-layer ReLU networks, in closed form through the NTK.

Influence matrices are ``(n_train, n_test)``. Positive means that removing the training point
raises the test loss: the point is helpful. Losses are sums of halves of squares, never means.
"""

from importlib import import_module
from types import ModuleType

from . import bounds, conventions, datasets, estimators, finite_width, iterative, logistic, truth
from .audit import TrustReport, trust_report
from .complexity import complexity
from .contour import Contour, contour
from .conv_kernels import conv_ntk
from .deep_kernels import deep_ntk
from .descent import Descent, Step, TrainingError
from .empirical import empirical_ntk
from .flow import KernelFlow, fit_kernel_flow, leave_one_out_at, loo_influence_at, predict_at
from .groups import Group, most_influential_group
from .influence import ihvp_influence, leave_group_out, leave_one_out, loo_influence
from .kernels import relu_ntk
from .logistic import KernelLogistic, fit_kernel_logistic
from .network import TwoLayerReLU
from .retraining import retrain_without
from .ridge import KernelRidge, fit_kernel_ridge
from .training import Report, TrainedTwoLayerReLU, train

__all__ = [
    "Contour",
    "Descent",
    "Group",
    "KernelFlow",
    "KernelLogistic",
    "KernelRidge",
    "Report",
    "Step",
    "TrainedTwoLayerReLU",
    "TrainingError",
    "TrustReport",
    "TwoLayerReLU",
    "bounds",
    "complexity",
    "contour",
    "conv_ntk",
    "conventions",
    "datasets",
    "deep_ntk",
    "empirical_ntk",
    "estimators",
    "finite_width",
    "fit_kernel_flow",
    "fit_kernel_logistic",
    "fit_kernel_ridge",
    "ihvp_influence",
    "iterative",
    "leave_group_out",
    "leave_one_out",
    "leave_one_out_at",
    "logistic",
    "loo_influence",
    "loo_influence_at",
    "most_influential_group",
    "predict_at",
    "relu_ntk",
    "retrain_without",
    "scale",
    "train",
    "trust_report",
    "truth",
]


def __getattr__(name: str) -> ModuleType:
    """``scale`` is imported when it is first asked for: whoever fits in memory needs no Dask."""
    if name == "scale":
        return import_module(".scale", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
