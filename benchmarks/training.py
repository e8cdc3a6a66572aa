"""What training costs: the share of products in a step, retraining by implicit steps and by
gradient descent with the noise floor of both, and a retraining inside a sweep over one by itself.

``python benchmarks/training.py [--n N] [--width M] [--to FOLDER]`` writes ``bench_training.json``.
"""

import argparse
from itertools import pairwise, product
from statistics import median

import torch
from timing import REPEATS, seconds

import livebook as book
import ntk_influence as ni
from ntk_influence.descent import count_pairs

DTYPE = torch.float32
POINTS, LADDER = 2, (10, 20, 40, 80, 160, 320)


def problem(n: int, width: int, ridge: float) -> tuple:
    """A start, digits, and labels that tell even from odd: real images make training stiff."""
    d = ni.datasets.load("mnist-5k", n, 1)
    start = ni.TwoLayerReLU.initialise(d.X.shape[1], width, 0.1, 0, dtype=DTYPE)
    return start, d.X.to(DTYPE), (1 - 2 * (d.labels % 2)).to(DTYPE), ridge


def products(descent: ni.Descent, A: torch.Tensor, D: torch.Tensor, implicit: bool) -> None:
    """The matrix products and the factorisation in one step, and nothing else."""
    if implicit:
        K = count_pairs(A)
        K.diagonal(dim1=1, dim2=2).add_(len(K) * A.shape[2])
        torch.linalg.cholesky(K)
    descent.pre_activations(descent.coefficients(D))


def step_over_products(n: int, width: int) -> dict[str, float]:
    """Share of a step that its products take, for each method."""
    descent = ni.Descent(*problem(n, width, 1.0))
    steps = {"gradient_descent": ni.Step(1e-3), "preconditioned": ni.Step(1.0, damping=10.0)}
    B, Z = descent.start(), descent.Z_start[None].clone()
    A, D = (Z >= 0).to(DTYPE), Z.clone()
    shares = {}
    for name, step in steps.items():
        implicit, times = name == "preconditioned", []
        for _ in range(REPEATS + 1):
            bare = seconds(products, descent, A, D, implicit)
            times.append(bare / seconds(descent.take, step, B, Z))
        shares[name] = median(times[1:])
    return shares


def ways_of_retraining(n: int, width: int, ridge: float) -> list[dict]:
    """Time, error and noise floor of retraining, by gradient descent and by more and more steps.

    The time is relative to gradient descent; the error is the distance of the changes of the
    predictions from those of the kernel with the offset; the floor is their distance from changes
    by gradient descent with half the step, or by twice as many implicit steps. Points that change
    the kernel's predictions most are left out.
    """
    start, X, y, ridge = problem(n, width, ridge)
    d = ni.datasets.load("mnist-5k", n, 100)
    K, k_test = ni.relu_ntk(d.X), ni.relu_ntk(d.X_test, d.X)
    X_test = d.X_test.to(DTYPE)
    model = ni.fit_kernel_ridge(K, (y - start.predict(X)).double(), ridge)
    expected = ni.leave_one_out(model, k_test) - model.predict(k_test)
    chosen = expected.norm(dim=1).topk(POINTS).indices

    def retrain(method: str, **how: float) -> tuple[float, torch.Tensor, ni.Report]:
        trained = ni.train(start, X, y, ridge, method=method, **how)
        task = (start, X, y, ridge, chosen.tolist(), X_test)
        found = []

        def once() -> None:
            found.append(ni.retrain_without(*task, method=method, trained=trained))

        took, report = seconds(once), trained.report
        return took, (found[0] - trained.predict(X_test)).double(), report

    descent = [retrain("gradient_descent")]
    first = descent[0][2].schedule[0].size
    descent.append(retrain("gradient_descent", step=first / 2))
    ladder = [retrain("preconditioned", max_steps=steps) for steps in LADDER]
    pairs = [("gradient_descent", *descent)]
    pairs += [("preconditioned", *pair) for pair in pairwise(ladder)]
    return [
        {
            "n": n,
            "ridge": ridge,
            "stiffness": float(torch.linalg.eigvalsh(start.ntk(X).double())[-1]) / ridge,
            "method": method,
            "steps": report.steps,
            "time": took / descent[0][0],
            "error": float((delta - expected[chosen]).norm() / delta.norm()),
            "floor": float((delta - finer).norm() / delta.norm()),
            "apart": float((delta - descent[0][1]).norm() / descent[0][1].norm()),
        }
        for method, (took, delta, report), (_, finer, _) in pairs
    ]


def retraining_in_a_sweep(n: int, width: int) -> float:
    """Time of one point in a sweep over that of training without it from nothing."""
    start, X, y, ridge = problem(n, width, 10.0)
    trained = ni.train(start, X, y, ridge, method="preconditioned", max_steps=10)
    task = (start, X, y, ridge, [0, 1, 2], X[:100])
    how = {"method": "preconditioned"}
    ratios = []
    for _ in range(REPEATS):
        alone = seconds(lambda: ni.train(start, X[1:], y[1:], ridge, max_steps=10, **how))
        swept = seconds(lambda: ni.retrain_without(*task, trained=trained, **how))
        ratios.append(swept / 3 / alone)
    return median(ratios)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--to", default="data/recorded", help="folder for bench_training.json")
    options = parser.parse_args()
    n, width = options.n, options.width
    facts = dict(n=n, width=width, dtype=str(DTYPE), threads=torch.get_num_threads())
    facts |= dict(data="mnist-5k, even or odd")
    results = {"step": step_over_products(n, width), "sweep": retraining_in_a_sweep(n, width)}
    results["ways"] = []
    for points, ridge in product((n // 8, n // 4, n), (10.0, 1.0)):
        results["ways"] += ways_of_retraining(points, width // 2, ridge)
        book.record(options.to, "bench_training", results, torch.device("cpu"), **facts)
    print(results)


if __name__ == "__main__":
    main()
