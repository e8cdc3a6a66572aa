"""The book's machinery: chapters are run, reported, compared and replaced as promised."""

import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from notebooks import chapter

from livebook import Checkpoint, run
from livebook.paths import write_atomically

# Execution


def test_a_run_repeated_is_the_same_to_the_byte(tmp_path):
    source = chapter(tmp_path, "same", "print(x / 3)", "import numpy; numpy.arange(3)")
    first, second = (run.execute(source, {}, 60) for _ in range(2))
    assert first == second
    assert "0.6666" in first


def test_a_profile_sets_parameters(tmp_path):
    source = chapter(tmp_path, "profile", "print(x + 1)")
    assert "42.5" in run.execute(source, {"x": 41.5}, 60)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("print(1)\nraise ValueError('no such digit')", "ValueError: no such digit"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "the kernel died"),
        ("import time\ntime.sleep(60)", "no answer within 3 s"),
    ],
    ids=["exception", "kernel death", "time-out"],
)
def test_a_failure_names_the_chapter_and_the_cell(tmp_path, cell, message):
    source = chapter(tmp_path, "failing", "y = x", cell, "print('never')")
    with pytest.raises(SystemExit) as stop:
        run.execute(source, {}, 3)
    assert str(stop.value).startswith("chapters/failing.md, cell 3: ")
    assert message in str(stop.value)


def test_an_unknown_chapter_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["run", "--to", str(tmp_path), "99_nothing"])
    with pytest.raises(SystemExit):
        run.main()
    assert "expected one of 00_notation" in capsys.readouterr().err


def start(chapters: Path, target: Path) -> subprocess.Popen:
    """``python -m livebook.run --to target`` on chapters of the test's own."""
    code = f"from livebook import run; run.CHAPTERS = run.Path({str(chapters)!r}); run.main()"
    command = [sys.executable, "-c", code, "--to", str(target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_killed_between_two_chapters_leaves_the_old_notebooks(tmp_path):
    chapters, target = tmp_path / "chapters", tmp_path / "target"
    chapters.mkdir()
    target.mkdir()
    chapter(chapters, "01_quick", "print(x)")
    chapter(chapters, "02_slow", "import time; time.sleep(2)")
    for name in ("01_quick", "02_slow"):
        (target / f"{name}.ipynb").write_text("old")
    with start(chapters, target) as process:
        while "01_quick" not in (line := process.stdout.readline()) or "done" not in line:
            assert line, "the run stopped before its first chapter was done"
        process.send_signal(signal.SIGKILL)
    assert [path.read_text() for path in sorted(target.iterdir())] == ["old", "old"]
    with start(chapters, target) as again:
        output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    assert all(nbformat.read(path, 4).cells for path in target.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically((path, "old"))
    with pytest.raises(UnicodeEncodeError):
        write_atomically((path, "new"), (tmp_path / "other", "\udc80"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# Checkpoints


def test_a_checkpoint_gives_back_what_was_kept_under_the_same_facts(tmp_path):
    kept = Checkpoint(str(tmp_path), width=10, ridge=1.0)
    assert kept.load(3) is None
    value = torch.tensor([1.0, 2.0], dtype=torch.float32)
    kept.save(3, value)
    assert torch.equal(Checkpoint(str(tmp_path), ridge=1.0, width=10).load(3), value)
    assert Checkpoint(str(tmp_path), width=11, ridge=1.0).load(3) is None


def test_a_checkpoint_without_a_place_keeps_nothing_for_the_next_run():
    first = Checkpoint(None, width=10)
    first.save("a", torch.zeros(2))
    assert torch.equal(first.load("a"), torch.zeros(2))
    assert Checkpoint(None, width=10).load("a") is None
