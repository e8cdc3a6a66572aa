"""Where the book's repository is, and the cell by which a chapter runs anywhere.

``python -m livebook.address`` puts the cell first in every chapter and its notebook, without
executing them; with a URL it writes that address instead of the old one, everywhere.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

from . import notebooks, paths

CONFIG = "_config.yml"  # holds the address; the files below repeat it
REPEATED = ("pyproject.toml", "CITATION.cff", "CONTRIBUTING.md")
FORM = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
CODE = "```{{code-cell}} {language}\n:tags: [remove-cell]\n\n{cell}\n```\n\n"
CELL = """\
from importlib.util import find_spec
from pathlib import Path

if not find_spec("livebook"):  # in Colab or a bare Jupyter: the book, and what it needs, come first
    import runpy
    import subprocess

    book = "{address}"
    if not Path("ntk-influence").exists():
        subprocess.run(["git", "clone", "-q", "--depth=1", book, "ntk-influence"], check=True)
    runpy.run_path("ntk-influence/src/livebook/missing.py", run_name="__main__")"""
FIRST = re.compile(r"^```\{code-cell\} \w+\n:tags: \[remove-cell\]\n\n(.*?)\n```\n\n", re.M | re.S)


def address() -> str:
    """The address that ``_config.yml`` names."""
    config = yaml.safe_load((paths.ROOT / CONFIG).read_text(encoding="utf-8"))
    return config["repository"]["url"]


def first_cell() -> str:
    """What every chapter runs first; it prints nothing where the book is installed."""
    return CELL.format(address=address())


def opened(text: str) -> str:
    """The source of a chapter with this cell before every other one."""
    found = FIRST.search(text)
    if found and "find_spec" in found[1]:
        text = text.replace(found[0], "", 1)
    before, fence, after = text.partition("```{code-cell}")
    language = after.split(maxsplit=1)[0]
    return before + CODE.format(language=language, cell=first_cell()) + fence + after


def carried(source: Path, executed: NotebookNode) -> str:
    """The notebook of a source whose first cell alone is new, with the outputs it has had."""
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    if code and "find_spec" in code[0].source:
        del code[0]
    notebook = notebooks.read_source(source)
    first, *rest = (cell for cell in notebook.cells if cell.cell_type == "code")
    if [cell.source for cell in rest] != [cell.source for cell in code]:
        raise ValueError(f"{source.name}: expected the source of its notebook, got changed cells")
    first.outputs, first.execution_count = [], 1
    for number, (cell, old) in enumerate(zip(rest, code, strict=True), 2):
        cell.outputs, cell.execution_count = old.outputs, number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
    for key, value in executed.metadata.items():
        notebook.metadata.setdefault(key, value)
    return notebooks.clean(notebook)


def open_chapters() -> list[Path]:
    """Put the cell into every chapter and its notebook that lacks it; those that were changed."""
    changed = []
    for source in notebooks.sources().values():
        text = source.read_text(encoding="utf-8")
        if text != (new := opened(text)):
            target = source.with_suffix(".ipynb")
            with tempfile.TemporaryDirectory() as folder:
                draft = Path(folder, source.name)
                draft.write_text(new, encoding="utf-8")
                executed = carried(draft, nbformat.read(target, 4))
            paths.write_atomically((source, new), (target, executed))
            changed += [source, target]
    return changed


def move(new: str) -> None:
    """Write another address instead of the present one."""
    if not FORM.fullmatch(new):
        raise SystemExit(f"address: expected https://github.com/owner/name, got {new}")
    old = address()
    for path in (paths.ROOT / name for name in (CONFIG, *REPEATED)):
        text = path.read_text(encoding="utf-8")
        paths.write_atomically((path, text.replace(old, new)))


if __name__ == "__main__":
    for url in sys.argv[1:2]:
        move(url)
    for changed in open_chapters():
        print(changed.relative_to(paths.ROOT))
