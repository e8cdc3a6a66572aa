"""The neural tangent kernel of any torch module, from the gradients of its outputs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import _check

OUTPUTS = ("trace", "full")


@torch.no_grad()
def empirical_ntk(
    model: nn.Module,
    X: Tensor,
    Z: Tensor | None = None,
    *,
    outputs: str = "trace",
    budget: int = 2**30,
) -> Float[Tensor, "n n2"] | Float[Tensor, "n n2 c c"]:
    r"""Gram matrix of the gradients of a module's outputs in its trainable parameters.

    $K(x, z)_{kl} = \nabla_\theta f_k(x)^\top \nabla_\theta f_l(z)$ at the current weights, over the
    parameters that require a gradient. By default the mean over the c outputs, $\frac1c\sum_k
    K_{kk}$: in the Frobenius norm $K \otimes I$ is then nearest to the whole, and
    `fit_kernel_ridge` takes it with (n, c) labels. Of one output it is the kernel itself. Gradients
    are taken point by point, in blocks that stay within the budget.

    The module is evaluated in eval mode: no dropout, batch normalisation by its running statistics.
    Its modes, parameters, gradients and buffers are left as they were.

    Parameters
    ----------
    model : maps a batch of points to (n,) or (n, c) outputs, each point by itself; on the device
        and in the dtype of its parameters.
    X : (n, ...) tensor of points, vectors or images: whatever the module takes. Points in floating
        point share dtype and device with the parameters; integers (tokens) share the device.
    Z : (n2, ...) tensor of points of the same shape; ``X`` itself if left out.
    outputs : ``"trace"`` for the mean over the outputs, ``"full"`` for all pairs of them.
    budget : bytes for gradients and what it takes to compute them, the result apart. The fewer, the
        more often gradients of ``Z`` are computed anew.

    Returns
    -------
    (n, n2) tensor, or with ``"full"`` (n, n2, c, c), where c is 1 for outputs without an axis. No
    unit; no gradient is followed.

    Raises
    ------
    ValueError
        No module, nothing trainable in it, outputs of another shape or not finite, batch
        normalisation without running statistics; points that the module does not take, NaN or
        infinity, mixed dtypes or devices; a budget too small for one point; a kernel that does not
        fit into the memory.

    Source: Jacot, Gabriel and Hongler 2018; the trace over outputs as in Novak et al. 2020.
    """
    model, weights = _trainable(model)
    X = _points("X", X, weights)
    if Z is not None:
        Z = _points("Z", Z, weights)
        _check.require(Z.dtype == X.dtype, "Z", f"the dtype of X ({X.dtype})", Z.dtype)
        ours, theirs = tuple(Z.shape), ", ".join(map(str, ("n", *X.shape[1:])))
        _check.require(Z.shape[1:] == X.shape[1:], "Z", f"shape ({theirs}) as X", f"shape {ours}")
    known = outputs in OUTPUTS
    _check.require(known, "outputs", " or ".join(map(repr, OUTPUTS)), _check._shown(outputs))
    budget = _check.integer("budget", budget)
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        return _gram(_Gradients(model, weights), X, Z, outputs == "full", budget)
    finally:
        for module, training in modes.items():
            module.training = training


def _gram(gradients: "_Gradients", X: Tensor, Z: Tensor | None, full: bool, budget: int) -> Tensor:
    """The kernel, block by block; without ``Z`` only those on and below the diagonal."""
    c, rows = _plan(gradients, X, budget)
    n, others, g = len(X), (X if Z is None else Z), c if full else 1
    reference = next(iter(gradients.weights.values()))
    size = 2 * reference.element_size() * n * len(others) * g**2
    _check.fits("X", "a kernel and the budget", size + budget, X.device)
    kernel = reference.new_zeros(n, g, len(others), g)
    for i in range(0, n, rows):
        left = gradients(X[i : i + rows])
        for j in range(0, i + 1 if Z is None else len(others), rows):
            on_diagonal = Z is None and i == j
            right = left if on_diagonal else gradients(others[j : j + rows])
            block = _products(left, right, full)
            del right  # before the next ones are made
            if on_diagonal:
                block = block.tril() + block.tril(-1).T
            a, b = len(X[i : i + rows]), len(others[j : j + rows])
            kernel[i : i + rows, :, j : j + rows] = block.view(a, g, b, g)
            if Z is None:
                kernel[j : j + rows, :, i : i + rows] = block.T.reshape(b, g, a, g)
        del left
    finite = bool(torch.isfinite(kernel).all())
    _check.require(finite, "model", "finite gradients", "NaN or infinite ones")
    return kernel.transpose(1, 2) if full else kernel.view(n, len(others)).div_(c)


def _products(left: list[Tensor], right: list[Tensor], full: bool) -> Tensor:
    """Inner products of the gradients of all points, or of all points and outputs."""
    block = 0
    for a, b in zip(left, right, strict=True):
        axes = 2 if full else 1  # what is left of (points, outputs, ...)
        A, B = (part.flatten(0, axes - 1).flatten(1) for part in (a, b))
        block = block + A @ B.T
    return block


def _plan(gradients: "_Gradients", X: Tensor, budget: int) -> tuple[int, int]:
    """Number of outputs, and of points whose gradients are held while as many are computed."""
    try:
        c = len(gradients.outputs(X[0]))
        held = c * sum(w.numel() * w.element_size() for w in gradients.weights.values())
        needed, rows = 3 * held, 0
        if needed <= budget:
            one, two = (_allocated(gradients, X[:1].expand(k, *X.shape[1:])) for k in (1, 2))
            more = max(two - one, held)
            needed = one + held
            rows = 1 + (budget - needed) // (more + held)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).split("\n")[0]
        got = f"{type(error).__name__}: {reason}"
        _check.require(False, "model", "a module that takes each point of X by itself", got)
    expected = f"at least {needed:,} bytes, what the gradients of one point take"
    _check.require(rows > 0, "budget", expected, f"{budget:,}")
    return c, rows


def _allocated(gradients: "_Gradients", points: Tensor) -> int:
    """Bytes of all tensors that are made on the way to the gradients: no less than the peak."""
    with _Bytes() as made:
        gradients(points)
    return made.count


class _Gradients:
    """Gradients of all outputs at points, a list of (points, c, *weight) tensors."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        self.model, self.weights = model, weights
        self.buffers = {name: b.detach().clone() for name, b in model.named_buffers()}

    def outputs(self, x: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """Outputs at one point, (c,)."""
        state = self.buffers | (self.weights if weights is None else weights)
        f = functional_call(self.model, state, (x[None],))
        shape = f"shape {tuple(f.shape)} of one" if isinstance(f, Tensor) else type(f).__name__
        if not isinstance(f, Tensor) or f.ndim not in (1, 2) or len(f) != 1 or f.numel() == 0:
            raise TypeError(f"an output of {shape} where (n,) or (n, c) is expected")
        return f.flatten()

    def __call__(self, points: Tensor) -> list[Tensor]:
        one = jacrev(lambda weights, x: self.outputs(x, weights))
        return list(vmap(one, in_dims=(None, 0))(self.weights, points).values())


class _Bytes(TorchDispatchMode):
    """Counts the memory of every tensor that is made, views and changes in place apart."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        known = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        fresh = (t for t in tree_leaves(made) if isinstance(t, Tensor))
        self.count += sum(t.numel() * t.element_size() for t in fresh if _storage(t) not in known)
        return made


def _storage(tensor: Tensor) -> int:
    """What views of the same memory have in common."""
    return tensor.untyped_storage()._cdata


def _trainable(model: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """A module, and what of it is trained, without the graph of the module."""
    model = _check.instance("model", model, nn.Module)
    weights = {name: w.detach() for name, w in model.named_parameters() if w.requires_grad}
    _check.require(len(weights) > 0, "model", "parameters that require a gradient", "none")
    first, reference = next(iter(weights.items()))
    for name, w in weights.items():
        _check.tensor(f"model.{name}", w, (w.ndim,))
        _check.alike(f"model.{name}", w, first, reference)
    for name, module in model.named_modules():
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
        expected = "batch normalisation by running statistics"
        _check.require(not batch, "model", expected, f"statistics of the batch in {name or 'it'}")
    return model, weights


def _points(argument: str, value: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Finite points on the device of the weights and, unless they are integers, of their dtype."""
    reference = next(iter(weights.values()))
    _check.require(isinstance(value, Tensor), argument, "a torch tensor", type(value).__name__)
    whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    if not whole:
        value = _check.tensor(argument, value, (max(value.ndim, 1),))
        _check.alike(argument, value, "the model", reference)
    there = value.device == reference.device
    _check.require(there, argument, f"the device of the model ({reference.device})", value.device)
    filled = value.ndim > 0 and value.numel() > 0
    _check.require(filled, argument, "at least one point", f"shape {tuple(value.shape)}")
    return value.detach()
