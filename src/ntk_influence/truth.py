"""A public truth: influence that is known, and what the scores of anybody are worth beside it.

The sets of `NAMES` come with the package; those of `LARGE` are computed by ``make truths``. No
pickle is loaded, and a set that is not what was sealed is refused.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

from . import _check
from ._prepared import decode, fingerprint
from .conventions import LIBRARIES, _known, to_ours

__all__ = ["LARGE", "NAMES", "Truth", "load", "score"]

NAMES = ("kernel-10", "kernel-1", "kernel-0.1", "kernel-0.01", "relu-1", "smoothed-1")
LARGE = ("kernel-1-mnist-7v9", "kernel-1-cifar-car-plane")
FOLDER = Path(__file__).with_name("truths")


@dataclass(frozen=True, eq=False)
class Truth:
    r"""What the test predictions of a model become without each of some training points.

    Attributes
    ----------
    name : what it was loaded by: the model and its ridge.
    influence : (left_out, n_test), equation (7), $(f - y)\Delta + \frac12\Delta^2$; positive for a
        helpful point.
    predictions : (n_test,) $f$, of the model with all training points.
    changes : (left_out, n_test) $\Delta$, predictions without the point less those with it.
    y_test : (n_test,) labels.
    train, test, left_out : positions in the published file that ``settings["file"]`` names, counted
        from 0.
    floor : (left_out,) noise of the changes of a point, in their unit: the root mean square over
        the test points of the distance to a second retraining; 0 where the truth is exact.
    second : (left_out, n_test) influence of a second retraining from the same start in another
        fineness; None where the truth is exact.
    settings : everything that the truth depends on.
    provenance : versions, date, commit and device of the computation. ``moves_on`` is by how much
        of their size the changes move if training goes on for as long again.
    hash : SHA-256 of all arrays, settings and provenance, checked on loading.
    version : of the set; another version is another truth.
    """

    name: str
    influence: Float[Tensor, "left_out n_test"]
    predictions: Float[Tensor, "n_test"]
    changes: Float[Tensor, "left_out n_test"]
    y_test: Float[Tensor, "n_test"]
    train: Int64[Tensor, "n_train"]
    test: Int64[Tensor, "n_test"]
    left_out: Int64[Tensor, "left_out"]
    floor: Float[Tensor, "left_out"]
    second: Float[Tensor, "left_out n_test"] | None
    settings: dict = field(repr=False)
    provenance: dict = field(repr=False)
    hash: str
    version: int

    @property
    def rows(self) -> Int64[Tensor, "left_out"]:
        """Where the left-out points are among the training points: rows of (n_train, n_test)."""
        return (self.left_out[:, None] == self.train).long().argmax(dim=1)


def load(name: str, *, root: str | Path | None = None) -> Truth:
    r"""A truth by its name.

    - ``kernel-10``, ``kernel-1``, ``kernel-0.1``, ``kernel-0.01``: kernel ridge regression with the
      infinite-width NTK at that ridge; exact, by equation (9)
    - ``relu-1``: a trained network of 1,000 units, by gradient descent
    - ``smoothed-1``: the same with a smoothed kink, by long implicit steps
    - ``kernel-1-mnist-7v9``, ``kernel-1-cifar-car-plane``: kernel ridge regression at the paper's
      size, 5,000 training and 1,000 test images, all points; not in the package

    All others have the same training and test points, those of
    ``ni.datasets.load("mnist-5k-7v9", 200, 50)``. Kernel models leave out each of them, networks 40
    at random and the 40 others that are most influential in the kernel model, in this order.

    Parameters
    ----------
    name : one of `NAMES` or `LARGE`.
    root : folder of the sets of `LARGE`, which ``make truths`` writes to ``_build/truths``.

    Returns
    -------
    Truth
        Float64 tensors on the CPU.

    Raises
    ------
    ValueError
        An unknown name; a file that is missing, damaged or not what was sealed; a set of `LARGE`
        without its folder.

    Source: Zhang and Zhang 2022, Eq. (7) and (9); the sets are ours.
    """
    names = (*NAMES, *LARGE)
    _check.require(name in names, "name", f"one of {', '.join(names)}", _check._shown(name))
    arrays, facts = _published(name, FOLDER if name in NAMES else _folder(name, root))
    t = {key: torch.from_numpy(np.array(values)) for key, values in arrays.items()}
    influence = _influence(t["predictions"], t["changes"], t["y_test"])
    second, floor = None, torch.zeros_like(t["changes"][:, 0])
    if "second_changes" in t:
        second = _influence(t["second_predictions"], t["second_changes"], t["y_test"])
        floor = (t["second_changes"] - t["changes"]).square().mean(dim=1).sqrt()
    kept = ("predictions", "changes", "y_test", "train", "test", "left_out")
    found = {key: t[key] for key in kept} | {"influence": influence, "second": second}
    return Truth(name=name, **found, floor=floor, **facts)


def seal(arrays: Mapping[str, np.ndarray], facts: Mapping) -> str:
    """SHA-256 of the arrays of a set, its settings and its provenance."""
    text = json.dumps({**facts, "arrays": fingerprint(dict(arrays))}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def score(
    estimate: Float[Tensor, "rows columns"],
    truth: Truth,
    *,
    library: str | None = None,
    loss: float = 1.0,
    k: int = 10,
) -> dict[str, float]:
    r"""How influence that somebody has estimated agrees with the truth, and how it could at best.

    Correlations compare ranks and shapes, slope and relative error compare sizes. With $a$ the
    estimate and $b$ the truth over all pairs of a left-out and a test point:

    - ``pearson``, ``spearman``: over all pairs
    - ``pearson_per_test_point``, ``spearman_per_test_point``: over the left-out points, mean over
      the test points
    - ``slope``: $a^\top b / a^\top a$, of the truth on the estimate, a line through zero; 2 for
      scores that are half of what they should be
    - ``relative_error``: $\|a - b\| / \|b\|$
    - ``share_above``: share of the pairs whose change in the truth is larger than the floor of the
      left-out point; ``pearson_above``, ``spearman_above``, ``slope_above`` over these pairs
    - ``top_k``: share of the k left-out points of largest influence, positive or negative, that are
      among the k largest estimates, mean over the test points
    - ``loo_corr``: as dattri defines it, which is ``pearson_per_test_point``
    - ``lds``: linear datamodeling score, as dattri defines it: Spearman correlation of minus the
      test losses after training on subsets with the sums of scores over them. The subsets are the
      training sets without one point, so that the sum is a constant less one score, and it is
      ``spearman_per_test_point``. It is none of random halves.

    ``pearson_ceiling`` and so on for each correlation and ``top_k``, and ``relative_error_floor``:
    what ``truth.second`` scores, an estimate that is as good as a retraining. It is 1 (or 0) where
    the truth is exact. Both retrainings are noisy, so that an estimate without noise can score
    more, a correlation up to about the square root of its ceiling (Spearman 1904).

    A correlation with something constant counts as 0, since it says nothing. With fewer than three
    pairs above the floor, what is measured on them is NaN.

    Parameters
    ----------
    estimate : (n_train, n_test), or (left_out, n_test) in the order of ``truth.left_out``, in the
        sign and scale of this library; with ``library`` all scores as that library returns them.
    truth : from `load`.
    library : one whose scores `conventions.to_ours` reads; of TRAK and TracInCP only what is
        measured per test point means something.
    loss : as in `conventions.to_ours`; 1 without a library.
    k : how many of the most influential points are compared.

    Returns
    -------
    dict
        Numbers by the names above.

    Raises
    ------
    ValueError
        Another shape or orientation, NaN or infinity, an estimate that is constant, a library that
        is not known, a loss without a library, more than left_out points as k.

    Source: ``lds`` and ``loo_corr`` as in dattri 0.3; ceilings and floors are ours.
    """
    truth = _check.instance("truth", truth, Truth)
    k, most = _check.integer("k", k), len(truth.influence)
    _check.require(k <= most, "k", f"at most {most}, the points that are left out", k)
    a = _of_left_out(_in_our_convention(estimate, truth, library, loss), truth).numpy()
    b = truth.influence.numpy()
    above = (truth.changes.abs() > truth.floor[:, None]).numpy()
    best = b if truth.second is None else truth.second.numpy()
    found, at_best = _agreement(a, b, above, k), _agreement(best, b, above, k)
    error = at_best.pop("relative_error")
    bounded = (key for key in at_best if not key.startswith("slope"))
    ceilings = {f"{key}_ceiling": at_best[key] for key in bounded}
    share = {"share_above": float(above.mean())}
    return found | share | ceilings | {"relative_error_floor": error}


def _folder(name: str, root: object) -> Path:
    """The folder of a set that does not come with the package."""
    there = isinstance(root, str | Path) and (Path(root) / f"{name}.npz").is_file()
    expected = f"a folder with {name}.npz (`make truths` writes it to _build/truths)"
    _check.require(there, "root", expected, repr(root) if root is None else root)
    return Path(root)


def _published(name: str, folder: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and facts of a set, once they are known to be the sealed ones."""
    path = folder / f"{name}.npz"
    try:
        facts = json.loads((folder / "truths.json").read_text(encoding="utf-8"))[name]
        arrays, published = decode(path), facts["hash"]
        found = seal(arrays, {key: facts[key] for key in facts if key != "hash"})
    except Exception as problem:  # changed bytes can break a decoder in any way
        published, found = "in truths.json", f"files that do not open ({type(problem).__name__})"
    remedy = "install ntk-influence anew" if name in NAMES else "run make truths anew"
    expected = f"the set with SHA-256 {published} ({remedy})"
    _check.require(found == published, str(path), expected, found)
    return arrays, facts


def _influence(
    f: Float[Tensor, "n_test"], change: Float[Tensor, "k n_test"], y: Float[Tensor, "n_test"]
) -> Float[Tensor, "k n_test"]:
    """Equation (7): the test loss after the change less that before."""
    return (f - y) * change + change**2 / 2


def _in_our_convention(
    estimate: object, truth: Truth, library: str | None, loss: float
) -> Float[Tensor, "rows columns"]:
    """A float64 tensor on the CPU; scores of a library by `to_ours`."""
    a = _check.tensor("estimate", estimate, (2,)).detach().to("cpu", torch.float64)
    loss = _check.positive("loss", loss)
    if library is None:
        _check.require(loss == 1, "loss", "1 without a library", loss)
        return a
    residual = truth.predictions - truth.y_test if _known(library, LIBRARIES).of_output else None
    return to_ours(a, library=library, n=len(truth.train), loss=loss, residual=residual)


def _of_left_out(
    a: Float[Tensor, "rows columns"], truth: Truth
) -> Float[Tensor, "left_out n_test"]:
    """The rows of the left-out points; refuses other shapes and what cannot be compared."""
    n, (left_out, n_test) = len(truth.train), truth.influence.shape
    shapes = {(left_out, n_test): slice(None), (n, n_test): truth.rows}
    listed = " or ".join(str(shape) for shape in shapes)
    hint = " (transpose it?)" if a.shape[::-1] in shapes else ""
    got = f"shape {tuple(a.shape)}"
    _check.require(a.shape in shapes, "estimate", f"shape {listed}{hint}", got)
    a = _check.labels_of(
        "estimate", a[shapes[a.shape]], "truth", truth.influence, (left_out, n_test)
    )
    differ = bool((a != a[0, 0]).any())
    _check.require(differ, "estimate", "entries that differ", f"{float(a[0, 0]):g} everywhere")
    return a


def _agreement(a: np.ndarray, b: np.ndarray, above: np.ndarray, k: int) -> dict[str, float]:
    """Everything that is measured of an estimate a and a truth b."""
    pearson, spearman = _per_test_point(pearsonr, a, b), _per_test_point(spearmanr, a, b)
    found = _pooled(a, b) | {f"{key}_above": v for key, v in _pooled(a[above], b[above]).items()}
    found |= {"pearson_per_test_point": pearson, "spearman_per_test_point": spearman}
    found |= {"relative_error": float(np.linalg.norm(a - b) / np.linalg.norm(b))}
    top = (np.argsort(-np.abs(values), axis=0, kind="stable")[:k] for values in (a, b))
    shared = [len(np.intersect1d(*pair)) / k for pair in zip(*(t.T for t in top), strict=True)]
    return found | {"top_k": float(np.mean(shared)), "loo_corr": pearson, "lds": spearman}


def _pooled(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Correlations and slope over pairs, at least three of them."""
    a, b = a.ravel(), b.ravel()
    if len(a) < 3:
        return dict.fromkeys(("pearson", "spearman", "slope"), float("nan"))
    slope = float(a @ b / (a @ a)) if a.any() else float("nan")
    correlations = _correlation(pearsonr, a, b), _correlation(spearmanr, a, b)
    return dict(zip(("pearson", "spearman", "slope"), (*correlations, slope), strict=True))


def _per_test_point(of: Callable, a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the columns of a correlation over the rows."""
    return float(np.mean([_correlation(of, *pair) for pair in zip(a.T, b.T, strict=True)]))


def _correlation(of: Callable, a: np.ndarray, b: np.ndarray) -> float:
    """One of scipy's correlations; 0 if one side is constant."""
    constant = (a == a[0]).all() or (b == b[0]).all()
    return 0.0 if constant else float(of(a, b).statistic)
