"""How a benchmark takes time and memory, and the sizes that all of them share."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import psutil

DIM, RIDGE, REPEATS = 784, 1.0, 5


def seconds(action: Callable, *arguments: object) -> float:
    """The wall time of one call."""
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def in_fresh_process(action: Callable, *arguments: object) -> float:
    """What an action returns in a process of its own, where freed memory is given back at once."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(action, *arguments).result()


def peak_bytes(action: Callable, *arguments: object) -> int:
    """Peak memory of this process during an action, above what it had before."""
    process, done = psutil.Process(), threading.Event()
    readings = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.002):
            readings.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action(*arguments)
    finally:
        done.set()
        watcher.join()
    return max(readings) - readings[0]
