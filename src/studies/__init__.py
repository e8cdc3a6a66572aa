"""What several chapters measure alike; the first that uses a function shows its source."""

from .beside import live_beside_recorded, runs_of
from .floors import agreement_above, measure, size_of
from .measures import (
    agreement,
    largest_error,
    mean_and_error,
    mean_and_range,
    per_test_point,
    relative_error,
)
from .points import choose_points, drawn_and_ranked
from .problems import flow_with, jacobian, kernels, refit_without
from .retraining import (
    Place,
    Predictions,
    Run,
    Setting,
    crossed,
    experiment,
    initial,
    kernel_model,
    offset_model,
    problem,
    retrain,
    retrain_finer_or_coarser,
)

__all__ = [
    "Place",
    "Predictions",
    "Run",
    "Setting",
    "agreement",
    "agreement_above",
    "choose_points",
    "crossed",
    "drawn_and_ranked",
    "experiment",
    "flow_with",
    "initial",
    "jacobian",
    "kernel_model",
    "kernels",
    "largest_error",
    "live_beside_recorded",
    "mean_and_error",
    "mean_and_range",
    "measure",
    "offset_model",
    "per_test_point",
    "problem",
    "refit_without",
    "relative_error",
    "retrain",
    "retrain_finer_or_coarser",
    "runs_of",
    "size_of",
]
