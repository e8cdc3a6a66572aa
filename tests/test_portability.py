"""The settings are applied, and a cell that differs in one is named with its first line."""

import json
import re
import sys

import pytest
from small_book import chapter

from livebook import paths, portability, run
from livebook.paths import CHAPTERS, ROOT


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Two small chapters: one prints its threads, the other mentions training."""
    threads = "import os\nprint('threads\\n', os.environ.get('OMP_NUM_THREADS'))"
    sources = [
        chapter(tmp_path, "01_threads", "print('same')", threads),
        chapter(tmp_path, "02_quiet", "# ni.train(\nprint(x)"),
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    for source in sources:
        source.with_suffix(".ipynb").write_text(run.execute(source, {}, 120))
    monkeypatch.setattr(paths, "CHAPTERS", tmp_path)
    monkeypatch.setattr(portability, "RESULT", tmp_path / "portability.json")
    return tmp_path


def call(monkeypatch, *arguments: str) -> int:
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["portability", *arguments])
    with pytest.raises(SystemExit) as stop:
        portability.main()
    return int(stop.value.code)


def test_the_cells_that_differ_are_named_and_written(book, monkeypatch, capsys):
    assert call(monkeypatch, "--setting", "two-threads", "--setting", "perturbed-1") == 1
    told = capsys.readouterr().out.splitlines()
    assert told == ["two-threads: 01_threads, code cell 2: 1 -> 2"]
    assert json.loads((book / "portability.json").read_text()) == {
        "two-threads": {"01_threads": [2], "02_quiet": []},
        "perturbed-1": {"01_threads": [], "02_quiet": []},
    }


def test_chapters_and_settings_can_be_chosen(book, monkeypatch, capsys):
    assert call(monkeypatch, "--setting", "perturbed-2", "--without-retraining") == 0
    assert capsys.readouterr().out == "no cell differs: perturbed-2\n"
    summary = json.loads((book / "portability.json").read_text())
    assert summary == {"perturbed-2": {"01_threads": []}}


def test_a_cell_that_raises_is_named_with_its_reason(book, monkeypatch, capsys):
    notebook = book / "02_quiet.ipynb"
    notebook.write_text(notebook.read_text().replace("print(x)", "print(y)"))
    assert call(monkeypatch, "--setting", "perturbed-1", "02_quiet") == 1
    told = "perturbed-1: 02_quiet, code cell 1: Cell execution caused an exception\n"
    assert capsys.readouterr().out == told


def test_an_unknown_chapter_and_an_unknown_setting_are_refused(monkeypatch, capsys):
    assert call(monkeypatch, "99_nothing") == 2
    assert "expected one of 00_notation" in capsys.readouterr().err
    assert call(monkeypatch, "--setting", "mars") == 2
    assert "mars" in capsys.readouterr().err


def test_the_chapters_that_retrain_are_told_by_their_source():
    chapters = [path.stem for path in CHAPTERS.glob("*.md")]
    retrain = {chapter[:2] for chapter in chapters if portability.retrains(chapter)}
    assert {"03", "04", "05"} <= retrain
    assert not {"00", "01", "02"} & retrain


def test_a_fresh_checkout_checks_a_setting_that_is_there():
    (command,) = re.findall("livebook.portability(.*)", (ROOT / ".ci" / "run").read_text())
    assert command.split()[0] == "--setting"
    assert command.split()[1] in portability.SETTINGS
