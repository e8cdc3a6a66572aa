"""Quanda's linear datamodelling score beside ours, into ``data/recorded/quanda.json``::

    PYTHONPATH=src PYTHON_WITH_QUANDA benchmarks/by_quanda.py

Quanda correlates, for each test point, sums of scores over subsets with what a model trained on the
subset gives. The subsets are the training sets without one point, as in ``ni.truth.score``; of the
trained model minus the test loss is handed over, so that nothing is trained again.
"""

import argparse
from importlib.metadata import version

import torch
from quanda.metrics.ground_truth import LinearDatamodelingMetric

import ntk_influence as ni
from livebook import records

TRUTHS = ("kernel-1", "kernel-0.01")


def of_quanda(scores: torch.Tensor, truth: ni.truth.Truth) -> float:
    """Its score of an (n, n_test) matrix of scores in our sign and scale."""
    n, n_test = scores.shape
    after = truth.predictions + truth.changes  # (n, n_test), without each point in turn
    worth = -((after - truth.y_test) ** 2) / 2
    subsets = [[j for j in range(n) if j != i] for i in truth.rows.tolist()]
    metric = LinearDatamodelingMetric(
        model=torch.nn.Linear(1, 1),  # asked for, and never called
        train_dataset=torch.utils.data.TensorDataset(torch.zeros(n, 1)),
        subset_ids=subsets,
        subset_ckpt_filenames=[""] * len(subsets),
        m=len(subsets),
    )
    metric.update(
        explanations=scores.T,
        test_targets=torch.zeros(n_test, dtype=torch.long),
        test_data=torch.zeros(n_test, 1),
        subset_logits={i: row[:, None] for i, row in enumerate(worth)},
    )
    return metric.compute()["score"]


def main() -> None:
    """Two estimates on two truths."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    device, rows = torch.device("cpu"), []
    for name in TRUTHS:
        truth = ni.truth.load(name)
        s = truth.settings
        data = ni.datasets.load(s["dataset"], s["n_train"], s["n_test"])
        K = ni.relu_ntk(torch.cat([data.X, data.X_test]))
        problem = ni.estimators.Linearised.of_kernel(K, data.y, s["ridge"], data.y_test)
        for method, scores in (
            ("exact IHVP", ni.estimators.ihvp(problem)),
            ("gradient dot products", ni.estimators.gradient_dot([problem], steps=[1.0])),
        ):
            ours = ni.truth.score(scores, truth)["lds"]
            rows.append({"truth": name, "method": method, "ours": ours})
            rows[-1]["quanda"] = of_quanda(scores, truth)
            print(rows[-1])
    found = {"version": version("quanda"), "rows": rows}
    records.record("data/recorded", "quanda", found, device, truths=list(TRUTHS))


if __name__ == "__main__":
    main()
