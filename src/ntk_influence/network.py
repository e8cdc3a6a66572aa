"""The two-layer ReLU network of the paper, with its first layer free and its second layer fixed."""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check


@dataclass(frozen=True, eq=False)
class TwoLayerReLU:
    r"""The network $f(x) = \frac{1}{\sqrt m}\sum_r a_r\,\sigma(w_r^\top x)$, equation (1).

    Attributes
    ----------
    W : (m, d) tensor, one row per hidden unit; these weights are trained.
    a : (m,) tensor of signs +1 and -1, or (m, c) for c outputs; fixed.
    kink : $s \ge 0$, over which the kink of the activation is smoothed; 0 is ReLU, the paper's
        It is the mean of ReLU under Gaussian noise, $\sigma_s(z) = \mathbb E\,\sigma(z + s\xi)$.

    Raises
    ------
    ValueError
        Weights that are not finite; a negative kink; signs other than +1 and -1, not one for each
        unit, or of another dtype or device.
    """

    W: Float[Tensor, "m d"]
    a: Float[Tensor, "m"] | Float[Tensor, "m c"]
    kink: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse weights that are no network of the paper."""
        W, a = _check.tensor("W", self.W, (2,)), _check.tensor("a", self.a, (1, 2))
        _check.alike("a", a, "W", W)
        shape = f"shape {tuple(a.shape)}"
        _check.require(len(a) == len(W), "a", f"{len(W)} rows as in W", shape)
        other = a.detach().abs() != 1
        found = int(other.sum())
        _check.require(found == 0, "a", "signs +1 and -1", f"{found} other entries")
        object.__setattr__(self, "kink", _check.nonnegative("kink", self.kink))

    @staticmethod
    def initialise(
        dim: int,
        width: int,
        scale: float,
        seed: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        outputs: int | None = None,
        smoothing: float = 0.0,
    ) -> "TwoLayerReLU":
        r"""Draw $w_r \sim N(0, \kappa^2 I_d)$ and $a_r \sim U\{-1, 1\}$, all independent.

        The numbers are drawn on the CPU in float64 and then moved, so that one seed is one network
        on every device and in every dtype, and another scale only stretches its weights.

        Parameters
        ----------
        dim, width : $d \ge 1$ and $m \ge 1$.
        scale : $\kappa > 0$; the paper takes $\kappa \le 1$.
        seed : integer for the random numbers.
        device, dtype : where the weights go; the CPU and float64 by default.
        outputs : number c of outputs with signs of their own; one output without an axis if None.
        smoothing : width of the smoothed kink in units of the scale; 0 is ReLU.

        Raises
        ------
        ValueError
            A dimension, width or number of outputs that is not a positive integer, a scale that is
            not positive or too large for the dtype, a seed that is not an integer from 0 to
            2**32 - 1, an unknown device or dtype, weights that do not fit into the memory.

        Source: Zhang and Zhang 2022, Eq. (1) and the initialisation below it.
        """
        dim, width = _check.integer("dim", dim), _check.integer("width", width)
        scale, seed = _check.positive("scale", scale), _check.seed("seed", seed)
        outputs = None if outputs is None else _check.integer("outputs", outputs)
        smoothing = _check.nonnegative("smoothing", smoothing)
        device, dtype = _check.device("device", device), _check.dtype("dtype", dtype)
        _check.fits("width", "weights", 3 * 8 * width * dim, "cpu")
        generator = torch.Generator("cpu").manual_seed(seed)
        on_cpu = {"generator": generator, "device": "cpu"}
        W = (scale * torch.randn(width, dim, dtype=torch.float64, **on_cpu)).to(device, dtype)
        finite = bool(torch.isfinite(W.sum()))
        _check.require(
            finite, "scale", f"a number that leaves the weights finite in {dtype}", scale
        )
        shape = (width,) if outputs is None else (width, outputs)
        a = 2 * torch.randint(2, shape, **on_cpu) - 1
        return TwoLayerReLU(W, a.to(device, dtype), kink=smoothing * scale)

    def predict(self, X: Float[Tensor, "n d"]) -> Float[Tensor, "n"] | Float[Tensor, "n c"]:
        """Outputs f(x) for the rows of ``X``, shape (n,) or (n, c), equation (1)."""
        X = self.check_input("X", X)
        return activation(X @ self.W.T, self.kink) @ self.a / math.sqrt(len(self.a))

    def features(self, X: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        r"""Slopes $\sigma'(w_r^\top x)$, an (n, m) tensor.

        Of ReLU the activation patterns $1\{w_r^\top x \ge 0\}$, smoothed $\Phi(w_r^\top x / s)$.
        """
        X = self.check_input("X", X)
        return slope(X @ self.W.T, self.kink)

    def ntk(
        self, X: Float[Tensor, "n d"], Z: Float[Tensor, "n2 d"] | None = None
    ) -> Float[Tensor, "n n2"]:
        r"""Neural tangent kernel of this very network, $\nabla_W f(x)^\top \nabla_W f(z)$.

        $K_m(x, z) = \frac1m\, x^\top z \sum_r \sigma'(w_r^\top x)\,\sigma'(w_r^\top z)$, the
        average over m units of which equation (4) takes the expectation. It is the same for each of
        several outputs. Rows need not be of unit norm.

        Parameters
        ----------
        X : (n, d) tensor.
        Z : (n2, d) tensor; ``X`` itself if left out.

        Returns
        -------
        (n, n2) tensor.

        Raises
        ------
        ValueError
            Wrong shapes, NaN or infinity, mixed dtypes or devices; activation patterns that do not
            fit into the memory.

        Source: Zhang and Zhang 2022, Eq. (4).
        """
        A = self.features(X)
        if Z is None:
            return (X @ X.T).mul_(A @ A.T).div_(len(self.a))
        Z = self.check_input("Z", Z)
        return (X @ Z.T).mul_(A @ self.features(Z).T).div_(len(self.a))

    def check_input(self, argument: str, X: Tensor) -> Tensor:
        """Refuse inputs that are not (n, d), finite, alike the weights, and few enough."""
        X = _check.tensor(argument, X, (2,))
        _check.alike(argument, X, "the network", self.W)
        d = self.W.shape[1]
        _check.require(X.shape[1] == d, argument, f"{d} columns", f"shape {tuple(X.shape)}")
        patterns = 3 * len(X) * len(self.W) * X.element_size()
        _check.fits(argument, "activation patterns", patterns, X.device)
        return X


def activation(
    Z: Float[Tensor, "*n m"], kink: float, slopes: Float[Tensor, "*n m"] | None = None
) -> Float[Tensor, "*n m"]:
    r"""ReLU, or its mean under noise, $\sigma_s(z) = z\,\Phi(z / s) + s\,\varphi(z / s)$.

    Its ``slopes`` are $\Phi(z / s)$; where they are known they are not computed again.
    """
    if kink == 0:
        return torch.relu(Z)
    slopes = slope(Z, kink) if slopes is None else slopes
    u = Z / kink
    exponent = (-(u**2) / 2).clamp(min=-80)  # no sum notices less, and exp is slow where it fades
    density = torch.exp(exponent) / math.sqrt(2 * math.pi)
    return Z * slopes + kink * density


def slope(Z: Float[Tensor, "*n m"], kink: float) -> Float[Tensor, "*n m"]:
    r"""Its derivative: the pattern $1\{z \ge 0\}$, or $\Phi(z / s)$."""
    if kink == 0:
        return torch.ge(Z.detach(), 0, out=torch.empty_like(Z.detach()))  # no detour over bool
    return torch.special.ndtr(Z / kink)
