"""Tables to try a report on without a file of one's own: ``digits`` and ``breast-cancer``."""

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

import ntk_influence as ni

from . import tables

SHARE, SEED = 0.05, 0  # of the labels that are flipped


def digits(n: int = 500) -> tuple[tables.Table, np.ndarray]:
    """Images of 7 and 9 of which one label in twenty was flipped, and which ones."""
    data = ni.datasets.load("mnist-5k-7v9", n_train=n, n_test=20)
    images = data.images.numpy()
    return _flipped(images.astype(float), data.labels.numpy().astype(str), images)


def tumours() -> tables.Table:
    """Wisconsin's table of 569 tumours in 30 numbers."""
    table = load_breast_cancer(as_frame=True)
    names = np.asarray(table.target_names)[table.target.to_numpy()]
    return tables.Table(table.data, pd.Series(names, name="kind"), _rows(len(names)))


def breast_cancer() -> tuple[tables.Table, np.ndarray]:
    """The table of tumours, of which one label in twenty was flipped."""
    table = tumours()
    return _flipped(table.features, table.labels.to_numpy(dtype=str), None)


DEMONSTRATIONS = {"digits": digits, "breast-cancer": breast_cancer}


def _flipped(features, names: np.ndarray, pictures: np.ndarray | None) -> tuple:
    one, other = np.unique(names)
    chosen = np.random.default_rng(SEED).permutation(len(names))[: round(SHARE * len(names))]
    planted = np.zeros(len(names), dtype=bool)
    planted[chosen] = True
    labels = np.where(planted, np.where(names == one, other, one), names)
    labels = pd.Series(labels, name="label")
    return tables.Table(features, labels, _rows(len(names)), pictures), planted


def _rows(count: int) -> list[str]:
    return [f"row {row}" for row in range(count)]
