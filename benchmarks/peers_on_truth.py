"""Scores of libraries on a public truth and what they cost, in the environments of ``peers``::

    OMP_NUM_THREADS=1 PYTHONPATH=src _build/peers/bin/python benchmarks/peers_on_truth.py captum

The truth is kernel ridge regression, written as a linear layer on a factor of the kernel: two of
the public truths, and the same with 2,000 points of the whole MNIST (``INFLUENCE_DATA`` or the
network brings it), where each method has a process of its own. ``ntk_influence`` is a library like
the others. A run on a few points comes before the one that counts. The script replaces the rows of
its library and of its truths in ``data/recorded/peers_on_truth.json``:

- ``seconds``: of the processor, for the call of the library alone, imports not among them
- ``ratio``: the same over those of the closed form, kernel matrices, `fit_kernel_ridge` and
  `loo_influence`, in the same process
- ``peak_mib``: growth of the largest resident memory by the call
- ``error_up_to_scale``: relative error after the best common factor, for scores without a scale
- ``unfinished``: why there is no result
"""

import argparse
import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import chain, islice

import costs
import torch
from libraries import LIBRARIES, Problem, Scores, half_square, of_dattri, of_pydvl
from torch import Tensor

import ntk_influence as ni
from livebook import records
from ntk_influence.conventions import damping_of, to_ours

TRUTHS = ["kernel-1", "kernel-0.01", "kernel-1-n2000"]
SETTINGS = {"kernel-1-n2000": {"dataset": "mnist-7v9", "n_train": 2000, "n_test": 50, "ridge": 1.0}}
ASKED = ("pearson", "spearman", "slope", "relative_error")


def pydvl_of_low_rank(p: Problem) -> Scores:
    """Nystroem and Arnoldi at a quarter as many ranks as points."""
    from pydvl.influence.torch import ArnoldiInfluence, NystroemSketchInfluence

    damping, rank = damping_of("pyDVL", p.ridge, p.n, loss=1.0), p.n // 4
    for name, kind, options in (
        ("Nyström", NystroemSketchInfluence, {"rank": rank}),
        ("Arnoldi", ArnoldiInfluence, {"rank": rank}),
    ):
        options = options | {"regularization": damping}
        found = partial(of_pydvl, p, kind, half_square, options)
        yield f"{name}, rank {rank}", "pyDVL", found, {"loss": 1.0}


def dattri_by_default(p: Problem) -> Scores:
    """Conjugate gradients with the default number of iterations."""
    from dattri.algorithm import IFAttributorCG

    yield "conjugate gradients, default", "dattri", partial(of_dattri, p, IFAttributorCG, {}), {}


def ntk_influence(p: Problem) -> Scores:
    """The closed form, and the inverse Hessian in its dual form."""
    yield "leave-one-out, closed form", None, partial(closed_form, p), {}
    yield "IHVP, dual form", None, partial(closed_form, p, ni.ihvp_influence), {}


def closed_form(p: Problem, influence: Callable = ni.loo_influence) -> Tensor:
    """From the features: both kernel matrices, the fit, and all pairs."""
    return influence(ni.fit_kernel_ridge(p.Z @ p.Z.T, p.y, p.ridge), p.k_test, p.y_test)


MORE: dict[str, Callable] = {"pydvl": pydvl_of_low_rank, "dattri": dattri_by_default}


LIBRARIES = LIBRARIES | {"ntk_influence": ntk_influence}


def settings(name: str) -> dict:
    """What a truth depends on."""
    return SETTINGS[name] if name in SETTINGS else ni.truth.load(name).settings


def problem(name: str) -> dict:
    """The kernel model of a truth as a linear layer: what `Problem` takes but for the model."""
    s = settings(name)
    data = ni.datasets.load(s["dataset"], s["n_train"], s["n_test"])
    K = ni.relu_ntk(torch.cat([data.X, data.X_test]))
    found = ni.estimators.Linearised.of_kernel(K, data.y, s["ridge"], data.y_test)
    sides = {"Z": found.J, "y": data.y, "Z_test": found.J_test, "y_test": data.y_test}
    return sides | {"ridge": s["ridge"]}


def fitted(points: dict) -> Problem:
    """With the model at its minimum."""
    Z, y, ridge = points["Z"], points["y"], points["ridge"]
    return Problem(**points, model=ni.fit_kernel_ridge(Z @ Z.T, y, ridge))


def few(points: dict) -> Problem:
    """The same with twenty points."""
    cut = {key: points[key][:20] for key in ("Z", "y", "Z_test", "y_test")}
    return fitted(points | cut)


def truth_of(name: str, p: Problem) -> ni.truth.Truth:
    """A public truth, or the exact influence of the model."""
    if name in ni.truth.NAMES:
        return ni.truth.load(name)
    exact, all_points = ni.loo_influence(p.model, p.k_test, p.y_test), torch.arange(p.n)
    f = p.model.predict(p.k_test)
    return ni.truth.Truth(
        name, exact, f, ni.leave_one_out(p.model, p.k_test) - f, p.y_test, all_points,
        torch.arange(len(f)), all_points, torch.zeros(p.n).double(), None, {}, {}, "", 0,
    )  # fmt: skip


def off_refits(p: Problem, count: int = 3) -> float:
    """Largest distance of the influence of a few points from a fit without them, relative."""
    truth, worst = closed_form(p), 0.0
    before = (p.model.predict(p.k_test) - p.y_test).square() / 2
    for i in truth.norm(dim=1).argsort(descending=True)[:count].tolist():
        rest = torch.arange(p.n) != i
        refit = ni.fit_kernel_ridge(p.Z[rest] @ p.Z[rest].T, p.y[rest], p.ridge)
        found = (refit.predict(p.k_test[:, rest]) - p.y_test).square() / 2 - before
        worst = max(worst, float((truth[i] - found).norm() / found.norm()))
    return worst


def worth(scores: Tensor, truth: ni.truth.Truth, convention: str | None, options: dict) -> dict:
    """What scores are worth, and up to a common factor."""
    scores = torch.as_tensor(scores, dtype=torch.float64).detach()
    ours = scores
    if convention is not None:
        ours = to_ours(scores, library=convention, n=len(truth.train), **options)
    found = ni.truth.score(ours, truth)
    ours = ours[truth.rows] if len(ours) == len(truth.train) else ours
    cosine = float((ours * truth.influence).sum() / ours.norm() / truth.influence.norm())
    error = max(0.0, 1 - cosine**2) ** 0.5
    return {key: found[key] for key in ASKED} | {"error_up_to_scale": error}


def rows_of(library: str, name: str, points: dict, index: int | None = None) -> Iterator[dict]:
    """What each method, or one, is worth and what it costs, after a run on a few points."""
    small, p = few(points), fitted(points)
    truth = truth_of(name, p)
    asked = (LIBRARIES[library], MORE[library]) if library in MORE else (LIBRARIES[library],)
    both = chain(*(zip(methods(p), methods(small), strict=True) for methods in asked))
    for method, mini in islice(both, index or 0, None if index is None else index + 1):
        called, convention, action, options = method
        row = {"method": called, "truth": name, "n": p.n}
        with contextlib.suppress(Exception):
            mini[2]()
        costs.say("started", row)  # the limits count from here
        torch.manual_seed(0)
        found, cost = costs.against(partial(closed_form, p), action)
        yield row | worth(found, truth, convention, options) | cost


def main() -> None:
    """Run one library and put its rows beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=sorted(LIBRARIES))
    parser.add_argument("--truths", nargs="+", default=TRUTHS, choices=TRUTHS)
    parser.add_argument("--most-seconds", type=float, default=300.0, help="of a large problem")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "INDEX"), help="a method alone")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if given.one:
        file, index = given.one
        for row in rows_of(given.library, given.truths[0], torch.load(file), int(index)):
            costs.say("row", row)
        return
    device = torch.device("cpu")
    known = (records.recorded("peers_on_truth") or {"results": {}})["results"]
    before, rows = known.get(given.library, {}), []
    entry = before | {"version": version(given.library), "made_by": records.made_by(device)}
    for name in given.truths:
        points = problem(name)
        if given.library == "ntk_influence":
            entry.setdefault("off_refits", {})
            entry["off_refits"][name] = off_refits(fitted(points))
        if len(points["y"]) <= 500:
            rows += rows_of(given.library, name, points)
            continue
        with tempfile.NamedTemporaryFile(suffix=".pt") as file:
            torch.save(points, file.name)
            points = None
            command = (__file__, given.library, "--truths", name, "--one", file.name)
            rows += costs.watched_rows(given.most_seconds, *command)
    rows += [row for row in before.get("rows", []) if row["truth"] not in given.truths]
    entry["rows"] = sorted(rows, key=lambda row: [*TRUTHS, row["truth"]].index(row["truth"]))
    results = dict(sorted((known | {given.library: entry}).items()))
    records.record("data/recorded", "peers_on_truth", results, device, truths=TRUTHS)


if __name__ == "__main__":
    main()
