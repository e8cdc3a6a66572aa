"""Many retrainings side by side, each as if it were alone."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from joblib import Parallel, delayed, parallel_config
from torch import Tensor

from .. import _check, retraining
from ..network import TwoLayerReLU
from ..training import Method, TrainedTwoLayerReLU, train
from ._workers import Workers

BACKENDS = ("loky", "dask")


def retrain_without(
    network: TwoLayerReLU,
    X: Tensor,
    y: Tensor,
    ridge: float,
    indices: Sequence[int],
    X_test: Tensor,
    *,
    workers: int = 2,
    backend: Literal["loky", "dask"] = "loky",
    threads: int = 1,
    method: Method = "gradient_descent",
    start: Literal["cold", "warm"] = "cold",
    trained: TrainedTwoLayerReLU | None = None,
    finished: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    r"""Predictions of networks trained without one training point, on several processes.

    As `ntk_influence.retrain_without`, equation (7), one point at a time: so the result has the
    same bits for any number of workers of one kind of machine. In one process, points that are
    trained together may differ from it in rounding, which kinks amplify.

    Parameters
    ----------
    network, X, y, ridge, indices, X_test, method, start, trained, finished : as in
        `ntk_influence.retrain_without`; ``finished`` is called here, in the order of ``indices``.
    workers : number of processes; with 1 everything is done in this one.
    backend : of joblib: ``"loky"``, processes of this machine, or ``"dask"``, the workers of the
        client of Dask's that is current.
    threads : of torch in every process.

    Returns
    -------
    (k, n_test) or (k, n_test, c) tensor, in the order of ``indices``.

    Raises
    ------
    ValueError
        As `ntk_influence.retrain_without`; another backend, no client for it, numbers below one.
    TrainingError
        As `ntk_influence.retrain_without`. Points that were finished before have been handed out.

    Source: Zhang and Zhang 2022, Eq. (7).
    """
    workers, threads = _check.integer("workers", workers), _check.integer("threads", threads)
    _check.require(backend in BACKENDS, "backend", f"one of {', '.join(BACKENDS)}", repr(backend))
    if backend == "dask":
        current = Workers().client is not None
        _check.require(current, "backend", "a client of Dask's that is current", "none")
    options = {"method": method, "start": start, "trained": trained}
    nothing = retraining.retrain_without(network, X, y, ridge, [], X_test, **options)
    chosen = _check.indices("indices", indices, len(X))
    if chosen and trained is None:
        options["trained"] = train(network, X, y, ridge, method=method)
    jobs = (delayed(_one)(threads, network, X, y, ridge, i, X_test, options) for i in chosen)
    results = [nothing]
    with parallel_config(backend=backend, n_jobs=workers):
        done = Parallel(return_as="generator")(jobs)
        for i, prediction in zip(chosen, done, strict=True):
            results.append(prediction)
            if finished:
                finished(i, prediction[0])
    return torch.cat(results)


def _one(
    threads: int,
    network: TwoLayerReLU,
    X: Tensor,
    y: Tensor,
    ridge: float,
    index: int,
    X_test: Tensor,
    options: dict[str, Any],
) -> Tensor:
    """One retraining, (1, n_test), with that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return retraining.retrain_without(network, X, y, ridge, [index], X_test, **options)
    finally:
        torch.set_num_threads(before)
