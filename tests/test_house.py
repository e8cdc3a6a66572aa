"""The house keeps its own rules: sizes, the direction of imports, what chapters may use."""

import ast
import re
from collections import Counter
from itertools import chain

import jupytext
import pytest

from livebook.notebooks import sources
from livebook.paths import ROOT

SOURCES = sorted((ROOT / "src").glob("*/**/*.py"))
SHOWN = list(sources().values())
# Each may import those to its right.
ORDER = ("studies", "livebook", "ntk_influence")


def code_of(chapter) -> list[str]:
    """The code cells of a chapter."""
    return [cell.source for cell in jupytext.read(chapter).cells if cell.cell_type == "code"]


def imported(tree: ast.AST) -> set[str]:
    """The packages that a module imports by name."""
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    plain = (node.names for node in ast.walk(tree) if isinstance(node, ast.Import))
    return {name.split(".")[0] for name in (*names, *(a.name for a in chain(*plain)))}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_has_one_job_and_at_most_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_import_goes_against_the_direction(path):
    package = path.relative_to(ROOT / "src").parts[0]
    allowed = ORDER[ORDER.index(package) :]
    found = imported(ast.parse(path.read_text())) & {*ORDER, "chapters", "tests"}
    assert found <= set(allowed)


def test_the_library_knows_no_notebook_and_no_plot():
    for path in (ROOT / "src" / "ntk_influence").rglob("*.py"):
        assert not imported(ast.parse(path.read_text())) & {"matplotlib", "IPython", "nbformat"}


@pytest.mark.parametrize("path", [*SHOWN, *sorted((ROOT / "benchmarks").glob("*.py"))], ids=str)
def test_nothing_private_is_used_from_outside(path):
    cells = code_of(path) if path.suffix == ".md" else [path.read_text()]
    for cell in cells:
        for node in ast.walk(ast.parse(cell)):
            name = getattr(node, "attr", "") if isinstance(node, ast.Attribute) else ""
            assert not re.match(r"_[^_]", name), f"{path.name}: {name}"


def test_no_helper_of_the_chapters_is_written_twice():
    bodies = Counter()
    for path in SHOWN:
        for cell in code_of(path):
            for node in ast.walk(ast.parse(cell)):
                if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
                    bodies[ast.dump(ast.Module(node.body, []))] += 1
    assert [body for body, count in bodies.items() if count > 1] == []


@pytest.mark.parametrize("chapter", SHOWN, ids=lambda path: path.stem)
def test_a_cell_is_short_enough_to_be_read(chapter):
    for number, cell in enumerate(code_of(chapter)):
        assert len(cell.splitlines()) <= 25, f"cell {number}"


@pytest.mark.parametrize("chapter", SHOWN, ids=lambda path: path.stem)
def test_no_tolerance_is_so_wide_that_it_compares_nothing(chapter):
    text = chapter.read_text()
    assert all(float(value) <= 0.1 for value in re.findall(r"\brtol=([\d.e+-]+)", text))
    assert "bound=" not in text or all(
        float(value) <= 0.1 for value in re.findall(r"\bbound=([\d.e+-]+)", text)
    )


@pytest.mark.parametrize("path", [*SHOWN, *SOURCES], ids=lambda path: path.name)
def test_no_file_begins_with_a_byte_order_mark_or_ends_lines_as_windows_does(path):
    raw = path.read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in raw
