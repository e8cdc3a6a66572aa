"""What it takes beyond one process: work and memory of both routes, into one record.

``digits`` solves ten classes of MNIST without a kernel matrix in memory, in the environment of the
book; ``tiles`` counts the tasks, bytes and messages of the exact route on two worker processes, and
``exact`` times it beside the dense form, in one with Dask. Each replaces its own part of
``data/recorded/26_what_it_takes.json``; a size of ``exact`` that is there is not run again::

    INFLUENCE_DATA=... .venv/bin/python benchmarks/scale.py digits
    PYTHONPATH=src PYTHON_WITH_DASK benchmarks/scale.py tiles
    INFLUENCE_DATA=... PYTHONPATH=src PYTHON_WITH_DASK benchmarks/scale.py exact
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import ntk_influence as ni
from livebook import paths, records

RECORD = "26_what_it_takes"
PART = 2000  # test points at a time


def digits(n: int, n_test: int, ridge: float, rank: int, tolerance: float, n_chosen: int) -> dict:
    """Ten classes: test error, effective dimension, and who is harmful among the suspicious."""
    data = ni.datasets.load("mini-mnist", n, n_test)
    low_rank = ni.iterative.low_rank_kernel(data.X, rank)
    chosen = suspicious(data, low_rank, ridge, n_chosen) + at_random(n, n_chosen // 4)
    options = {"low_rank": low_rank, "tolerance": tolerance, "probes": 16, "chosen": chosen}
    model = ni.iterative.fit_kernel_ridge(data.X, data.y, ridge, **options)
    estimate = ni.iterative.estimate_leverage(model)
    parts = [
        ni.iterative.loo_influence(model, Z, y)
        for Z, y in zip(data.X_test.split(PART), data.y_test.split(PART), strict=True)
    ]
    total = sum(part.value.sum(dim=1) for part in parts)
    error = sum(part.error.sum(dim=1) for part in parts)
    own = ni.iterative.leave_one_out(model, data.X[chosen])
    without = own.value[range(len(chosen)), range(len(chosen))]
    return {
        "products": model.dual.products,
        "rank": len(low_rank.pivots),
        "left": float(low_rank.left.sum()),
        "residual": float((model.dual.norm / data.y.norm(dim=0)).max()),
        "test": test_errors(model, data),
        "dimension": [estimate.total, estimate.total_error],
        "interval": float((estimate.upper - estimate.lower).mean()),
        "leverage_mean": float(estimate.value.mean()),
        "own_error": float(own.error.max()),
        "rows": [
            {
                "index": int(data.index[i]),
                "label": int(data.labels[i]),
                "without": int(without[a].argmax()),
                "influence": float(total[a]),
                "error": float(error[a]),
                "image": thumbnail_of(data.images[i]),
                "drawn": "suspicious" if a < n_chosen else "at random",
            }
            for a, i in enumerate(chosen)
        ],
    }


def suspicious(data: ni.datasets.Dataset, low_rank: object, ridge: float, count: int) -> list[int]:
    """The points whose own class loses by most without them, in the kernel of low rank."""
    inverse = (1 - low_rank.leverage(ridge)) / ridge
    without = data.y - low_rank.solve(data.y, ridge) / inverse[:, None]
    own = (without * data.y).sum(dim=1)
    lost_by = (without - 2 * data.y).max(dim=1).values - own
    return lost_by.argsort(descending=True, stable=True)[:count].tolist()


def at_random(n: int, count: int) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(1))[:count].tolist()


def test_errors(model: object, data: ni.datasets.Dataset) -> dict:
    """The share of wrong classes, and of those that the error bound does not decide."""
    f = [model.predict(Z) for Z in data.X_test.split(PART)]
    value, error = torch.cat([p.value for p in f]), torch.cat([p.error for p in f])
    first, second = value.topk(2, dim=1).values.T
    wrong = value.argmax(dim=1) != data.y_test.argmax(dim=1)
    open_ = first - second <= 2 * error.max(dim=1).values
    return {"wrong": float(wrong.double().mean()), "undecided": float(open_.double().mean())}


def tiles(sizes: list[int], chunks: int) -> dict:
    """The exact route on two processes: counted tasks, bytes that travel, peak memory."""
    from dask.distributed import Client, LocalCluster

    found = []
    for n in sizes:
        data = ni.datasets.mixture(n, 1, dim=100)
        local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
        with LocalCluster(memory_limit="8GiB", **local) as cluster, Client(cluster) as client:
            client.register_plugin(counter())
            ni.scale.fit_kernel_ridge(data.X[:64], data.y[:64], 1.0, chunks=32)  # loads libraries
            before = list(client.run(state).values())
            ni.scale.fit_kernel_ridge(data.X, data.y, 1.0, chunks=chunks)
            after = list(client.run(state).values())
        pairs = list(zip(before, after, strict=True))
        tasks = sum((b["tasks"] - a["tasks"] for a, b in pairs), Counter())
        need = ni.scale.needs(n, chunks, workers=2)
        found.append(
            {
                "n": n,
                "tasks": dict(tasks.most_common()),
                "bytes": sum(b["bytes"] - a["bytes"] for a, b in pairs),
                "messages": sum(b["messages"] - a["messages"] for a, b in pairs),
                "peak": max(b["peak"] - a["peak"] for a, b in pairs),
                "kept": need.kept,
                "at_once": need.at_once,
            }
        )
        print(found[-1], flush=True)
    return {"chunks": chunks, "workers": 2, "dim": 100, "rows": found}


def exact(n: int, with_dense: bool, ridge: float) -> dict:
    """All leverages of MNIST: in tiles on two processes; before and after it, dense."""
    data = ni.datasets.load("mini-mnist", n, 10)
    before = [alone(dense, n, ridge)] if with_dense else []
    row = in_tiles(data, ridge)
    row["dense"] = before + ([alone(dense, n, ridge)] if with_dense else [])
    leverage = row.pop("leverage")
    for once in row["dense"]:
        once["difference"] = float(np.abs(leverage - once.pop("leverage")).max())
    row |= {"n": n, "dimension": float(leverage.sum())} | beside_tolerance(data, ridge, leverage)
    print(json.dumps(row), flush=True)
    return row


def alone(function: object, *arguments: object) -> dict:
    """The function in a process of its own, for the sake of its peak memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def dense(n: int, ridge: float) -> dict:
    """All leverages by one factorisation of LAPACK's, with as many threads as there are workers."""
    torch.set_num_threads(2)
    data, began = ni.datasets.load("mini-mnist", n, 10), time.perf_counter()
    leverage = ni.fit_kernel_ridge(ni.relu_ntk(data.X), data.y, ridge).leverage
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak": peak(), "leverage": leverage.numpy()}


def in_tiles(data: ni.datasets.Dataset, ridge: float) -> dict:
    """The same by two worker processes of one thread each."""
    from dask.distributed import Client, LocalCluster

    n = len(data.X)
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(memory_limit="8GiB", **local) as cluster, Client(cluster) as client:
        ni.scale.fit_kernel_ridge(data.X[:64], data.y[:64], 1.0, chunks=32)  # loads libraries
        began = time.perf_counter()
        model = ni.scale.fit_kernel_ridge(data.X, data.y, ridge)
        seconds = time.perf_counter() - began
        peaks = list(client.run(peak).values())
    asked = sum(ni.scale.needs(n, workers=2))
    return {"seconds": seconds, "peak": max(peaks), "needs": asked, "leverage": model.leverage}


def beside_tolerance(data: ni.datasets.Dataset, ridge: float, leverage: np.ndarray) -> dict:
    """A few leverages without a matrix, and the share of their error bound that is used."""
    chosen = [0, len(data.X) // 2, len(data.X) - 1]
    low_rank = ni.iterative.low_rank_kernel(data.X, 500)
    options = {"low_rank": low_rank, "tolerance": 1e-3, "chosen": chosen}
    model = ni.iterative.fit_kernel_ridge(data.X, data.y, ridge, **options)
    found = ni.iterative.leverage(model)
    off = np.abs(found.value.numpy() - leverage[chosen])
    return {"off": float(off.max()), "of_bound": float((off / found.error.numpy()).max())}


def counter() -> object:
    """Counts by kind the tasks that a worker finishes, and the bytes that come from others."""
    from dask.utils import key_split
    from distributed import WorkerPlugin

    class Finished(WorkerPlugin):
        name = "finished"

        def setup(self, worker: object) -> None:
            self.worker, self.tasks, self.bytes = worker, Counter(), 0

        def transition(self, key: object, start: str, finish: str, **_: object) -> None:
            if start == "executing" and finish == "memory":
                self.tasks[key_split(key)] += 1
            if start == "flight" and finish == "memory":
                self.bytes += self.worker.state.tasks[key].get_nbytes()

    return Finished()


def state(dask_worker: object) -> dict:
    """What a worker has done so far, and the most memory that it ever had."""
    return {
        "tasks": Counter(dask_worker.plugins["finished"].tasks),
        "bytes": int(dask_worker.plugins["finished"].bytes),
        "messages": int(dask_worker.state.transfer_incoming_count_total),
        "peak": peak(),
    }


def thumbnail_of(image: Tensor) -> str:
    import studies

    return studies.thumbnail(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["digits", "tiles", "exact"])
    parser.add_argument("--n", type=int, default=60_000)
    parser.add_argument("--n-test", type=int, default=10_000)
    parser.add_argument("--rank", type=int, default=2_500)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--ridge", type=float, default=1.0)
    parser.add_argument("--chosen", type=int, default=40)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--chunks", type=int, default=500)
    parser.add_argument("--largest", type=int, default=20_000, help="size of the dense form")
    parser.add_argument("--to", default="data/recorded")
    asked = parser.parse_args()
    path = paths.ROOT / asked.to / f"{RECORD}.json"
    if asked.part == "digits":
        size = (asked.n, asked.n_test, asked.ridge, asked.rank, asked.tolerance, asked.chosen)
        settings = {key: vars(asked)[key] for key in ("n", "n_test", "ridge", "rank", "tolerance")}
        keep(path, ["digits"], settings, digits, *size)
    elif asked.part == "tiles":
        sizes = [2000, 3000, 4000, 6000, 8000, 12_000, 20_000, 30_000]
        settings = {"sizes": asked.sizes or sizes, "chunks": asked.chunks}
        keep(path, ["tiles"], settings, tiles, *settings.values())
    else:
        for n in asked.sizes or [5000, 10_000, 20_000, 30_000]:
            settings = {"n": n, "with_dense": n <= asked.largest, "ridge": asked.ridge}
            keep(path, ["exact", str(n)], settings, exact, *settings.values(), again=False)


def keep(
    path: Path, part: list[str], settings: dict, work: Callable, *given: object, again: bool = True
) -> None:
    """Do the work and put what it found, and how, into the record under the names of its part."""
    text = json.loads(path.read_text()) if path.exists() else {"provenance": {}, "results": {}}
    places = [text["provenance"], text["results"]]
    for name in part[:-1]:
        places = [place.setdefault(name, {}) for place in places]
    if part[-1] in places[1] and not again:
        print(f"{' '.join(part)} is there already")
        return
    made_by = records.made_by(torch.device("cpu"))  # the commit, before the work
    began = time.perf_counter()
    found = work(*given)
    wall = round(time.perf_counter() - began, 1)
    facts = made_by | {"wall_seconds": wall, "parameters": settings}
    for place, value in zip(places, (facts, found), strict=True):
        place[part[-1]] = value
    paths.write_atomically((path, json.dumps(text, indent=1) + "\n"))


if __name__ == "__main__":
    main()
