"""One ground truth: a network trained with all points and without some, beside its predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

import livebook as book
import ntk_influence as ni

from .measures import agreement, relative_error
from .points import choose_points, drawn_and_ranked
from .problems import kernels

EVERY = slice(None)


@dataclass(frozen=True)
class Setting:
    """Everything that a ground truth depends on, but for device and dtype."""

    dataset: str
    n_train: int
    n_test: int
    width: int
    scale: float
    ridge: float
    seed: int
    method: str
    steps: int | None
    n_left_out: int
    smoothing: float = 0.0
    only_random: bool = False

    def choose(self, change: Float[Tensor, "n n_test ..."]) -> list[int]:
        """The points that are left out: half of them the most influential, or all at random."""
        if self.only_random:
            return choose_points(change, 2 * self.n_left_out)[: self.n_left_out]
        return choose_points(change, self.n_left_out)

    @property
    def groups(self) -> dict[str, slice]:
        """Those at random and the most influential ones, in the list of these points."""
        return {"at random": EVERY} if self.only_random else drawn_and_ranked(self.n_left_out)

    def but(self, **changes: object) -> "Setting":
        """The same setting, changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Place:
    """Where and in which precision networks are trained, and where finished points are kept."""

    device: torch.device
    dtype: torch.dtype
    checkpoint_to: str | None = None


@dataclass(frozen=True)
class Predictions:
    """Predictions at the test points with all training points, and their changes without some."""

    f: Float[Tensor, "n_test ..."]
    change: Float[Tensor, "k n_test ..."]

    def influence(self, y: Float[Tensor, "n_test ..."]) -> Float[Tensor, "k n_test"]:
        """Equation (7) or (8), (f - y) change + change^2 / 2, summed over outputs."""
        terms = (self.f - y) * self.change + self.change**2 / 2
        return terms.sum(dim=2) if self.f.ndim == 2 else terms

    def of(self, points: Sequence[int]) -> "Predictions":
        """Those without some of the points only."""
        return Predictions(self.f, self.change[points])


@dataclass(frozen=True)
class Run:
    """What a network gives that is trained and retrained, and what two kernel models predict."""

    network: Predictions
    kernel: Predictions
    offset: Predictions
    y: Float[Tensor, "n_test ..."]
    points: list[int]
    report: ni.Report

    def influence(self, of: str = "network") -> Float[Tensor, "k n_test"]:
        """The influence by retraining, or the one that a kernel model predicts."""
        return getattr(self, of).influence(self.y)

    def agreement(self, part: slice | list = EVERY, of: str = "kernel") -> dict[str, float]:
        """How predicted influences agree; the error is of changes, relative to the predicted."""
        found = agreement(self.influence(of)[part], self.influence()[part])
        predicted = getattr(self, of).change[part]
        return found | {"error": relative_error(self.network.change[part], predicted)}


def crossed(base: Setting, settings: list[dict]) -> Iterator[Setting]:
    """One setting for each combination of the values that are given as lists."""
    for changes in settings:
        values = [v if isinstance(v, list) else [v] for v in changes.values()]
        for combination in product(*values):
            yield base.but(**dict(zip(changes, combination, strict=True)))


@lru_cache(maxsize=1)
def problem(
    dataset: str, n_train: int, n_test: int, device: torch.device, smoothing: float = 0.0
) -> tuple:
    """Data, kernel and test kernel of a setting."""
    data = ni.datasets.load(dataset, n_train, n_test).to(device)
    return data, *kernels(data, smoothing=smoothing)


def initial(setting: Setting, data: ni.datasets.Dataset, place: Place) -> ni.TwoLayerReLU:
    """The network from which all training of a setting starts."""
    outputs = data.y.shape[1] if data.y.ndim == 2 else None
    size = (data.X.shape[1], setting.width, setting.scale, setting.seed)
    where = {"device": place.device, "dtype": place.dtype}
    shape = {"outputs": outputs, "smoothing": setting.smoothing}
    return ni.TwoLayerReLU.initialise(*size, **where, **shape)


def kernel_model(K: Tensor, k_test: Tensor, y: Tensor, ridge: float) -> Predictions:
    """The kernel model, and its changes without each of the points, equation (9)."""
    model = ni.fit_kernel_ridge(K, y, ridge)
    f = model.predict(k_test)
    return Predictions(f, ni.leave_one_out(model, k_test) - f)


def offset_model(
    network: ni.TwoLayerReLU, data: ni.datasets.Dataset, K: Tensor, k_test: Tensor, ridge: float
) -> Predictions:
    """The same for the kernel model that starts where the network does, at f_0."""
    f_0 = network.predict(data.X.to(network.W.dtype)).double()
    f_0_test = network.predict(data.X_test.to(network.W.dtype)).double()
    model = kernel_model(K, k_test, data.y - f_0, ridge)
    return Predictions(f_0_test + model.f, model.change)


def linearised_model(setting: Setting, place: Place) -> Predictions:
    """The same for a network of one output that is linearised at its start, with its own kernel."""
    size = (setting.dataset, setting.n_train, setting.n_test)
    data, *_ = problem(*size, place.device, setting.smoothing)
    start = initial(setting, data, Place(place.device, torch.float64))
    K, k_test = start.ntk(data.X), start.ntk(data.X_test, data.X)
    return offset_model(start, data, K, k_test, setting.ridge)


def retrain(
    setting: Setting,
    place: Place,
    points: list[int],
    *,
    start: str = "cold",
    step: float | None = None,
) -> tuple[Predictions, ni.Report]:
    """The network's predictions and their changes without the points; resumed if interrupted."""
    size = (setting.dataset, setting.n_train, setting.n_test)
    data, *_ = problem(*size, place.device, setting.smoothing)
    network = initial(setting, data, place)
    X, y, X_test = (v.to(place.dtype) for v in (data.X, data.y, data.X_test))
    task, how = (network, X, y, setting.ridge), {"method": setting.method}
    trained = ni.train(*task, max_steps=setting.steps, step=step, **how)
    facts = asdict(setting) | {"start": start, "step": step, "dtype": str(place.dtype)}
    kept = book.Checkpoint(place.checkpoint_to, device=place.device, **facts)
    missing = [i for i in points if kept.load(i) is None]
    how |= {"start": start, "trained": trained, "finished": kept.save}
    ni.retrain_without(*task, missing, X_test, **how)
    f = trained.predict(X_test).double()
    without = torch.stack([kept.load(i).to(place.device).double() for i in points])
    return Predictions(f, without - f), trained.report


def experiment(setting: Setting, place: Place) -> Run:
    """Retraining, the kernel's prediction and that with the offset, for one setting."""
    size = (setting.dataset, setting.n_train, setting.n_test)
    data, K, k_test = problem(*size, place.device, setting.smoothing)
    kernel = kernel_model(K, k_test, data.y, setting.ridge)
    offset = offset_model(initial(setting, data, place), data, K, k_test, setting.ridge)
    points = setting.choose(kernel.change)
    network, report = retrain(setting, place, points)
    return Run(network, kernel.of(points), offset.of(points), data.y_test, points, report)


def retrain_finer_or_coarser(
    setting: Setting, place: Place, run: Run, which: list[int]
) -> Float[Tensor, "k n_test ..."]:
    """The changes of some points, retrained with half the step, or with half as many of them."""
    points = [run.points[i] for i in which]
    if setting.method == "gradient_descent":
        half = run.report.schedule[0].size / 2
        return retrain(setting, place, points, step=half)[0].change
    return retrain(setting.but(steps=setting.steps // 2), place, points)[0].change
