"""Influence as others compute it, one function each, in our sign and scale.

All of them put something in the place of $H^{-1}$ in $r_i\\, j_i^\\top H^{-1} j_t\\, r_t$, and take
a `Linearised` problem: `Linearised.of_kernel`, `Linearised.of_network`, or features and residuals
of your own. In return they give an (n, n_test) tensor: positive for a helpful point, in the unit of
a loss that is a sum of halved squares, not divided by n. A problem's ``damped`` adds a damping.
Gradients of the arguments are not followed.

The Hessian of such a problem is $J^\\top J + \\lambda I$, a product of two matrices that are
there: products with it need no automatic differentiation and no library of curvature operators.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .influence import ihvp_influence, loo_influence
from .kronecker import ekfac, kfac
from .linearised import Linearised, descend, largest_curvature

__all__ = [
    "Linearised",
    "arnoldi",
    "conjugate_gradients",
    "descend",
    "ekfac",
    "gradient_dot",
    "ihvp",
    "kfac",
    "largest_curvature",
    "leverage_corrected",
    "lissa",
    "newton_step",
    "nystroem",
    "random_projection",
    "sketch",
    "unrolled",
]


def ihvp(problem: Linearised) -> Float[Tensor, "n n_test"]:
    """The exact inverse-Hessian-vector product in dual form: `ntk_influence.ihvp_influence`.

    Source: Koh and Liang 2017; in dual form Zhang and Zhang 2022, Eq. (13).
    """
    problem = _check.instance("problem", problem, Linearised)
    return ihvp_influence(*problem.dual)


def leverage_corrected(problem: Linearised) -> Float[Tensor, "n n_test"]:
    """IHVP divided by $1 - h_i$, first order in the change of the prediction.

    Source: Rad and Maleki 2020; Rubinstein and Hopkins 2025 (rescaled influence).
    """
    problem = _check.instance("problem", problem, Linearised)
    return ihvp_influence(*problem.dual, correct_leverage=True)


def newton_step(problem: Linearised) -> Float[Tensor, "n n_test"]:
    """The change of the test loss after one Newton step without each point; exact for ridge loss.

    At parameters that are not the minimum, the gradient of the whole loss is taken to be zero.

    Source: Rad and Maleki 2020; for ridge regression Zhang and Zhang 2022, Eq. (8) and (9).
    """
    problem = _check.instance("problem", problem, Linearised)
    return loo_influence(*problem.dual)


def conjugate_gradients(problem: Linearised, *, iterations: int) -> Float[Tensor, "n n_test"]:
    r"""Conjugate gradients on $H v = j_t$ from zero, a system for each test point.

    After k iterations the error in the norm of $H$ is at most $2 ((\sqrt c - 1)/(\sqrt c + 1))^k$
    of the solution's, $c$ the condition number.

    Source: Hestenes and Stiefel 1952; for influence Koh and Liang 2017.
    """
    problem = _check.instance("problem", problem, Linearised)
    iterations = _check.integer("iterations", iterations)
    residual = problem.J_test.T
    V, direction, size = torch.zeros_like(residual), residual, residual.square().sum(dim=0)
    for _ in range(iterations):
        bent = problem.hessian_times(direction)
        length = _ratio(size, (direction * bent).sum(dim=0))
        V, residual = V + length * direction, residual - length * bent
        new = residual.square().sum(dim=0)
        direction, size = residual + _ratio(new, size) * direction, new
    return problem.scores(V)


def lissa(
    problem: Linearised,
    *,
    depth: int,
    scale: float,
    batch: int | None = None,
    seed: int = 0,
) -> Float[Tensor, "n n_test"]:
    r"""The sum $\sum_{k \le \text{depth}} (I - H/\text{scale})^k j_t / \text{scale}$.

    ``scale`` is above half of the largest eigenvalue of $H$. With ``batch`` every term takes the
    Hessian of as many training points, drawn anew without repetition, as an estimate.

    Source: Agarwal, Bullins and Hazan 2017; for influence Koh and Liang 2017.
    """
    problem = _check.instance("problem", problem, Linearised)
    depth, scale = _check.integer("depth", depth), _check.positive("scale", scale)
    n, least = len(problem.J), largest_curvature(problem) / 2
    batch = n if batch is None else _check.integer("batch", batch)
    _check.require(batch <= n, "batch", f"an integer from 1 to {n}", batch)
    _check.require(scale > least, "scale", f"more than {least:.3g}, or it diverges", scale)
    generator = torch.Generator("cpu").manual_seed(_check.seed("seed", seed))
    V = problem.J_test.T
    for _ in range(depth):
        J = problem.J
        if batch < n:
            J = J[torch.randperm(n, generator=generator)[:batch].to(J.device)]
        bent = (n / batch) * (J.T @ (J @ V)) + problem.ridge * V
        V = problem.J_test.T + V - bent / scale
    finite = bool(torch.isfinite(V.sum()))
    _check.require(finite, "scale", "a scale at which no batch diverges", scale)
    return problem.scores(V / scale)


def nystroem(problem: Linearised, *, rank: int, seed: int) -> Float[Tensor, "n n_test"]:
    r"""The Nystroem approximation of $J^\top J$ from its products with random vectors.

    With $Q$ an orthonormal basis of $J \Omega$ it is $J^\top Q Q^\top J$, never more than $J^\top
    J$; where it vanishes, the inverse is $1 / \lambda$.

    Source: Williams and Seeger 2001; Frangella, Tropp and Udell 2023; for influence Hataya and
    Yamada 2023.
    """
    problem = _check.instance("problem", problem, Linearised)
    rank, n = _check.integer("rank", rank), len(problem.J)
    _check.require(rank <= n, "rank", f"an integer from 1 to {n}", rank)
    random = _gaussian(problem, problem.J.shape[1], rank, seed)
    B = torch.linalg.qr(problem.J @ random).Q.T @ problem.J
    system = B @ B.T
    system.diagonal().add_(problem.ridge)
    G = problem.J_test.T
    solved = torch.cholesky_solve(B @ G, torch.linalg.cholesky(system))
    return problem.scores((G - B.T @ solved) / problem.ridge)


def arnoldi(
    problem: Linearised, *, rank: int, iterations: int, seed: int
) -> Float[Tensor, "n n_test"]:
    """Leading eigenvectors of H in a Krylov subspace; where they vanish, the inverse is zero.

    The subspace is spanned by a random vector and its products with H; H is symmetric, so this is
    Lanczos' iteration, with the basis made orthogonal again in each step.

    Source: Lanczos 1950, Arnoldi 1951; for influence Schioppa et al. 2022.
    """
    problem = _check.instance("problem", problem, Linearised)
    rank, p = _check.integer("rank", rank), problem.J.shape[1]
    iterations = _check.integer("iterations", iterations)
    _check.require(rank <= iterations, "rank", f"at most {iterations}, the iterations", rank)
    first = _gaussian(problem, p, 1, seed)
    eps, basis = torch.finfo(first.dtype).eps, first / first.norm()
    negligible = 1e3 * eps * largest_curvature(problem)
    for _ in range(min(iterations, p) - 1):
        new = problem.hessian_times(basis[:, -1:])
        new = new - basis @ (basis.T @ new)
        if new.norm() <= negligible:
            break
        new = new / new.norm()  # before it is made orthogonal again: it may have been small
        new = new - basis @ (basis.T @ new)
        basis = torch.cat([basis, new / new.norm()], dim=1)
    values, vectors = torch.linalg.eigh(basis.T @ problem.hessian_times(basis))
    values, E = values[-rank:], basis @ vectors[:, -rank:]
    return problem.scores(E @ ((E.T @ problem.J_test.T) / values[:, None]))


def random_projection(problem: Linearised, *, size: int, seed: int) -> Float[Tensor, "n n_test"]:
    """IHVP of features that went through a Gaussian sketch: TRAK with one network, and with ridge.

    Source: Park et al. 2023.
    """
    problem = _check.instance("problem", problem, Linearised)
    return ihvp(problem.through(sketch(problem, size=size, seed=seed)))


def sketch(problem: Linearised, *, size: int, seed: int) -> Float[Tensor, "p size"]:
    """Independent Gaussian entries of variance 1 / size: inner products are right on average."""
    problem = _check.instance("problem", problem, Linearised)
    size = _check.integer("size", size)
    return _gaussian(problem, problem.J.shape[1], size, seed) / size**0.5


def gradient_dot(
    checkpoints: Sequence[Linearised], *, steps: Sequence[float]
) -> Float[Tensor, "n n_test"]:
    r"""Inner products of gradients along training, $\sum_c \eta_c\, r_i\, j_i^\top j_t\, r_t$.

    ``steps`` holds for each checkpoint the step size times the number of steps it stands for.

    Source: Pruthi et al. 2020 (TracIn).
    """
    checkpoints, steps = _checkpoints(checkpoints, "steps", steps)
    parts = [step * c.scores(c.J_test.T) for c, step in zip(checkpoints, steps, strict=True)]
    return torch.stack(parts).sum(dim=0)


def unrolled(
    checkpoints: Sequence[Linearised], *, times: Sequence[float]
) -> Float[Tensor, "n n_test"]:
    r"""The derivative by the weight of a point through training, in segments.

    In a segment of time T (step size times number of steps) the residuals are those of its
    checkpoint. It moves the parameters by $(I - e^{-T H}) H^{-1} j_i r_i$, of which the later
    segments leave $e^{-T' H}$. The curvature is one and the same, as it is in the kernel regime,
    and the test residuals are those of the last checkpoint.

    Source: Bae et al. 2024 (SOURCE).
    """
    checkpoints, times = _checkpoints(checkpoints, "times", times)
    last = checkpoints[-1]
    same = all(torch.equal(c.J, last.J) and c.ridge == last.ridge for c in checkpoints)
    _check.require(same, "checkpoints", "the same features and ridge in all", "others")
    values, E = torch.linalg.eigh(last.J.T @ last.J)
    curvature, left, found = values.clamp(min=0) + last.ridge, 0.0, 0
    for checkpoint, time in zip(checkpoints[::-1], times[::-1], strict=True):
        inverse = torch.exp(-left * curvature) * -torch.expm1(-time * curvature) / curvature
        seen = (last.J @ E * inverse) @ (last.J_test @ E).T
        found, left = found + checkpoint.residual[:, None] * seen, left + time
    return found * last.residual_test


def _checkpoints(
    checkpoints: object, argument: str, numbers: object
) -> tuple[list[Linearised], list[float]]:
    """Refuse checkpoints that are none or differ in number from what comes with them."""
    checkpoints = [_check.instance("checkpoints", c, Linearised) for c in checkpoints]
    numbers = [_check.positive(argument, value) for value in numbers]
    _check.require(len(checkpoints) > 0, "checkpoints", "at least one", "none")
    expected = f"{len(checkpoints)} numbers, one a checkpoint"
    _check.require(len(numbers) == len(checkpoints), argument, expected, len(numbers))
    return checkpoints, numbers


def _gaussian(problem: Linearised, rows: int, columns: int, seed: int) -> Float[Tensor, "r c"]:
    """Gaussian numbers, drawn on the CPU so that one seed is one draw everywhere."""
    generator = torch.Generator("cpu").manual_seed(_check.seed("seed", seed))
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(problem.J)


def _ratio(a: Float[Tensor, "k"], b: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """a / b, and 0 where b is 0: a system that is solved is left alone."""
    return torch.where(b > 0, a / b.where(b > 0, torch.ones_like(b)), torch.zeros_like(a))
