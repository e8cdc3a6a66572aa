"""The ledger of claims: what is claimed, what was measured, and the verdict."""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nbformat
import yaml
from IPython.display import display

from . import paths

MIME = "application/vnd.livebook.verdicts+json"
WORDS = ("holds", "holds with limits", "cannot tell", "not seen here", "not tested")
KINDS = ("identity", "bound", "experiment")
QUIET = 1 / 5  # the largest share of an effect that the noise floor of its ground truth may have


@lru_cache
def claims() -> dict[str, dict]:
    """The rows of ``claims.yml`` by their id."""
    rows = yaml.safe_load((paths.ROOT / "claims.yml").read_text(encoding="utf-8"))["claims"]
    return {row["id"]: row for row in rows}


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim, as a chapter publishes it."""

    claim: str
    measured: str
    verdict: str
    limits: str = ""


def judge(
    claim: str,
    measured: float | None,
    limits: str = "",
    *,
    floor: float | None = None,
    effect: float | None = None,
) -> Verdict:
    """Compare a measured number with the tolerance that ``claims.yml`` fixed for the claim.

    The tolerance is an upper bound or an interval. ``limits`` states where a claim that holds
    stops holding; ``measured=None`` means that it could not be tested here, and says why there.
    ``floor`` is the noise of the ground truth and ``effect`` what is judged by it, in one unit:
    above a fifth of the effect nothing is claimed either way.
    """
    if claim not in claims():
        raise ValueError(f"claim: expected an id from claims.yml, got {claim!r}")
    if (floor is None) != (effect is None):
        raise ValueError(f"floor, effect: expected both or none, got {floor} and {effect}")
    tolerance = claims()[claim]["tolerance"]
    if measured is None:
        return Verdict(claim, "—", "not tested", limits)
    if floor is not None and not floor <= QUIET * effect:
        noise = f"noise floor {_digits(floor)}, effect {_digits(effect)}"
        limits = f"{limits}; {noise}" if limits else noise
        return Verdict(claim, _digits(measured), "cannot tell", limits)
    low, high = tolerance if isinstance(tolerance, list) else (-math.inf, tolerance)
    if not low <= measured <= high:
        return Verdict(claim, _digits(measured), "not seen here", limits)
    return Verdict(claim, _digits(measured), "holds with limits" if limits else "holds", limits)


def verdicts(*rows: Verdict) -> None:
    """Show the verdict table of a chapter; the site and the tests read the same output."""
    lines = ["| claim | paper | measured | tolerance, and why | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        claim = claims()[row.claim]
        cells = (
            f"**{row.claim}** {claim['statement']}",
            claim["paper"],
            f"{row.measured} ({claim['measured']})",
            f"{tolerance_text(claim['tolerance'])}: {claim['reason']}",
            f"**{row.verdict}**" + (f": {row.limits}" if row.limits else ""),
        )
        escaped = (" ".join(cell.split()).replace("|", r"\|") for cell in cells)
        lines.append("| " + " | ".join(escaped) + " |")
    bundle = {"text/markdown": "\n".join(lines), MIME: [vars(row) for row in rows]}
    display(bundle | {"text/plain": "verdict table"}, raw=True)


def published(notebook: Path | str) -> list[Verdict]:
    """The verdicts that an executed notebook shows."""
    outputs = [o for cell in nbformat.read(notebook, 4).cells for o in cell.get("outputs", [])]
    return [Verdict(**row) for o in outputs for row in o.get("data", {}).get(MIME, [])]


def at_most(error: float) -> str:
    """An error as the power of ten above it: rounding differs between machines, its size hardly.

    Below 1e-12 all errors are rounding, and print alike.
    """
    if not 0 <= error < math.inf:
        raise ValueError(f"error: expected a finite number >= 0, got {error}")
    if error < 1e-12:
        return "< 1e-12"
    return f"< 1e{math.floor(math.log10(error)) + 1:+03d}"


def _digits(measured: float) -> str:
    return at_most(abs(measured)) if 0 < abs(measured) < 1e-6 else f"{measured:.3g}"


def tolerance_text(tolerance: float | list[float]) -> str:
    """An upper bound, or an interval, as it is printed."""
    return "{} to {}".format(*tolerance) if isinstance(tolerance, list) else f"≤ {tolerance:g}"
