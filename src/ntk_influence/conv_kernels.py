"""Neural tangent kernels of infinitely wide convolutional ReLU networks, in closed form."""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from . import _check
from .deep_kernels import ARRAYS, _arc_cosine, _followed

POOLING = ("none", "average")
MEMORY = 2**26


def conv_ntk(
    images: Float[Tensor, "n h w"] | Float[Tensor, "n h w c"],
    other: Float[Tensor, "n2 h w"] | Float[Tensor, "n2 h w c"] | None = None,
    *,
    depth: int,
    kernel_size: int,
    pooling: str = "none",
    memory: int = MEMORY,
) -> Float[Tensor, "n n2"]:
    r"""Neural tangent kernel of a convolutional ReLU network, all of whose layers are trained.

    There are $L$ convolutions with stride 1 and a window of $k \times k$ positions, zeros around
    the image, and then a fully connected read-out of all $h w$ positions, or of their mean. At
    position $p$ and channel $r$, with $\delta$ running through the window,

    .. math::

        u^1_r(p) &= \frac{\sqrt{hw}}{k} \sum_{\delta, j} W^1_{r j \delta}\, x_j(p + \delta), \\
        u^{l+1}_r(p) &= \frac{\sqrt 2}{k \sqrt m} \sum_{\delta, j} W^{l+1}_{r j \delta}\,
        \sigma(u^l_j(p + \delta)), \\
        f(x) &= \frac{1}{\sqrt{m h w}} \sum_{p, r} a_{p r}\,\sigma(u^L_r(p)), \qquad
        f(x) = \frac{1}{\sqrt m} \sum_r a_r\,\frac{1}{hw} \sum_p \sigma(u^L_r(p))

    with ``pooling="none"`` and with global average pooling, ``pooling="average"``. All weights are
    $N(0, 1)$ and trained, without biases (NTK parametrisation). An image has norm one, over all
    pixels and channels: its pixels have the mean square $1 / hw$, and but for windows that reach
    over the edge pre-activations have variance one on average. With one pixel and ``kernel_size=1``
    this is `deep_ntk` of its channels.

    Without pooling weights of the read-out differ between positions and are independent, so that
    only covariances of *equal* positions enter. With $B$, the mean over the window with zeros
    outside of the image, and $\rho_l = \Sigma_l / (s_l(x)\,s_l(z))$, where $s_l(x)^2$ is $\Sigma_l$
    of $x$ with itself,

    .. math::

        \Sigma_1 &= \Theta_1 = hw\,B\Bigl[\sum_j x_j z_j\Bigr], \\
        \Sigma_{l+1} &= B\bigl[s_l(x)\,s_l(z)\,\kappa_1(\rho_l)\bigr], \\
        \Theta_{l+1} &= \Sigma_{l+1} + B\bigl[\kappa_0(\rho_l)\,\Theta_l\bigr], \\
        K &= \frac{1}{2hw} \sum_p \bigl[s_L(x)\,s_L(z)\,\kappa_1(\rho_L)
        + \kappa_0(\rho_L)\,\Theta_L\bigr](p),

    with $\kappa_0, \kappa_1$ of `deep_ntk`. A position where one of the images is zero over the
    whole window has no angle; nothing comes from it, and it adds zero. Pairs are taken in blocks:
    the cost is that of $n\,n_2\,h\,w$ numbers a layer, the memory that of a block.

    With pooling one weight reads all positions, and every pair $(p, q)$ of a position of $x$ and
    one of $z$ counts. The recursion is the same for each pair, where $B$ is the mean over the
    moves $\delta$ of both, of $(p + \delta, q + \delta)$, and from the last line all pairs are
    added and divided by $2 (hw)^2$. That takes $n\,n_2\,(hw)^2$ numbers a layer: it is for small
    images, and for few. An image whose ink can be moved with nothing seen over the edge has the
    same kernel wherever it is.

    Derivatives pass through; where there is none (equal or opposite windows, windows of zeros) they
    are 0. With them all blocks stay in memory.

    Parameters
    ----------
    images : (n, h, w) or (n, h, w, c) tensor of images, each of norm one.
    other : (n2, h, w) or (n2, h, w, c) tensor alike; ``images`` themselves if left out.
    depth : number $L \ge 1$ of convolutions.
    kernel_size : odd width $k$ of the window, at most $2 \max(h, w) - 1$.
    pooling : ``"none"``, or the ``"average"`` over all positions after the last layer.
    memory : bytes for one block of pairs; the kernel does not depend on it.

    Returns
    -------
    (n, n2) tensor of the same dtype and device, no unit.

    Raises
    ------
    ValueError
        Images not of unit norm, so images of zeros, NaN or infinity, wrong shapes, mixed dtypes or
        devices, a depth or window out of range, another word than those two, a memory that cannot
        hold one pair, a kernel that does not fit into the memory.

    Source: Arora et al. 2019 (exact computation, with pooling); Novak et al. 2020 (without).
    """
    depth, memory = _check.integer("depth", depth), _check.integer("memory", memory)
    known = isinstance(pooling, str) and pooling in POOLING
    _check.require(known, "pooling", f"one of {', '.join(POOLING)}", repr(pooling))
    images = _checked_images("images", images)
    if other is not None:
        other = _checked_images("other", other)
        _check.alike("other", other, "images", images)
        shape, got = tuple(images.shape[1:]), tuple(other.shape[1:])
        _check.require(got == shape, "other", f"images of shape {shape} as in images", got)
    n, h, w = images.shape[:3]
    columns = n if other is None else len(other)
    window, most = _check.integer("kernel_size", kernel_size), 2 * max(h, w) - 1
    expected = f"an odd integer of at most {most} for images of {h} x {w}"
    _check.require(window % 2 == 1 and window <= most, "kernel_size", expected, window)
    positions = h * w if pooling == "none" else (h * w) ** 2
    pair = ARRAYS * positions * images.element_size()
    count = min(memory // pair, n * columns)
    _check.require(count > 0, "memory", f"at least {pair} bytes for a pair of images", memory)
    kept = (depth + 1) * n * columns if _followed(images, other) else count
    entries = (n + columns) * (images[0].numel() + (depth + 2) * h * w) + n * columns
    needed = kept * pair + entries * images.element_size()
    _check.fits("images", "a kernel", needed, images.device)

    left = _deviations(images, depth, window)
    right = left if other is None else _deviations(other, depth, window)
    kernel = images.new_empty(n, columns)
    wide = min(columns, count)
    for i in range(0, n, count // wide):
        rows = slice(i, i + count // wide)
        for j in range(i if other is None else 0, columns, wide):
            block = _block(left, right, rows, slice(j, j + wide), window, pooling)
            kernel[rows, j : j + wide] = block
            if other is None:
                kernel[j : j + wide, rows] = block.T
    return kernel


def _checked_images(argument: str, images: Tensor) -> Tensor:
    """Refuse what are not images of norm one."""
    images = _check.tensor(argument, images, (3, 4))
    _check.unit_rows(argument, images.flatten(1), "image")
    return images


def _box(values: Float[Tensor, "*n h w"], window: int) -> Float[Tensor, "*n h w"]:
    """Mean over the window around every position, with zeros outside of the image."""
    h, w = values.shape[-2:]
    stacked = values.reshape(-1, 1, h, w)
    return avg_pool2d(stacked, window, stride=1, padding=window // 2).view(values.shape)


def _deviations(
    images: Float[Tensor, "n h w"] | Float[Tensor, "n h w c"], depth: int, window: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Pixels by channel, stretched to a mean square of one, and standard deviations by layer."""
    h, w = images.shape[1:3]
    pixels = list((math.sqrt(h * w) * images).reshape(*images.shape[:3], -1).unbind(-1))
    square, deviations = sum(channel * channel for channel in pixels), []
    for _ in range(depth):
        variance = _box(square, window)
        blank = variance <= 0
        s = variance.masked_fill(blank, 1).sqrt().masked_fill(blank, 0)
        deviations.append(s)
        square = s * s
    return pixels, deviations


def _box_of_pairs(values: Float[Tensor, "*n h w h w"], window: int) -> Float[Tensor, "*n h w h w"]:
    """Mean over the moves of both positions that the window allows, zeros outside of the image."""
    for axis in (-2, -1):
        size, total = values.shape[axis], values.clone()
        for move in range(1, min(window // 2, size - 1) + 1):
            for a, b in ((0, move), (move, 0)):
                to, moved = (
                    v.narrow(axis - 2, at, size - move).narrow(axis, at, size - move)
                    for v, at in ((total, a), (values, b))
                )
                to += moved
        values = total
    return values / window**2


def _block(
    left: tuple[list[Tensor], list[Tensor]],
    right: tuple[list[Tensor], list[Tensor]],
    rows: slice,
    columns: slice,
    window: int,
    pooling: str,
) -> Float[Tensor, "block_rows block_columns"]:
    """The kernel of some pairs of images, from what `_deviations` made of them."""
    equal = pooling == "none"
    box, axes = (_box, (-2, -1)) if equal else (_box_of_pairs, (-4, -3, -2, -1))

    def products(of_left: Tensor, of_right: Tensor) -> Tensor:
        """At equal positions, or at all pairs of positions."""
        here, there = of_left[rows, None], of_right[None, columns]
        return here * there if equal else here[..., None, None] * there[..., None, None, :, :]

    after = sum(products(*channels) for channels in zip(left[0], right[0], strict=True))
    tangent = 0 * after
    for s_left, s_right in zip(left[1], right[1], strict=True):
        covariance = box(after, window)
        tangent = covariance + box(tangent, window)
        scale = products(s_left, s_right)
        slopes, expected = _arc_cosine(covariance / scale.masked_fill(scale == 0, 1))
        after, tangent = scale * expected, slopes * tangent
    return (after + tangent).mean(dim=axes) / 2
