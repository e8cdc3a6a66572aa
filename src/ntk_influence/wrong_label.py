"""How probable it is that a label is wrong, given a prediction that never saw the label."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

HALF = 1 / 2  # at most half of the labels are wrong
TAILS = 4.0  # degrees of freedom of Student's t
LEAST = 1e-9  # of the scatter, of standardised predictions
STEPS, ENOUGH = 1000, 1e-9  # of the EM algorithm; what a step has to add to the log-likelihood


def of_classes(scores: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, float]:
    r"""Probability that each label of a class is wrong, and the share of wrong labels.

    The prediction $g_i \in \mathbb R^c$ was made without the label $y_i$. The model: points of the
    true class k have predictions around $\mu_k$, Student's t with four degrees of freedom and one
    scatter $\Sigma$ for all classes; with probability $\rho$ another class than the true one is
    written down, each alike. So the true class is k with probability $r_{ik} \propto \pi_k\,
    t_4(g_i; \mu_k, \Sigma)\,(1 - \rho)$ where k is the label, with $\rho / (c - 1)$ in the place
    of $1 - \rho$ where it is not, and the label is wrong with probability $1 - r_{i y_i}$. All
    parameters maximise the likelihood of predictions and labels together, by the EM algorithm.

    The likelihood of the labels given the predictions alone (logistic regression with flips) hardly
    tells a share of wrong labels from classes that overlap; where the predictions lie does. Heavy
    tails let a hard point be hard without its label being wrong.

    Parameters
    ----------
    scores : (n, d) array of predictions.
    observed : (n,) array of classes, from 0 to c - 1.

    Returns
    -------
    (n,) array of probabilities, and $\rho$.

    Source: Lawrence and Scholkopf 2001 (a discriminant under label noise, by EM); Lange, Little and
    Taylor 1989 (the t distribution in the place of the normal).
    """
    spread = scores.std(axis=0)
    G = (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1)
    own = np.eye(int(observed.max()) + 1)[observed]
    fits = [_expect_maximise(G, own, rho) for rho in (0.02, 0.2)]
    _, wrong, rho = max(fits, key=lambda fit: fit[0])
    return wrong, rho


def _expect_maximise(G: np.ndarray, own: np.ndarray, rho: float) -> tuple[float, np.ndarray, float]:
    """Log-likelihood, probabilities of a wrong label and their share, from a first share."""
    (n, d), c = G.shape, own.shape[1]
    r, weight = own * (1 - rho) + (1 - own) * rho / (c - 1), np.ones_like(own)
    before = -np.inf
    for _ in range(STEPS):
        rw = r * weight
        centre = rw.T @ G / rw.sum(axis=0)[:, None]
        away = G[:, None] - centre
        scatter = np.einsum("ik,ika,ikb->ab", rw, away, away) / n + LEAST * np.eye(d)
        rho = float(np.clip(1 - (own * r).sum() / n, 0, HALF))
        square = np.einsum("ika,ab,ikb->ik", away, np.linalg.inv(scatter), away)
        weight = (TAILS + d) / (TAILS + square)
        log_t = -(TAILS + d) / 2 * np.log1p(square / TAILS) - np.linalg.slogdet(scatter)[1] / 2
        share = np.where(own == 1, 1 - rho, rho / (c - 1)) * r.sum(axis=0) / n
        logs = log_t + np.log(np.maximum(share, np.finfo(float).tiny))
        whole = np.logaddexp.reduce(logs, axis=1)
        r = np.exp(logs - whole[:, None])
        if whole.sum() - before < ENOUGH:
            break
        before = whole.sum()
    wrong = ((1 - own) * r).sum(axis=1)  # 1 - r at the label without cancellation
    return float(whole.sum()), wrong, float(wrong.mean())


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
