"""Chapters side by side: each in a process of its own, and none is left when one fails."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait

CONTEXT = multiprocessing.get_context("spawn")
PATIENCE = 10  # seconds for a process to end its kernel


def side_by_side(
    work: Callable[..., str], tasks: dict[str, tuple], jobs: int
) -> Iterator[tuple[str, str | None, float]]:
    """Yield a task's name when it begins, and name, text and seconds when it is done.

    The first failure is raised as SystemExit; whatever happens, no process is left behind.
    """
    waiting, running = list(tasks), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                yield name, None, 0.0
                running[_start(work, tasks[name])] = name, time.perf_counter()
            for receiver in wait(list(running)):
                name, started = running.pop(receiver)
                yield name, _result(receiver, name), time.perf_counter() - started
    finally:
        _end(multiprocessing.active_children())


def usable_cores() -> int:
    """How many cores this process may use."""
    with contextlib.suppress(AttributeError):  # not every system can pin a process to cores
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start(work: Callable[..., str], task: tuple) -> Connection:
    receiver, sender = CONTEXT.Pipe(duplex=False)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process
    try:
        CONTEXT.Process(target=_run, args=(sender, work, task), daemon=True).start()
    finally:
        signal.signal(signal.SIGINT, before)
    sender.close()
    return receiver


def _result(receiver: Connection, name: str) -> str:
    try:
        text, failure = receiver.recv()
    except EOFError:
        text, failure = "", f"{name}: expected a result, got none: its process was killed"
    if failure:
        raise SystemExit(failure)
    return text


def _end(processes: list) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _run(sender: Connection, work: Callable[..., str], task: tuple) -> None:
    """Do the task, and end its kernel when asked to stop or when the first process is gone."""
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        outcome = work(*task), ""
    except SystemExit as failure:
        outcome = "", str(failure)
    except KeyboardInterrupt:
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        sender.send(outcome)


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _follow() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
