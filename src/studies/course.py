"""Influence in the course of training: times, one course of the flow, and courses that are kept."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import livebook as book
import ntk_influence as ni

from .beside import live_beside_recorded
from .problems import flow_with, kernels

TIMES = 10 ** (np.arange(-30, 51) / 10)  # in units of the shortest scale
CALLED = {"mnist-5k-7v9": "digits", "mnist-7v9": "digits", "cifar-car-plane": "cars and planes"}


def unridged(
    name: str, n_train: int, n_test: int, seed: int | None, device: torch.device
) -> tuple[ni.datasets.Dataset, Float[Tensor, "n_test n"], ni.KernelFlow]:
    """Data, test kernel, and the flow without a ridge."""
    data = ni.datasets.load(name, n_train, n_test, seed=seed).to(device)
    K, k_test = kernels(data)
    return data, k_test, ni.fit_kernel_flow(K, data.y, 0.0)


def course_of(
    whole: ni.KernelFlow, ridge: float, y: Float[Tensor, "n"]
) -> tuple[ni.KernelFlow, list[float]]:
    """A flow without a ridge, given one and these labels, and its times."""
    flow = flow_with(whole, ridge, y)
    return flow, (TIMES / float(flow.a[-1])).tolist()


def influence_at_each(
    flow: ni.KernelFlow,
    times: Sequence[float],
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"],
) -> Iterator[Float[Tensor, "n n_test"]]:
    """The influences at each time; nine times are in memory at once."""
    for start in range(0, len(times), 9):
        yield from flow.loo_influence(times[start : start + 9], k_test, y_test)


def kept_courses(
    follow: Callable, names: Sequence[str], draws: int, *, to: str | None, **facts: object
) -> dict[str, list]:
    """For each name a row for each draw and a column for each time, out of ``follow(draw)``.

    Each course is kept as soon as it is there, so that a long run goes on where it was interrupted.
    """
    kept, courses = book.Checkpoint(to, times=list(TIMES), **facts), []
    for draw in range(draws):
        if kept.load(draw) is None:
            kept.save(draw, follow(draw))
        courses.append(kept.load(draw))
    values = torch.stack(courses).permute(2, 0, 1).numpy().round(6).tolist()
    return dict(zip(names, values, strict=True))


def courses(rows: list[dict], key: str, rate: float, ridge: float) -> np.ndarray:
    """The courses of one setting, a row for each draw (or choice of the training set)."""
    those = [row for row in rows if (row["rate"], row["ridge"]) == (rate, ridge)]
    return np.concatenate([row["values"][key] for row in those])


def runs_by_size(live: dict[str, list], name: str) -> dict[str, list]:
    """Rows of this page, then of the record, by the name and size of the training set."""
    return {
        f"{CALLED[data]}, {rows[0]['n']:,}": rows
        for data, _, rows in live_beside_recorded(live, name)
    }
