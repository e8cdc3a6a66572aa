"""nbval with tolerances: printed numbers may differ a little, text may not, PNG is not compared.

A cell tag such as ``rtol=1e-2`` widens the tolerance of its own cell and nothing else.
"""

import json
import math
import re

import pytest
from nbval.plugin import IPyNbCell

from .explorer import MIME as EXPLORER

RTOL = 1e-6
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]*\w)")
NOT_COMPARED = ("application/papermill.record/image/png", "image/svg+xml")
_run, _compare = IPyNbCell.runtest, IPyNbCell.compare_outputs


def agree(reference: str, new: str, rtol: float) -> bool:
    """Whether two texts are the same but for floats within the tolerance; integers are exact."""
    if NUMBER.sub("#", reference) != NUMBER.sub("#", new):
        return False
    pairs = zip(NUMBER.findall(reference), NUMBER.findall(new), strict=True)
    return all(a == b or _close(a, b, rtol) for a, b in pairs)


def _close(a: str, b: str, rtol: float) -> bool:
    is_float = all(re.search("[.eE]", text) for text in (a, b))
    return is_float and math.isclose(float(a), float(b), rel_tol=rtol, abs_tol=0)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _runtest(cell: IPyNbCell) -> None:
    if cell.cell.execution_count is None:
        cell.raise_cell_error("This notebook was never executed: run `make reference`")
    _run(cell)


def _compare_outputs(cell: IPyNbCell, new: list, reference: list, skip: tuple = ()) -> bool:
    tags = [t for t in cell.cell.metadata.get("tags", []) if t.startswith("rtol=")]
    rtol = float(tags[0].removeprefix("rtol=")) if tags else RTOL
    new, reference = ([o for o in out if o.get("name") != "stderr"] for out in (new, reference))
    for output in (*new, *reference):
        if EXPLORER in output.get("data", {}):  # what its page shows is in the JSON beside it
            output["data"].pop("text/html", None)
    for ours, theirs in zip(new, reference, strict=False):
        for mine, yours in ((ours, theirs), (ours.get("data", {}), theirs.get("data", {}))):
            for key in mine.keys() & yours.keys() - {"data", "metadata"}:
                a, b = (_text(v) for v in (yours[key], mine[key]))
                if agree(a, b, rtol):
                    mine[key] = yours[key]
    return _compare(cell, new, reference, skip or (*cell.parent.skip_compare, *NOT_COMPARED))


def pytest_configure(config: pytest.Config) -> None:
    """Put the two functions above in the place of nbval's own."""
    IPyNbCell.runtest, IPyNbCell.compare_outputs = _runtest, _compare_outputs
