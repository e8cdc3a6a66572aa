"""Scores of other libraries in the sign, orientation and scale of this one, and their damping.

Most of them compute $\\nabla\\ell(x_t)^\\top (H + \\delta I)^{-1} \\nabla\\ell(x_i)$. They differ
in whether H is a sum or a mean over the n training points, in which axis holds the training points,
and in what the damping $\\delta$ is called.
"""

import difflib
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from . import _check


@dataclass(frozen=True)
class Convention:
    """How a library reports influence.

    Attributes
    ----------
    name : as the library writes itself.
    train_first : scores are (n_train, n_test), as here; else (n_test, n_train).
    divided : scores have to be divided by n, since the Hessian is a mean.
    averaged : the damping stands beside a mean over the training points, not a sum; None if there
        is none that corresponds to a ridge.
    exact : scores have a scale, given the matching ridge; else only their ranking means something.
    of_output : scores are changes of the output, not of the loss.
    projected : the damping stands beside inner products of projected gradients of the output, which
        are a share of those of gradients.
    """

    name: str
    train_first: bool = False
    divided: bool = False
    averaged: bool | None = True
    exact: bool = True
    of_output: bool = False
    projected: bool = False


LIBRARIES = (
    Convention("pyDVL", divided=True),
    Convention("Captum", averaged=False),
    Convention("Captum TracInCP", averaged=None, exact=False),
    Convention("kronfluence", divided=True),
    Convention("dattri", train_first=True, divided=True),
    Convention(
        "TRAK", train_first=True, averaged=False, exact=False, of_output=True, projected=True
    ),
    Convention("pyinfluence"),
)
# Penalties on the weights, in a loss that is minimised.
PENALTIES = (
    Convention("scikit-learn", averaged=False),
    Convention("torch"),
)


def to_ours(
    scores: Float[Tensor, "rows columns"],
    *,
    library: str,
    n: int,
    loss: float = 1.0,
    residual: Float[Tensor, "n_test"] | None = None,
) -> Float[Tensor, "n n_test"]:
    r"""Scores of another library as influence: (n_train, n_test), positive for a helpful point.

    If a point costs $s \cdot \frac12 (f - y)^2$, a sum of Hessians gives $s\,I_{hvp}$ of equation
    (13) and a mean gives $n s\,I_{hvp}$, both at the ridge of `ridge_of`. The estimate stays
    what it is: leverage is corrected for by `slope`.

    Parameters
    ----------
    scores : as the library returns them.
    library : one of pyDVL, Captum (Arnoldi or naive), Captum TracInCP, kronfluence, dattri, TRAK
        and pyinfluence, in upper or lower case. Of TracInCP and TRAK only the sign and the ranking
        of the training points of one test point mean something; TRAK without projection is
        $I_{hvp}$ up to one unknown factor.
    n : number of training points.
    loss : s, what the loss of one point is, of half the square of its residual: 1 for half the
        square, 2 for ``mse_loss`` with one output. In Captum losses are summed over a batch, in
        the others averaged.
    residual : (n_test,) residuals $f(x_t) - y_t$: TRAK's scores are those of the output. They are
        read with the residual $f(x_i) - y_i$ as TRAK's gradient of the loss by the output.

    Returns
    -------
    (n, n_test) tensor, in the unit of half a squared label unless only the ranking is meant.

    Raises
    ------
    ValueError
        A library that is not known, with the nearest known name; scores without an axis of length
        n in its place, NaN or infinity; a loss that is not positive; residuals that are missing, or
        given where they have no place.

    Source: the formulas and code of pyDVL 0.10, Captum 0.9, kronfluence 1.0, dattri 0.3, TRAK 0.3
    and pyinfluence 0.5.
    """
    known, n = _known(library, LIBRARIES), _check.integer("n", n)
    scores, loss = _check.tensor("scores", scores, (2,)), _check.positive("loss", loss)
    given, axis = tuple(scores.shape), 0 if known.train_first else 1
    expected = f"shape ({n}, n_test)" if known.train_first else f"shape (n_test, {n})"
    hint = " (transpose them?)" if given[axis] != n and given[1 - axis] == n else ""
    expected = f"{expected} as {known.name} returns them{hint}"
    _check.require(given[axis] == n, "scores", expected, f"shape {given}")
    ours = scores if known.train_first else scores.T
    place = "the residuals of the test points" if known.of_output else "None, as scores of a loss"
    right = (residual is not None) == known.of_output
    got = "None" if residual is None else "residuals"
    _check.require(right, "residual", f"{place} of {known.name}", got)
    if known.of_output:
        return ours * _check.labels_of("residual", residual, "scores", scores, ours.shape[1:])
    return ours / (loss * (n if known.divided else 1)) if known.exact else ours.clone()


def ridge_of(
    library: str, damping: float, n: int, *, loss: float = 1.0, share: float | None = None
) -> float:
    r"""The ridge $\lambda$ of a sum of halved squares that a damping or a penalty stands for.

    $\lambda = n\,\delta / s$ beside a mean of losses, $\delta / s$ beside a sum, and $\delta$ over
    a share beside projected gradients. A penalty that is part of the loss adds to that of the
    damping.

    Parameters
    ----------
    library : as in `to_ours`, or ``"scikit-learn"`` for ``alpha`` of ``Ridge`` and ``KernelRidge``
        (its loss has no halves and neither has its penalty), or ``"torch"`` for ``weight_decay`` of
        an optimiser beside a mean of losses. Of pyinfluence the damping of a linear model, which
        adds to ``alpha``.
    damping : $\delta \ge 0$, under its name in the library: ``regularization`` of pyDVL and dattri,
        ``hessian_reg`` of Captum, ``damping_factor`` of kronfluence, ``damping`` of pyinfluence,
        ``lambda_reg`` of TRAK.
    n : number of training points.
    loss : as in `to_ours`; always 1 of scikit-learn, and of TRAK, whose matrix holds no losses.
    share : of TRAK alone, the size of its inner products over those of gradients: $k / p$ for a
        sketch of k dimensions of p weights, $1 / p$ with its ``NoOpProjector``.

    Raises
    ------
    ValueError
        A library that is not known or has no damping that is a ridge; a negative damping; a share
        that is not positive, is missing, or is given where it has no place.

    Source: as `to_ours`.
    """
    return _check.nonnegative("damping", damping) * _ridge_per_damping(library, n, loss, share)


def damping_of(
    library: str, ridge: float, n: int, *, loss: float = 1.0, share: float | None = None
) -> float:
    r"""What to give to a library so that it uses this ridge: the inverse of `ridge_of`.

    Parameters
    ----------
    library, n, loss, share : as in `ridge_of`.
    ridge : $\lambda \ge 0$ of a sum of halved squares.

    Raises
    ------
    ValueError
        As `ridge_of`.

    Source: as `to_ours`.
    """
    return _check.nonnegative("ridge", ridge) / _ridge_per_damping(library, n, loss, share)


def slope(leverage: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    r"""Truth over estimate, $1 / (1 - h_i)$, that leverage predicts for first-order influence.

    An inverse-Hessian-vector product is too small by this factor, exactly in $\Delta$ and up to
    $\frac12 \Delta^2$ in the loss; multiplying by it is `ihvp_influence` with
    ``correct_leverage``.

    Parameters
    ----------
    leverage : (n,) ridge leverages in [0, 1); near one take ``1 / model.one_minus_leverage``.

    Raises
    ------
    ValueError
        Entries outside of [0, 1), NaN or infinity.

    Source: Cook 1977; Zhang and Zhang 2022, Eq. (15); Rad and Maleki 2020.
    """
    h = _check.tensor("leverage", leverage, (1,))
    low, high = float(h.detach().min()), float(h.detach().max())
    inside = low >= 0 and high < 1
    _check.require(inside, "leverage", "entries in [0, 1)", f"entries from {low:.3g} to {high:.3g}")
    return 1 / (1 - h)


def _ridge_per_damping(library: str, n: int, loss: float, share: float | None) -> float:
    """Ridge over damping: n or one, over the scale of the loss or the share."""
    known, n = _known(library, LIBRARIES + PENALTIES), _check.integer("n", n)
    loss = _check.positive("loss", loss)
    dampings = ", ".join(c.name for c in LIBRARIES + PENALTIES if c.averaged is not None)
    there = known.averaged is not None
    _check.require(there, "library", f"one whose damping is a ridge ({dampings})", known.name)
    fixed = known.name == "scikit-learn" or known.projected
    _check.require(not fixed or loss == 1, "loss", f"1, as {known.name} fixes it", loss)
    place = "k / p of" if known.projected else "None, as nothing is projected by"
    right = (share is not None) == known.projected
    _check.require(right, "share", f"{place} {known.name}", _check._shown(share))
    if known.projected:
        return 1 / _check.positive("share", share)
    return (n if known.averaged else 1) / loss


def _known(library: object, among: tuple[Convention, ...]) -> Convention:
    """The convention of that name; for any other name a sentence with the nearest known one."""
    _check.require(isinstance(library, str), "library", "a name", type(library).__name__)
    names = {convention.name.lower(): convention for convention in among}
    found = names.get(library.lower())
    near = difflib.get_close_matches(library.lower(), names, n=1, cutoff=0.4)
    listed = ", ".join(convention.name for convention in among)
    hint = f" (did you mean {names[near[0]].name}?)" if near else ""
    _check.require(found is not None, "library", f"one of {listed}{hint}", _check._shown(library))
    return found
