"""Other libraries on a linear model: each yields methods, and how their scores are to be read."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ntk_influence as ni
from ntk_influence.conventions import damping_of

# Name of a method, its convention, what computes its scores, and what reads them.
Scores = Iterator[tuple[str, str, Callable[[], Tensor], dict]]


@dataclass(frozen=True)
class Problem:
    """Features of training and test points, labels, and a linear model at its minimum."""

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
            options = options | {"regularization": damping_of("pyDVL", p.ridge, p.n, loss=s)}
            yield name, "pyDVL", partial(of_pydvl, p, kind, loss, options), {"loss": s}


def of_pydvl(p: Problem, kind: type, loss: Callable, options: dict) -> Tensor:
    """Scores of one of its methods."""
    points = p.Z_test, p.y_test[:, None], p.Z, p.y[:, None]
    return kind(p.network, loss, **options).fit(p.loaders()[0]).influences(*points)


def captum(p: Problem) -> Scores:
    """The whole Hessian, Arnoldi's subspace of all dimensions, and TracInCP."""
    from captum.influence import TracInCP
    from captum.influence._core import arnoldi_influence_function as arnoldi
    from captum.influence._core import influence_function as whole

    damped = {"hessian_reg": damping_of("Captum", p.ridge, p.n, loss=2.0)}
    damped |= {"projection_dim": p.Z.shape[1], "hessian_inverse_tol": 0.0}
    krylov = {"arnoldi_tol": 1e-12, "arnoldi_dim": 2 * p.Z.shape[1]}
    for name, convention, kind, options in (
        ("whole Hessian", "Captum", whole.NaiveInfluenceFunction, damped),
        ("Arnoldi", "Captum", arnoldi.ArnoldiInfluenceFunction, damped | krylov),
        ("TracInCP", "Captum TracInCP", TracInCP, {"checkpoints_load_func": load}),
    ):
        yield name, convention, partial(of_captum, p, kind, options), {"loss": 2.0}


def of_captum(p: Problem, kind: type, options: dict) -> Tensor:
    """Scores of one of its methods, which read the weights from a file."""
    given = {"loss_fn": nn.MSELoss(reduction="sum"), "batch_size": p.n}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = f"{folder}/checkpoint.pt"
        torch.save(p.network.state_dict(), checkpoint)
        where = [checkpoint] if "checkpoints_load_func" in options else checkpoint
        given |= {"sample_wise_grads_per_batch": True}
        found = kind(p.network, p.sets()[0], where, **given, **options)
        return found.influence((p.Z_test, p.y_test[:, None]))


def load(module: nn.Module, checkpoint: str) -> float:
    """Weights of a checkpoint; the step length that TracInCP gives to it."""
    module.load_state_dict(torch.load(checkpoint, weights_only=True))
    return 1.0


def dattri(p: Problem) -> Scores:
    """The whole Hessian and conjugate gradients, on one batch; and on four, which are added up."""
    from dattri.algorithm import IFAttributorCG, IFAttributorExplicit

    cg = {"max_iter": 200, "tol": 1e-10}
    for name, batches, kind, options in (
        ("whole Hessian", 1, IFAttributorExplicit, {}),
        ("conjugate gradients", 1, IFAttributorCG, cg),
        ("whole Hessian, four batches", 4, IFAttributorExplicit, {}),
    ):
        yield name, "dattri", partial(of_dattri, p, kind, options, batches), {}


def of_dattri(p: Problem, kind: type, options: dict, batches: int = 1) -> Tensor:
    """Scores of one of its methods."""
    from dattri.task import AttributionTask

    network = p.network

    def loss(weights: dict, data: tuple) -> Tensor:
        return half_square(torch.func.functional_call(network, weights, (data[0],)), data[1])

    task = AttributionTask(loss, network, {k: v.detach() for k, v in network.named_parameters()})
    train, test = p.loaders(batches)
    attributor = kind(task=task, regularization=damping_of("dattri", p.ridge, p.n), **options)
    attributor.cache(train)
    return attributor.attribute(train, test)


def kronfluence(p: Problem) -> Scores:
    """(EK-)FAC, which of one linear layer with one output is the whole Hessian; its damping."""
    damping = damping_of("kronfluence", p.ridge, p.n)
    for name, strategy, given in (
        ("EK-FAC", "ekfac", damping),
        ("K-FAC", "kfac", damping),
        ("EK-FAC, default damping", "ekfac", None),
    ):
        yield name, "kronfluence", partial(of_kronfluence, p, strategy, given), {}


def of_kronfluence(p: Problem, strategy: str, damping: float | None) -> Tensor:
    """Scores of one of its curvatures."""
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
        return analyzer.load_pairwise_scores("s")["all_modules"]


def pyinfluence(p: Problem) -> Scores:
    """Ridge regression in primal and in dual form, and refits without each point."""
    from pyinfluence import InfluenceFunctions, LOOInfluence
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import Ridge

    alpha = damping_of("scikit-learn", p.ridge, p.n)
    primal = partial(Ridge, alpha=alpha, fit_intercept=False, solver="cholesky")
    dual = partial(KernelRidge, alpha=alpha, kernel="linear")
    functions = partial(InfluenceFunctions, damping=0.0)
    for name, method, model in (
        ("influence function, Ridge", functions, primal),
        ("refits, Ridge", LOOInfluence, primal),
        ("influence function, KernelRidge", functions, dual),
        ("refits, KernelRidge", LOOInfluence, dual),
    ):
        yield name, "pyinfluence", partial(of_pyinfluence, p, method, model), {}


def of_pyinfluence(p: Problem, method: Callable, model: Callable) -> Tensor:
    """Scores of one of its methods for a model of scikit-learn."""
    Z, y, Z_test, y_test = (t.numpy() for t in (p.Z, p.y, p.Z_test, p.y_test))
    return method().fit(model().fit(Z, y), Z, y).explain(Z_test, y_test)


def traker(p: Problem) -> Scores:
    """TRAK without a projection, with a large and with a small one, and by its defaults."""
    residual = (p.network(p.Z_test)[:, 0] - p.y_test).detach()
    for name, size, by_default in (
        ("no projection", None, False),
        (f"sketch of {4 * p.n}", 4 * p.n, False),
        (f"sketch of {p.n // 2}", p.n // 2, False),
        ("by default, 2048, no ridge, half precision", 2048, True),
    ):
        found = partial(of_traker, p, size, by_default)
        yield f"TRAK, {name}", "TRAK", found, {"residual": residual}


def of_traker(p: Problem, size: int | None, by_default: bool) -> Tensor:
    """Scores of one network, in single precision; the projection is its own, for processors."""
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import BasicProjector, NoOpProjector, ProjectionType

    class Output(AbstractModelOutput):
        """The output, and the derivative of half a square by it."""

        def __init__(self):
            pass

        @staticmethod
        def get_output(model, weights, buffers, z, label):
            return torch.func.functional_call(model, (weights, buffers), z[None]).squeeze()

        def get_out_to_loss_grad(self, model, weights, buffers, batch):
            return torch.func.functional_call(model, (weights, buffers), batch[0]) - batch[1]

    network, dim = p.network.float(), p.Z.shape[1]
    train, test = ([t.float() for t in pair.tensors] for pair in p.sets())
    options = {"proj_dim": size}
    if not by_default:
        share = (size or 1) / dim
        normal = {"seed": 0, "proj_type": ProjectionType.normal, "device": "cpu"}
        projector = NoOpProjector(device="cpu")
        if size is not None:
            # A projection in one block forgets its matrix between training and test points.
            projector = BasicProjector(dim, size, block_size=min(100, size // 2), **normal)
        options = {"projector": projector, "use_half_precision": False}
        options |= {"lambda_reg": damping_of("TRAK", p.ridge, p.n, share=share)}
    with tempfile.TemporaryDirectory() as folder:
        known = {"save_dir": folder, "device": "cpu", "logging_level": logging.ERROR}
        found = TRAKer(network, Output(), p.n, **known, **options)
        weights = network.state_dict()
        found.load_checkpoint(weights, model_id=0)
        found.featurize(train, num_samples=p.n)
        found.finalize_features()
        found.start_scoring_checkpoint("test", weights, model_id=0, num_targets=len(test[0]))
        found.score(test, num_samples=len(test[0]))
        return torch.tensor(found.finalize_scores("test")).double()


LIBRARIES = {f.__name__: f for f in (captum, dattri, kronfluence, pydvl, pyinfluence, traker)}
