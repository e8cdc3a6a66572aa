r"""Right-hand sides of the theorems and lemmas, with constants that can be evaluated.

In the lemmas and Theorem 1, $\rho = 1 + \kappa / \sqrt{2\delta}$ bounds the root mean square
residual at the start, $R = n \rho / (\lambda \sqrt m)$ the movement of a unit, and $p$, equal to
$2R / (\kappa \sqrt{2\pi})$, the probability that a unit starts within $R$ of its kink. Three events
fail with probability at most $\delta$ each, and a bound with at most the sum over those it needs:

- *start*: the outputs at the training points satisfy $\|u(0)\|^2 \le n \kappa^2 / (2\delta)$;
- *train*, *test*: the share of units within $R$ of their kink is at most $p / \delta$, on average
  over the training points, and at the test point.
"""

from collections.abc import Sequence
from math import asin, cos, log, pi, sin, sqrt
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from . import _check

Gap = float | Float[Tensor, "..."]


class Drift(NamedTuple):
    """Bounds of Lemma 2: Frobenius norms on the training set, 1-norm and 2-norm at a test point."""

    kernel: float
    jacobian: float
    test_kernel: float
    test_jacobian: float


class Range(NamedTuple):
    """Bounds of Theorem 3 on every ridge leverage."""

    low: float
    high: float


class Terms(NamedTuple):
    """The two terms of an upper bound on a ridge leverage, which is their sum."""

    rarity: float
    distance: float


def lemma_1(n_train: int, width: int, scale: float, ridge: float, delta: float) -> float:
    r"""Movement of any unit at any time: $\|w_r(t) - w_r(0)\| \le R = n \rho / (\lambda \sqrt m)$.

    Needs *start*, so that it holds with probability at least $1 - \delta$.

    Parameters
    ----------
    n_train, width : numbers $n$ of training points and $m$ of units.
    scale, ridge : $\kappa > 0$ of the initial weights, $\lambda > 0$.
    delta : probability $\delta$ between 0 and 1 with which each event may fail.

    Raises
    ------
    ValueError
        A number out of its range.

    Source: Zhang and Zhang 2022, Lemma 1, after Du et al. 2019; the constants are ours.
    """
    return _Given.checked(n_train, width, scale, ridge, delta).R


def lemma_2(n_train: int, width: int, scale: float, ridge: float, delta: float) -> Drift:
    r"""Drift of kernel and Jacobian for all weights within $R$ of the start.

    $\|K - K(0)\|_F \le 2 n^2 p / \delta$ and $\|J - J(0)\|_F \le \sqrt{n p / \delta}$ need *train*,
    $\|k - k(0)\|_1 \le 2 n p / \delta$ *train* and *test*, $\|j - j(0)\| \le \sqrt{p / \delta}$
    *test*. Arguments, errors and source as in `lemma_1`.
    """
    given = _Given.checked(n_train, width, scale, ridge, delta)
    n, share = given.n, given.p / given.delta
    return Drift(2 * n**2 * share, sqrt(n * share), 2 * n * share, sqrt(share))


def lemma_3(n_train: int, width: int, scale: float, ridge: float, delta: float) -> float:
    r"""Distance of network and linearisation on the training set, in the 2-norm, at any time.

    $E_3 = \frac1\lambda \bigl[ \frac{2 n^2 p}{\delta} \sqrt n\, \rho + \lambda\, n R \sqrt m\,
    \frac p\delta \bigr]$. Needs *start* and *train*, so that it holds with probability at least
    $1 - 2\delta$. Arguments, errors and source as in `lemma_1`.
    """
    given = _Given.checked(n_train, width, scale, ridge, delta)
    n, share, ridge = given.n, given.p / given.delta, given.ridge
    drift = 2 * n**2 * share * sqrt(n) * given.rho
    return (drift + ridge * n * given.R * sqrt(given.width) * share) / ridge


def lemma_4(n_train: int, width: int, scale: float, ridge: float, delta: float) -> float:
    r"""Distance of network and linearisation at one test point, at any time.

    $E_4 = \frac1\lambda \bigl[ \frac{2 n p}{\delta} \sqrt n\, \rho + \lambda R \sqrt m\,
    \frac p\delta + \sqrt n\, E_3 \bigr]$. Needs *start*, *train* and *test*, so that it holds with
    probability at least $1 - 3\delta$. Arguments, errors and source as in `lemma_1`.
    """
    given = _Given.checked(n_train, width, scale, ridge, delta)
    n, share, ridge = given.n, given.p / given.delta, given.ridge
    drives = 2 * n * share * sqrt(n) * given.rho + ridge * given.R * sqrt(given.width) * share
    return (drives + sqrt(n) * lemma_3(n, given.width, given.scale, ridge, given.delta)) / ridge


def theorem_1(n_train: int, width: int, scale: float, ridge: float, delta: float) -> float:
    r"""Distance $|f_{nn}(x) - f_{ntk}(x)|$ of the trained network and the kernel predictor.

    The sum of three bounds: `lemma_4`; the part of the start, $\frac{\kappa}{\sqrt{2\delta_5}}
    \bigl( 1 + \frac{\sqrt n}{2 \sqrt\lambda} \bigr)$; and that of the kernel of finite width,
    $\frac{n \tau}{\lambda} \bigl( 1 + \frac{\sqrt n}{2 \sqrt{2\lambda}} \bigr)$ with $\tau = \sqrt{
    \log((n^2 + 3n) / \delta_5) / (2m)}$. Each of five events may fail with probability $\delta_5 =
    \delta / 5$: the three of `lemma_4`, $|f_0(x)| \le \kappa / \sqrt{2\delta_5}$, and Hoeffding's
    inequality for all kernel entries. So it holds with probability at least $1 - \delta$, for one
    $x$ chosen beforehand. Arguments and errors as in `lemma_1`.

    Source: Zhang and Zhang 2022, Theorem 1; the constants are ours.
    """
    given = _Given.checked(n_train, width, scale, ridge, delta)
    n, fifth, ridge = given.n, given.delta / 5, given.ridge
    linearisation = lemma_4(n, given.width, given.scale, ridge, fifth)
    start = given.scale / sqrt(2 * fifth) * (1 + sqrt(n / ridge) / 2)
    tau = sqrt(log((n**2 + 3 * n) / fifth) / (2 * given.width))
    return linearisation + start + n * tau / ridge * (1 + sqrt(n / (2 * ridge)) / 2)


def theorem_2(C: float, gap_without: Gap, gap_with: Gap) -> Gap:
    r"""Distance of the influences of network and kernel, $(C + 1)$ times the sum of two gaps.

    The gaps are those of the predictions at the test point, $\lvert f_{nn}^{\setminus i} -
    f_{ntk}^{\setminus i} \rvert$ and $\lvert f_{nn} - f_{ntk} \rvert$, and $C$ bounds the absolute
    value of all four predictions. All are numbers, the gaps also tensors. Raises ``ValueError``
    where something is negative or not finite. Source: Zhang and Zhang 2022, Theorem 2.
    """
    C = _check.nonnegative("C", C)
    gap_without, gap_with = _gap("gap_without", gap_without), _gap("gap_with", gap_with)
    return (C + 1) * (gap_without + gap_with)


def _gap(argument: str, value: Gap) -> Gap:
    """A distance, or a tensor of distances."""
    if not isinstance(value, Tensor) or value.ndim == 0:
        return _check.nonnegative(argument, value)
    _check.tensor(argument, value, tuple(range(1, 9)))
    least = float(value.detach().min())
    _check.require(least >= 0, argument, "entries >= 0", least)
    return value


def theorem_3(eigenvalues: Float[Tensor, "n"], ridge: float) -> Range:
    r"""Range of the ridge leverages, $\frac{\mu}{\mu + \lambda}$ at the extreme eigenvalues of $K$.

    Parameters
    ----------
    eigenvalues : (n,) those of $K$, in any order; negative ones, which are rounding, count as 0.
    ridge : $\lambda > 0$, on the scale of a *sum* of halved squares.

    Raises
    ------
    ValueError
        A ridge that is not positive; eigenvalues that are not finite or of another shape.

    Source: Zhang and Zhang 2022, Theorem 3; the leverage is that of Cook 1977.
    """
    eigenvalues = _check.tensor("eigenvalues", eigenvalues, (1,)).detach()
    ridge = _check.positive("ridge", ridge)
    least, largest = (max(float(mu), 0.0) for mu in eigenvalues.aminmax())
    return Range(least / (least + ridge), largest / (largest + ridge))


def leverage_on_set(K: Float[Tensor, "n n"], ridge: float, group: Sequence[int], i: int) -> Terms:
    r"""Bound on $h_i$ by any set $S$ of points: $\frac{1}{n_S} + \frac{\epsilon^2}{\lambda}$.

    $\epsilon^2 = \|\phi_i - \bar\phi_S\|^2 = K_{ii} - \frac{2}{n_S} \sum_{j \in S} K_{ij} +
    \frac{1}{n_S^2} \sum_{j, k \in S} K_{jk}$ is the squared distance of the point from the mean of
    the set in feature space. The point may belong to the set or not.

    Parameters
    ----------
    K : (n, n) kernel matrix of the training points.
    ridge : $\lambda > 0$.
    group : the set: at least one index from 0 to n - 1, none twice.
    i : index of the point.

    Raises
    ------
    ValueError
        An index out of range or repeated, an empty set; a matrix that is not square or not finite.

    Source: Zhang and Zhang 2022, proof of Theorem 4, there for a component; the leverage as a least
    value also in Pauwels, Bach and Vert 2018.
    """
    K = _check.tensor("K", K, (2,)).detach()
    _check.require(K.shape[0] == K.shape[1], "K", "a square matrix", f"shape {tuple(K.shape)}")
    ridge = _check.positive("ridge", ridge)
    S = _check.indices("group", group, len(K))
    _check.require(len(S) > 0, "group", "at least one index", "none")
    (i,) = _check.indices("i", [i], len(K))
    squared = float(K[i, i] - 2 * K[i, S].mean() + K[S][:, S].mean())
    return Terms(1 / len(S), max(squared, 0.0) / ridge)


def theorem_4(n_train: int, probability: float, radius: float, ridge: float, delta: float) -> Terms:
    r"""Bound on $h_i$ in a component of a mixture: $\frac1N + \frac{\epsilon^2}{\lambda}$.

    With probability at least $1 - \delta$ the component has $N = n p - \sqrt{2 n p \log(1/\delta)}$
    points, or one if that is more. Two points within $r$ of a centre on the sphere are at an angle
    of at most $\theta = 4 \arcsin(r / 2)$, so that $\epsilon^2 = 1 - (1 - \theta/\pi) \cos\theta$.

    Parameters
    ----------
    n_train, probability : number $n$ of training points, probability $p$ of the component.
    radius : $r \ge 0$, largest distance from the centre; so small that $\theta \le \pi / 2$.
    ridge, delta : $\lambda > 0$; probability $\delta$ with which the number of points may fail.

    Raises
    ------
    ValueError
        A number out of its range.

    Source: Zhang and Zhang 2022, Theorem 4; the constants are ours.
    """
    n_train, radius = _check.integer("n_train", n_train), _check.nonnegative("radius", radius)
    _check.require(radius <= 2 * sin(pi / 8), "radius", "a number <= 0.765", radius)
    p, ridge = _check.positive("probability", probability), _check.positive("ridge", ridge)
    _check.require(p <= 1, "probability", "a number <= 1", p)
    delta = _below_one("delta", delta)
    mean, angle = n_train * p, 4 * asin(radius / 2)
    count = max(1.0, mean - sqrt(2 * mean * log(1 / delta)))
    # 1 - (1 - angle / pi) cos(angle), written so that a small angle does not cancel
    squared = angle / pi * cos(angle) + 2 * sin(angle / 2) ** 2
    return Terms(1 / count, squared / ridge)


def _below_one(argument: str, value: object) -> float:
    """A probability that is neither 0 nor 1."""
    value = _check.positive(argument, value)
    _check.require(value < 1, argument, "a number < 1", value)
    return value


class _Given(NamedTuple):
    """Arguments of the lemmas, checked, with the numbers rho, R and p of the head of the module."""

    n: int
    width: int
    scale: float
    ridge: float
    delta: float
    rho: float
    R: float
    p: float

    @staticmethod
    def checked(n: int, width: int, scale: float, ridge: float, delta: float) -> "_Given":
        n, width = _check.integer("n_train", n), _check.integer("width", width)
        scale, ridge = _check.positive("scale", scale), _check.positive("ridge", ridge)
        delta = _below_one("delta", delta)
        rho = 1 + scale / sqrt(2 * delta)
        R = n * rho / (ridge * sqrt(width))
        return _Given(n, width, scale, ridge, delta, rho, R, 2 * R / (scale * sqrt(2 * pi)))
