"""Rows are the same wherever they are measured, and none that is finished is ever lost."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch
from joblib.parallel import ThreadingBackend
from threadpoolctl import threadpool_info, threadpool_limits

import livebook as book
from livebook import sweeps

PATIENCE = 120  # seconds for what another process does


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """Whatever the environment of the tests says about workers."""
    for name in ("BOOK_WORKERS", "BOOK_CLUSTER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def address():
    """The scheduler of two workers that live once, and no longer than their task."""
    reason = "no Dask: rows on a cluster are not tested (pip install -e '.[scale]')"
    distributed = pytest.importorskip("distributed", reason=reason)
    failures = {"distributed.scheduler.allowed-failures": 0}
    options = {"threads_per_worker": 1, "memory_limit": "1GiB", "dashboard_address": ":0"}
    with (
        import_module("dask").config.set(failures),
        distributed.LocalCluster(n_workers=2, **options) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture
def heavy():
    """Worker processes take seconds to start."""
    if os.environ.get("NTK_INFLUENCE_COPY"):
        pytest.skip("mutants are tested lightly")


@pytest.fixture(params=["processes", "cluster"])
def elsewhere(request, monkeypatch, heavy):
    """Two workers: processes, or those of a cluster."""
    if request.param == "processes":
        monkeypatch.setenv("BOOK_WORKERS", "2")
    else:
        monkeypatch.setenv("BOOK_CLUSTER", request.getfixturevalue("address"))


def until(*files: Path) -> None:
    """Wait for what others do."""
    deadline = time.monotonic() + PATIENCE
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, f"expected {files}"
        time.sleep(0.02)


# The same rows


def eigenvalues(seed: int) -> dict:
    """A row whose last bits depend on the number of threads, and who measured it with how many."""
    points = torch.randn(150, 150, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.eigvalsh(points @ points.T)
    pools = {pool["num_threads"] for pool in threadpool_info()}
    row = {"seed": seed, "values": values.tolist(), "threads": torch.get_num_threads()}
    return row | {"pools": sorted(pools), "process": os.getpid()}


@contextlib.contextmanager
def on_threads(count: int):
    """That many threads of torch here."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_has_the_same_bits_and_threads_wherever_it_is_measured(elsewhere, threads):
    with on_threads(threads):
        there = book.rows(eigenvalues, range(3))
        with pytest.MonkeyPatch.context() as here:
            here.setenv("BOOK_WORKERS", "1")
            here.setenv("BOOK_CLUSTER", "")
            one = book.rows(eigenvalues, range(3))
    processes = {row.pop("process") for row in there}
    assert os.getpid() not in processes
    assert {row.pop("process") for row in one} == {os.getpid()}
    assert there == one
    assert all(row["threads"] == threads for row in there)
    assert all(row["pools"] == [threads] for row in there)


BASE = {
    "dataset": "mnist-5k-7v9", "n_train": 30, "n_test": 6, "width": 40, "scale": 0.1, "ridge": 1.0,
    "seed": 0, "method": "preconditioned", "steps": 8, "n_left_out": 4,
}  # fmt: skip
SETTINGS = [{"width": [40, 60]}, {"smoothing": 0.3, "ridge": 10.0}]


def recorded_rows(folder: Path, settings: list[dict] = SETTINGS) -> list[dict]:
    """What a chapter does: measures what is missing, and records after each row."""
    studies = pytest.importorskip("studies", reason="no packages of the book")
    path, device = folder / "rows.json", torch.device("cpu")
    known = json.loads(path.read_text())["results"]["rows"] if path.exists() else []
    place = studies.Place(device, torch.float64, str(folder / "kept"))
    for new in studies.new_rows(studies.Setting(**BASE), settings, place, known):
        book.record(str(folder), "rows", {"rows": known + new}, device)
    return json.loads(path.read_text())["results"]["rows"]


def test_the_record_of_two_workers_is_that_of_one_resumed_or_not(elsewhere, tmp_path, monkeypatch):
    two = recorded_rows(tmp_path / "two")
    resumed = recorded_rows(tmp_path / "resumed", SETTINGS[:1])
    assert len(resumed) == 2
    resumed = recorded_rows(tmp_path / "resumed")
    for name in ("BOOK_WORKERS", "BOOK_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    one = recorded_rows(tmp_path / "one")
    assert [row["width"] for row in one] == [40, 60, 40]
    assert two == resumed == one


def waits_for_the_others(folder: Path, number: int) -> int:
    """The first row is the last to be finished."""
    if number == 0:
        until(*(folder / str(other) for other in (1, 2)))
    (folder / str(number)).touch()
    return number


def test_rows_are_in_the_order_of_the_tasks_whoever_is_first(elsewhere, tmp_path):
    seen = list(book.sweep(partial(waits_for_the_others, tmp_path), range(3)))
    assert seen[0] in ([1], [2])
    assert seen[1] == sorted(seen[1])
    assert seen[2] == [0, 1, 2]


def test_no_task_needs_no_worker(monkeypatch):
    monkeypatch.setenv("BOOK_CLUSTER", "tcp://127.0.0.1:9")
    assert book.rows(eigenvalues, []) == list(book.sweep(eigenvalues, [])) == []


# One part at a time


def test_rows_are_handed_out_in_the_order_of_the_tasks(monkeypatch):
    found = iter([(2, "c"), (0, "a"), (1, "b")])
    monkeypatch.setattr(sweeps, "_measured", lambda measure, tasks: found)
    assert list(book.sweep(str, range(3))) == [["c"], ["a", "c"], ["a", "b", "c"]]


def test_a_worker_has_the_threads_that_it_is_told():
    with on_threads(1), threadpool_limits(1):
        row = sweeps._one(eigenvalues, 5, 0, 3, sweeps._state(), -1).row
    assert (row["threads"], row["pools"]) == (3, [3])


def half(number: int) -> float:
    """Half of an even number."""
    if number % 2:
        raise ArithmeticError(f"{number} is odd\nindeed")
    return number / 2


def test_a_worker_tells_what_it_found_or_why_not():
    state = sweeps._state()
    with on_threads(1):
        assert sweeps._one(half, 5, 4, 1, state, -1) == (5, 2.0, "", "")
        number, row, failure, trace = sweeps._one(half, 5, 3, 1, state, -1)
        other = sweeps._one(half, 5, 4, 1, ("another digest", "1.0"), -1)
    assert (number, row, failure) == (5, None, "ArithmeticError: 3 is odd")
    assert "in half" in trace
    assert (other.number, other.row) == (5, None)
    assert other.failure.startswith("another version of torch or state of the library on ")


def test_failures_are_told_when_everything_else_is_there():
    rows = sweeps._elsewhere(ThreadingBackend(), 2, half, [0, 3, 4, 5, 6])
    found = [next(rows) for _ in range(3)]
    assert sorted(found) == [(0, 0.0), (2, 2.0), (4, 3.0)]
    expected = "rows: expected 5, got 3; row [24] ended with ArithmeticError: [35] is odd"
    with pytest.raises(RuntimeError, match=f"^{expected}\n") as stop:
        next(rows)
    assert "in half" in stop.value.__notes__[0]


def test_a_dead_process_is_a_failure_of_its_row():
    dead = Future()
    dead.set_exception(BrokenProcessPool("A process died.\nIts code"))
    (outcome,) = sweeps._of_processes().retrieve_result_callback(dead)
    assert outcome == (None, None, "BrokenProcessPool: A process died.", "")


# Failures


def ill(folder: Path, number: int) -> int:
    """A row is finished, but the second raises, or takes its process with it, after the others."""
    others = [folder / str(other) for other in (0, 2, 3)]
    if number != 1 or (folder / "healthy").exists():
        (folder / str(number)).touch()
        return number
    until(*others)
    time.sleep(0.5)  # their results are on their way
    (folder / "ill").touch()
    if (folder / "dies").exists():
        os._exit(3)
    raise ArithmeticError("no such number\nat all")


def slowly(sweep: Iterator[list], rows: list, ill: Path) -> None:
    """Take what is handed out, the first when all others are finished or dead."""
    for found in sweep:
        rows.append(found)
        until(ill)
        time.sleep(0.5 if len(rows) == 1 else 0)


@pytest.mark.parametrize("how", ["raises", "dies"])
def test_what_is_finished_survives_a_failure_and_the_rest_can_be_measured(elsewhere, tmp_path, how):
    (tmp_path / how).touch()
    rows, measure = [], partial(ill, tmp_path)
    with pytest.raises(RuntimeError, match="rows: expected 4, got 3; ") as stop:
        slowly(book.sweep(measure, range(4)), rows, tmp_path / "ill")
    assert rows[-1] == [0, 2, 3]
    said = str(stop.value)
    assert "\n" not in said
    if how == "raises":
        assert said.endswith("row 2 ended with ArithmeticError: no such number")
        assert "in ill" in stop.value.__notes__[0]
    else:
        assert "the worker of one ended with " in said
    (tmp_path / "healthy").touch()
    assert book.rows(measure, range(4)) == [0, 1, 2, 3]


def test_here_a_failure_is_raised_at_once_and_as_it_is(tmp_path):
    for number in (0, 2, 3):
        (tmp_path / str(number)).touch()
    rows = book.sweep(partial(ill, tmp_path), range(4))
    assert next(rows) == [0]
    with pytest.raises(ArithmeticError, match="no such number"):
        next(rows)


def test_a_worker_with_another_state_of_the_library_is_refused(elsewhere, monkeypatch):
    monkeypatch.setattr(sweeps, "_state", lambda: ("another digest", "1.0"))
    with pytest.raises(RuntimeError, match="another version of torch or state of the library"):
        book.rows(eigenvalues, range(2))


def test_what_cannot_travel_is_refused_at_once(elsewhere):
    with pytest.raises(TypeError, match="cannot pickle"):
        book.rows(partial(print, threading.Lock()), range(2))


BUSY = """
import os, pathlib, time
import livebook as book
folder = pathlib.Path({folder!r})
def busy(number):
    (folder / f"{{number}}-{{os.getpid()}}").touch()
    time.sleep(300)
book.rows(busy, range(2))
"""


@pytest.mark.usefixtures("heavy")
def test_workers_end_with_the_process_that_asked_for_them(tmp_path):
    said = os.environ | {"BOOK_WORKERS": "2"}
    command = [sys.executable, "-c", BUSY.format(folder=str(tmp_path))]
    with subprocess.Popen(command, env=said) as process:
        deadline = time.monotonic() + PATIENCE
        while len(names := [path.name for path in tmp_path.iterdir()]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
    found = [int(name.partition("-")[2]) for name in names]
    deadline = time.monotonic() + 20
    while any(alive(number) for number in found):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(number: int) -> bool:
    """Whether a process runs, and has not only left its entry behind."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    return False


# What is said


@pytest.mark.parametrize("said", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none_is_one_sentence(monkeypatch, said):
    monkeypatch.setenv("BOOK_WORKERS", said)
    with pytest.raises(ValueError, match=r"^BOOK_WORKERS: expected a positive whole number, got"):
        book.rows(eigenvalues, range(2))


def test_an_address_that_nobody_answers_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sweeps, "CONNECT", "1s")
    monkeypatch.setenv("BOOK_CLUSTER", "tcp://127.0.0.1:9")
    expected = "a scheduler that answers, got [A-Za-z]*Error from tcp://127.0.0.1:9$"
    expected = expected if find_spec("distributed") else "Dask .*, got no module named"
    with pytest.raises(ValueError, match=f"^cluster: expected {expected}"):
        book.rows(eigenvalues, range(2))


def test_what_is_no_address_and_a_cluster_of_nobody_are_one_sentence(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="no Dask")
    monkeypatch.setenv("BOOK_CLUSTER", "somewhere")
    with pytest.raises(ValueError, match=r"^cluster: expected an address such as .*'somewhere'"):
        book.rows(eigenvalues, range(2))
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        monkeypatch.setenv("BOOK_CLUSTER", cluster.scheduler_address)
        with pytest.raises(ValueError, match=r"^cluster: expected at least one worker, got none"):
            book.rows(eigenvalues, range(2))


def test_the_only_worker_of_a_cluster_does_the_work(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="no Dask")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster:
        monkeypatch.setenv("BOOK_CLUSTER", cluster.scheduler_address)
        assert os.getpid() not in {row["process"] for row in book.rows(eigenvalues, range(3))}
