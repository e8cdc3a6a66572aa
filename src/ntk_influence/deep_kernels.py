"""Neural tangent kernels of infinitely wide ReLU networks with many layers, in closed form."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from . import _check

TRAINED = ("all", "first")
MEMORY = 2**26
# What is alive at once of a layer: covariances, kernels, angles and what they are made from.
ARRAYS = 13


def deep_ntk(
    X: Float[Tensor, "n d"],
    Z: Float[Tensor, "n2 d"] | None = None,
    *,
    depth: int,
    train: str = "all",
) -> Float[Tensor, "n n2"]:
    r"""Neural tangent kernel of a fully connected ReLU network with several hidden layers.

    The network is $f(x) = \frac{1}{\sqrt m}\sum_r a_r\,\sigma(u^L_r)$ with $L$ hidden layers,
    $u^1 = W^1 x$ and $u^{l+1} = \sqrt{2/m}\,W^{l+1} \sigma(u^l)$. All weights are $N(0, 1)$, of $a$
    perhaps signs, and without biases; the factors stay outside of what is trained (NTK
    parametrisation). So every pre-activation has variance one, as $\mathbb E\,\sigma(u)^2 =
    \frac12$, and the output has variance one half at any depth. With one hidden layer this is the
    network of equation (1).

    In the limit of width $\mathbb E[u^l(x)\,u^l(z)] = \rho_l$, with $\rho_1 = x^\top z$ and
    $\rho_{l+1} = \kappa_1(\rho_l)$. For a pair $(u, v)$ of variances one and covariance $\rho =
    \cos\theta$

    .. math::

        \kappa_0(\rho) &= 2\,\mathbb E\,\sigma'(u)\,\sigma'(v) = \frac{\pi - \theta}{\pi}, \\
        \kappa_1(\rho) &= 2\,\mathbb E\,\sigma(u)\,\sigma(v)
        = \frac{\sin\theta + (\pi - \theta)\,\rho}{\pi}.

    The gradients by the weights of layer $l + 1$ have the product $\kappa_1(\rho_l)$; those by the
    weights below reach it through the kink, which multiplies by $\kappa_0(\rho_l)$. From $\Theta_1
    = \rho_1$,

    - all layers, read-out $a$ included: $\Theta_{l+1} = \kappa_0(\rho_l)\,\Theta_l + \rho_{l+1}$,
    - the first alone: $\Theta_{l+1} = \kappa_0(\rho_l)\,\Theta_l$, a product of $L$ factors,

    and the kernel is $\frac12 \Theta_{L+1}$. On the diagonal it is exactly $(L + 1) / 2$ and
    $\frac12$. With ``depth=1, train="first"`` it is `relu_ntk`, to the last bit.

    **The two are not multiples of each other.** At depth one the read-out adds $\frac12 \kappa_1$
    to equation (4), which doubles the diagonal, but not the rest: a ridge that suits one does not
    suit the other, and a library that trains all layers does not compute (4). Another factor
    in front of a layer, though, multiplies both kernels by its square: without the $\sqrt 2$ of the
    $L - 1$ layers between the first and the read-out they are $2^{1-L}$ times these.

    Pairs whose cosine differs from 1 by rounding only count as equal, as in `relu_ntk`. Derivatives
    pass through; between equal or opposite points, where there is none, they are 0.

    Parameters
    ----------
    X : (n, d) tensor with unit rows.
    Z : (n2, d) tensor with unit rows, of the same dtype and device; ``X`` itself if left out.
    depth : number $L \ge 1$ of hidden layers.
    train : ``"all"`` layers, or the ``"first"`` alone as in the paper.

    Returns
    -------
    (n, n2) tensor of the same dtype and device, no unit.

    Raises
    ------
    ValueError
        Rows not of unit norm, NaN or infinity, wrong shapes, mixed dtypes or devices, a depth that
        is no positive integer, another word than those two, a kernel that does not fit into the
        memory.

    Source: Cho and Saul 2009; Jacot et al. 2018; Arora et al. 2019 (exact computation).
    """
    depth = _check.integer("depth", depth)
    known = isinstance(train, str) and train in TRAINED
    _check.require(known, "train", f"one of {', '.join(TRAINED)}", repr(train))
    X, Z = _check.unit_points(X, Z)
    entries = len(X) * len(X if Z is None else Z)
    kept = depth + 1 if _followed(X, Z) else 1
    _check.fits("X", "a kernel", kept * ARRAYS * entries * X.element_size(), X.device)
    cosine = X @ (X if Z is None else Z).T
    cosine = _snapped(cosine.fill_diagonal_(1) if Z is None else cosine)
    tangent = cosine
    for _ in range(depth):
        slopes, cosine = _arc_cosine(cosine)
        tangent = slopes * tangent
        if train == "all":
            tangent = tangent + cosine
    return tangent / 2


def conv_ntk(
    images: Float[Tensor, "n h w"] | Float[Tensor, "n h w c"],
    other: Float[Tensor, "n2 h w"] | Float[Tensor, "n2 h w c"] | None = None,
    *,
    depth: int,
    kernel_size: int,
    memory: int = MEMORY,
) -> Float[Tensor, "n n2"]:
    r"""Neural tangent kernel of a convolutional ReLU network without pooling, all layers trained.

    There are $L$ convolutions with stride 1 and a window of $k \times k$ positions, zeros around
    the image, and then a fully connected read-out of all $h w$ positions. At position $p$ and
    channel $r$, with $\delta$ running through the window,

    .. math::

        u^1_r(p) &= \frac{\sqrt{hw}}{k} \sum_{\delta, j} W^1_{r j \delta}\, x_j(p + \delta), \\
        u^{l+1}_r(p) &= \frac{\sqrt 2}{k \sqrt m} \sum_{\delta, j} W^{l+1}_{r j \delta}\,
        \sigma(u^l_j(p + \delta)), \\
        f(x) &= \frac{1}{\sqrt{m h w}} \sum_{p, r} a_{p r}\,\sigma(u^L_r(p)).

    All weights are $N(0, 1)$ and trained, without biases (NTK parametrisation). An image has norm
    one, over all pixels and channels: its pixels have the mean square $1 / hw$, and but for
    windows that reach over the edge pre-activations have variance one on average. With one pixel
    and ``kernel_size=1`` this is `deep_ntk` of its channels.

    Weights of the read-out differ between positions and are independent, so that only covariances
    of *equal* positions enter. With $B$, the mean over the window with zeros outside of the image,
    and $\rho_l = \Sigma_l / (s_l(x)\,s_l(z))$, where $s_l(x)^2$ is $\Sigma_l$ of $x$ with itself,

    .. math::

        \Sigma_1 &= \Theta_1 = hw\,B\Bigl[\sum_j x_j z_j\Bigr], \\
        \Sigma_{l+1} &= B\bigl[s_l(x)\,s_l(z)\,\kappa_1(\rho_l)\bigr], \\
        \Theta_{l+1} &= \Sigma_{l+1} + B\bigl[\kappa_0(\rho_l)\,\Theta_l\bigr], \\
        K &= \frac{1}{2hw} \sum_p \bigl[s_L(x)\,s_L(z)\,\kappa_1(\rho_L)
        + \kappa_0(\rho_L)\,\Theta_L\bigr](p),

    with $\kappa_0, \kappa_1$ of `deep_ntk`. A position where one of the images is zero over the
    whole window has no angle; nothing comes from it, and it adds zero. Pairs are taken in blocks:
    the cost is that of $n\,n_2\,h\,w$ numbers a layer, the memory that of a block.

    Derivatives pass through; where there is none (equal or opposite windows, windows of zeros) they
    are 0. With them all blocks stay in memory.

    Parameters
    ----------
    images : (n, h, w) or (n, h, w, c) tensor of images, each of norm one.
    other : (n2, h, w) or (n2, h, w, c) tensor alike; ``images`` themselves if left out.
    depth : number $L \ge 1$ of convolutions.
    kernel_size : odd width $k$ of the window, at most $2 \max(h, w) - 1$.
    memory : bytes for one block of pairs; the kernel does not depend on it.

    Returns
    -------
    (n, n2) tensor of the same dtype and device, no unit.

    Raises
    ------
    ValueError
        Images not of unit norm, so images of zeros, NaN or infinity, wrong shapes, mixed dtypes or
        devices, a depth or window out of range, a memory that cannot hold one pair, a kernel that
        does not fit into the memory.

    Source: Arora et al. 2019 (exact computation), without pooling; Novak et al. 2020.
    """
    depth, memory = _check.integer("depth", depth), _check.integer("memory", memory)
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
    pair = ARRAYS * h * w * images.element_size()
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
            block = _conv_block(left, right, rows, slice(j, j + wide), window)
            kernel[rows, j : j + wide] = block
            if other is None:
                kernel[j : j + wide, rows] = block.T
    return kernel


def _arc_cosine(
    cosine: Float[Tensor, "*pairs"],
) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]]:
    r"""$\kappa_0$ and $\kappa_1$ of a cosine; both are exactly 1 at 1 and 0 at -1."""
    cosine = _snapped(cosine)
    both_active = (math.pi - torch.arccos(cosine)) / math.pi
    sine = ((1 - cosine) * (1 + cosine)).sqrt()
    return both_active, both_active * cosine + sine / math.pi


def _snapped(cosine: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """Cosines, those that miss 1 or -1 by rounding put there and held."""
    rounding = 16 * torch.finfo(cosine.dtype).eps
    cosine = cosine.masked_fill(cosine > 1 - rounding, 1)
    return cosine.masked_fill(cosine < rounding - 1, -1)


def _followed(*tensors: Tensor | None) -> bool:
    """Whether derivatives are kept of what is computed now."""
    asked = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return asked and torch.is_grad_enabled()


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


def _conv_block(
    left: tuple[list[Tensor], list[Tensor]],
    right: tuple[list[Tensor], list[Tensor]],
    rows: slice,
    columns: slice,
    window: int,
) -> Float[Tensor, "block_rows block_columns"]:
    """The kernel of some pairs of images, from what `_deviations` made of them."""

    def products(of_left: Tensor, of_right: Tensor) -> Tensor:
        return of_left[rows, None] * of_right[None, columns]

    after = sum(products(*channels) for channels in zip(left[0], right[0], strict=True))
    tangent = 0 * after
    for s_left, s_right in zip(left[1], right[1], strict=True):
        covariance = _box(after, window)
        tangent = covariance + _box(tangent, window)
        scale = products(s_left, s_right)
        slopes, expected = _arc_cosine(covariance / scale.masked_fill(scale == 0, 1))
        after, tangent = scale * expected, slopes * tangent
    return (after + tangent).mean(dim=(-2, -1)) / 2
