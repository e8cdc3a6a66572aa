"""The closed form in tiles on Dask equals the dense one; what is lost on the way is made again."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import RIDGE, small_network, unit_rows

import ntk_influence as ni
from ntk_influence import _check, scale

# 100 roundings x a condition number of at most 1 + 10 / 2e-3 x duals of at most 1 / 1e-3 are
# 1e-7 in the worst case; rounding adds up like a random walk, a thousandth of that. In float32,
# with a ridge of one, it is 100 roundings x a condition number below 10.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


@pytest.fixture(scope="module")
def dask():
    """Dask, where it is installed."""
    reason = "no Dask: the closed form in tiles is not tested (pip install -e '.[scale]')"
    pytest.importorskip("dask.array", reason=reason)
    distributed = pytest.importorskip("distributed", reason=reason)
    # Half a minute is what others wait for the dead.
    with import_module("dask").config.set({"distributed.comm.timeouts.connect": "3s"}):
        yield distributed


@pytest.fixture(scope="module")
def client(dask):
    """Two worker processes of one thread each."""
    with (
        dask.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="1GiB", dashboard_address=":0"
        ) as cluster,
        dask.Client(cluster) as client,
    ):
        yield client


class Case(NamedTuple):
    """Points and labels to learn from and to test on."""

    X: torch.Tensor
    y: torch.Tensor
    Z: torch.Tensor
    y_test: torch.Tensor


def make_case(n=30, n_test=4, outputs=None, dim=5, seed=0, dtype=torch.float64) -> Case:
    points = unit_rows(n + n_test, dim, seed, dtype)
    columns = () if outputs is None else (outputs,)
    generator = torch.Generator().manual_seed(seed + 1)
    y = (2 * torch.rand(n + n_test, *columns, generator=generator, dtype=torch.float64) - 1).to(
        dtype
    )
    return Case(points[:n], y[:n], points[n:], y[n:])


def dense(case: Case, ridge: float, group: list[int]) -> list[np.ndarray]:
    """What the functions for one process say."""
    model = ni.fit_kernel_ridge(ni.relu_ntk(case.X), case.y, ridge)
    k = ni.relu_ntk(case.Z, case.X)
    found = [model.dual, model.leverage, model.one_minus_leverage, model.predict(k)]
    found += [ni.leave_one_out(model, k), ni.loo_influence(model, k, case.y_test)]
    return [part.numpy() for part in (*found, ni.leave_group_out(model, k, group))]


def asked(model: scale.BlockedKernelRidge, case: Case, group: list[int]) -> list[np.ndarray]:
    """The same of a model in tiles."""
    Z = case.Z
    found = [model.dual, model.leverage, model.one_minus_leverage, model.predict(Z)]
    found += [scale.leave_one_out(model, Z), scale.loo_influence(model, Z, case.y_test)]
    return [*found, scale.leave_group_out(model, Z, group)]


def assert_same(found: list, expected: list, tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (type(a), a.dtype, a.shape) == (np.ndarray, b.dtype, b.shape)
        assert np.abs(a - b).max(initial=0) <= tolerance


# Equality


@settings(max_examples=25)
@given(
    n=st.integers(1, 10),
    chunks=st.integers(1, 12),
    n_test=st.integers(1, 5),
    outputs=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    ridge=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_dense_form_for_any_chunks(dask, n, chunks, n_test, outputs, dtype, ridge, seed):
    case = make_case(n, n_test, outputs, seed=seed, dtype=dtype)
    ridge = max(ridge, 1.0) if dtype == torch.float32 else ridge
    group = list(range(0, n, 3))[::-1]
    model = scale.fit_kernel_ridge(case.X, case.y, ridge, chunks=chunks, scheduler="synchronous")
    assert model.ridge == ridge
    assert_same(asked(model, case, group), dense(case, ridge, group), TOLERANCE[dtype])


@pytest.mark.parametrize("chunks", [200, 67])
def test_equals_the_dense_form_on_threads(dask, chunks):
    case = make_case(n=200, outputs=2)
    model = scale.fit_kernel_ridge(case.X, case.y, 0.1, chunks=chunks, scheduler="threads")
    assert_same(asked(model, case, [5, 150, 7]), dense(case, 0.1, [5, 150, 7]), 1e-10)


def test_real_digits(dask, digits):
    case = Case(digits.X, digits.y, digits.X_test, digits.y_test)
    model = scale.fit_kernel_ridge(digits.X, digits.y, 0.5, chunks=16, scheduler="threads")
    assert_same(asked(model, case, [0, 59]), dense(case, 0.5, [0, 59]), 1e-10)


def test_arrays_of_numpy_are_points_too(dask):
    case = make_case()
    arrays = Case(*(np.asfortranarray(part.numpy()) for part in case))
    fit = partial(scale.fit_kernel_ridge, chunks=16, scheduler="synchronous")
    found = asked(fit(arrays.X, arrays.y, 0.1), arrays, [3])
    for a, b in zip(found, asked(fit(case.X, case.y, 0.1), case, [3]), strict=True):
        assert np.array_equal(a, b)


def test_small_leverages_keep_their_accuracy(dask):
    case = make_case()
    fit = partial(scale.fit_kernel_ridge, case.X, case.y, chunks=7, scheduler="synchronous")
    expected = ni.fit_kernel_ridge(ni.relu_ntk(case.X), case.y, 1e12).leverage.numpy()
    # Relative: 1 - ridge P_ii would keep four digits of a leverage of 5e-13.
    np.testing.assert_allclose(fit(1e12).leverage, expected, rtol=1e-12)


def test_a_group_of_none_and_of_all(dask):
    case = make_case()
    model = scale.fit_kernel_ridge(case.X, case.y, 0.1, chunks=16, scheduler="synchronous")
    assert np.array_equal(scale.leave_group_out(model, case.Z, []), model.predict(case.Z))
    assert np.array_equal(scale.leave_group_out(model, case.Z, range(30)), np.zeros(4))


def test_another_kernel_needs_no_unit_rows(dask):
    case = make_case()
    X, Z = 3 * case.X, 3 * case.Z

    def gauss(A, B=None):
        return torch.exp(-torch.cdist(A, A if B is None else B).square() / 2)

    model = scale.fit_kernel_ridge(X, case.y, 0.1, kernel=gauss, chunks=7, scheduler="threads")
    expected = ni.leave_one_out(ni.fit_kernel_ridge(gauss(X), case.y, 0.1), gauss(Z, X))
    assert_same([scale.leave_one_out(model, Z)], [expected.numpy()], 1e-10)


# Processes, and what becomes of lost ones


def test_two_processes_and_a_scheduler_by_its_address(client):
    case, group = make_case(n=90, outputs=2), [80, 3]
    expected = dense(case, 0.1, group)
    model = scale.fit_kernel_ridge(case.X, case.y, 0.1, chunks=31)
    assert model.factor.work.client is client  # the one that is current
    assert_same(asked(model, case, group), expected, 1e-10)
    address = client.scheduler.address
    model = scale.fit_kernel_ridge(case.X, case.y, 0.1, chunks=31, scheduler=address)
    assert_same([model.leverage], expected[1:2], 1e-10)
    model.factor.work.client.close()


def test_a_worker_that_is_killed_takes_no_result_with_it(client, tmp_path):
    case, group = make_case(n=90), [80, 3]
    home, died = os.getpid(), tmp_path / "died"
    last = case.X[-1].numpy()

    def dies_once(A, B=None):
        if os.getpid() != home and (A[-1].numpy() == last).all() and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ni.relu_ntk(A, B)

    model = scale.fit_kernel_ridge(
        case.X, case.y, 0.1, kernel=dies_once, chunks=31, scheduler=client
    )
    assert died.exists()  # while tiles were made
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)  # with tiles of the factor
    assert_same(asked(model, case, group), dense(case, 0.1, group), 1e-10)


def test_a_worker_with_too_little_memory_is_told_which_chunks_would_fit(client):
    X = unit_rows(100_000, 2)
    with pytest.raises(ValueError, match=r"^chunks: expected .* GiB .*, got .* GiB") as refused:
        scale.fit_kernel_ridge(X, X[:, 0], 1.0, scheduler=client)
    sentence = str(refused.value)
    assert "100,000 points" in sentence
    fits = int(re.search(r"chunks of ([\d,]+) would fit", sentence)[1].replace(",", ""))
    budget = 0.8 * 2**30 - 2**29
    assert scale.needs(100_000, fits).at_once <= budget < scale.needs(100_000, 2048).at_once
    # Nothing that is larger by a tenth fits.
    assert scale.needs(100_000, fits + fits // 10).at_once > budget


@pytest.mark.parametrize("where", ["threads", "synchronous", "client"])
def test_progress_ends_with_all_tiles(dask, where, request, capsys):
    case, where = make_case(n=45), request.getfixturevalue("client") if where == "client" else where
    fit = partial(scale.fit_kernel_ridge, case.X, case.y, 0.1, chunks=11, scheduler=where)
    quiet = fit()
    assert capsys.readouterr() == ("", "")
    assert_same([fit(progress=True).leverage], [quiet.leverage], 1e-10)
    out, err = capsys.readouterr()
    assert " 20/20 " in err.splitlines()[-1]  # 15 tiles and 5 block columns
    assert ("dashboard: http" in out) == hasattr(where, "dashboard_link")


def test_a_scheduler_that_is_lost_is_one_sentence(dask):
    case = make_case()
    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with dask.LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        address = cluster.scheduler_address
        model = scale.fit_kernel_ridge(case.X, case.y, 0.1, chunks=16, scheduler=address)
    with pytest.raises(ConnectionError, match=r"^scheduler: expected .*, got .*fit again$"):
        scale.leave_one_out(model, case.Z)
    model.factor.work.client.close()


# Checkpoints


TO_LOSE = []


def lose():
    """Stop a scheduler in the middle of a task."""
    cluster = TO_LOSE.pop()
    cluster.loop.add_callback(cluster.scheduler.close)
    time.sleep(2)


class Folder:
    """Tensors in a folder; the disk is full after so many, or something else happens."""

    def __init__(self, path, room=10**6, then=None):
        self.path, self.room, self.then = Path(path), room, then

    def save(self, name, value):
        if len(list(self.path.iterdir())) >= self.room:
            if self.then:
                self.then()
            raise OSError(errno.ENOSPC, "No space left on device")
        np.save(self.path / f"{name}.npy", value.numpy())

    def load(self, name):
        path = self.path / f"{name}.npy"
        return torch.from_numpy(np.load(path)) if path.exists() else None


def test_what_was_kept_is_not_made_again(dask, tmp_path):
    case, made = make_case(n=50, outputs=2), []

    def counted(A, B=None):
        made.append(len(A))
        return ni.relu_ntk(A, B)

    def fit(ridge=0.1):
        made.clear()
        options = {"kernel": counted, "chunks": 11, "scheduler": "synchronous"}
        return scale.fit_kernel_ridge(case.X, case.y, ridge, checkpoint=Folder(tmp_path), **options)

    fit()
    before = len(made)
    assert len(list(tmp_path.iterdir())) == 5 * 6 // 2 + 5
    model = fit()
    assert len(made) <= before - 15  # the tiles of the system
    assert_same(asked(model, case, [4, 30]), dense(case, 0.1, [4, 30]), 1e-10)
    # Nothing of another problem is used.
    assert_same(asked(fit(0.2), case, [4, 30]), dense(case, 0.2, [4, 30]), 1e-10)
    assert len(list(tmp_path.iterdir())) == 40


@pytest.mark.parametrize("room", [0, 7, 17])
def test_a_full_disk_is_one_sentence_and_what_was_kept_is_kept(client, tmp_path, room):
    case = make_case(n=90)
    fit = partial(scale.fit_kernel_ridge, case.X, case.y, 0.1, chunks=19, scheduler=client)
    with pytest.raises(RuntimeError, match=r"^checkpoint: expected room for .*, got No space left"):
        fit(checkpoint=Folder(tmp_path, room))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) >= room
    model = fit(checkpoint=Folder(tmp_path))
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert_same(asked(model, case, [80, 3]), dense(case, 0.1, [80, 3]), 1e-10)


@pytest.mark.parametrize("progress", [False, True])
def test_a_scheduler_that_is_lost_on_the_way_leaves_what_was_kept(dask, tmp_path, progress):
    case = make_case(n=90)
    fit = partial(scale.fit_kernel_ridge, case.X, case.y, 0.1, chunks=19)
    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with dask.LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        TO_LOSE.append(cluster)
        fit = partial(fit, progress=progress)
        with pytest.raises(ConnectionError, match=r"^scheduler: .* but for those of a checkpoint"):
            fit(scheduler=cluster.scheduler_address, checkpoint=Folder(tmp_path, 6, lose))
    assert len(list(tmp_path.iterdir())) >= 6
    model = fit(scheduler="synchronous", checkpoint=Folder(tmp_path))
    assert_same(asked(model, case, [80, 3]), dense(case, 0.1, [80, 3]), 1e-10)


@pytest.mark.usefixtures("without_annotations")
def test_what_is_no_checkpoint_is_refused(dask):
    with pytest.raises(ValueError, match=r"^checkpoint: expected a save method, got int"):
        scale.fit_kernel_ridge(CASE.X, CASE.y, 0.1, scheduler="synchronous", checkpoint=3)


def test_a_scheduler_that_never_was_is_one_sentence(dask, monkeypatch):
    case = make_case()
    monkeypatch.setattr("ntk_influence.scale._workers.CONNECT", "0.2s")
    with pytest.raises(ConnectionError, match=r"^scheduler: expected one that answers, got "):
        scale.fit_kernel_ridge(case.X, case.y, 0.1, scheduler="tcp://127.0.0.1:1")
    for wrong in ("processes", 3, ""):
        with pytest.raises(ValueError, match=r"^scheduler: expected None, .*, got "):
            scale.fit_kernel_ridge(case.X, case.y, 0.1, scheduler=wrong)


# Retraining


def test_two_processes_retrain_to_the_same_bits_as_one():
    network, X, y, X_test = small_network(n=6)
    order, told = [4, 0, 2], []
    sweep = partial(scale.retrain_without, network, X, y, RIDGE, X_test=X_test)
    one = sweep(order, workers=1)
    two = sweep(order, workers=2, finished=lambda i, f: told.append((i, f)))
    alone = [ni.retrain_without(network, X, y, RIDGE, [i], X_test) for i in order]
    assert torch.equal(one, two)
    assert torch.equal(one, torch.cat(alone))
    assert [i for i, _ in told] == order
    assert torch.equal(torch.stack([f for _, f in told]), two)
    assert sweep([]).shape == (0, len(X_test))


def test_the_workers_of_a_client_retrain_too(client):
    network, X, y, X_test = small_network(n=6, outputs=2)
    options = {"method": "preconditioned", "start": "warm"}
    given = (network, X, y, RIDGE, [3, 1], X_test)
    found = scale.retrain_without(*given, backend="dask", **options)
    # Twelve steps to the minimum, each with the rounding of its solves, divided by their share.
    torch.testing.assert_close(found, ni.retrain_without(*given, **options), rtol=0, atol=1e-8)


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "threading"}, "backend: expected one of loky, dask, got 'threading'"),
        ({"workers": 0}, "workers: expected an integer >= 1"),
        ({"threads": 1.5}, "threads: expected an integer >= 1"),
        ({"start": "hot"}, "start: expected 'cold' or 'warm'"),
        ({"indices": [6]}, "indices: expected indices from 0 to 5"),
    ],
)
def test_a_sweep_is_refused_in_one_sentence(change, message):
    network, X, y, X_test = small_network(n=6)
    given = {"network": network, "X": X, "y": y, "ridge": RIDGE, "X_test": X_test}
    with pytest.raises(ValueError, match=f"^{message}"):
        scale.retrain_without(**{**given, "indices": [0], **change})


# Memory


def test_needs_are_those_of_the_tiles():
    # Three blocks of four rows for ten points: nine tiles of 128 bytes, and six at once.
    assert scale.needs(10, 4) == (9 * 128, 6 * 128)
    assert scale.needs(10, 4, torch.float32) == (9 * 64, 6 * 64)
    assert scale.needs(10, 4, workers=2, threads=3) == (9 * 64, 18 * 128)
    assert scale.needs(10, 100) == (800, 4 * 800)
    for wrong in ({"n": 0}, {"n": 10, "chunks": 0}, {"n": 10, "workers": 0}):
        with pytest.raises(ValueError, match="expected an integer >= 1, got 0"):
            scale.needs(**wrong)
    with pytest.raises(ValueError, match="dtype: expected"):
        scale.needs(10, 4, torch.int64)


def test_no_task_takes_more_tiles_than_is_said(dask):
    import dask.array as da
    from dask.core import get_deps

    for blocks in (1, 2, 5, 8):
        L = da.linalg.cholesky(da.eye(3 * blocks, chunks=3), lower=True)
        dependencies, _ = get_deps(dict(L.__dask_graph__()))
        # What a task takes, the tile it makes, and one that it makes on the way.
        assert max(map(len, dependencies.values())) + 2 <= blocks + 3


def test_threads_ask_for_the_memory_of_this_process_before_the_start(dask, monkeypatch):
    case = make_case()
    monkeypatch.setattr(_check, "free_memory", lambda device: 4000)
    with pytest.raises(ValueError, match=r"^chunks: expected .*\(no chunks would fit\)$"):
        scale.fit_kernel_ridge(case.X, case.y, 0.1, chunks=8, scheduler="synchronous")


# Refusals, all but two before Dask is asked for

CASE = make_case(n=6)
NAN = CASE.X.clone()
NAN[2, 1] = float("nan")


def lopsided(A, B=None):
    B = A if B is None else B
    return ni.relu_ntk(A, B) + A[:, :1]


REFUSED = {
    "rows not of unit norm": (2 * CASE.X, CASE.y, {}, r"X: expected rows of unit norm"),
    "so too in an array": (2 * CASE.X.numpy(), CASE.y, {}, r"X: expected rows of unit norm"),
    "NaN": (NAN, CASE.y, {}, r"X: expected finite entries, got 1 NaN"),
    "integers": (np.eye(6, dtype=int), CASE.y, {}, r"X: expected dtype"),
    "texts": (np.array([["a"]]), CASE.y, {}, r"X: expected a torch tensor"),
    "one axis": (CASE.X[0], CASE.y, {}, r"X: expected 2 axes"),
    "too few labels": (CASE.X, CASE.y[:5], {}, r"y: expected 6 rows as in X"),
    "labels of another dtype": (CASE.X, CASE.y.float(), {}, r"y: expected the dtype of X"),
    "a negative ridge": (CASE.X, CASE.y, {"ridge": -1.0}, r"ridge: expected a finite number >= 0"),
    "no chunks": (CASE.X, CASE.y, {"chunks": 0}, r"chunks: expected an integer >= 1"),
    "a kernel that is none": (CASE.X, CASE.y, {"kernel": 3}, r"kernel: expected a function"),
    "a kernel in numpy": (
        CASE.X,
        CASE.y,
        {"kernel": lambda A, B=None: A.numpy()},
        r"kernel: expected a torch tensor",
    ),
    "a kernel of another shape": (
        CASE.X,
        CASE.y,
        {"kernel": lambda A, B=None: A},
        r"kernel: expected shape \(6, 6\)",
    ),
    "a kernel of another dtype": (
        CASE.X,
        CASE.y,
        {"kernel": lambda A, B=None: ni.relu_ntk(A, B).float()},
        r"kernel: expected values of torch.float64",
    ),
    "a kernel that is not symmetric": (
        CASE.X,
        CASE.y,
        {"kernel": lopsided},
        r"kernel: expected a symmetric one",
    ),
}


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("how", REFUSED)
def test_what_the_dense_form_refuses_is_refused_before_work_is_sent_out(how, monkeypatch):
    X, y, options, message = REFUSED[how]
    monkeypatch.setitem(sys.modules, "dask", None)
    options = {"ridge": 0.1} | options
    with pytest.raises(ValueError, match=f"^{message}"):
        scale.fit_kernel_ridge(X, y, **options)


@pytest.mark.usefixtures("without_annotations")
def test_test_points_that_do_not_fit_are_refused(dask):
    model = scale.fit_kernel_ridge(CASE.X, CASE.y, 0.1, scheduler="synchronous")
    for call, message in (
        (lambda: model.predict(2 * CASE.Z), "X_test: expected rows of unit norm"),
        (lambda: model.predict(CASE.Z.float()), "X_test: expected the dtype of the model"),
        (lambda: scale.leave_one_out(model, unit_rows(3, 4)), "X_test: expected 5 columns, got 4"),
        (lambda: scale.loo_influence(model, CASE.Z, CASE.y), r"y_test: expected shape \(4,\)"),
        (lambda: scale.leave_group_out(model, CASE.Z, [6]), "group: expected indices from 0 to 5"),
        (lambda: scale.leave_one_out(CASE, CASE.Z), "model: expected a BlockedKernelRidge"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


@pytest.mark.parametrize("ridge", [0.0, 1e-15, 1e-13])
def test_a_singular_system_is_the_same_sentence_as_in_the_dense_form(dask, ridge):
    X, y = unit_rows(9, 4).repeat(2, 1), torch.ones(18).double()
    with pytest.raises(ValueError, match=r"^ridge: expected") as ours:
        scale.fit_kernel_ridge(X, y, ridge, chunks=5, scheduler="synchronous")
    with pytest.raises(ValueError, match=r"^ridge: expected") as theirs:
        ni.fit_kernel_ridge(ni.relu_ntk(X), y, ridge)
    # But for the condition number, which is an estimate here.
    said = [re.sub(r"number \S+;", "number;", str(told.value)) for told in (ours, theirs)]
    assert said[0] == said[1]


def test_the_estimate_of_the_condition_is_below_and_near(dask):
    for seed in range(5):
        case = make_case(n=20, seed=seed)
        model = scale.fit_kernel_ridge(case.X, case.y, 1e-4, chunks=7, scheduler="synchronous")
        system = ni.relu_ntk(case.X) + 1e-4 * torch.eye(20).double()
        norm, inverse = (float(A.abs().sum(dim=1).max()) for A in (system, system.inverse()))
        assert model.factor.norm() == pytest.approx(norm, rel=1e-12)
        assert inverse / 3 <= model.factor.inverse_norm() <= inverse * (1 + 1e-9)


# Without Dask


def test_the_library_does_not_import_dask():
    code = (
        "import sys, ntk_influence as ni; names = {'dask', 'distributed'};"
        "assert not {*names, 'ntk_influence.scale'} & set(sys.modules);"
        "ni.scale.needs(10); assert not names & set(sys.modules)"
    )
    source = str(Path(ni.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": source}
    )
    with pytest.raises(AttributeError, match="no attribute 'scales'"):
        _ = ni.scales


@pytest.mark.parametrize("missing", ["dask", "dask.array", "distributed"])
def test_without_dask_one_sentence_names_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ImportError, match=r"^scale: expected Dask, .*\[array,distributed\]'\)$"
    ) as refused:
        scale.fit_kernel_ridge(CASE.X, CASE.y, 0.1)
    assert "\n" not in str(refused.value)
