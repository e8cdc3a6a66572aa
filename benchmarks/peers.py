"""Scores of other libraries on one small problem, read by ``conventions``, beside our own.

Each library has an environment of its own and one command, here for
Captum; ``PACKAGE`` is ``captum==0.9.0``, ``dattri==0.3.0``, ``kronfluence==1.0.1``,
``pyinfluence==0.5.0``, ``traker==0.3.2`` or ``'pydvl[influence]==0.10.0'`` (the last without the
constraints, since it asks for an older numpy)::

    python3 -m venv _build/peers && _build/peers/bin/python -m pip install -c constraints.txt \\
        torch==2.13.0 mlxtend pooch tqdm jaxtyping psutil PACKAGE
    PYTHONPATH=src _build/peers/bin/python benchmarks/peers.py captum

A run replaces the rows of its library in ``data/recorded/conventions.json``.
"""

import argparse
import json
import warnings
from importlib.metadata import version

import torch
from libraries import LIBRARIES, Problem
from torch import Tensor, nn

import ntk_influence as ni
from livebook import records
from ntk_influence.conventions import damping_of, to_ours

N, N_TEST, RIDGES = 60, 20, [1.0, 0.1, 0.01]


def problem(ridge: float) -> Problem:
    """Real sevens and nines, their brightness in a hundred patches, and the kernel of these."""
    data = ni.datasets.load("mnist-5k-7v9", N, N_TEST, seed=0)
    Z, Z_test = patches(data.images), patches(data.images_test)
    model = ni.fit_kernel_ridge(Z @ Z.T, data.y, ridge)
    return Problem(Z, data.y, Z_test, data.y_test, ridge, model)


def patches(images: Tensor) -> Tensor:
    """Mean brightness of a hundred patches, rows of norm one: more numbers than points."""
    middle = images[:, None, 4:24, 4:24].double() / 255
    Z = nn.functional.avg_pool2d(middle, 2).flatten(1)
    return Z / Z.norm(dim=1, keepdim=True)


def slopes(p: Problem) -> dict[str, list[float]]:
    """Of each point, by pyinfluence alone: change of predictions by refit over its estimate."""
    from pyinfluence import InfluenceFunctions, LOOInfluence
    from sklearn.linear_model import Ridge

    Z, y, Z_test = (t.numpy() for t in (p.Z, p.y, p.Z_test))
    alpha = damping_of("scikit-learn", p.ridge, p.n)
    fitted = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(Z, y)
    estimate = InfluenceFunctions(mode="prediction", damping=0.0).fit(fitted, Z, y).explain(Z_test)
    refit = LOOInfluence(mode="prediction").fit(fitted, Z, y).explain(Z_test)
    by_point = (refit * estimate).sum(axis=0) / (estimate**2).sum(axis=0)
    return {"leverage": p.model.leverage.tolist(), "slope": by_point.tolist()}


def compare(p: Problem, name: str, library: str, scores: Tensor, options: dict) -> dict:
    """A row: how far the scores, read in ours, are from IHVP and from leave-one-out of ours."""
    scores = torch.as_tensor(scores, dtype=torch.float64).detach()
    read = to_ours(scores, library=library, n=p.n, **options)
    ihvp = ni.ihvp_influence(p.model, p.k_test, p.y_test)
    truth = ni.loo_influence(p.model, p.k_test, p.y_test)
    as_it_came = scores if len(scores) == p.n else scores.T
    return {
        "method": name,
        "convention": library,
        "ridge": p.ridge,
        "loss": options.get("loss", 1.0),
        "mean_leverage": float(p.model.leverage.mean()),
        "error_to_ihvp": float((read - ihvp).norm() / ihvp.norm()),
        "error_up_to_scale": up_to_scale(read, ihvp),
        "error_to_leave_one_out": float((read - truth).norm() / truth.norm()),
        "error_unread": float((as_it_came - ihvp).norm() / ihvp.norm()),
        "rank_correlation": rank_correlation(read, truth),
    }


def up_to_scale(read: Tensor, target: Tensor) -> float:
    """Relative distance after the best common factor."""
    factor = (read * target).sum() / read.square().sum()
    return float((factor * read - target).norm() / target.norm())


def rank_correlation(read: Tensor, truth: Tensor) -> float:
    """Spearman's, over the training points of each test point, on average."""
    ranks = [t.argsort(dim=0).argsort(dim=0).double() for t in (read, truth)]
    centred = [r - r.mean(dim=0) for r in ranks]
    norms = centred[0].norm(dim=0) * centred[1].norm(dim=0)
    return float(((centred[0] * centred[1]).sum(dim=0) / norms).mean())


def main() -> None:
    """Run one library and put its rows beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=sorted(LIBRARIES))
    library = parser.parse_args().library
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    device = torch.device("cpu")
    entry = {"version": version(library), "made_by": records.made_by(device), "rows": []}
    for p in map(problem, RIDGES):
        for name, convention, scores, options in LIBRARIES[library](p):
            entry["rows"].append(compare(p, name, convention, scores(), options))
            print(json.dumps(entry["rows"][-1]))
        if library == "pyinfluence":
            entry.setdefault("slopes", {})[str(p.ridge)] = slopes(p)
    known = (records.recorded("conventions") or {"results": {}})["results"]
    results = dict(sorted((known | {library: entry}).items()))
    given = {"n_train": N, "n_test": N_TEST, "ridges": RIDGES, "dataset": "mnist-5k-7v9", "seed": 0}
    records.record("data/recorded", "conventions", results, device, **given)


if __name__ == "__main__":
    main()
