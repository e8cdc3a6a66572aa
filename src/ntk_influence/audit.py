"""Which labels to look at first: one row for each training point, all of it without a refit."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import _check, wrong_label
from .complexity import complexity
from .groups import pair_residuals
from .influence import loo_influence
from .ridge import KernelRidge, check_problem, fit_kernel_ridge

RIDGES = 41
CHUNK = 2**24  # residuals of pairs that are held at once
PROBABLE, POSSIBLE = 0.5, 0.1  # of a wrong label
OTHER = ", which has another label"
ALONE = 0.9  # leverage from which a residual is ten times too small


@dataclass(frozen=True, eq=False)
class TrustReport:
    r"""What leave-one-out says about each training point; per-point fields have n entries.

    Attributes
    ----------
    ridge : $\lambda$, given or chosen.
    ridges, loo_errors : the path of ridges, and the mean over the points of the squared
        leave-one-out residual, summed over outputs.
    leverage : $h_i$.
    loo_prediction : (n,) or (n, c), $f^{\setminus i}(x_i)$: it does not depend on $y_i$.
    loo_residual : $y_i - f^{\setminus i}(x_i)$; of several outputs its norm.
    wrong_label : probability that the label is wrong, from 0 to 1; see `trust_report`.
    too_small_by : $1 / (1 - h_i)$, the leave-one-out residual over the fitted one.
    complexity : by how much $y^\top P y$ drops without the point, as `complexity` has it.
    self_influence : the influence of the point on its own loss, `loo_influence` at $x_i$.
    helpful, harmful : greatest and least influence of the point on the loss of a test point.
        Without test points, on the leave-one-out loss of another training point: by how much
        $\frac12 (y_j - f^{\setminus j}(x_j))^2$ grows if point i is removed too.
    nearest : the nearest other point, $d^2_{ij} = K_{ii} + K_{jj} - 2 K_{ij}$, the first of equals.
    distance : $d$ to it.
    duplicate_of : the first other point at the same place, -1 where there is none: with inputs of
        equal rows, without them at a distance of rounding.
    noise_rate : the fitted share of wrong labels.
    verdict : in words, one for each point.
    """

    ridge: float
    ridges: Float[Tensor, "r"]
    loo_errors: Float[Tensor, "r"]
    leverage: Float[Tensor, "n"]
    loo_prediction: Float[Tensor, "n"] | Float[Tensor, "n c"]
    loo_residual: Float[Tensor, "n"]
    wrong_label: Float[Tensor, "n"]
    too_small_by: Float[Tensor, "n"]
    complexity: Float[Tensor, "n"]
    self_influence: Float[Tensor, "n"]
    helpful: Float[Tensor, "n"]
    harmful: Float[Tensor, "n"]
    nearest: Int[Tensor, "n"]
    distance: Float[Tensor, "n"]
    duplicate_of: Int[Tensor, "n"]
    noise_rate: float
    verdict: tuple[str, ...]

    @property
    def suspicious(self) -> Int[Tensor, "n"]:
        """All points, the label to look at first foremost: by ``wrong_label``, and where that is
        the same (zero for all, if no share of wrong labels is told from none) by the size of
        ``loo_residual``.
        """
        order = self.loo_residual.abs().argsort(descending=True, stable=True)
        return order[self.wrong_label[order].argsort(descending=True, stable=True)]

    def rows(self) -> list[dict]:
        """One dictionary of plain numbers for each point, ``point`` first: a table to write."""
        whole = {"ridge", "ridges", "loo_errors", "noise_rate"}
        names = [field.name for field in fields(self) if field.name not in whole]
        columns = [getattr(self, name) for name in names]
        columns = [column.tolist() if isinstance(column, Tensor) else column for column in columns]
        per_point = zip(*columns, strict=True)
        return [{"point": i, **dict(zip(names, p, strict=True))} for i, p in enumerate(per_point)]


def trust_report(
    K: Float[Tensor, "n n"],
    y: Float[Tensor, "n"] | Float[Tensor, "n c"],
    *,
    ridge: float | None = None,
    X: Float[Tensor, "n d"] | None = None,
    k_test: Float[Tensor, "n_test n"] | None = None,
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"] | None = None,
) -> TrustReport:
    r"""Leave-one-out residuals, influences and the probability of a wrong label, for every point.

    The residual of a point that was left out is $y_i - f^{\setminus i}(x_i) = \alpha_i / P_{ii}$.
    Labels of two values, and columns of which each row has one entry of the larger of two values,
    are classes: `wrong_label` is the posterior of a flipped label, for two classes by where the
    leave-one-out predictions of each lie, for several in a mixture of $1 - \rho$ parts softmax of
    the leave-one-out prediction and $\rho$ parts of its flips. Other labels are numbers:
    the residuals are a mixture of two normals, of which the wider is called wrong.

    Parameters
    ----------
    K : (n, n) symmetric positive semi-definite kernel matrix of at least two training points.
    y : (n,) or (n, c) labels, of the same dtype and device.
    ridge : $\lambda \ge 0$; left out, that of the path with the least leave-one-out error.
        The path has 41 ridges on a logarithmic scale. It ends at the trace of K, which is not below
        any eigenvalue: there no direction is fitted by more than one half. It begins at 1e-8 times
        the mean diagonal, or where rounding allows $K + \lambda I$ to be inverted safely.
    X : (n, d) inputs, by which duplicates are told (equal rows).
    k_test : (n_test, n) kernel between test points (rows) and training points (columns).
    y_test : (n_test,) or (n_test, c) labels of the test points.

    Raises
    ------
    ValueError
        As `fit_kernel_ridge` and `loo_influence`; a single point, a kernel with a negative
        eigenvalue or without a positive one.

    Source: leave-one-out, Allen 1974 and Zhang and Zhang 2022, Eq. (9); wrong labels,
    Lawrence and Scholkopf 2001, Platt 1999, Bootkrajang and Kaban 2012, Tukey 1960; the posterior
    on exact leave-one-out values is ours.
    """
    K, y, given = check_problem(K, y, 0.0 if ridge is None else ridge)
    K, y, n = K.detach(), y.detach(), len(K)
    _check.require(n >= 2, "K", "at least two points", n)
    _check.fits("K", "the report", 4 * 8 * K.numel(), K.device)
    X = _inputs(X, K)
    ridges, errors = _path(K, y)
    ridge = float(ridges[errors.argmin()]) if ridge is None else given
    model = fit_kernel_ridge(K, y, ridge)
    missed = (model.dual.reshape(n, -1) / model.inverse.diagonal()[:, None]).reshape(y.shape)
    if k_test is None and y_test is None:
        helpful, harmful = _among_themselves(model)
    else:
        influence = loo_influence(model, k_test, y_test)
        helpful, harmful = influence.amax(dim=1), influence.amin(dim=1)
    nearest, distance, duplicate_of = _neighbours(K, X)
    wrong, rate = _wrong(y, missed)
    left = model.one_minus_leverage
    square = missed.reshape(n, -1).square().sum(dim=1)
    return TrustReport(
        ridge=ridge,
        ridges=ridges.to(K.dtype),
        loo_errors=errors.to(K.dtype),
        leverage=model.leverage,
        loo_prediction=y - missed,
        loo_residual=missed if y.ndim == 1 else square.sqrt(),
        wrong_label=wrong,
        too_small_by=1 / left,
        complexity=complexity(K, y, ridge),
        self_influence=square * (1 - left) * (1 + left) / 2,
        helpful=helpful,
        harmful=harmful,
        nearest=nearest,
        distance=distance,
        duplicate_of=duplicate_of,
        noise_rate=rate,
        verdict=_in_words(y, model.leverage, wrong, duplicate_of),
    )


def _path(K: Float[Tensor, "n n"], y: Tensor) -> tuple[Float[Tensor, "r"], Float[Tensor, "r"]]:
    """Ridges and their mean squared leave-one-out residuals, from one eigendecomposition."""
    n = len(K)
    s, U = torch.linalg.eigh(K.double())
    largest, least = float(s[-1]), float(s[0])
    eps = torch.finfo(K.dtype).eps
    _check.require(largest > 0, "K", "a positive eigenvalue", f"{largest:.1e}")
    _check.require(least >= -1e3 * eps * largest, "K", "no negative eigenvalue", f"{least:.1e}")
    trace = float(K.diagonal().double().sum())
    # The condition number in the 1-norm is at most sqrt(n) |K|_1 / ridge, and stays below 1e-3/eps.
    safe = 2e3 * eps * n**0.5 * float(torch.linalg.vector_norm(K, 1, dim=1).max())
    low = max(1e-8 * trace / n, safe)
    low, high = np.log10(min(low, trace)), np.log10(trace)
    ridges = torch.logspace(low, high, RIDGES, dtype=s.dtype, device=s.device)
    rotated = U.T @ y.reshape(n, -1).double()
    shrunk = 1 / (s.clamp(min=0) + ridges[:, None])
    errors = torch.zeros_like(ridges)
    for rows in U.split(max(1, CHUNK // n)):
        squares = rows.square()
        for k, factor in enumerate(shrunk):
            missed = (rows @ (factor[:, None] * rotated)) / (squares @ factor)[:, None]
            errors[k] += missed.square().sum() / n
    return ridges, errors


def _among_themselves(model: KernelRidge) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Greatest and least influence of a point on the leave-one-out losses of the others."""
    alpha, d = model.dual.reshape(len(model.dual), -1), model.inverse.diagonal()
    alone = (alpha / d[:, None]).square().sum(dim=1) / 2
    helpful, harmful = torch.full_like(d, -torch.inf), torch.full_like(d, torch.inf)
    for points in torch.arange(len(d), device=d.device).split(max(1, CHUNK // alpha.numel())):
        missed = pair_residuals(model, points).reshape(len(d), len(points), -1)
        growth = missed.square().sum(dim=2) / 2 - alone[points]
        here = torch.arange(len(points), device=d.device)
        growth[points, here] = -torch.inf
        helpful = torch.maximum(helpful, growth.amax(dim=1))
        growth[points, here] = torch.inf
        harmful = torch.minimum(harmful, growth.amin(dim=1))
    return helpful, harmful


def _inputs(X: Tensor | None, K: Tensor) -> Tensor | None:
    """The inputs, checked, if there are any."""
    if X is None:
        return None
    X = _check.tensor("X", X, (2,))
    _check.alike("X", X, "K", K)
    _check.require(len(X) == len(K), "X", f"{len(K)} rows as in K", f"shape {tuple(X.shape)}")
    return X


def _neighbours(K: Float[Tensor, "n n"], X: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest other point, the distance to it, and the first other one at the same place."""
    diagonal = K.diagonal()
    square = (diagonal[:, None] + diagonal).sub_(K, alpha=2).clamp_(min=0)
    square.fill_diagonal_(torch.inf)
    same = square <= 1e3 * torch.finfo(K.dtype).eps * diagonal.max()
    if X is not None:
        place = torch.unique(X, dim=0, return_inverse=True)[1]
        same = (place[:, None] == place).fill_diagonal_(False)
    first = same.to(torch.uint8).argmax(dim=1)
    duplicate_of = torch.where(same.any(dim=1), first, -torch.ones_like(first))
    least, nearest = square.min(dim=1)
    return nearest, least.sqrt(), duplicate_of


def _wrong(y: Tensor, missed: Tensor) -> tuple[Float[Tensor, "n"], float]:
    """Probabilities that labels are wrong, and their share, by the model that fits the labels."""
    observed = _classes(y)
    f = (y - missed).double().cpu().numpy().reshape(len(y), -1)
    if observed is None:
        residuals = missed.double().cpu().numpy().reshape(len(y), -1)
        wrong, rate = wrong_label.of_numbers(residuals)
    elif f.shape[1] == 1:
        wrong, rate = wrong_label.of_two_classes(f[:, 0], observed)
    else:
        wrong, rate = wrong_label.of_classes(f, observed)
    return torch.from_numpy(wrong).to(y), rate


def _classes(y: Tensor) -> np.ndarray | None:
    """The class of each point, None if the labels are numbers."""
    values = y.unique()
    if len(values) != 2:
        return None
    larger = (y == values[1]).reshape(len(y), -1)
    if larger.shape[1] == 1:
        return larger[:, 0].long().cpu().numpy()
    one = bool((larger.sum(dim=1) == 1).all())
    return larger.long().argmax(dim=1).cpu().numpy() if one else None


def _in_words(y: Tensor, leverage: Tensor, wrong: Tensor, duplicate_of: Tensor) -> tuple[str, ...]:
    """What to think of each point."""
    words = []
    columns = (column.tolist() for column in (leverage, wrong, duplicate_of))
    for i, (h, probability, j) in enumerate(zip(*columns, strict=True)):
        found = []
        if probability >= POSSIBLE:
            degree = "probably" if probability >= PROBABLE else "possibly"
            found.append(f"label {degree} wrong")
        if j >= 0:
            found.append(f"copy of point {j}" + (OTHER if not torch.equal(y[i], y[j]) else ""))
        if h >= ALONE:
            found.append("alone: its own label decides what is fitted there")
        words.append("; ".join(found) or "no finding")
    return tuple(words)
