"""What influence over time costs: over its products, over the obvious way, and in memory.

``python benchmarks/dynamics.py [--n N] [--to FOLDER]`` writes ``bench_dynamics.json``.
"""

import argparse
from statistics import median

import torch
from timing import DIM, REPEATS, RIDGE, in_fresh_process, peak_bytes, seconds
from tqdm import tqdm

import livebook as book
import ntk_influence as ni

N_TEST, TIMES, MEMORY = 500, torch.logspace(-3, 2, 20).tolist(), 2**26


def problem(n: int) -> tuple:
    """Kernels and labels; what they show does not matter for the cost."""
    d = ni.datasets.mixture(n, N_TEST, dim=DIM)
    return ni.relu_ntk(d.X), d.y, RIDGE, ni.relu_ntk(d.X_test, d.X), d.y_test


def products(K: torch.Tensor, k_test: torch.Tensor) -> None:
    """One eigendecomposition, and for each time the product over nodes and that with the test."""
    U = torch.linalg.eigh(K)[1]
    kU = k_test @ U
    nodes = torch.rand(len(K), ni.contour().nodes, dtype=K.dtype)
    for _ in TIMES:
        nodes @ nodes.T @ kU.T


def refit(K: torch.Tensor, y: torch.Tensor, ridge: float, k_test: torch.Tensor) -> None:
    """All times of one model without its last point, from an eigendecomposition of its own."""
    ni.predict_at(TIMES, K[:-1, :-1].contiguous(), y[:-1], ridge, k_test[:, :-1])


def beyond(n: int) -> float:
    """Peak memory beyond arguments, eigenvectors and result, in units of what was allowed."""
    given = problem(n)
    ni.loo_influence_at(TIMES[:1], *problem(64))  # loads the libraries
    peak = peak_bytes(lambda: ni.loo_influence_at(TIMES, *given, memory=MEMORY))
    return (peak - 8 * (n * n + len(TIMES) * n * N_TEST)) / MEMORY


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--to", default="data/recorded", help="folder for bench_dynamics.json")
    options = parser.parse_args()
    K, y, ridge, k_test, _ = given = problem(options.n)
    actions = {
        "floor": lambda: products(K, k_test),
        "total": lambda: ni.loo_influence_at(TIMES, *given),
        "refit": lambda: refit(K, y, ridge, k_test),
    }
    runs = {name: [] for name in actions}
    for _ in tqdm(range(REPEATS + 1)):
        for name, action in actions.items():
            runs[name].append(seconds(action))
    t = {name: median(times[1:]) for name, times in runs.items()}  # the first round warms up
    results = {
        "n": options.n,
        "n_test": N_TEST,
        "times": len(TIMES),
        "seconds": t["total"],
        "total": t["total"] / t["floor"],
        "refits": options.n * t["refit"] / t["total"],
        "refits_measured": REPEATS,
        "memory": in_fresh_process(beyond, options.n),
        "memory_allowed": MEMORY,
    }
    facts = dict(dim=DIM, ridge=RIDGE, threads=torch.get_num_threads(), data="mixture")
    book.record(options.to, "bench_dynamics", results, torch.device("cpu"), **facts)
    print(results)


if __name__ == "__main__":
    main()
