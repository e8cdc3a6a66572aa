"""A trust report on a user's own data: ``python -m livebook.report --data TABLE``."""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import psutil
from nbconvert import HTMLExporter

from . import demos, networks, paths, prepare, tables
from .run import Interrupted, execute, interruptible

TEMPLATE = "report/trust_report.md"
MATRICES = 6  # of n by n numbers: five are held at once, and what the blocks of rows take
PAGE = Path(__file__).with_name("static") / "report.html"
OPTIONS = ("label", "kind", "test", "images", "model", "ridge")


@dataclass(frozen=True)
class Given:
    """What the user gave: as it was read, prepared, and what is known to be wrong in it."""

    table: tables.Table
    test: tables.Table | None
    prepared: prepare.Prepared
    planted: np.ndarray | None  # which labels are wrong, in a demonstration


def read(
    data: str,
    label: str | None = None,
    kind: str | None = None,
    test: str | None = None,
    images: str | None = None,
) -> Given:
    """Read and prepare the file, folder or demonstration; ``ValueError`` with one sentence."""
    planted = None
    if is_demonstration(data):
        table, planted = demos.DEMONSTRATIONS[data]()
    else:
        table = tables.read(Path(data), label)
    if images is not None:
        table = tables.pictures_of(Path(images), table)
    other = None if test is None else tables.read(Path(test), label, fewest=1)
    return Given(table, other, prepare.prepare(table, kind, other), planted)


def is_demonstration(data: str) -> bool:
    """Whether this is no file but the name of a demonstration."""
    return data in demos.DEMONSTRATIONS and not Path(data).exists()


def check(options: argparse.Namespace) -> None:
    """``ValueError`` with one sentence if the report could not be made, before any work is done."""
    given = read(options.data, options.label, options.kind, options.test, options.images)
    fits(len(given.prepared.y))
    if options.model:
        networks.check(networks.load(Path(options.model)), given)
    if options.ridge is not None and not 0 < options.ridge < float("inf"):
        raise ValueError(f"RIDGE: expected a positive number, got {options.ridge}")
    for folder in (options.out, paths.BUILD):
        paths.check_writable(folder)
    for name in ("report.html", "report.csv"):
        if (options.out / name).is_dir():
            raise ValueError(f"{options.out / name}: expected a file, got a folder")


def fits(rows: int) -> None:
    """``ValueError`` unless the matrices of so many rows fit into the free memory."""
    free, needed = psutil.virtual_memory().available, MATRICES * 8 * rows**2
    if needed > free:
        most = int((free / (MATRICES * 8)) ** 0.5)
        raise ValueError(
            f"DATA: expected at most {most:,} rows in the {free / 2**30:.1f} GiB of memory that "
            f"are free, got {rows:,}, which need {needed / 2**30:,.1f} GiB"
        )


def make(options: argparse.Namespace) -> tuple[Path, Path]:
    """Run the template on the data, and write the page and the table together."""
    parameters = {name: getattr(options, name) for name in OPTIONS}
    for name in ("test", "images", "model"):
        parameters[name] = parameters[name] and str(Path(parameters[name]).resolve())
    data = options.data if is_demonstration(options.data) else str(Path(options.data).resolve())
    parameters["data"] = data
    with tempfile.TemporaryDirectory(dir=paths.BUILD) as folder:
        rows = Path(folder, "rows.csv")
        text = execute(paths.ROOT / TEMPLATE, parameters | {"rows_to": str(rows)}, options.timeout)
        page = html(text)
        targets = options.out / "report.html", options.out / "report.csv"
        paths.write_atomically(*zip(targets, (page, rows.read_bytes()), strict=True))
    return targets


def html(notebook: str) -> str:
    """One page without code, which loads nothing."""
    hidden = dict.fromkeys(("exclude_input", "exclude_input_prompt", "exclude_output_prompt"), True)
    exporter = HTMLExporter(template_name="basic", anchor_link_text="", **hidden)
    body, _ = exporter.from_notebook_node(nbformat.reads(notebook, 4))
    return PAGE.read_text(encoding="utf-8").replace("{body}", body)


def main() -> None:
    """Write report.html and report.csv: which labels to look at first, and what to believe."""
    parser = argparse.ArgumentParser(prog="python -m livebook.report", description=main.__doc__)
    names = ", ".join(demos.DEMONSTRATIONS)
    parser.add_argument("--data", default="digits", help=f"CSV, npz, folder of images, or {names}")
    parser.add_argument("--label", help="column of labels; the last one by default")
    parser.add_argument("--kind", help="classes or numbers; by default what the labels look like")
    parser.add_argument("--test", help="a second table: predictions to explain")
    parser.add_argument("--images", help="folder with one picture a row, to be looked at")
    parser.add_argument("--model", help="Python file with a trained torch module named model")
    parser.add_argument("--ridge", type=float, help="by default the best of a path")
    parser.add_argument("--out", type=Path, default=Path("_build/report"), help="folder")
    parser.add_argument("--timeout", type=int, default=86400, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        with interruptible():
            check(options)
            page, rows = make(options)
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(f"report: {error}") from error
    except Interrupted as stop:
        print("interrupted: nothing was written", file=sys.stderr)
        raise SystemExit(128 + stop.args[0]) from None
    print(f"The report: {page.resolve().as_uri()}\nA row a point: {rows}")


if __name__ == "__main__":
    main()
