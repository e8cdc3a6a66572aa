"""Scores of other libraries on one small problem, read by ``conventions``, beside our own.

Each library has an environment of its own and one command, here for
Captum; ``PACKAGE`` is ``captum==0.9.0``, ``dattri==0.3.0``, ``kronfluence==1.0.1``,
``pyinfluence==0.5.0`` or ``'pydvl[influence]==0.10.0'`` (the last without the constraints, since it
asks for an older numpy)::

    python3 -m venv _build/peers && _build/peers/bin/python -m pip install -c constraints.txt \\
        torch==2.13.0 mlxtend pooch tqdm jaxtyping psutil PACKAGE
    PYTHONPATH=src _build/peers/bin/python benchmarks/peers.py captum

A run replaces the rows of its library in ``data/recorded/conventions.json``.
"""

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ntk_influence as ni
from livebook import records
from ntk_influence.conventions import damping_of, to_ours

N, N_TEST, RIDGES = 60, 20, [1.0, 0.1, 0.01]
Scores = Iterator[tuple[str, str, Tensor, dict]]


@dataclass(frozen=True)
class Problem:
    """A hundred numbers of each digit and a linear model of them at its minimum."""

    Z: Tensor
    y: Tensor
    Z_test: Tensor
    y_test: Tensor
    ridge: float
    model: ni.KernelRidge

    @property
    def k_test(self) -> Tensor:
        return self.Z_test @ self.Z.T

    @property
    def network(self) -> nn.Module:
        """The model as a module of torch with one output."""
        layer = nn.Linear(self.Z.shape[1], 1, bias=False, dtype=self.Z.dtype)
        with torch.no_grad():
            layer.weight.copy_((self.Z.T @ self.model.dual)[None])
        return nn.Sequential(layer)

    @property
    def n(self) -> int:
        return len(self.y)

    def loaders(self, batches: int = 1) -> tuple[DataLoader, DataLoader]:
        """Training points, in some batches, and test points with (n, 1) labels."""
        train, test = self.sets()
        sizes = self.n // batches, len(self.y_test)
        return DataLoader(train, batch_size=sizes[0]), DataLoader(test, batch_size=sizes[1])

    def sets(self) -> tuple[TensorDataset, TensorDataset]:
        pairs = (self.Z, self.y), (self.Z_test, self.y_test)
        return tuple(TensorDataset(Z, y[:, None]) for Z, y in pairs)


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


def half_square(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean of half the squares."""
    return (prediction - label).square().mean() / 2


def pydvl(p: Problem) -> Scores:
    """Direct solution, conjugate gradients, and the loss of torch in place of half of it."""
    from pydvl.influence.torch import CgInfluence, DirectInfluence

    for name, kind, options in (
        ("direct", DirectInfluence, {}),
        ("conjugate gradients", CgInfluence, {"rtol": 1e-10, "atol": 1e-12}),
    ):
        for loss, s in ((half_square, 1.0), (nn.functional.mse_loss, 2.0)):
            damping = damping_of("pyDVL", p.ridge, p.n, loss=s)
            method = kind(p.network, loss, regularization=damping, **options).fit(p.loaders()[0])
            points = p.Z_test, p.y_test[:, None], p.Z, p.y[:, None]
            yield name, "pyDVL", method.influences(*points), {"loss": s}


def captum(p: Problem) -> Scores:
    """The whole Hessian, Arnoldi's subspace of all dimensions, and TracInCP."""
    from captum.influence import TracInCP
    from captum.influence._core import arnoldi_influence_function as arnoldi
    from captum.influence._core import influence_function as whole

    test, loss = (p.Z_test, p.y_test[:, None]), nn.MSELoss(reduction="sum")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = f"{folder}/checkpoint.pt"
        torch.save(p.network.state_dict(), checkpoint)
        given = {"loss_fn": loss, "batch_size": p.n, "sample_wise_grads_per_batch": True}
        damped = given | {"hessian_reg": damping_of("Captum", p.ridge, p.n, loss=2.0)}
        dims = {"projection_dim": p.Z.shape[1]}
        found = whole.NaiveInfluenceFunction(
            p.network, p.sets()[0], checkpoint, hessian_inverse_tol=0.0, **dims, **damped
        )
        yield "whole Hessian", "Captum", found.influence(test), {"loss": 2.0}
        found = arnoldi.ArnoldiInfluenceFunction(
            p.network, p.sets()[0], checkpoint, arnoldi_tol=1e-12, hessian_inverse_tol=0.0,
            arnoldi_dim=2 * p.Z.shape[1], **dims, **damped,
        )  # fmt: skip
        yield "Arnoldi", "Captum", found.influence(test), {"loss": 2.0}
        found = TracInCP(p.network, p.sets()[0], [checkpoint], lambda m, c: load(m, c), **given)
        yield "TracInCP", "Captum TracInCP", found.influence(test), {"loss": 2.0}


def load(module: nn.Module, checkpoint: str) -> float:
    """Weights of a checkpoint; the step length that TracInCP gives to it."""
    module.load_state_dict(torch.load(checkpoint, weights_only=True))
    return 1.0


def dattri(p: Problem) -> Scores:
    """The whole Hessian and conjugate gradients, on one batch; and on four, which are added up."""
    from dattri.algorithm import IFAttributorCG, IFAttributorExplicit
    from dattri.task import AttributionTask

    network = p.network

    def loss(weights: dict, data: tuple) -> Tensor:
        return half_square(torch.func.functional_call(network, weights, (data[0],)), data[1])

    task = AttributionTask(loss, network, {k: v.detach() for k, v in network.named_parameters()})
    damping = damping_of("dattri", p.ridge, p.n)
    cg = {"max_iter": 200, "tol": 1e-10}
    for name, batches, kind, options in (
        ("whole Hessian", 1, IFAttributorExplicit, {}),
        ("conjugate gradients", 1, IFAttributorCG, cg),
        ("whole Hessian, four batches", 4, IFAttributorExplicit, {}),
    ):
        train, test = p.loaders(batches)
        attributor = kind(task=task, regularization=damping, **options)
        attributor.cache(train)
        yield name, "dattri", attributor.attribute(train, test), {}


def kronfluence(p: Problem) -> Scores:
    """(EK-)FAC, which of one linear layer with one output is the whole Hessian; its damping."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class HalfSquare(Task):
        """Half the sum of squares; sampled labels are one off, up and down in turn."""

        def compute_train_loss(self, batch, model, sample=False):
            f = model(batch[0])
            signs = 1 - 2 * (torch.arange(len(f))[:, None] % 2)
            label = f.detach() + signs if sample else batch[1]
            return (f - label).square().sum() / 2

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    double = torch.float64
    factors = {"activation_covariance_dtype": double, "gradient_covariance_dtype": double}
    factors |= {"per_sample_gradient_dtype": double, "lambda_dtype": double}
    scores = {"per_sample_gradient_dtype": double, "precondition_dtype": double}
    train, test = p.sets()
    for name, strategy, damping in (
        ("EK-FAC", "ekfac", damping_of("kronfluence", p.ridge, p.n)),
        ("K-FAC", "kfac", damping_of("kronfluence", p.ridge, p.n)),
        ("EK-FAC, default damping", "ekfac", None),
    ):
        with tempfile.TemporaryDirectory() as folder:
            network = prepare_model(p.network, HalfSquare())
            analyzer = Analyzer(
                "peers", network, HalfSquare(), cpu=True, disable_tqdm=True, output_dir=folder,
                log_level=logging.ERROR,
            )  # fmt: skip
            made = FactorArguments(strategy=strategy, **factors)
            analyzer.fit_all_factors("f", train, per_device_batch_size=p.n, factor_args=made)
            analyzer.compute_pairwise_scores(
                "s", "f", test, train, len(test), p.n,
                score_args=ScoreArguments(damping_factor=damping, **scores),
            )  # fmt: skip
            yield name, "kronfluence", analyzer.load_pairwise_scores("s")["all_modules"], {}


def pyinfluence(p: Problem) -> Scores:
    """Ridge regression in primal and in dual form, and refits without each point."""
    from pyinfluence import InfluenceFunctions, LOOInfluence
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import Ridge

    alpha = damping_of("scikit-learn", p.ridge, p.n)
    Z, y, Z_test, y_test = (t.numpy() for t in (p.Z, p.y, p.Z_test, p.y_test))
    primal = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(Z, y)
    found = InfluenceFunctions(damping=0.0).fit(primal, Z, y).explain(Z_test, y_test)
    yield "influence function, Ridge", "pyinfluence", found, {}
    found = LOOInfluence().fit(primal, Z, y).explain(Z_test, y_test)
    yield "refits, Ridge", "pyinfluence", found, {}
    dual = KernelRidge(alpha=alpha, kernel="linear").fit(Z, y)
    found = InfluenceFunctions(damping=0.0).fit(dual, Z, y).explain(Z_test, y_test)
    yield "influence function, KernelRidge", "pyinfluence", found, {}
    found = LOOInfluence().fit(dual, Z, y).explain(Z_test, y_test)
    yield "refits, KernelRidge", "pyinfluence", found, {}


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


LIBRARIES = {f.__name__: f for f in (captum, dattri, kronfluence, pydvl, pyinfluence)}


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
        "error_to_leave_one_out": float((read - truth).norm() / truth.norm()),
        "error_unread": float((as_it_came - ihvp).norm() / ihvp.norm()),
        "rank_correlation": rank_correlation(read, truth),
    }


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
            entry["rows"].append(compare(p, name, convention, scores, options))
            print(json.dumps(entry["rows"][-1]))
        if library == "pyinfluence":
            entry.setdefault("slopes", {})[str(p.ridge)] = slopes(p)
    known = (records.recorded("conventions") or {"results": {}})["results"]
    results = dict(sorted((known | {library: entry}).items()))
    given = {"n_train": N, "n_test": N_TEST, "ridges": RIDGES, "dataset": "mnist-5k-7v9", "seed": 0}
    records.record("data/recorded", "conventions", results, device, **given)


if __name__ == "__main__":
    main()
