"""How probable it is that a label is wrong, given a prediction that never saw the label."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

HALF = 1 / 2  # at most half of the labels are wrong
TAILS = 4.0  # degrees of freedom of Student's t
STARTS = (0.02, 0.2)  # shares of wrong labels from which the best fit is looked for
LEAST = 1e-9  # of the scatter of standardised predictions
STEPS, ENOUGH = 1000, 1e-9  # of the EM algorithm; what a step adds to the log-likelihood


def of_classes(scores: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, float]:
    r"""Probability that each label of a class is wrong, and the share of wrong labels.

    The prediction $g_i \in \mathbb R^c$ was made without the label $y_i$; of it the c - 1
    differences of its entries count. The model: where k is the true class, they are distributed
    around $\mu_k$ as Student's t with four degrees of freedom, with one scatter $\Sigma$ for all
    classes; and with probability $\rho$ another of the classes that occur is written down, each
    alike. So k is the true class with probability $r_{ik} \propto \pi_k\, t_4(g_i; \mu_k,
    \Sigma)\, w$, where $w$ is $1 - \rho$ if k is the label and $\rho / (c - 1)$ if not, and the
    label is wrong with probability $1 - r_{i y_i}$. All parameters maximise the likelihood of
    predictions and labels together, $0 \le \rho \le \frac12$. The parameter $\rho$ has to raise
    its logarithm by $\frac12 \log n$ (the Bayesian information criterion), and the predictions
    have to speak for the labels on average: else no label is wrong.

    Parameters
    ----------
    scores : (n, c) array of predictions, one column for each class.
    observed : (n,) array of classes, from 0 to c - 1.

    Returns
    -------
    (n,) array of probabilities, and $\rho$.

    Source: Lawrence and Scholkopf 2001 (a discriminant under label noise, by the EM algorithm);
    Lange, Little and Taylor 1989 (t in the place of the normal); Schwarz 1978 (the criterion).
    """
    n = len(observed)
    classes, observed = np.unique(observed, return_inverse=True)
    none = np.zeros(n), 0.0
    if len(classes) == 1:
        return none
    scores = scores[:, classes]
    own = np.eye(len(classes))[observed]
    for_the_label = (scores * own).sum(axis=1).mean() - scores.mean()
    G = scores[:, :-1] - scores[:, -1:]
    spread = G.std(axis=0)
    if for_the_label <= 0 or not spread.all():
        return none
    G = (G - G.mean(axis=0)) / spread
    all_right = expect_maximise(G, own, 0.0)
    found = max((expect_maximise(G, own, rho) for rho in STARTS), key=lambda fit: fit[0])
    if found[0] - all_right[0] <= np.log(n) / 2:
        return none
    return found[1], found[2]


def expect_maximise(G: np.ndarray, own: np.ndarray, rho: float) -> tuple[float, np.ndarray, float]:
    r"""The log-likelihood, the probabilities of a wrong label and their share, by EM from a share.

    ``G`` are (n, c - 1) standardised predictions and ``own`` (n, c) is one at the label. The step
    from the posteriors $r_{ik}$: $\rho$ is the mean of $1 - r_{i y_i}$; with weights $w_{ik} = (4 +
    d) / (4 + q_{ik})$, $q$ the squared distance in units of $\Sigma$, $\mu_k$ is the mean of $g_i$
    weighted by $r w$, and $\Sigma$ the mean of $r w (g - \mu)(g - \mu)^\top$. A share of 0 stays.
    """
    (n, d), c = G.shape, own.shape[1]
    r, w = own * (1 - rho) + (1 - own) * rho / (c - 1), np.ones_like(own)
    before = -np.inf
    for _ in range(STEPS):
        rw = r * w
        mass = np.maximum(rw.sum(axis=0), np.finfo(float).tiny)
        away = G[:, None] - rw.T @ G / mass[:, None]
        scatter = np.einsum("ik,ika,ikb->ab", rw, away, away) / n + LEAST * np.eye(d)
        rho = min(float(((1 - own) * r).sum() / n), HALF)
        q = np.einsum("ika,ab,ikb->ik", away, np.linalg.inv(scatter), away)
        w = (TAILS + d) / (TAILS + q)
        log_t = -(TAILS + d) / 2 * np.log1p(q / TAILS) - np.linalg.slogdet(scatter)[1] / 2
        share = (own * (1 - rho) + (1 - own) * rho / (c - 1)) * r.mean(axis=0)
        logs = log_t + np.log(np.maximum(share, np.finfo(float).tiny))
        whole = np.logaddexp.reduce(logs, axis=1)
        r = np.exp(logs - whole[:, None])
        if whole.sum() - before < ENOUGH:
            break
        before = whole.sum()
    return float(whole.sum()), ((1 - own) * r).sum(axis=1), rho


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
