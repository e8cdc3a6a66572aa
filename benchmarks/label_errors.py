"""What cleanlab finds of the wrong labels of chapter 19, in an environment of its own.

::

    python3 -m venv _build/cleanlab
    _build/cleanlab/bin/python -m pip install -c constraints.txt \\
        torch==2.13.0 mlxtend pooch tqdm jaxtyping psutil matplotlib ipython jupytext pyyaml \\
        cleanlab
    PYTHONPATH=src _build/cleanlab/bin/python benchmarks/label_errors.py

It writes ``data/recorded/label_errors.json``.
"""

from importlib.metadata import version

import numpy as np
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import studies
from livebook import records

DATASETS, RATES = ("mnist-5k-7v9", "mnist-5k", "breast-cancer"), (0.02, 0.05, 0.2)
N, DRAWS, FOLDS = 500, 10, 5


def one_draw(X: np.ndarray, y: torch.Tensor, rate: float, draw: int) -> dict[str, float]:
    """Counts of called and wrong labels, and the share of the wrong ones among the first."""
    observed, wrong = studies.flipped(y, rate, draw)
    labels = (observed.argmax(dim=1) if y.ndim == 2 else (observed > 0).long()).numpy()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    p = cross_val_predict(classifier, X, labels, cv=FOLDS, method="predict_proba")
    called = find_label_issues(labels, p)
    doubt = torch.from_numpy(1 - get_label_quality_scores(labels, p))
    hits = (called & wrong.numpy()).sum()
    first = studies.first_found(doubt, wrong)
    return {"called": called.sum(), "hits": hits, "wrong": int(wrong.sum()), "first": first}


def main() -> None:
    """Every data set, rate and draw."""
    rows = []
    for name in DATASETS:
        X, y = studies.inputs_and_labels(name, N)
        for rate in RATES:
            draws = [one_draw(X.numpy(), y, rate, draw) for draw in range(DRAWS)]
            called, hits, wrong = (sum(d[k] for d in draws) for k in ("called", "hits", "wrong"))
            row = {"precision": float(hits / max(called, 1)), "recall": float(hits / wrong)}
            first = float(np.mean([d["first"] for d in draws]))
            rows.append({"setting": f"{name}, {100 * rate:g} %", **row, "first": first})
            print(rows[-1], flush=True)
    results = {"version": version("cleanlab"), "rows": rows}
    given = {"datasets": DATASETS, "n_train": N, "rates": RATES, "n_draws": DRAWS, "folds": FOLDS}
    records.record("data/recorded", "label_errors", results, torch.device("cpu"), **given)


if __name__ == "__main__":
    main()
