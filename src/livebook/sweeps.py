"""The rows of a run, measured side by side: on processes of this machine, or on a cluster.

The environment says where: ``BOOK_CLUSTER`` is the address of a Dask scheduler, else
``BOOK_WORKERS`` is the number of processes, one if nothing is said. ``livebook.run`` sets both.
"""

import contextlib
import functools
import os
import platform
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from . import records

CONNECT = "10s"  # until a scheduler has to answer
DASK = "pip install -c constraints.txt -e '.[scale]'"


class Outcome(NamedTuple):
    """The number of a task with its row, or a sentence and a traceback in the row's place."""

    number: int | None
    row: Any = None
    failure: str = ""
    trace: str = ""


def sweep(measure: Callable, tasks: Iterable) -> Iterator[list]:
    """Measure each task; after each, yield all rows so far, in the order of the tasks.

    A row has the same bits wherever it is measured: a process has as many threads as this one.
    In this process a failure is raised at once. Elsewhere it does not stop the others, nor does the
    death of a worker: ``RuntimeError`` comes when everything else is measured.
    """
    tasks, finished = list(tasks), {}
    for number, row in _measured(measure, tasks):
        finished[number] = row
        yield [finished[number] for number in sorted(finished)]


def rows(measure: Callable, tasks: Iterable) -> list:
    """The rows of all tasks, in their order, where they are kept together."""
    *_, last = [], *sweep(measure, tasks)
    return last


def workers() -> int:
    """How many processes are asked for; ``ValueError`` unless it is a positive whole number."""
    text = os.environ.get("BOOK_WORKERS") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"BOOK_WORKERS: expected a positive whole number, got {text!r}")
    return int(text)


def reach(cluster: str) -> Any:
    """A client of the scheduler at an address; ``ValueError`` with one sentence if none answers."""
    try:
        from distributed import Client
    except ImportError as error:
        missing = str(error).lower()
        raise ValueError(f"cluster: expected Dask ({DASK}), got {missing}") from None
    if "://" not in cluster:
        raise ValueError(f"cluster: expected an address such as tcp://host:8786, got {cluster!r}")
    try:
        client = Client(cluster, set_as_default=False, timeout=CONNECT)
    except (OSError, ValueError) as error:
        got = f"{type(error).__name__} from {cluster}"
        raise ValueError(f"cluster: expected a scheduler that answers, got {got}") from None
    if not client.ncores():
        client.close()
        raise ValueError(f"cluster: expected at least one worker, got none at {cluster}")
    return client


def _measured(measure: Callable, tasks: Sequence) -> Iterator[tuple[int, Any]]:
    """Number and row of each task as soon as it is there."""
    count = min(workers(), len(tasks))
    cluster = os.environ.get("BOOK_CLUSTER")
    if tasks and cluster:
        with reach(cluster) as client:
            yield from _elsewhere(_of_dask(client), -1, measure, tasks)
    elif count > 1:
        yield from _elsewhere(_of_processes(), count, measure, tasks)
    else:
        for number, task in enumerate(tasks):
            with _on_threads(torch.get_num_threads()):
                row = measure(task)
            yield number, row


def _elsewhere(
    backend: Any, count: int, measure: Callable, tasks: Sequence
) -> Iterator[tuple[int, Any]]:
    """The same by workers of joblib's."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.backend.reduction import dumps

    dumps(measure)  # what cannot travel is refused here: Dask would wait for it
    facts = (torch.get_num_threads(), _state(), os.getpid())
    jobs = [delayed(_one)(measure, number, task, *facts) for number, task in enumerate(tasks)]
    options = {"return_as": "generator_unordered", "batch_size": 1, "pre_dispatch": "all"}
    failures = []
    with contextlib.closing(Parallel(count, backend=backend, **options)(jobs)) as outcomes:
        for outcome in outcomes:
            if outcome.failure:
                failures.append(outcome)
            else:
                yield outcome.number, outcome.row
    if failures:
        first, finished = failures[0], len(tasks) - len(failures)
        which = "the worker of one" if first.number is None else f"row {first.number + 1}"
        got = f"{finished}; {which} ended with {first.failure}"
        error = RuntimeError(f"rows: expected {len(tasks)}, got {got}")
        error.add_note(first.trace)
        raise error


def _one(
    measure: Callable, number: int, task: Any, threads: int, state: tuple, parent: int
) -> Outcome:
    """One row, in the process of a worker."""
    if os.getppid() == parent:
        _end_with(parent)
    if _state() != state:
        found = f"another version of torch or state of the library on {platform.node()}"
        return Outcome(number, failure=found)
    _on_threads(threads)
    records.commit()  # that of the code as it is now, if a row asks for it
    try:
        return Outcome(number, measure(task))
    except Exception as error:
        return Outcome(number, None, _sentence(error), traceback.format_exc())


def _state() -> tuple[str, str]:
    """What the rows of two processes have to share."""
    return records.digest(records.LIBRARY), version("torch")


def _on_threads(count: int) -> contextlib.AbstractContextManager:
    """That many threads in this process, for torch and for the linear algebra of numpy and scipy.

    As a context the latter is undone.
    """
    torch.set_num_threads(count)
    if not find_spec("threadpoolctl"):  # comes with scikit-learn
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits

    return threadpool_limits(count)


@functools.cache
def _end_with(parent: int) -> None:
    """Let this process end when its parent is gone, whatever it is doing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _sentence(error: BaseException) -> str:
    """An error in one line; what loky says of a dead worker goes on for several."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


def _of_processes() -> Any:
    """Processes of this machine.

    When one dies, joblib drops what others have finished. Here the rows that died with it are
    failures like others, and all that is finished is handed out.
    """
    from joblib.parallel import LokyBackend

    class OfProcesses(LokyBackend):
        def retrieve_result_callback(self, future: Any) -> list:
            try:
                return super().retrieve_result_callback(future)
            except Exception as error:
                return [Outcome(None, failure=_sentence(error))]

    return OfProcesses()


def _of_dask(client: Any) -> Any:
    """The workers of a client, all of them.

    Of a task that is lost with its workers joblib hears nothing, and waits for ever; and if there
    is one worker it does the work itself.
    """
    from joblib._dask import DaskDistributedBackend

    class OfDask(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func: Callable, callback: Callable) -> Any:
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return future

        def retrieve_result_callback(self, out: Any) -> list:
            if isinstance(out, BaseException):
                return [Outcome(None, failure=_sentence(out))]
            return super().retrieve_result_callback(out)

    return OfDask(client=client)
