"""What several chapters measure alike; the first that uses a function shows its source."""

from .beside import digits, live_beside_recorded, numbers_beside, runs_of
from .floors import agreement_above, measure, new_rows, size_of, spread
from .groups import in_groups, lead_of_ends, resampled_means
from .images import (
    distance_to_class_mean,
    edges,
    frame_variance,
    odds_within,
    tenths,
    thumbnail,
)
from .lazy import flow, gradient, in_their_span, law, loss, root_mean_square, vacuous
from .measures import agreement, largest_error, mean_and_range, per_test_point, relative_error
from .points import choose_points, drawn_and_ranked
from .problems import hessian, jacobian, kernels, refit_without, training_loss
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
from .spectral import AtRidge, at_each

__all__ = [
    "AtRidge",
    "Place",
    "Predictions",
    "Run",
    "Setting",
    "agreement",
    "agreement_above",
    "at_each",
    "choose_points",
    "crossed",
    "digits",
    "distance_to_class_mean",
    "drawn_and_ranked",
    "edges",
    "experiment",
    "flow",
    "frame_variance",
    "gradient",
    "hessian",
    "in_groups",
    "in_their_span",
    "initial",
    "jacobian",
    "kernel_model",
    "kernels",
    "largest_error",
    "law",
    "lead_of_ends",
    "linearised_model",
    "live_beside_recorded",
    "loss",
    "mean_and_range",
    "measure",
    "new_rows",
    "numbers_beside",
    "odds_within",
    "offset_model",
    "per_test_point",
    "problem",
    "refit_without",
    "relative_error",
    "resampled_means",
    "retrain",
    "retrain_finer_or_coarser",
    "root_mean_square",
    "runs_of",
    "size_of",
    "spread",
    "tenths",
    "thumbnail",
    "training_loss",
    "vacuous",
]
