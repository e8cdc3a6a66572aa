"""From a chapter's source to its executed notebook, and how to tell that the two match."""

import ast
import codecs
import hashlib
import json
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from . import paths

KEPT = ("tags", "mystnb")


def sources() -> dict[str, Path]:
    """The chapters, and the templates of reports beside them, by name."""
    folders = paths.CHAPTERS, paths.CHAPTERS.with_name("report")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.md"))}


def read_source(path: Path) -> NotebookNode:
    """The notebook that a MyST source describes, not executed, with cell ids that stay."""
    text = _text(path)
    try:
        notebook = jupytext.reads(text, fmt="md:myst")
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path.name}: expected a MyST notebook, got {reason}") from error
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"c{number:03d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata["livebook"] = {"source": _digest(text.encode())}
    return notebook


def _text(path: Path) -> str:
    source = path.read_bytes()
    if source.startswith(codecs.BOM_UTF8):
        raise ValueError(f"{path.name}: expected plain UTF-8, got a byte order mark at its start")
    try:
        return source.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: expected UTF-8, got {error.reason}") from error


def parameters(notebook: NotebookNode) -> set[str]:
    """The names assigned in the first cell that is tagged ``parameters``."""
    cells = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    source = next((cell.source for cell in cells), "")
    targets = []
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    names = (node for target in targets for node in ast.walk(target))
    return {n.id for n in names if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def clean(notebook: NotebookNode) -> str:
    """The text of an executed notebook without what changes from run to run, and stamped.

    A busy machine hands out what a cell prints in several pieces; here they are one again. The
    stamp holds a digest of every cell's outputs: an edit by hand shows, wherever it is.
    """
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in KEPT and v}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    for key in ("papermill", "language_info"):
        notebook.metadata.pop(key, None)
    notebook.metadata.livebook["outputs"] = _output_digests(notebook)
    return nbformat.writes(notebook) + "\n"


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs in which neighbouring pieces of one stream are one."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if "name" in output and last.get("name") == output.name:  # only streams have one
            last.text += output.text
        else:
            joined.append(output)
    return joined


def problems(source: Path, executed: Path) -> list[str]:
    """Why a committed notebook is not the executed image of its source; empty if it is."""
    if not executed.exists():
        return [f"{executed.name}: missing; run `make reference`"]
    try:
        want = read_source(source)
    except ValueError as error:
        return [str(error)]
    try:
        have = nbformat.read(executed, 4)
    except Exception as error:
        return [f"{executed.name}: cannot be read ({error}); run `make reference`"]
    found = []
    stamp = have.metadata.get("livebook", {})
    if [c.source for c in want.cells] != [c.source for c in have.cells]:
        pairs = zip(want.cells, have.cells, strict=False)
        at = next((i for i, (w, h) in enumerate(pairs) if w.source != h.source), len(have.cells))
        found.append(f"{source.name}: cell {at} differs from {executed.name}")
    elif stamp.get("source") != want.metadata.livebook["source"]:
        found.append(f"{source.name}: changed since {executed.name} was executed")
    digests, stamped = _output_digests(have), stamp.get("outputs", {})
    for number, cell in enumerate(have.cells):
        if cell.cell_type == "code" and cell.execution_count is None:
            found.append(f"{executed.name}: cell {number} was never executed")
        elif digests.get(cell.id) != stamped.get(cell.id):
            found.append(f"{executed.name}: the outputs of cell {number} were edited by hand")
    return [f"{problem}; run `make reference`" for problem in found]


def _output_digests(notebook: NotebookNode) -> dict[str, str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {c.id: _digest(json.dumps(c.outputs, sort_keys=True).encode()) for c in cells}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
