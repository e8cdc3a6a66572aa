"""What the closed form costs, as ratios to a floor of bare products measured in the same run.

``python benchmarks/bench.py [--sizes N ...] [--to FOLDER]`` writes ``bench.json``.
"""

import argparse
from statistics import median

import torch
from timing import DIM, REPEATS, RIDGE, in_fresh_process, peak_bytes, seconds
from tqdm import tqdm

import livebook as book
import ntk_influence as ni

N_TEST = 1000


def data(n: int) -> ni.datasets.Dataset:
    """Unit vectors with labels of +1 and -1; what they show does not matter for the cost."""
    return ni.datasets.mixture(n, N_TEST, dim=DIM)


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
