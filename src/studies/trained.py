"""Rows of trained networks: which are missing, which are judged, and the laws they follow."""

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from scipy.stats import linregress

import livebook as book


def combined(settings: list[dict], base: dict) -> Iterator[dict]:
    """One row for each combination of the values that are given as lists."""
    for changes in settings:
        lists = [v if isinstance(v, list) else [v] for v in changes.values()]
        yield from (base | dict(zip(changes, v, strict=True)) for v in product(*lists))


def with_missing(
    name: str,
    settings: Iterator[dict],
    measure: Callable[[dict], dict],
    record_to: str,
    device: torch.device,
) -> list[dict]:
    """The recorded rows, and those of the settings that are not among them, made and recorded."""
    rows = known = (book.recorded(name) or {"results": {"rows": []}})["results"]["rows"]
    missing = [s for s in settings if not any(s.items() <= row.items() for row in known)]

    def measured(row: dict) -> dict:
        return measure(row) | {"made_by": book.made_by(device)}

    for new in book.sweep(measured, missing):
        rows = known + new
        book.record(record_to, name, {"rows": rows}, device)
    return rows


def of_quiet_widths(rows: list[dict], errors: tuple[str, ...]) -> list[dict]:
    """Rows of the widths at which each network has a floor below a fifth of its least error."""
    loudest = {}
    for row in rows:
        share = row.get("floor", math.inf) / min(row[key] for key in errors)
        loudest[row["width"]] = max(share, loudest.get(row["width"], 0.0))
    return [row for row in rows if loudest[row["width"]] < 1 / 5]


def slope_in_width(rows: list[dict], key: str, **which: object):
    """The line of log error against log width, over the rows that are like this, if it is one."""
    some = [row for row in rows if which.items() <= row.items() and key in row]
    if len({row["width"] for row in some}) < 2:
        return None
    return linregress(*(np.log([row[k] for row in some]) for k in ("width", key)))


def median_ratio(rows: list[dict], above: str, below: str) -> float:
    """Median ratio of two errors over the networks that have both."""
    return float(np.median([row[above] / row[below] for row in rows if above in row]))


def with_and_without_kinks(rows: list[dict]) -> list[tuple[dict, dict]]:
    """Rows of ReLU and the smoothed ones beside them, at the largest width with both."""
    same = ("dataset", "depth", "width", "seed", "standard", "share")
    pairs = [
        (row, other)
        for row, other in product(rows, rows)
        if not row["smoothing"] and other["smoothing"] and all(row[k] == other[k] for k in same)
    ]
    widest = max(row["width"] for row, _ in pairs)
    return [pair for pair in pairs if pair[0]["width"] == widest]


def common_line(
    groups: dict[str, list[dict]], x: str, y: str
) -> tuple[float, float, dict[str, np.ndarray]]:
    """Slope and height of log y on log x, each group with the same weight, and what is off it."""
    logs = {name: np.log([[row[x], row[y]] for row in rows]).T for name, rows in groups.items()}
    weights = [np.full(len(rows), len(rows) ** -0.5) for rows in groups.values()]
    points = np.concatenate(list(logs.values()), axis=1)
    slope, height = np.polyfit(*points, 1, w=np.concatenate(weights))
    return slope, height, {name: b - slope * a - height for name, (a, b) in logs.items()}


def slope_along(course: list[dict], x: str, y: str) -> float:
    """Slope of one log on another along the training of a network."""
    return float(linregress(*(np.log([row[key] for row in course]) for key in (x, y))).slope)
