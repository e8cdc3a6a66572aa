"""The paper beside the book: verdicts with their strictness, and Table 1 cell by cell."""

from collections.abc import Iterator
from functools import lru_cache

import yaml

from . import paths
from .ledger import Verdict, claims, tolerance_text
from .records import recorded

SIZE = 5000  # training images in the paper
RECORDS = ("11_settings", "16_quiet_truth")  # of retraining, some of it at that size
TRAINED_BY = {"preconditioned": "implicit steps", "gradient_descent": "gradient descent"}
DECIDED = ("holds", "holds with limits", "not seen here")


@lru_cache
def paper() -> dict:
    """What ``paper.yml`` holds."""
    return yaml.safe_load((paths.ROOT / "paper.yml").read_text(encoding="utf-8"))


def scaled(tolerance: float | list[float], factor: float, zero: float | None) -> list[float] | None:
    """The interval that a tolerance becomes when it is made wider by a factor; None if it cannot.

    From perfection, inside the interval, distances grow by the factor; where ``zero`` is no effect,
    outside, the effect that is asked for shrinks by it.
    """
    if not isinstance(tolerance, list):
        return [-float("inf"), factor * tolerance]
    if zero is None:
        return None
    low, high = tolerance
    if low <= zero <= high:
        return [zero + factor * (bound - zero) for bound in tolerance]
    if zero < low:
        return [zero + (low - zero) / factor, high]
    return [low, zero + (high - zero) / factor]


def at_factor(row: Verdict, factor: float) -> str:
    """The verdict at a tolerance that is wider by a factor, from the number that was published."""
    claim = claims()[row.claim]
    interval = scaled(claim["tolerance"], factor, paper()["zero"].get(row.claim))
    if claim["kind"] == "identity" or interval is None:
        return "—"
    if row.verdict not in DECIDED:  # the noise floor decides, or nothing was measured
        return row.verdict
    measured = float(row.measured.removeprefix("< "))  # an error is printed as a bound on it
    low, high = interval
    shown = tolerance_text(high if low == -float("inf") else interval)
    holds = "holds with limits" if row.limits else "holds"
    return f"{holds if low <= measured <= high else 'not seen here'} ({shown})"


def rows(given: dict[str, Verdict], figures: bool) -> list[str]:
    """The lines of the table of figures and tables, or of that of theorems and equations."""
    head = "| in the paper | claim | measured | verdict | at half the tolerance | at double |"
    lines = [head, "|---|---|---|---|---|---|"]
    for name, claim in claims().items():
        if "picture" not in claim or name.startswith(("fig-", "table-")) != figures:
            continue
        row, page = given[name], f"chapters/{claim['chapter']}.ipynb"
        word = f"[{row.verdict}]({page}) at {tolerance_text(claim['tolerance'])}"
        cells = (
            f"{claim['paper']}: {{numref}}`{claim['picture']}`",
            f"**{name}** {claim['statement']}",
            f"{row.measured} ({claim['measured']})",
            word + (f": {row.limits}" if row.limits else ""),
            at_factor(row, 0.5),
            at_factor(row, 2.0),
        )
        lines.append(
            "| " + " | ".join(" ".join(c.split()).replace("|", r"\|") for c in cells) + " |"
        )
    return lines


def table_1() -> list[str]:
    """Every cell of Table 1 beside what was recorded for it, points at random."""
    head = "| data | width | trained by | ridge | floor | Pearson: paper | here | less the paper's "
    lines = [head + "| Spearman: paper | here | less the paper's |", "|---" * 11 + "|"]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells()]
    return lines


def _cells() -> Iterator[list[str]]:
    records = filter(None, map(recorded, RECORDS))
    rows = [row for record in records for row in record["results"]["rows"]]
    ours = [row for row in rows if row["n_train"] == SIZE and not row.get("smoothing")]
    for name, widths in paper()["table-1"].items():
        for width, numbers in widths.items():
            found = [row for row in ours if (row["dataset"], row["width"]) == (name, width)]
            for row in found:
                group = row["groups"]["at random"]
                setting = [TRAINED_BY[row["method"]], f"{row['ridge']:g}", f"{group['floor']:.2f}"]
                cells = [name, f"{width:,}", *setting]
                for key, number in zip(("Pearson", "Spearman"), numbers, strict=True):
                    difference = f"{group[key] - number:+.4f}".replace("-", "\N{MINUS SIGN}")
                    cells += [f"{number:.4f}", f"{group[key]:.4f}", difference]
                yield cells
            if not found:
                untried = [part for n in numbers for part in (f"{n:.4f}", "*not tested*", "")]
                yield [name, f"{width:,}", "", "", "", *untried]
