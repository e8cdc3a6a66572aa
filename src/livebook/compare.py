"""Whether two outputs are the same: numbers within a tolerance, rounding as a bound, words exactly.

A bound is what ``at_most`` prints, such as ``< 1e-12``. Its power of ten differs between machines,
so a new one passes if it is not above what is allowed: in a verdict the tolerance of the claim,
elsewhere ``IDENTITY`` or what the cell states.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from itertools import zip_longest

from .ledger import MIME as VERDICTS
from .ledger import claims

RTOL = 1e-6
IDENTITY = 1e-9
SMALLEST_PRINTED = 1e-12
BOUND = re.compile(r"< (1e[-+]\d{2,})(?![\w.]*\w)")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]*\w)")
TOKEN = re.compile(f"{BOUND.pattern}|{NUMBER.pattern}")
ROW = re.compile(r"\| \*\*([\w-]+)\*\* ")


def texts_agree(reference: str, new: str, rtol: float = RTOL, bound: float = IDENTITY) -> bool:
    """Whether two texts are the same but for floats and bounds; integers are exact."""
    if _words(reference) != _words(new):
        return False
    pairs = zip(TOKEN.finditer(reference), TOKEN.finditer(new), strict=True)
    return all(_token_agrees(a, b, rtol, bound) for a, b in pairs)


def outputs_agree(reference: dict, new: dict, key: str, rtol: float, bound: float) -> bool:
    """Whether two outputs agree under one of their keys; beside a bundle lies a verdict table."""
    if VERDICTS in reference and VERDICTS in new:
        if key == VERDICTS:
            return verdicts_agree(reference[key], new[key], rtol)
        if key == "text/markdown":
            return tables_agree(reference[key], new[key], rtol)
    return texts_agree(text(reference[key]), text(new[key]), rtol, bound)


def verdicts_agree(reference: list[dict], new: list[dict], rtol: float = RTOL) -> bool:
    """Whether two bundles hold the same verdicts on the same claims, measured alike."""
    return _all_agree(_verdict_agrees, reference, new, rtol)


def tables_agree(reference: str, new: str, rtol: float = RTOL) -> bool:
    """Whether two verdict tables agree, row by row."""
    return _all_agree(_line_agrees, reference.split("\n"), new.split("\n"), rtol)


def first_difference(reference: str, new: str, rtol: float, bound: float) -> str:
    """The first line that does not agree, as it was and as it is."""
    lines = (value.splitlines(keepends=True) for value in (reference, new))
    changed = [pair for pair in zip_longest(*lines, fillvalue="") if pair[0] != pair[1]]
    a, b = next((pair for pair in changed if not texts_agree(*pair, rtol, bound)), changed[0])
    return f"{a.strip() or 'nothing'} -> {b.strip() or 'nothing'}"


def text(value: object) -> str:
    """An output as a text, in which the order of keys does not matter."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, indent=1)


def _words(value: str) -> str:
    return TOKEN.sub(lambda token: "<#>" if token[1] else "#", value)


def _token_agrees(a: re.Match, b: re.Match, rtol: float, bound: float) -> bool:
    if a[0] == b[0]:
        return True
    if b[1]:
        return float(b[1]) <= bound
    is_float = all(re.search("[.eE]", token[0]) for token in (a, b))
    return is_float and math.isclose(float(a[0]), float(b[0]), rel_tol=rtol, abs_tol=0)


def _all_agree(agree: Callable, reference: list, new: list, rtol: float) -> bool:
    pairs = zip(reference, new, strict=False)
    return len(reference) == len(new) and all(agree(*pair, rtol) for pair in pairs)


def _verdict_agrees(reference: dict, new: dict, rtol: float) -> bool:
    measured = [row["measured"] for row in (reference, new)]
    rest = [text(row | {"measured": ""}) for row in (reference, new)]
    return _row_agrees(reference["claim"], measured, rest, rtol)


def _line_agrees(reference: str, new: str, rtol: float) -> bool:
    cells = [line.split(" | ", 3) for line in (reference, new)]
    claim = ROW.match(reference)
    if not claim or any(len(row) < 4 for row in cells):
        return reference == new
    measured, _, described = zip(*(row.pop(2).partition(" (") for row in cells), strict=True)
    rest = [" | ".join([*row, text]) for row, text in zip(cells, described, strict=True)]
    return _row_agrees(claim[1], measured, rest, rtol)


def _row_agrees(claim: str, measured: Sequence[str], rest: Sequence[str], rtol: float) -> bool:
    upper = _upper(claim)
    sizes = [_size(value) for value in measured]
    rounding = upper <= 1e-6 and all(size <= upper for size in sizes)
    return (rounding or texts_agree(*measured, rtol, upper)) and texts_agree(*rest, rtol, upper)


def _upper(claim: str) -> float:
    """What a claim allows; a tolerance below the smallest bound is left to the verdict's word."""
    tolerance = claims().get(claim, {}).get("tolerance")
    if tolerance is None:
        return IDENTITY
    upper = tolerance[-1] if isinstance(tolerance, list) else tolerance
    return max(upper, SMALLEST_PRINTED) if upper > 0 else upper


def _size(measured: str) -> float:
    """The size of a bound or of a number, and NaN for anything else."""
    bound = BOUND.fullmatch(measured)
    try:
        return abs(float(bound[1] if bound else measured))
    except ValueError:
        return math.nan
