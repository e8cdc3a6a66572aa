"""A reader works on copies: opening and running a chapter changes no file of the book."""

import hashlib
import subprocess
import sys

import nbclient
import nbformat
import pytest

from livebook import lab
from livebook.paths import ROOT

TRACKED = ("chapters/*", "report/*", "data/**/*", "src/**/*.py", "*.yml", "*.md")


def digests():
    """What every file that git could track looks like."""
    files = (path for pattern in TRACKED for path in ROOT.glob(pattern) if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def book(tmp_path):
    """A book of two notebooks."""
    for name in ("chapters/01_one", "report/two"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.ipynb").write_text(f"{name}, as committed")
    return tmp_path


def test_what_a_reader_has_changed_stays_and_the_rest_follows_the_book(book, tmp_path):
    target = tmp_path / "lab"
    one, two = target / "chapters/01_one.ipynb", target / "report/two.ipynb"
    assert lab.prepare(book, target) == [one, two]
    assert lab.prepare(book, target) == []
    one.write_text("mine")
    (book / "chapters/01_one.ipynb").write_text("a new edition")
    (book / "report/two.ipynb").write_text("a new edition")
    assert lab.prepare(book, target) == [two]
    assert (one.read_text(), two.read_text()) == ("mine", "a new edition")
    assert lab.prepare(book, target) == []
    one.unlink()
    assert lab.prepare(book, target) == [one]
    assert one.read_text() == "a new edition"


def test_a_file_of_the_reader_s_own_is_not_overwritten(book, tmp_path):
    target = tmp_path / "lab"
    (target / "chapters").mkdir(parents=True)
    (target / "chapters/01_one.ipynb").write_text("was here before")
    lab.prepare(book, target)
    lab.prepare(book, target)
    assert (target / "chapters/01_one.ipynb").read_text() == "was here before"


@pytest.mark.parametrize(("user", "more"), [(0, ["--allow-root"]), (1000, [])])
def test_root_of_a_container_can_start_it_too(monkeypatch, tmp_path, user, more):
    monkeypatch.setattr(lab.os, "geteuid", lambda: user)
    assert lab.command(tmp_path)[:3] == [sys.executable, "-m", "jupyterlab"]
    assert lab.command(tmp_path)[3:] == [f"--ServerApp.root_dir={tmp_path}", *more]


def test_running_a_chapter_with_another_parameter_changes_no_file_of_the_book(tmp_path):
    before = digests()
    lab.prepare(ROOT, tmp_path)
    path = tmp_path / "chapters" / "00_notation.ipynb"
    notebook = nbformat.read(path, 4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source += "\nn_changed = 3"
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    nbformat.write(notebook, path)
    assert lab.prepare(ROOT, tmp_path) == []
    assert digests() == before


def test_without_jupyterlab_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(lab, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="lab: expected JupyterLab, found none; run `make lab`"):
        lab.main()


def test_jupyterlab_is_started_on_the_copies(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(lab, "find_spec", lambda name: object())
    monkeypatch.setattr(lab.paths, "BUILD", tmp_path, raising=False)
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(lab.subprocess, "run", lambda command, **_: started.append(command) or done)
    with pytest.raises(SystemExit) as stop:
        lab.main()
    assert stop.value.code == 0
    assert started == [lab.command(tmp_path / "lab")]
    assert started[0][1:3] == ["-m", "jupyterlab"]
    assert (tmp_path / "lab" / "chapters" / "00_notation.ipynb").exists()


def test_make_lab_installs_the_extra_and_nothing_else():
    recipe = (ROOT / "Makefile").read_text().partition("\nlab: ")[2].partition("\n\n")[0]
    assert "-e '.[lab]'" in recipe
    assert "-m livebook.lab" in recipe
