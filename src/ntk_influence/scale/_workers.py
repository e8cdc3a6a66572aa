"""Who does the work on Dask: threads of this process, or the workers of a scheduler."""

from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from tqdm import tqdm

from .. import _check

LOCAL = ("threads", "synchronous")
CONNECT = "10s"  # until a scheduler has to answer
PAUSE = 0.8  # of its limit: there a worker of Dask's takes no new task
OF_ITS_OWN = 2**29  # bytes of a worker process with torch and Dask; 0.3 GiB were measured


def dask_or_sentence() -> ModuleType:
    """Dask with what is used of it."""
    try:
        for name in (
            "dask",
            "dask.array",
            "dask.callbacks",
            "dask.highlevelgraph",
            "dask.optimization",
            "distributed",
        ):
            import_module(name)
    except ImportError as missing:
        raise ImportError(
            f"scale: expected Dask, got {str(missing).lower()} "
            "(pip install 'dask[array,distributed]')"
        ) from None
    return import_module("dask")


class Workers:
    """Runs tasks and keeps results where they come to be; a client is kept as long as this."""

    def __init__(self, scheduler: Any = None) -> None:
        """Find who is meant: the current client or else threads, a client, or an address."""
        self.dask = dask_or_sentence()
        distributed = import_module("distributed")
        self.client, self.local = None, None
        if scheduler is None:
            try:
                self.client = distributed.get_client()
            except ValueError:  # no client is current
                self.local = "threads"
        elif isinstance(scheduler, distributed.Client):
            self.client = scheduler
        elif scheduler in LOCAL:
            self.local = scheduler
        else:
            address = isinstance(scheduler, str) and "://" in scheduler
            expected = "None, 'threads', 'synchronous', a client or an address such as tcp://..."
            _check.require(address, "scheduler", expected, repr(scheduler))
            self.client = self._connect(distributed, scheduler)
        self.where = self.local or self.client.scheduler.address
        if self.client:
            alive = self.client.status == "running" and len(self._known()) > 0
            _check.require(alive, "scheduler", "at least one worker", f"none at {self.where}")

    def _known(self) -> list[dict]:
        """What the scheduler says about its workers."""
        with self._lost():
            return list(self.client.scheduler_info(n_workers=-1)["workers"].values())

    @property
    def count(self) -> int:
        """How many workers there are."""
        return 1 if self.local else len(self._known())

    @property
    def threads(self) -> int:
        """How many tasks run at the same time, on all workers."""
        if self.client:
            return sum(worker["nthreads"] for worker in self._known())
        return self.dask.system.CPU_COUNT if self.local == "threads" else 1

    def persist(self, tasks: Sequence, bar: tqdm | None = None) -> list:
        """Start the tasks; what they give stays where it is. With a bar, until all are done."""
        with self._lost(), self._quiet():
            if self.client:
                started = self.client.persist(list(tasks), optimize_graph=False)
                if bar is not None:
                    distributed = import_module("distributed")
                    for _ in distributed.as_completed(distributed.futures_of(started)):
                        bar.update()
                return started
            with self._counted(tasks, bar):
                return list(self.dask.persist(*tasks, optimize_graph=False, scheduler=self.local))

    def _counted(self, tasks: Sequence, bar: tqdm | None) -> Any:
        """The bar moves on with each of these tasks that a thread of this process ends."""
        if bar is None:
            return nullcontext()
        keys = {task.key for task in tasks}
        return self.dask.callbacks.Callback(
            posttask=lambda key, *_: bar.update() if key in keys else None
        )

    @property
    def dashboard(self) -> str | None:
        """The address at which Dask shows what its workers do, where it does."""
        return self.client.dashboard_link or None if self.client else None

    def compute(self, tasks: Sequence) -> list:
        """The results of the tasks, here."""
        with self._lost(), self._quiet():
            if self.client:
                return self.client.gather(self.client.compute(list(tasks), optimize_graph=False))
            done = self.dask.compute(*tasks, optimize_graph=False, scheduler=self.local)
            return list(done)

    def _quiet(self) -> Any:
        """Rows of the training points travel with their task, so that no dead worker takes them."""
        return self.dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"})

    def _connect(self, distributed: ModuleType, address: str) -> Any:
        """A client of the scheduler at an address."""
        try:
            return distributed.Client(address, set_as_default=False, timeout=CONNECT)
        except (OSError, ValueError) as error:  # nobody answers, or it is none
            got = f"{type(error).__name__} from {address}"
            raise ConnectionError(f"scheduler: expected one that answers, got {got}") from None

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """One sentence for a scheduler that is gone, and for workers that die again and again."""
        distributed = import_module("distributed")
        closed = (distributed.client.ClosedClientError, distributed.comm.CommClosedError)
        try:
            yield
        except distributed.KilledWorker as killed:
            raise RuntimeError(
                f"scheduler: expected workers that live, got {killed.last_worker.address} and "
                "others lost under the same task (too little memory? try smaller chunks)"
            ) from None
        except (*closed, CancelledError, TimeoutError) as error:
            raise ConnectionError(
                f"scheduler: expected one that answers to the end, got {type(error).__name__} "
                f"from {self.where}; its tiles are lost but for those of a checkpoint, fit again"
            ) from None

    def refuse_too_little(self, n: int, chunks: int, dtype: torch.dtype, needs: Any) -> None:
        """Ask first what every worker has, and name a size of chunks that would fit."""
        if self.client:
            known = self._known()
            limited = [w for w in known if w["memory_limit"]]
            budget = min((PAUSE * w["memory_limit"] for w in limited), default=float("inf"))
            budget -= OF_ITS_OWN
            share = {"workers": len(known), "threads": max(w["nthreads"] for w in known)}
        else:
            budget = _check.free_memory(torch.device("cpu"))
            share = {"workers": 1, "threads": self.threads}

        def bytes_for(size: int) -> int:
            need = needs(n, size, dtype, **share)
            return need.at_once if self.client else need.at_once + need.kept

        fitting, above = 0, chunks + 1
        while above - fitting > 1:
            middle = (fitting + above) // 2
            fitting, above = (middle, above) if bytes_for(middle) <= budget else (fitting, middle)
        fits = f"chunks of {fitting:,} would fit" if fitting else "no chunks would fit"
        expected = f"tiles within the {max(budget, 0) / 2**30:.2f} GiB that a worker has for them"
        got = f"{bytes_for(chunks) / 2**30:.2f} GiB a worker for {n:,} points ({fits})"
        _check.require(bytes_for(chunks) <= budget, "chunks", expected, got)
