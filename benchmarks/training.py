"""What training costs: the share of products in a step, implicit steps over gradient descent, both
at the same noise floor, and a retraining inside a sweep over one by itself.

``python benchmarks/training.py [--n N] [--width M] [--to FOLDER]`` writes ``bench_training.json``.
"""

import argparse
from itertools import pairwise
from statistics import median

import torch
from bench import seconds

import livebook as book
import ntk_influence as ni
from ntk_influence.training import Step, _Descent, _pairs

DTYPE, REPEATS = torch.float32, 5
POINTS, LADDER = 4, (10, 20, 40, 80, 160, 320)


def problem(n: int, width: int, ridge: float) -> tuple:
    """A start, digits, and labels that tell even from odd: real images make training stiff."""
    d = ni.datasets.load("mnist-5k", n, 1)
    start = ni.TwoLayerReLU.initialise(d.X.shape[1], width, 0.1, 0, dtype=DTYPE)
    return start, d.X.to(DTYPE), (1 - 2 * (d.labels % 2)).to(DTYPE), ridge


def products(descent: _Descent, A: torch.Tensor, D: torch.Tensor, implicit: bool) -> None:
    """The matrix products and the factorisation in one step, and nothing else."""
    if implicit:
        K = _pairs(A)
        K.diagonal(dim1=1, dim2=2).add_(len(K) * A.shape[2])
        torch.linalg.cholesky(K)
    descent._push(descent._pull(D))


def step_over_products(n: int, width: int) -> dict[str, float]:
    """Share of a step that its products take, for each method."""
    descent = _Descent(*problem(n, width, 1.0))
    steps = {"gradient_descent": Step(1e-3), "preconditioned": Step(1.0, damping=10.0)}
    M, Z = descent.start(), descent.Z_start[None].clone()
    A, D = (Z >= 0).to(DTYPE), Z.clone()
    shares = {}
    for name, step in steps.items():
        implicit, times = name == "preconditioned", []
        for _ in range(REPEATS + 1):
            bare = seconds(products, descent, A, D, implicit)
            times.append(bare / seconds(descent._take, step, M, Z))
        shares[name] = median(times[1:])
    return shares


def implicit_over_descent(n: int, width: int, ridge: float) -> dict[str, float]:
    """Time and steps of gradient descent over those of implicit steps, each to its end."""
    given = problem(n, width, ridge)
    runs, took = {}, {}
    for name in ("preconditioned", "gradient_descent"):

        def run(name: str = name) -> None:
            runs[name] = ni.train(*given, method=name)

        took[name] = seconds(run)
    steps = {name: trained.report.steps for name, trained in runs.items()}
    largest = float(torch.linalg.eigvalsh(given[0].ntk(given[1]).double())[-1])
    f, g = (trained.predict(given[1]) for trained in runs.values())
    f_0 = given[0].predict(given[1])
    K = ni.relu_ntk(given[1])
    kernel = f_0 + ni.fit_kernel_ridge(K, given[2] - f_0, ridge).predict(K)
    return {
        "n": n,
        "ridge": ridge,
        "stiffness": largest / ridge,
        "time": took["gradient_descent"] / took["preconditioned"],
        "steps": steps["gradient_descent"] / steps["preconditioned"],
        "apart": float((f - g).norm() / (g - f_0).norm()),
        "from the kernel": [float((h - kernel).norm() / (kernel - f_0).norm()) for h in (f, g)],
    }


def against_the_floor(n: int, width: int, ridge: float) -> list[dict]:
    """What retraining takes, how far it ends from the kernel, and its noise floor, for each way.

    The floor is the distance to the changes by gradient descent with half the step, or by twice
    as many implicit steps. The points are those that change the kernel's predictions most.
    """
    start, X, y, ridge = problem(n, width, ridge)
    X_test = ni.datasets.load("mnist-5k", n, 100).X_test.to(DTYPE)
    k_test = ni.relu_ntk(X_test, X).double()
    model = ni.fit_kernel_ridge(ni.relu_ntk(X).double(), (y - start.predict(X)).double(), ridge)
    expected = ni.leave_one_out(model, k_test) - model.predict(k_test)
    chosen = expected.norm(dim=1).topk(POINTS).indices

    def retrain(method: str, **how: float) -> tuple[float, torch.Tensor, int]:
        trained = ni.train(start, X, y, ridge, method, **how)
        arguments = (start, X, y, ridge, chosen.tolist(), X_test, method, "cold", trained)
        found = []
        took = seconds(lambda: found.append(ni.retrain_without(*arguments)))
        return took, (found[0] - trained.predict(X_test)).double(), trained.report.steps

    found = [retrain("gradient_descent", step=step) for step in (1.0, 0.5)]
    ladder = [retrain("preconditioned", max_steps=steps) for steps in LADDER]
    pairs = [("gradient_descent", *found)]
    pairs += [("preconditioned", *pair) for pair in pairwise(ladder)]
    return [
        {
            "n": n,
            "ridge": ridge,
            "method": method,
            "steps": steps,
            "time": took / found[0][0],
            "error": float((delta - expected[chosen]).norm() / delta.norm()),
            "floor": float((delta - finer).norm() / delta.norm()),
        }
        for method, (took, delta, steps), (_, finer, _) in pairs
    ]


def retraining_in_a_sweep(n: int, width: int) -> float:
    """Time of one point in a sweep over that of training without it from nothing."""
    start, X, y, ridge = problem(n, width, 10.0)
    trained = ni.train(start, X, y, ridge, "preconditioned", max_steps=10)
    arguments = (start, X, y, ridge, [0, 1, 2], X[:100], "preconditioned", "cold", trained)
    alone = seconds(ni.train, start, X[1:], y[1:], ridge, "preconditioned", 10)
    return seconds(ni.retrain_without, *arguments) / 3 / alone


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--to", default="data/recorded", help="folder for bench_training.json")
    options = parser.parse_args()
    n, width = options.n, options.width
    cases = [(n // k, ridge) for k in (8, 2, 1) for ridge in (10.0, 1.0)]
    small = [(n // k, ridge) for k in (8, 4) for ridge in (10.0, 1.0)]
    results = {
        "step": step_over_products(n, width),
        "methods": [implicit_over_descent(k, width, ridge) for k, ridge in cases],
        "floor": [row for k, ridge in small for row in against_the_floor(k, width, ridge)],
        "sweep": retraining_in_a_sweep(n, width),
    }
    facts = dict(n=n, width=width, dtype=str(DTYPE), threads=torch.get_num_threads())
    facts |= dict(data="mnist-5k, even or odd")
    book.record(options.to, "bench_training", results, torch.device("cpu"), **facts)
    print(results)


if __name__ == "__main__":
    main()
