"""What several chapters measure alike; the first that uses a function shows its source."""

from .beside import live_beside_recorded, runs_of
from .floors import agreement_above, measure, new_rows, size_of, spread
from .lazy import flow, gradient, in_their_span, law, loss, root_mean_square, vacuous
from .measures import agreement, largest_error, mean_and_range, per_test_point, relative_error
from .points import choose_points, drawn_and_ranked
from .problems import jacobian, kernels, refit_without
from .retraining import (
    Place,
    Predictions,
    Run,
    Setting,
    crossed,
    experiment,
    initial,
    kernel_model,
    linearised_model,
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
    "flow",
    "gradient",
    "in_their_span",
    "initial",
    "jacobian",
    "kernel_model",
    "kernels",
    "largest_error",
    "law",
    "linearised_model",
    "live_beside_recorded",
    "loss",
    "mean_and_range",
    "measure",
    "new_rows",
    "offset_model",
    "per_test_point",
    "problem",
    "refit_without",
    "relative_error",
    "retrain",
    "retrain_finer_or_coarser",
    "root_mean_square",
    "runs_of",
    "size_of",
    "spread",
    "vacuous",
]
