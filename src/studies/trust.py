"""What a trust report says in words and tables, beyond a row for each point."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import ntk_influence as ni
from livebook.prepare import Prepared, decision
from ntk_influence.groups import pair_residuals

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
    as well, `pair_residuals`.
    """
    targets = torch.arange(len(y) if k_test is None else len(k_test), device=y.device)
    parts = []
    for points in targets.split(max(1, CHUNK // y.numel())):
        if k_test is None:
            missed = pair_residuals(model, points)
            prediction, without = (
                y[points] - missed[points, torch.arange(len(points))],
                y[points] - missed,
            )
        else:
            k = k_test[points]
            prediction, without = model.predict(k), ni.leave_one_out(model, k)
        parts.append(_most(prediction, without))
    return Hanging(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _most(prediction: Tensor, without: Tensor) -> tuple[Tensor, ...]:
    moved = (without - prediction).reshape(*without.shape[:2], -1).norm(dim=2)
    most, point = moved.max(dim=0)
    chosen = without[point, torch.arange(len(point), device=point.device)]
    several = prediction.ndim == 2
    turned = decision(without, several) != decision(prediction, several)
    return prediction, point, chosen, most, turned.sum(dim=0)


def suspects(report: ni.TrustReport, prepared: Prepared, count: int = 20) -> list[list[str]]:
    """The labels to look at first: place, label, what the others say, probability, verdict."""
    order = report.suspicious[:count].tolist()
    says = prepared.label_of(report.loo_prediction)
    return [
        [
            prepared.places[i],
            prepared.labels[i],
            says[i],
            f"{float(report.wrong_label[i]):.2f}",
            f"{float(report.leverage[i]):.2f}",
            in_places(report.verdict[i], int(report.duplicate_of[i]), prepared.places),
        ]
        for i in order
    ]


def in_places(verdict: str, duplicate_of: int, places: list[str]) -> str:
    """A verdict in which another point is named as the file has it."""
    return verdict.replace(f"copy of point {duplicate_of}", f"copy of {places[duplicate_of]}")


def found(report: ni.TrustReport, planted: Bool[np.ndarray, "n"]) -> tuple[float, float, int]:
    """Precision and recall of the labels called probably wrong, and how many these are."""
    called = report.wrong_label.cpu().numpy() > 0.5
    hits = int((called & planted).sum())
    return hits / max(1, called.sum()), hits / planted.sum(), int(called.sum())


def rows(report: ni.TrustReport, prepared: Prepared) -> list[dict]:
    """The table of the report: where a point stands in the file, its label, and all columns."""
    says = prepared.label_of(report.loo_prediction)
    table = report.rows()
    for row in table:
        del row["loo_prediction"]
        row["verdict"] = in_places(row["verdict"], row["duplicate_of"], prepared.places)
    named = [
        {
            "point": row.pop("point"),
            "line": line,
            "place": place,
            "label": label,
            "others_say": other,
            **row,
        }
        for row, line, place, label, other in zip(
            table, prepared.lines, prepared.places, prepared.labels, says, strict=True
        )
    ]
    return named
