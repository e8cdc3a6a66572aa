"""A site that cannot be built leaves the last good one as it was, and says why."""

import base64
import io
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from livebook import site

TOC = """\
format: jb-book
root: intro
parts:
  - caption: One
    chapters:
      - file: chapters/01_one
      - file: chapters/02_leave_one_out
  - caption: Two
    chapters: [{file: api}, {file: status}, {file: bibliography}]
"""
CONFIG = """\
title: A small book
only_build_toc_files: true
execute: {execute_notebooks: "off"}
"""


def notebook(path: Path, *cells: nbformat.NotebookNode, title: str = "# A chapter") -> None:
    """An executed notebook with a heading and the given cells."""
    python = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}}
    nbformat.write(new_notebook(cells=[new_markdown_cell(title), *cells], metadata=python), path)


@pytest.fixture
def book(tmp_path):
    """A small book with what the real one has."""
    (tmp_path / "chapters").mkdir()
    for name in ("intro.md", "guide.md", "api.md", "status.md", "bibliography.md"):
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / "intro.md").write_text("# A small book\n\n![Four pixels](data/helpful.png)\n")
    (tmp_path / "references.bib").touch()
    (tmp_path / "_toc.yml").write_text(TOC)
    (tmp_path / "_config.yml").write_text(CONFIG)
    notebook(tmp_path / "chapters" / "01_one.ipynb")
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
    figure = new_code_cell("plot()", outputs=[new_output("display_data", data=data)])
    figure.metadata["mystnb"] = {"figure": {"name": "fig-helpful"}}
    notebook(tmp_path / "chapters" / "02_leave_one_out.ipynb", figure)
    return tmp_path


@pytest.fixture
def old(book):
    """The last good site."""
    (book / "_build" / "html" / "_static").mkdir(parents=True)
    (book / "_build" / "html" / "index.html").write_text("old")
    (book / "_build" / "html" / "_static" / "a.css").write_text("old style")
    return contents(book)


def contents(book: Path) -> dict[str, bytes]:
    """Every file of the built site."""
    folder = book / "_build" / "html"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def left_over(book: Path) -> set[str]:
    """What lies beside the site."""
    return {path.name for path in (book / "_build").iterdir()} - {"html", "site.log"}


def test_a_site_is_built_and_replaces_the_old_one(book, old):
    assert site.build(book, book / "chapters") == book / "_build" / "html" / "index.html"
    built = contents(book)
    assert "chapters/01_one.html" in built
    assert "_static/a.css" not in built
    assert left_over(book) == set()


def test_a_warning_keeps_the_old_site_and_is_shown(book, old, capsys):
    missing = "See {doc}`nowhere`."
    notebook(book / "chapters" / "01_one.ipynb", title=f"# A chapter\n\n{missing}")
    with pytest.raises(SystemExit, match="expected a build without warnings"):
        site.build(book, book / "chapters")
    assert "nowhere" in capsys.readouterr().out
    assert contents(book) == old
    assert left_over(book) == set()


WHOLE = nbformat.writes(new_notebook(cells=[new_markdown_cell("# A chapter" * 9, id="c000")]))


@pytest.mark.parametrize("name", ["01_one", "02_leave_one_out", "03_not_in_the_contents"])
@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"cells": 3}'),
        *(WHOLE[: len(WHOLE) * part // 4].encode() for part in (1, 2, 3)),
        WHOLE[:-3].encode(),
        WHOLE.replace('"markdown"', '"colour"').encode(),
        WHOLE.replace('"nbformat": 4', '"nbformat": 3').encode(),
    ],
)
def test_a_damaged_notebook_is_named_and_keeps_the_old_site(book, old, name, damage):
    path = book / "chapters" / f"{name}.ipynb"
    path.write_bytes(damage)
    with pytest.raises(SystemExit) as stop:
        site.build(book, book / "chapters")
    assert str(stop.value).startswith(f"{path}: expected a notebook, got a damaged file (")
    assert "\n" not in str(stop.value)
    assert len(str(stop.value)) < 300 + len(str(path))
    assert contents(book) == old


@pytest.mark.parametrize("name", ["01_one.ipynb", "02_leave_one_out.ipynb"])
def test_a_missing_notebook_is_named_and_keeps_the_old_site(book, old, name):
    path = book / "chapters" / name
    path.unlink()
    with pytest.raises(SystemExit) as stop:
        site.build(book, book / "chapters")
    assert str(stop.value) == f"{path}: expected an executed notebook, got no such file"
    assert contents(book) == old


def test_a_missing_folder_a_page_and_a_figure_keep_the_old_site(book, old):
    with pytest.raises(SystemExit, match="expected an executed notebook"):
        site.build(book, book / "nowhere")
    notebook(book / "chapters" / "02_leave_one_out.ipynb")
    with pytest.raises(SystemExit, match="expected one named fig-helpful"):
        site.build(book, book / "chapters")
    (book / "api.md").unlink()
    with pytest.raises(OSError, match=r"api\.md"):
        site.build(book, book / "chapters")
    assert contents(book) == old
    assert left_over(book) == set()


def test_a_swap_that_fails_keeps_the_old_site(book, old):
    with pytest.raises(OSError, match="nowhere"):
        site.swap(book / "_build" / "nowhere", book / "_build" / "html")
    assert contents(book) == old
    shutil.rmtree(book / "_build" / "html")
    new = book / "_build" / "new"
    new.mkdir()
    site.swap(new, book / "_build" / "html")
    assert not new.exists()
