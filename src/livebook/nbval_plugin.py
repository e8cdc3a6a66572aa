"""nbval with tolerances: numbers may differ a little, rounding is a bound, PNG is not compared.

A cell tag such as ``rtol=1e-2`` or ``bound=1e-6`` widens the tolerance of its own cell and nothing
else. ``--nb-perturb SEED`` changes the last digit of every pixel, to find what is fragile.
"""

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from .compare import IDENTITY, RTOL, first_difference, outputs_agree, text
from .explorer import MIME as EXPLORER

NOT_COMPARED = ("application/papermill.record/image/png", "image/svg+xml")
PERTURB = "import livebook.perturb; livebook.perturb.install({})"
_setup, _run, _compare = IPyNbFile.setup, IPyNbCell.runtest, IPyNbCell.compare_outputs


def tolerance(tags: list[str], name: str, default: float) -> float:
    """The number that a tag ``name=number`` states."""
    stated = next((tag for tag in tags if tag.startswith(f"{name}=")), f"{name}={default}")
    try:
        return float(stated.removeprefix(f"{name}="))
    except ValueError:
        raise ValueError(f"tag: expected {name}=NUMBER, got {stated!r}") from None


def _setup_kernel(file: IPyNbFile) -> None:
    _setup(file)
    seed = file.config.option.nb_perturb
    if seed is None:
        return
    client = file.kernel.kc
    reply = client.execute_interactive(PERTURB.format(seed), silent=True, timeout=120)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"--nb-perturb: {reply['ename']}: {reply['evalue']}")


def _runtest(cell: IPyNbCell) -> None:
    if cell.cell.execution_count is None:
        cell.raise_cell_error("This notebook was never executed: run `make reference`")
    _run(cell)


def _compare_outputs(cell: IPyNbCell, new: list, reference: list, skip: tuple = ()) -> bool:
    skip = skip or (*cell.parent.skip_compare, *NOT_COMPARED)
    tags = cell.cell.metadata.get("tags", [])
    allowed = tolerance(tags, "rtol", RTOL), tolerance(tags, "bound", IDENTITY)
    new, reference = ([o for o in out if o.get("name") != "stderr"] for out in (new, reference))
    for output in (*new, *reference):
        if EXPLORER in output.get("data", {}):  # what its page shows is in the JSON beside it
            output["data"].pop("text/html", None)
    for mine, yours in zip(new, reference, strict=False):
        _settle(cell, mine, yours, skip, allowed)
        _settle(cell, mine.get("data", {}), yours.get("data", {}), skip, allowed)
    return _compare(cell, new, reference, skip)


def _settle(cell: IPyNbCell, mine: dict, yours: dict, skip: tuple, allowed: tuple) -> None:
    """Put the reference in the place of what agrees with it, and report a line of what does not."""
    for key in sorted((yours.keys() & mine.keys()) - {"data", *skip}):
        if outputs_agree(yours, mine, key, *allowed):
            mine[key] = yours[key]
        else:
            line = first_difference(text(yours[key]), text(mine[key]), *allowed)
            cell.user_properties.append(("differs", line))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--nb-perturb`` to nbval's options."""
    group = parser.getgroup("nbval")
    group.addoption("--nb-perturb", type=int, metavar="SEED", help="change every pixel by 1e-15")


def pytest_configure(config: pytest.Config) -> None:
    """Put the three functions above in the place of nbval's own."""
    IPyNbFile.setup = _setup_kernel
    IPyNbCell.runtest, IPyNbCell.compare_outputs = _runtest, _compare_outputs
