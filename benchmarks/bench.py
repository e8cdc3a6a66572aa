"""What the closed form costs, as ratios to a floor of bare products measured in the same run.

``python benchmarks/bench.py [--sizes N ...] [--to FOLDER]`` writes ``bench.json``.
"""

import argparse
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import psutil
import torch
from tqdm import tqdm

import livebook as book
import ntk_influence as ni

DIM, N_TEST, RIDGE, REPEATS = 784, 1000, 1.0, 5


def data(n: int) -> ni.datasets.Dataset:
    """Unit vectors with labels of +1 and -1; what they show does not matter for the cost."""
    return ni.datasets.mixture(n, N_TEST, dim=DIM)


def seconds(action: Callable, *arguments: object) -> float:
    """The wall time of one call."""
    started = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - started


def floor(X: torch.Tensor, k_test: torch.Tensor) -> None:
    """One X X^T, one Cholesky factorisation, the inverse from it, one n_test x n x n product."""
    A = X @ X.T
    A.diagonal().add_(RIDGE)
    P = torch.cholesky_inverse(torch.linalg.cholesky(A))
    k_test @ P


def gram_floor(X: torch.Tensor) -> None:
    """One X X^T and one pass of the arccosine over it."""
    (X @ X.T).clamp_(-1, 1).arccos_()


def closed_form(d: ni.datasets.Dataset) -> None:
    """Gram matrix, factorisation and all influences, with every check of the library."""
    model = ni.fit_kernel_ridge(ni.relu_ntk(d.X), d.y, RIDGE)
    ni.loo_influence(model, ni.relu_ntk(d.X_test, d.X), d.y_test)


def refit(K: torch.Tensor, y: torch.Tensor, k_test: torch.Tensor) -> None:
    """One model without its last point, by the cheapest factorisation."""
    A = K[:-1, :-1].clone()
    A.diagonal().add_(RIDGE)
    alpha = torch.cholesky_solve(y[:-1, None], torch.linalg.cholesky(A))
    k_test[:, :-1] @ alpha


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


def peak_memory(n: int) -> float:
    """Peak memory of the closed form above its input, in n x n matrices."""
    d = data(n)
    closed_form(data(64))  # loads the libraries
    return peak_bytes(closed_form, d) / (8 * n * n)


def measure(n: int) -> dict:
    """Medians over repeats in which every action takes its turn."""
    d = data(n)
    K, k_test = ni.relu_ntk(d.X), ni.relu_ntk(d.X_test, d.X)
    actions = {
        "floor": (floor, d.X, k_test),
        "total": (closed_form, d),
        "gram_floor": (gram_floor, d.X),
        "gram": (ni.relu_ntk, d.X),
        "refit": (refit, K, d.y, k_test),
    }
    runs = {name: [] for name in actions}
    for _ in tqdm(range(REPEATS + 1), desc=f"n = {n:,}"):
        for name, (action, *arguments) in actions.items():
            runs[name].append(seconds(action, *arguments))
    t = {name: median(times[1:]) for name, times in runs.items()}  # the first round warms up
    return {
        "n": n,
        "seconds": t["total"],
        "floor_seconds": t["floor"],
        "total": t["total"] / t["floor"],
        "gram": t["gram"] / t["gram_floor"],
        "refits": n * t["refit"] / t["total"],
        "memory": in_fresh_process(peak_memory, n),
    }


def main() -> None:
    """Measure each size and write the results at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1250, 2500, 5000, 10000])
    parser.add_argument("--to", default="data/recorded", help="folder for bench.json")
    options = parser.parse_args()
    results = {"sizes": [measure(n) for n in options.sizes]}
    facts = dict(dim=DIM, n_test=N_TEST, ridge=RIDGE, repeats=REPEATS, data="mixture")
    threads = torch.get_num_threads()
    book.record(options.to, "bench", results, torch.device("cpu"), threads=threads, **facts)
    for row in results["sizes"]:
        print({key: round(value, 3) for key, value in row.items()})


if __name__ == "__main__":
    main()
