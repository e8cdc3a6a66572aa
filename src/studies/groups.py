"""Groups of points sorted by influence, and how sure the order is."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def in_groups(values: np.ndarray, order_by: np.ndarray) -> np.ndarray:
    """Means over ten groups sorted by another quantity, or by each column of one."""
    parts = np.array_split(values[np.argsort(order_by, axis=0)], 10)
    return np.array([part.mean(axis=0) for part in parts])


def lead_of_ends(values: np.ndarray, order_by: np.ndarray) -> np.ndarray:
    """By how much both end groups exceed every group between, over the mean size of a value."""
    groups = in_groups(values, order_by)
    ends = np.minimum(groups[0], groups[-1])
    return (ends - groups[1:-1].max(axis=0)) / np.abs(values).mean()


def resampled_means(influence: Float[Tensor, "n n_test"], count: int) -> np.ndarray:
    """Mean over the test points in the first column, over such drawn with repetition in others."""
    n_test = influence.shape[1]
    drawn = np.random.default_rng(0).multinomial(n_test, np.full(n_test, 1 / n_test), size=count)
    weights = torch.from_numpy(np.vstack([np.ones(n_test), drawn]).T / n_test)
    return (influence @ weights.to(influence)).cpu().numpy()
