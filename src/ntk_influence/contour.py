r"""Quadrature of the inverse Laplace transform: the share of a direction that is fitted in a time.

$\frac{1 - e^{-s}}{s}$ becomes a sum of few resolvents $\frac{w_k}{z_k + s}$, each of which has a
leave-one-out formula of its own.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from . import _check

ON_CPU = {"dtype": torch.float64, "device": "cpu"}
CIRCLE = 48  # nodes of the circle that is exact to rounding for a few steps of gradient descent


@dataclass(frozen=True, eq=False)
class Contour:
    r"""Nodes and weights with $(1 - e^{-s}) / s \approx \mathrm{Re} \sum_k w_k / (z_k + s)$.

    Attributes
    ----------
    z, w : (N/2,) complex tensors, those of the N nodes that lie in the upper half plane.
    accuracy : largest error over all $s \ge 0$, measured, times $\max(1, s)$.
    """

    z: Complex[Tensor, "half"]
    w: Complex[Tensor, "half"]
    accuracy: float

    @property
    def nodes(self) -> int:
        """The number N of nodes, of which conjugate symmetry saves half."""
        return 2 * len(self.z)


def contour(accuracy: float = 1e-10) -> Contour:
    r"""The shortest quadrature of the inverse Laplace transform that is as accurate as asked.

    $\frac{1 - e^{-s}}{s} = \frac1{2\pi i} \int \frac{e^z}{z} \frac{dz}{z + s}$ by the midpoint rule
    on the parabola $z(\theta) = N (0.1309 - 0.1194\,\theta^2 + 0.25\,i\theta)$. The integral is
    real, so the nodes of the upper half plane count twice.

    Parameters
    ----------
    accuracy : a number from 1e-13 to 1e-2
        Of a direction with eigenvalue $a$ the share $1 - e^{-at}$ is fitted up to this error.

    Returns
    -------
    Contour
        With the accuracy that was reached.

    Raises
    ------
    ValueError
        An accuracy out of range.

    Source: Weideman and Trefethen 2007.
    """
    accuracy = _check.nonnegative("accuracy", accuracy)
    _check.require(1e-13 <= accuracy <= 1e-2, "accuracy", "a number from 1e-13 to 1e-2", accuracy)
    return _contour(accuracy)


@cache
def _contour(accuracy: float) -> Contour:
    """The rule of `contour`, made once."""
    s = torch.cat([torch.zeros(1, **ON_CPU), torch.logspace(-4, 12, 801, **ON_CPU)])
    exact = fitted(s, 1.0)
    for nodes in range(4, 44, 2):
        rule = parabola(nodes, s, exact)
        if rule.accuracy <= accuracy:
            return rule
    raise AssertionError(f"no rule of up to 42 nodes reaches {accuracy:g}")


def fitted(a: Float[Tensor, "n"], t: float, step: float | None = None) -> Float[Tensor, "n"]:
    r"""$(1 - e^{-at}) / a$; with steps, $e^{-a\eta}$ is $1 - a\eta$ instead."""
    if t == 0:
        return torch.zeros_like(a)
    rate = a if step is None else -torch.log1p((-step * a).clamp(min=-1)) / step
    return torch.where(a == 0, t, -torch.expm1(-rate * t) / a)


def parabola(nodes: int, s: Float[Tensor, "k"], exact: Float[Tensor, "k"]) -> Contour:
    """The midpoint rule with that many nodes, and its error against exact values."""
    theta = (torch.arange(nodes // 2, **ON_CPU) + 0.5) * (2 * math.pi / nodes)
    z = nodes * torch.complex(0.1309 - 0.1194 * theta.square(), 0.25 * theta)
    velocity = nodes * torch.complex(-2 * 0.1194 * theta, torch.full_like(theta, 0.25))
    w = 2 / (1j * nodes) * torch.exp(z) / z * velocity
    error = ((w / (z + s[:, None])).sum(dim=1).real - exact).abs() * s.clamp(min=1)
    return Contour(z, w, float(error.max()))


def of_steps(rule: Contour, count: int) -> tuple[Complex[Tensor, "half"], Complex[Tensor, "half"]]:
    r"""The same for a number of steps of gradient descent, in the unit of the step.

    $1 + z = e^\omega$ maps the parabola in $\omega$; it needs a few steps to have room, and before
    that a circle around all $1 - \eta a$ is exact to rounding.
    """
    if count < 8:
        half = CIRCLE // 2
        angle = (torch.arange(half, **ON_CPU) + 0.5) * (2 * math.pi / CIRCLE)
        circle = torch.exp(1j * angle)
        zeta = 0.5 + circle
        return zeta - 1, circle / half * (1 - zeta**count) / (1 - zeta)
    omega = rule.z / count
    z = torch.expm1(omega)
    return z, rule.w * omega * torch.exp(omega) / z


def weighted(
    A: Float[Tensor, "block n"], B: Complex[Tensor, "n half"]
) -> Complex[Tensor, "block half"]:
    """A real matrix times a complex one, in one pass over the real one."""
    return torch.complex(*(A @ torch.cat([B.real, B.imag], dim=1)).chunk(2, dim=1))


def sum_over_nodes(
    U: Float[Tensor, "block n"], R: Complex[Tensor, "n half"], Q: Complex[Tensor, "block half"]
) -> Float[Tensor, "block n"]:
    r"""$U \circ \mathrm{Re}\, Q R^\top$; times the test kernel it is the change."""
    V = torch.cat([Q.real, -Q.imag], dim=1) @ torch.cat([R.real, R.imag], dim=1).T
    return V.mul_(U)


def stable(argument: str, step: object, largest: float) -> float | None:
    """A step at which no direction overshoots, or None for the flow."""
    if step is None:
        return None
    step, most = _check.nonnegative(argument, step), 1 / max(largest, 1e-100)
    expected = f"a number above 0, at most {most:.6g}, 1 over the largest eigenvalue of K + ridge I"
    _check.require(1e-100 < step <= (1 + 1e-9) * most, argument, expected, step)
    return step


def refuse_between_steps(t: float, step: float) -> None:
    """A time is a multiple of the step up to its rounding, and of few enough to be counted."""
    whole = t == math.inf or (t / step < 1e15 and abs(t / step - round(t / step)) <= 1e-6)
    _check.require(whole, "times", f"multiples of the step {step:g}", f"{t:g}")


def refuse_late(last: float, a: Float[Tensor, "n"], ridge: float, accuracy: float) -> None:
    """Eigenvalues are right up to rounding; it must not matter beside their own size or 1/t."""
    rounding = float(a[-1] - ridge) * torch.finfo(a.dtype).eps
    needed, least = rounding / accuracy, float(a[0])
    if least > 0 and least >= needed:
        return
    latest = 1 / max(needed - least, 1e-300)
    expected = (
        f"at most {latest:.6g}, beyond which rounding exceeds the accuracy of {accuracy:g} "
        "for this kernel and ridge"
    )
    _check.require(last <= latest, "times", expected, f"{last:g} (a larger ridge helps)")
