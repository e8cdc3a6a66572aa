"""How far two results are from each other, and how values scatter over repetitions."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import pearsonr, spearmanr
from torch import Tensor


def relative_error(found: Tensor, reference: Tensor) -> float:
    """Root mean square difference relative to the root mean square of the reference."""
    return float((found - reference).norm() / reference.norm())


def largest_error(found: Tensor, truth: Tensor) -> float:
    """Largest error of an entry relative to the largest entry of the truth."""
    return float((found - truth).abs().max() / truth.abs().max())


def per_test_point(correlation: Callable, estimate: Tensor, truth: Tensor) -> list[float]:
    """A correlation over the training points, for each test point (a column)."""
    columns = zip(estimate.cpu().numpy().T, truth.cpu().numpy().T, strict=True)
    return [float(correlation(*pair)[0]) for pair in columns]


def agreement(estimate: Tensor, truth: Tensor) -> dict[str, float]:
    """How an (n, n_test) estimate agrees with the truth: ranks, size and error.

    ``slope`` is that of the truth on the estimate, a line through zero; ``error`` is relative.
    """
    a, b = (values.cpu().numpy().ravel() for values in (estimate, truth))
    return {
        "Pearson": float(pearsonr(a, b)[0]),
        "Spearman": float(spearmanr(a, b)[0]),
        "Pearson per test point": float(np.mean(per_test_point(pearsonr, estimate, truth))),
        "Spearman per test point": float(np.mean(per_test_point(spearmanr, estimate, truth))),
        "slope": float(a @ b / (a @ a)),
        "error": relative_error(estimate, truth),
    }


def mean_and_range(rows: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Mean over repetitions (rows), and the distances to the least and greatest, for error bars."""
    values = np.asarray(rows, dtype=float)
    mean = values.mean(axis=0)
    return mean, np.stack([mean - values.min(axis=0), values.max(axis=0) - mean])


def mean_and_error(rows: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Mean over draws (rows) and its standard error, which is 0 for a single draw."""
    values = np.asarray(rows, dtype=float)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])
    return values.mean(axis=0), spread / np.sqrt(len(values))
