"""Scores of other libraries on a public truth, in the environments that ``peers`` describes::

    PYTHONPATH=src _build/peers/bin/python benchmarks/peers_on_truth.py captum

The truth is kernel ridge regression, written as a linear layer on a factor of the kernel. A run
replaces the rows of its library in ``data/recorded/peers_on_truth.json``.
"""

import argparse
import json
import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from libraries import LIBRARIES, Problem, Scores, half_square

import ntk_influence as ni
from livebook import records
from ntk_influence.conventions import damping_of

TRUTHS = ["kernel-1", "kernel-0.01"]
ASKED = ("pearson", "spearman", "slope", "relative_error")


def pydvl_of_low_rank(p: Problem) -> Scores:
    """Nystroem and Arnoldi at a quarter as many ranks as points."""
    from pydvl.influence.torch import ArnoldiInfluence, NystroemSketchInfluence

    damping, rank = damping_of("pyDVL", p.ridge, p.n, loss=1.0), p.n // 4
    for name, kind, options in (
        ("Nyström", NystroemSketchInfluence, {"rank": rank}),
        ("Arnoldi", ArnoldiInfluence, {"rank": rank}),
    ):
        torch.manual_seed(0)
        method = kind(p.network, half_square, regularization=damping, **options)
        points = p.Z_test, p.y_test[:, None], p.Z, p.y[:, None]
        scores = method.fit(p.loaders()[0]).influences(*points)
        yield f"{name}, rank {rank}", "pyDVL", scores, {"loss": 1.0}


def dattri_by_default(p: Problem) -> Scores:
    """Conjugate gradients with the default number of iterations."""
    from dattri.algorithm import IFAttributorCG
    from dattri.task import AttributionTask

    network = p.network

    def loss(weights: dict, data: tuple) -> torch.Tensor:
        return half_square(torch.func.functional_call(network, weights, (data[0],)), data[1])

    task = AttributionTask(loss, network, {k: v.detach() for k, v in network.named_parameters()})
    attributor = IFAttributorCG(task=task, regularization=damping_of("dattri", p.ridge, p.n))
    train, test = p.loaders()
    attributor.cache(train)
    yield "conjugate gradients, default", "dattri", attributor.attribute(train, test), {}


MORE: dict[str, Callable] = {"pydvl": pydvl_of_low_rank, "dattri": dattri_by_default}


def problem(truth: ni.truth.Truth) -> Problem:
    """The kernel model of a truth as a linear layer."""
    s = truth.settings
    data = ni.datasets.load(s["dataset"], s["n_train"], s["n_test"])
    K = ni.relu_ntk(torch.cat([data.X, data.X_test]))
    found = ni.estimators.Linearised.of_kernel(K, data.y, s["ridge"], data.y_test)
    model = ni.fit_kernel_ridge(found.J @ found.J.T, data.y, s["ridge"])
    return Problem(found.J, data.y, found.J_test, data.y_test, s["ridge"], model)


def row(method: str, convention: str, scores: object, options: dict, name: str) -> dict:
    """What the scores of one method are worth."""
    scores = torch.as_tensor(scores, dtype=torch.float64).detach()
    found = ni.truth.score(scores, ni.truth.load(name), library=convention, **options)
    return {"method": method, "truth": name} | {key: found[key] for key in ASKED}


def main() -> None:
    """Run one library and put its rows beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=sorted(LIBRARIES))
    library = parser.parse_args().library
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    device = torch.device("cpu")
    entry = {"version": version(library), "made_by": records.made_by(device), "rows": []}
    for name in TRUTHS:
        p = problem(ni.truth.load(name))
        for scored in (LIBRARIES[library], MORE.get(library, lambda p: ())):
            for method, convention, scores, options in scored(p):
                entry["rows"].append(row(method, convention, scores, options, name))
                print(json.dumps(entry["rows"][-1]))
    known = (records.recorded("peers_on_truth") or {"results": {}})["results"]
    results = dict(sorted((known | {library: entry}).items()))
    records.record("data/recorded", "peers_on_truth", results, device, truths=TRUTHS)


if __name__ == "__main__":
    main()
