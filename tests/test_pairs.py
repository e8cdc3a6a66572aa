"""Every committed notebook is the executed image of its source, cell by cell."""

import shutil
from pathlib import Path

import nbformat
import pytest

from livebook.notebooks import clean, problems, sources

SOURCES = list(sources().values())


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_notebook_belongs_to_its_source(source):
    assert problems(source, source.with_suffix(".ipynb")) == []


def test_no_notebook_lacks_a_source():
    folders = {source.parent for source in SOURCES}
    there = {path.stem for folder in folders for path in folder.glob("*.ipynb")}
    assert there == {source.stem for source in SOURCES}


def test_what_a_cell_prints_in_pieces_is_one():
    notebook, new = nbformat.read(SOURCES[0].with_suffix(".ipynb"), 4), nbformat.v4.new_output
    printed = [
        new("stream", name=name, text=text) for name, text in (("stdout", "a"), ("stdout", "b"))
    ]
    other = [new("stream", name="stderr", text="c"), new("display_data", {"text/plain": "d"})]
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [*printed, *other, new("stream", name="stdout", text="e")]
    (cell,) = (c for c in nbformat.reads(clean(notebook), 4).cells if c.get("id") == cell.id)
    assert [o.get("text", "d") for o in cell.outputs] == ["ab", "c", "d", "e"]


@pytest.fixture
def pair(tmp_path):
    """A copy of one chapter and its notebook that a test may damage."""
    source = SOURCES[0]
    return [Path(shutil.copy(p, tmp_path)) for p in (source, source.with_suffix(".ipynb"))]


def test_one_changed_digit_in_an_output_is_found(pair):
    source, path = pair
    notebook = nbformat.read(path, 4)
    printed = [
        o for c in notebook.cells for o in c.get("outputs", []) if "1e-12" in o.get("text", "")
    ]
    printed[0]["text"] = printed[0]["text"].replace("1e-12", "1e-13", 1)
    nbformat.write(notebook, path)
    (problem,) = problems(source, path)
    assert "outputs of cell" in problem


def test_one_changed_space_in_the_source_is_found(pair):
    source, notebook = pair
    text = source.read_text()
    source.write_text(text.replace("one claim", "one  claim", 1))
    (problem,) = problems(source, notebook)
    assert f"{source.name}: cell 0 differs" in problem


def test_a_space_that_no_cell_shows_is_found(pair):
    source, notebook = pair
    source.write_text(source.read_text().replace("name: python3\n", "name:  python3\n", 1))
    (problem,) = problems(source, notebook)
    assert "changed since" in problem


def test_a_notebook_that_was_not_executed_is_found(pair):
    source, path = pair
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    nbformat.write(notebook, path)
    assert all("never executed" in problem for problem in problems(source, path))
    assert problems(source, path)


def test_a_missing_and_an_unreadable_notebook_are_one_sentence(pair):
    source, path = pair
    path.write_text("{")
    assert "cannot be read" in problems(source, path)[0]
    path.unlink()
    assert problems(source, path) == [f"{path.name}: missing; run `make reference`"]
