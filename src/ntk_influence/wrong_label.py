"""How probable it is that a label is wrong, given a prediction that never saw the label."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

HALF = 1 / 2  # at most half of the labels are wrong
TINY = 1e-6  # what a share of wrong labels has to add to the log-likelihood, to be told from none
TAILS = 4.0  # degrees of freedom of Student's t
STARTS = (0.02, 0.2)  # shares of wrong labels from which the best fit is looked for
LEAST = 1e-9  # of the square of a scale, of standardised predictions
STEPS, ENOUGH = 1000, 1e-9  # of the EM algorithm; what a step adds to the log-likelihood


def of_two_classes(predictions: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, float]:
    r"""Probability that each label of two classes is wrong, and the share of wrong labels.

    The prediction $g_i$ was made without the label $y_i$. The model: where k is the true class,
    predictions are distributed around $\mu_k$ as Student's t with four degrees of freedom, with one
    scale for both; and with probability $\rho$ the other class is written down. So k is the true
    class with probability $r_{ik} \propto \pi_k\, t_4(g_i; \mu_k, \sigma)\, v$, where $v$ is $1 -
    \rho$ if k is the label and $\rho$ if not, and the label is wrong with probability $1 - r_{i
    y_i}$. All parameters maximise the likelihood of predictions and labels together, $0 \le \rho
    \le \frac12$. The parameter $\rho$ has to raise its logarithm by $\frac12 \log n$ (the
    Bayesian information criterion), and the predictions have to speak for the labels: else no
    label is wrong.

    Parameters
    ----------
    predictions : (n,) array, greater where class 1 is more probable.
    observed : (n,) array of classes, 0 and 1.

    Returns
    -------
    (n,) array of probabilities, and $\rho$.

    Source: Lawrence and Scholkopf 2001 (a discriminant under label noise, by the EM algorithm);
    Lange, Little and Taylor 1989 (t in the place of the normal); Schwarz 1978 (the criterion).
    """
    n, none = len(observed), (np.zeros(len(observed)), 0.0)
    own = np.eye(2)[observed]
    spread = predictions.std()
    if spread == 0 or not own.any(axis=0).all():
        return none
    g = (predictions - predictions.mean()) / spread
    if g @ own[:, 1] <= 0:
        return none
    all_right = expect_maximise(g, own, 0.0)
    found = max((expect_maximise(g, own, rho) for rho in STARTS), key=lambda fit: fit[0])
    if found[0] - all_right[0] <= np.log(n) / 2:
        return none
    return found[1], found[2]


def expect_maximise(g: np.ndarray, own: np.ndarray, rho: float) -> tuple[float, np.ndarray, float]:
    r"""The log-likelihood, the probabilities of a wrong label and their share, by EM from a share.

    ``g`` are (n,) standardised predictions and ``own`` (n, 2) is one at the label. The step from
    the posteriors $r_{ik}$: $\rho$ is the mean of $1 - r_{i y_i}$; with weights $w_{ik} = 5 / (4 +
    q_{ik})$, $q = (g - \mu)^2 / \sigma^2$, the mean $\mu_k$ is that of $g_i$ weighted by $r w$, and
    $\sigma^2$ the mean of $r w (g - \mu)^2$. A share of 0 stays.
    """
    n = len(g)
    r, w, before = own * (1 - rho) + (1 - own) * rho, np.ones_like(own), -np.inf
    for _ in range(STEPS):
        rw = r * w
        away = g[:, None] - g @ rw / np.maximum(rw.sum(axis=0), np.finfo(float).tiny)
        square = (rw * away**2).sum() / n + LEAST
        rho = min(float(((1 - own) * r).sum() / n), HALF)
        q = away**2 / square
        w = (TAILS + 1) / (TAILS + q)
        log_t = -(TAILS + 1) / 2 * np.log1p(q / TAILS) - np.log(square) / 2
        share = (own * (1 - rho) + (1 - own) * rho) * r.mean(axis=0)
        logs = log_t + np.log(np.maximum(share, np.finfo(float).tiny))
        whole = np.logaddexp(*logs.T)
        r = np.exp(logs - whole[:, None])
        if whole.sum() - before < ENOUGH:
            break
        before = whole.sum()
    return float(whole.sum()), ((1 - own) * r).sum(axis=1), rho


def of_classes(scores: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, float]:
    r"""Probability that each label of a class is wrong, and the share of wrong labels.

    The prediction $g_i \in \mathbb R^c$ was made without the label $y_i$. The model: the true class
    has probability $q_k = \mathrm{softmax}(a g_i + b)_k$, and with probability $\rho$ another of
    the classes that occur is written down, each alike. So $y_i$ is observed with probability $L_i =
    (1 - \rho)\, q_{y_i} + \frac{\rho}{c - 1} (1 - q_{y_i})$, and is wrong, given that, with
    probability $\frac{\rho}{c - 1} (1 - q_{y_i}) / L_i$. The numbers $a \ge 0$, $b$ and $0 \le
    \rho \le \frac12$ maximise $\sum_i \log L_i$. Where most predictions are equally sure, the
    maximum can be at $\rho = 0$: a flip and a lack of slope then look alike. A report uses it for
    more than two classes; two have `of_two_classes`.

    Where the predictions separate the classes, $a$ would grow without bound. It stops where the
    odds of the first to the second class are $(n + 1)^2$ at the median point: n points cannot
    tell it from infinity.

    Parameters
    ----------
    scores : (n, c) array of predictions, one column for each class.
    observed : (n,) array of classes, from 0 to c - 1.

    Returns
    -------
    (n,) array of probabilities, and $\rho$.

    Source: Platt 1999; logistic regression with label noise, Bootkrajang and Kaban 2012.
    """
    used, observed = np.unique(observed, return_inverse=True)
    scores = scores[:, used]
    n, c = scores.shape
    if c == 1:  # no other label is ever written down
        return np.zeros(n), 0.0
    spread = np.sqrt(((scores - scores.mean(axis=1, keepdims=True)) ** 2).mean())
    if spread == 0:  # nothing is predicted
        spread = 1.0
    G = scores / spread
    first_two = np.sort(G, axis=1)[:, -2:]
    margin = max(float(np.median(first_two[:, 1] - first_two[:, 0])), 1e-3)
    steepest = 2 * np.log(n + 1) / margin
    own = np.eye(c)[observed]

    def given(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b, rho = theta[0], np.append(theta[1:-1], 0.0), theta[-1]
        p = np.exp(log_softmax(a * G + b, axis=1))
        q = (own * p).sum(axis=1)
        wrong = rho / (c - 1) * ((1 - own) * p).sum(axis=1)  # 1 - q without cancellation
        return p, wrong, (1 - rho) * q + wrong

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        p, _, seen = given(theta)
        q, rho = (own * p).sum(axis=1), theta[-1]
        steps = ((1 - rho * c / (c - 1)) * q / seen)[:, None] * (own - p)  # d log L / d logits
        by_rho = ((1 - c * q) / (c - 1) / seen).sum()
        gradient = np.array([(steps * G).sum(), *steps.sum(axis=0)[:-1], by_rho])
        return -np.log(seen).mean(), -gradient / n

    starts = [
        np.array([a, *np.zeros(c - 1), rho])
        for a in (min(1.0, steepest), min(4.0, steepest))
        for rho in (0.01, 0.1, 0.3)
    ]
    widest = 2 * np.log(n + 1) + steepest * np.abs(G).max()
    bounds = [(0, steepest), *[(-widest, widest)] * (c - 1)]
    theta = _least(loss, starts, [*bounds, (0, HALF)])
    all_right = _least(loss, starts, [*bounds, (0, 0)])
    if n * (loss(all_right)[0] - loss(theta)[0]) <= TINY:
        return np.zeros(n), 0.0
    _, wrong, seen = given(theta)
    return wrong / seen, float(theta[-1])


def of_numbers(residuals: np.ndarray) -> tuple[np.ndarray, float]:
    r"""Probability that each label of numbers is wrong, and the share of wrong labels.

    The residual $r_i \in \mathbb R^c$ of a prediction that was made without the label is normal
    around zero with deviation $s$, and with probability $\rho$ with a larger one, $t$: that part is
    called wrong. All three maximise the likelihood. Two parameters more than one normal have to
    raise the log-likelihood by $\log n$ at least (the Bayesian information criterion): else no
    label is wrong.

    Parameters
    ----------
    residuals : (n, c) array.

    Returns
    -------
    (n,) array of probabilities, and $\rho$.

    Source: the contaminated normal distribution, Tukey 1960; the criterion, Schwarz 1978.
    """
    n, c = residuals.shape
    square = (residuals**2).sum(axis=1)
    size = square.mean() / c
    if size == 0:  # everything is predicted
        return np.zeros(n), 0.0
    square = square / size

    def given(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        s, wider, rho = theta
        logs = [
            np.log(share) - c * u - square * np.exp(-2 * u) / 2
            for share, u in ((1 - rho, s), (rho, s + wider))
        ]
        whole = np.logaddexp(*logs)
        return whole, np.exp(logs[1] - whole)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        whole, wrong = given(theta)
        s, wider, rho = theta
        by_s = (1 - wrong) * (square * np.exp(-2 * s) - c)
        by_t = wrong * (square * np.exp(-2 * (s + wider)) - c)
        by_rho = wrong / rho - (1 - wrong) / (1 - rho)
        gradient = np.array([(by_s + by_t).mean(), by_t.mean(), by_rho.mean()])
        return -whole.mean(), -gradient

    starts = [np.array([-np.log(k) / 2, np.log(k), rho]) for k in (2, 6) for rho in (0.02, 0.2)]
    theta = _least(loss, starts, [(-16, 16), (0, 32), (1e-12, HALF)])
    one_normal = loss(np.array([0.0, 0.0, HALF]))[0]  # both parts alike
    if n * (one_normal - loss(theta)[0]) <= np.log(n):
        return np.zeros(n), 0.0
    return given(theta)[1], float(theta[-1])


def _least(loss: Callable, starts: Sequence[np.ndarray], bounds: list) -> np.ndarray:
    """The best of the minima that are reached from several starts."""
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9}
    how = {"jac": True, "method": "L-BFGS-B", "bounds": bounds, "options": options}
    found = [minimize(loss, start, **how).x for start in starts]
    return min(found, key=lambda theta: loss(theta)[0])
