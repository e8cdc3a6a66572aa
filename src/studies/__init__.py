"""What several chapters measure alike; the first that uses a function shows its source."""

from .beside import live_beside_recorded, runs_of
from .measures import agreement, largest_error, mean_and_range, per_test_point, relative_error
from .points import choose_points, drawn_and_ranked
from .problems import jacobian, kernels, refit_without

__all__ = [
    "agreement",
    "choose_points",
    "drawn_and_ranked",
    "jacobian",
    "kernels",
    "largest_error",
    "live_beside_recorded",
    "mean_and_range",
    "per_test_point",
    "refit_without",
    "relative_error",
    "runs_of",
]
