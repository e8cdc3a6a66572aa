"""What a trust report says in words and tables, beyond a row for each point."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import ntk_influence as ni
from livebook.prepare import Prepared

CHUNK = 2**24  # entries of the predictions that are held at once


@dataclass(frozen=True)
class Hanging:
    """For each explained prediction the one point that moves it most, and what that does."""

    prediction: Float[Tensor, "b"] | Float[Tensor, "b c"]
    point: Int[Tensor, "b"]
    without: Float[Tensor, "b"] | Float[Tensor, "b c"]  # the prediction without that point
    moved: Float[Tensor, "b"]
    turning: Int[Tensor, "b"]  # how many points turn the decision when they alone are removed


def hanging(model: ni.KernelRidge, y: Tensor, k_test: Tensor | None = None) -> Hanging:
    """Which predictions hang on one point: those of test points, else those of left-out points.

    Exact: `leave_one_out` for a test point; for the leave-one-out prediction of point j, without i
    as well, the block formula of two points.
    """
    n, outputs = len(y), y[0].numel()
    step = max(1, CHUNK // (n * outputs))
    parts = []
    for start in range(0, n if k_test is None else len(k_test), step):
        if k_test is None:
            prediction, without = without_two(model, y, slice(start, start + step))
        else:
            k = k_test[start : start + step]
            prediction, without = model.predict(k), ni.leave_one_out(model, k)
        parts.append(_most(prediction, without))
    return Hanging(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def without_two(model: ni.KernelRidge, y: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    r"""Leave-one-out predictions of points j, (b[, c]), and without each i too, (n, b[, c]).

    The residual at j without i and j is $(P_{ii} \alpha_j - P_{ij} \alpha_i) / (P_{ii} P_{jj} -
    P_{ij}^2)$; where i is j it is that without j alone.
    """
    P, d = model.inverse, model.inverse.diagonal()
    alpha, labels = model.dual.reshape(len(P), -1), y.reshape(len(P), -1)
    own = torch.arange(len(P), device=P.device)[rows]
    here = torch.arange(len(own), device=P.device)
    determinant = torch.outer(d, d[own]) - P[:, own].square()
    determinant[own, here] = 1
    missed = d[:, None, None] * alpha[own] - P[:, own, None] * alpha[:, None]
    missed /= determinant[..., None]
    missed[own, here] = alpha[own] / d[own, None]
    shape = model.dual.shape[1:]
    prediction = labels[own] - alpha[own] / d[own, None]
    return prediction.reshape(-1, *shape), (labels[own] - missed).reshape(len(P), -1, *shape)


def decision(prediction: Tensor) -> Tensor:
    """The class that outputs decide for: the greatest of several, the sign of one."""
    return prediction.argmax(dim=-1) if prediction.ndim > 1 else (prediction > 0).long()


def _most(prediction: Tensor, without: Tensor) -> tuple[Tensor, ...]:
    moved = (without - prediction).reshape(*without.shape[:2], -1).norm(dim=2)
    most, point = moved.max(dim=0)
    chosen = without[point, torch.arange(len(point), device=point.device)]
    if prediction.ndim == 2:
        turned = without.argmax(dim=2) != prediction.argmax(dim=1)
    else:
        turned = (without > 0) != (prediction > 0)
    return prediction, point, chosen, most, turned.sum(dim=0)


def suspects(report: ni.TrustReport, prepared: Prepared, count: int = 20) -> list[list[str]]:
    """The labels to look at first: place, label, what the others say, probability, verdict."""
    order = report.wrong_label.argsort(descending=True, stable=True)[:count].tolist()
    says = prepared.label_of(report.loo_prediction)
    return [
        [
            prepared.places[i],
            prepared.labels[i],
            says[i],
            f"{float(report.wrong_label[i]):.2f}",
            f"{float(report.leverage[i]):.2f}",
            in_places(report.verdict[i], prepared.places),
        ]
        for i in order
    ]


def in_places(verdict: str, places: list[str]) -> str:
    """A verdict in which another point is named as the file has it."""
    head, found, rest = verdict.partition("copy of point ")
    if not found:
        return verdict
    number, comma, tail = rest.partition(",")
    number, semicolon, end = number.partition(";")
    return f"{head}copy of {places[int(number)]}{semicolon}{end}{comma}{tail}"


def found(report: ni.TrustReport, planted: Bool[np.ndarray, "n"]) -> tuple[float, float, int]:
    """Precision and recall of the labels called probably wrong, and how many these are."""
    called = report.wrong_label.cpu().numpy() > 0.5
    hits = int((called & planted).sum())
    return hits / max(1, called.sum()), hits / planted.sum(), int(called.sum())


def first_in_order(score: Float[Tensor, "n"], planted: Bool[np.ndarray, "n"]) -> float:
    """The share of the planted ones among as many points of the greatest scores."""
    order = score.argsort(descending=True, stable=True).cpu().numpy()[: planted.sum()]
    return float(planted[order].mean())


def line_of(place: str) -> int | None:
    """The number of a line of a CSV file; None where a point has no line."""
    word, _, number = place.partition(" ")
    return int(number) if word == "line" and number.isdecimal() else None


def rows(report: ni.TrustReport, prepared: Prepared) -> list[dict]:
    """The table of the report: where a point stands in the file, its label, and all columns."""
    says = prepared.label_of(report.loo_prediction)
    table = report.rows()
    for row in table:
        del row["loo_prediction"]
        row["verdict"] = in_places(row["verdict"], prepared.places)
    named = [
        {
            "point": row.pop("point"),
            "line": line_of(place),
            "place": place,
            "label": label,
            "others_say": other,
            **row,
        }
        for row, place, label, other in zip(
            table, prepared.places, prepared.labels, says, strict=True
        )
    ]
    return named
