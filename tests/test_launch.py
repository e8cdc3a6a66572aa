"""A chapter opens anywhere: one address, buttons on a page, a first cell that fetches the book."""

import ast
import io
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout

import nbformat
import pytest
import small_book
import yaml

from livebook import address, missing, notebooks, paths, run
from livebook.paths import BUILD, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
FILES = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
NOTEBOOKS = [file for file in FILES if "/" in file]


# The address


def test_one_address_is_written_everywhere():
    url = address.address()
    assert address.FORM.fullmatch(url)
    assert PROJECT["urls"]["Repository"] == url
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == url
    assert url in (ROOT / "CONTRIBUTING.md").read_text()


def test_an_address_moves_everywhere_at_once(tmp_path, monkeypatch):
    for name in (address.CONFIG, *address.REPEATED):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path, raising=False)
    old, new = address.address(), "https://github.com/somebody/a-book"
    address.move(new)
    assert address.address() == new
    for name in (address.CONFIG, *address.REPEATED):
        text = (tmp_path / name).read_text()
        assert new in text
        assert old not in text
    assert new in address.first_cell()


@pytest.mark.parametrize("given", ["", "a-book", "https://github.com/a", "https://x.org/a/b?c"])
def test_what_is_no_address_changes_nothing(given):
    before = (ROOT / address.CONFIG).read_text()
    with pytest.raises(SystemExit, match=r"address: expected https://github\.com/owner/name, got"):
        address.move(given)
    assert (ROOT / address.CONFIG).read_text() == before


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_page_opens_its_notebook_in_colab_and_in_binder(page):
    html = (BUILD / "html" / f"{page}.html").read_text()
    links = re.findall(r'href="(https://(?:mybinder|colab)[^"]*)"', html)
    owner = address.address().removeprefix("https://github.com/")
    assert links == [
        f"https://mybinder.org/v2/gh/{owner}/main?urlpath=lab/tree/{page}.ipynb",
        f"https://colab.research.google.com/github/{owner}/blob/main/{page}.ipynb",
    ]
    assert (ROOT / f"{page}.ipynb").exists()


# The first cell


def test_the_cell_does_and_prints_nothing_where_the_book_is():
    printed, before = io.StringIO(), list(sys.path)
    with redirect_stdout(printed):
        exec(address.first_cell(), names := {})
    assert printed.getvalue() == ""
    assert sys.path == before
    assert "subprocess" not in names


def test_the_cell_fetches_a_copy_once_where_the_book_is_not(tmp_path):
    book, here = tmp_path / "book", tmp_path / "here"
    (book / "src" / "livebook").mkdir(parents=True)
    (book / "src" / "livebook" / "missing.py").write_text("print('installed', __name__)\n")
    here.mkdir()
    git = ["git", "-C", str(book), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "a book"]):
        subprocess.run([*git, *arguments], check=True)
    cell = address.first_cell().replace(address.address(), book.as_uri())
    for _ in range(2):  # the second time, after a restart, the copy is there
        bare = [sys.executable, "-I", "-S", "-c", cell]
        done = subprocess.run(bare, cwd=here, capture_output=True, text=True, check=True)
        assert done.stdout == "installed __main__\n"
        assert done.stderr == ""


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A chapter with its executed notebook, and nothing else in the book."""
    monkeypatch.setattr(paths, "CHAPTERS", tmp_path / "chapters", raising=False)
    source = small_book.chapter(tmp_path / "chapters", "01_one", "print(x)", "x + 1", "None")
    source.with_suffix(".ipynb").write_text(run.execute(source, {}, 60, bar=False))
    return source


def test_the_cell_is_put_in_without_executing_as_if_it_had_been(chapter):
    target = chapter.with_suffix(".ipynb")
    assert address.open_chapters() == [chapter, target]
    assert target.read_text() == run.execute(chapter, {}, 60, bar=False)
    assert notebooks.problems(chapter, target) == []
    assert address.open_chapters() == []


def test_the_cell_follows_the_address(chapter, monkeypatch):
    address.open_chapters()
    monkeypatch.setattr(address, "address", lambda: "https://github.com/somebody/a-book")
    assert address.open_chapters() == [chapter, chapter.with_suffix(".ipynb")]
    assert chapter.read_text().count("find_spec(") == 1
    assert "somebody/a-book" in chapter.with_suffix(".ipynb").read_text()
    assert notebooks.problems(chapter, chapter.with_suffix(".ipynb")) == []


def test_a_notebook_of_another_source_is_left_as_it_is(chapter):
    chapter.write_text(chapter.read_text().replace("x + 1", "x + 2"))
    before = chapter.read_text()
    with pytest.raises(ValueError, match=r"01_one\.md: expected the source of its notebook"):
        address.open_chapters()
    assert chapter.read_text() == before


@pytest.mark.parametrize("source", notebooks.sources().values(), ids=lambda path: path.stem)
def test_every_chapter_begins_with_the_cell(source):
    text = source.read_text()
    assert address.opened(text) == text, "run `.venv/bin/python -m livebook.address`"
    cells = nbformat.read(source.with_suffix(".ipynb"), 4).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert (first.source, first.outputs) == (address.first_cell(), [])
    assert first.metadata.tags == ["remove-cell"]


# What it installs


def test_what_is_there_stays_and_what_is_missing_comes_as_it_was_tested(monkeypatch):
    monkeypatch.setattr(missing.sys, "platform", "linux")
    monkeypatch.setattr(missing.shutil, "which", lambda name: None)
    options, constraints = missing.pip({"torch", "numpy"})
    names = {missing.canonical(line) for line in constraints.splitlines()}
    assert {"mlxtend", "jaxtyping", "matplotlib"} <= names
    assert not {"torch", "numpy"} & names
    assert missing.CPU not in options
    options, constraints = missing.pip(set())
    assert constraints == (ROOT / "constraints.txt").read_text().rstrip("\n")
    assert missing.CPU in options
    monkeypatch.setattr(missing.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert missing.CPU not in missing.pip(set())[0]


def test_nothing_is_installed_where_all_is_there(monkeypatch, capsys):
    monkeypatch.setattr(missing.sys, "path", list(sys.path))
    monkeypatch.setattr(missing.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    monkeypatch.setattr(missing, "installed", lambda: set(map(missing.canonical, missing.needed())))
    missing.install()
    assert missing.sys.path[0] == str(ROOT / "src")
    assert capsys.readouterr().out == ""


def test_it_says_what_it_installs_and_how_long_that_takes(monkeypatch, capsys):
    started = []
    monkeypatch.setattr(missing.sys, "path", list(sys.path))
    monkeypatch.setattr(missing.subprocess, "run", lambda command, **_: started.append(command))
    rest = set(map(missing.canonical, missing.needed())) - {"mlxtend"}
    monkeypatch.setattr(missing, "installed", lambda: rest)
    missing.install()
    assert capsys.readouterr().out == f"Installing mlxtend, once: {missing.TAKES}.\n"
    assert started[0][:4] == [sys.executable, "-m", "pip", "install"]


def test_an_old_python_is_refused_with_one_sentence(monkeypatch):
    monkeypatch.setattr(missing.sys, "version_info", (3, 10, 12))
    with pytest.raises(RuntimeError, match=r"python: expected 3\.11\.5 or newer, got 3\.10\.12"):
        missing.install()


def test_it_needs_the_standard_library_alone():
    tree = ast.parse((ROOT / "src" / "livebook" / "missing.py").read_text())
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_the_extra_has_what_chapters_import():
    extra = set(map(missing.canonical, PROJECT["optional-dependencies"]["chapters"]))
    book = set(map(missing.canonical, PROJECT["optional-dependencies"]["book"]))
    brought = {"nbformat"}  # by nbconvert
    assert extra - brought <= book
    texts = [
        cell.source
        for path in notebooks.sources().values()
        for cell in nbformat.read(path.with_suffix(".ipynb"), 4).cells
        if cell.cell_type == "code"
    ]
    texts += [path.read_text() for path in (ROOT / "src" / "studies").glob("*.py")]
    imports = set(re.findall(r"^(?:import|from) (\w+)", "\n".join(texts), re.MULTILINE))
    names = {"sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "IPython": "numpy"}
    outside = imports - sys.stdlib_module_names - {"ntk_influence", "studies", "livebook"}
    assert {names.get(name, name) for name in outside} <= set(
        map(missing.canonical, missing.needed())
    )
