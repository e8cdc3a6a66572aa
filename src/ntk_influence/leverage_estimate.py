"""All leverages at once, estimated from random signs, with their confidence."""

import math
from typing import NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from . import _check
from .iterative_ridge import IterativeKernelRidge


class LeverageEstimate(NamedTuple):
    r"""An estimate of all leverages: of each, value and ends of its interval; of their sum too.

    ``value``, ``lower``, ``upper`` (n,); ``total``, the effective dimension, and ``total_error``,
    half the length of its interval. Each interval alone, not all at once, has the ``confidence``.
    """

    value: Tensor
    lower: Tensor
    upper: Tensor
    total: float
    total_error: float
    confidence: float


def estimate_leverage(model: IterativeKernelRidge, *, confidence: float = 0.95) -> LeverageEstimate:
    r"""All n leverages, estimated from the probes of a model.

    $h_i = \hat h_i + \lambda\,[(\hat K + \lambda I)^{-1} - P]_{ii}$: the leverage in the kernel of
    low rank is computed, the rest is the mean of $\omega_i [\cdot\,\omega]_i$ over columns $\omega$
    of random signs, with the interval of Student's t. A sure one cuts it off, $\hat h_i \le h_i \le
    k_{ii} / (k_{ii} + \lambda)$. What the solver leaves over, at most $\|r\|$, widens it.

    Parameters
    ----------
    model : IterativeKernelRidge
        With two probes or more.
    confidence : of each interval, between 0 and 1.

    Returns
    -------
    LeverageEstimate

    Raises
    ------
    ValueError
        Less than two probes, a confidence that is not between 0 and 1.

    Source: Hutchinson 1989; Bekas, Kokiopoulou and Saad 2007; the control variate is the idea of
    Meyer, Musco, Musco and Woodruff 2021.
    """
    model = _check.instance("model", model, IterativeKernelRidge)
    signs, ridge = model.signs, model.system.ridge
    probes, confidence = signs.shape[1], _check.positive("confidence", confidence)
    _check.require(probes > 1, "model", "at least two probes", probes)
    _check.require(confidence < 1, "confidence", "a number below 1", confidence)
    sure, most = model.low_rank.leverage(ridge), model.system.diagonal
    x, r = model.probes.x, model.probes.residual
    rest = ridge * signs * (model.low_rank.solve(signs, ridge) - x)
    times = float(student.ppf((1 + confidence) / 2, probes - 1)) / math.sqrt(probes)
    solver = model.probes.norm.mean()
    value, half = sure + rest.mean(dim=1), times * rest.std(dim=1) + solver
    highest = most / (most + ridge)
    ends = [torch.clamp(end, sure, highest) for end in (value, value - half, value + half)]
    # w' P w = w' x + x' r + r' P r, of which the last term alone is not known
    sums = rest.sum(dim=0) - ridge * (x * r).sum(dim=0)
    off = model.probes.norm**2 + ridge * model.probes.rounding * torch.linalg.vector_norm(x, dim=0)
    total_error = times * float(sums.std()) + float(off.mean())
    return LeverageEstimate(*ends, float(sure.sum() + sums.mean()), total_error, confidence)
