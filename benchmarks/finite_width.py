"""What exact IHVP of a network costs: over its floor, and over conjugate gradients.

``python benchmarks/finite_width.py [--n N] [--width M] [--to FOLDER]`` writes
``bench_finite_width.json``.
"""

import argparse
import time
from statistics import median

import torch
from timing import DIM, REPEATS, RIDGE, seconds
from tqdm import tqdm

import livebook as book
import ntk_influence as ni

N_TEST = 500


def finite_floor(network: ni.TwoLayerReLU, X: torch.Tensor, X_test: torch.Tensor) -> None:
    """Patterns of all points, their products, one Cholesky factorisation, one solve per test."""
    points, n = torch.cat([X, X_test]), len(X)
    pairs = torch.zeros(len(points), n)
    for W in network.W.split(1024):
        A = (points @ W.T >= 0).float()
        pairs.addmm_(A, A[:n].T)
    K = pairs.double()
    K[:n].diagonal().add_(RIDGE)
    torch.cholesky_solve(K[n:].T, torch.linalg.cholesky(K[:n]))


def conjugate_gradients(network: ni.TwoLayerReLU, X: torch.Tensor, x: torch.Tensor) -> int:
    """One test gradient through the Hessian, by products from autograd; the number of steps."""

    def objective(W: torch.Tensor) -> torch.Tensor:
        fit = ni.TwoLayerReLU(W, network.a).predict(X).square().sum()
        return (fit + RIDGE * W.square().sum()) / 2

    gradient = torch.func.grad(objective)
    g = torch.func.grad(lambda W: ni.TwoLayerReLU(W, network.a).predict(x).sum())(network.W)
    z, r, p, steps = torch.zeros_like(g), g, g, 0
    while r.norm() > 1e-4 * g.norm():
        q = torch.func.jvp(gradient, (network.W,), (p,))[1]
        along = r.square().sum() / (p * q).sum()
        z, after = z + along * p, r - along * q
        p, r = after + after.square().sum() / r.square().sum() * p, after
        steps += 1
    return steps


def measure_finite(n: int, width: int, n_test: int) -> dict:
    """IHVP of a network against its floor, and against one conjugate gradient solve per point."""
    d = ni.datasets.mixture(n, n_test, dim=DIM)
    network = ni.TwoLayerReLU.initialise(DIM, width, 1.0, 0)
    ihvp = (network, d.X, d.y, RIDGE, d.X_test, d.y_test)
    runs = {"floor": [], "total": []}
    for _ in tqdm(range(REPEATS + 1), desc=f"width {width:,}"):
        runs["floor"].append(seconds(finite_floor, network, d.X, d.X_test))
        runs["total"].append(seconds(ni.finite_width.ihvp_influence, *ihvp))
    t = {name: median(times[1:]) for name, times in runs.items()}
    conjugate_gradients(network, d.X[:8], d.X_test[:1])  # loads what autograd needs
    started = time.perf_counter()
    steps = conjugate_gradients(network, d.X, d.X_test[:1])
    one = time.perf_counter() - started
    return {
        "n": n,
        "width": width,
        "n_test": n_test,
        "seconds": t["total"],
        "total": t["total"] / t["floor"],
        "cg_steps": steps,
        "cg_all": n_test * one / t["total"],
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--width", type=int, default=10_000)
    parser.add_argument("--to", default="data/recorded", help="folder for bench_finite_width.json")
    options = parser.parse_args()
    results = measure_finite(options.n, options.width, N_TEST)
    facts = dict(dim=DIM, ridge=RIDGE, threads=torch.get_num_threads(), data="mixture")
    book.record(options.to, "bench_finite_width", results, torch.device("cpu"), **facts)
    print(results)


if __name__ == "__main__":
    main()
