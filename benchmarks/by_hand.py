"""Two entries of the tables of other libraries once more, by their plainest call and nothing else::

    PYTHONPATH=src _build/peers/bin/python benchmarks/by_hand.py pyinfluence

The environments are those of ``peers``. What is compared, the relative distance of the scores from
removal on the truth kernel-1, is what `peers_on_truth` records as ``relative_error``. Nothing of
that script, of `libraries` or of `conventions` is used: signs, scales and ridges are written out.
The number is kept beside its entry, as ``by_hand``, in ``data/recorded/peers_on_truth.json``.
"""

import sys
import tempfile
from importlib.metadata import version

import numpy as np
import torch

import ntk_influence as ni
from livebook import records

METHODS = {"pyinfluence": "influence function, Ridge", "captum": "whole Hessian"}


def pyinfluence(J, y, J_test, y_test):
    """Half squares, alpha = ridge = 1, scores (n_test, n) in our unit."""
    from pyinfluence import InfluenceFunctions
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1.0, fit_intercept=False).fit(J, y)
    return InfluenceFunctions(damping=0.0).fit(model, J, y).explain(J_test, y_test).T


def captum(J, y, J_test, y_test):
    """Squares, twice ours, as a sum: 2 H + 2 ridge, and scores (n_test, n) that are twice ours."""
    from captum.influence._core.influence_function import NaiveInfluenceFunction

    layer = torch.nn.Linear(J.shape[1], 1, bias=False, dtype=torch.float64)
    weights = np.linalg.solve(J.T @ J + np.eye(J.shape[1]), J.T @ y)
    layer.weight.data = torch.tensor(weights)[None]
    points = [(torch.tensor(j), torch.tensor([label])) for j, label in zip(J, y, strict=True)]
    with tempfile.NamedTemporaryFile() as file:
        torch.save(layer.state_dict(), file.name)
        found = NaiveInfluenceFunction(
            layer, points, file.name, batch_size=len(y), loss_fn=torch.nn.MSELoss(reduction="sum"),
            sample_wise_grads_per_batch=True, hessian_reg=2.0, hessian_inverse_tol=0.0,
            projection_dim=J.shape[1],
        )  # fmt: skip
        scores = found.influence((torch.tensor(J_test), torch.tensor(y_test)[:, None]))
    return scores.numpy().T / 2


def main() -> None:
    """One library on kernel ridge regression with ridge 1, features from an eigendecomposition."""
    library = sys.argv[1]
    data = ni.datasets.load("mnist-5k-7v9", 200, 50)
    values, vectors = torch.linalg.eigh(ni.relu_ntk(torch.cat([data.X, data.X_test])))
    J = (vectors * values.clamp(min=0).sqrt()).numpy()
    y, y_test = data.y.numpy(), data.y_test.numpy()
    found = {"pyinfluence": pyinfluence, "captum": captum}[library](J[:200], y, J[200:], y_test)
    truth = ni.truth.load("kernel-1").influence.numpy()
    error = float(np.linalg.norm(found - truth) / np.linalg.norm(truth))
    kept = records.recorded("peers_on_truth")
    entry = {"method": METHODS[library], "truth": "kernel-1", "relative_error": error}
    kept["results"][library]["by_hand"] = entry | {"version": version(library)}
    device = torch.device("cpu")
    records.record("data/recorded", "peers_on_truth", kept["results"], device, **kept["parameters"])
    print(library, error)


if __name__ == "__main__":
    main()
