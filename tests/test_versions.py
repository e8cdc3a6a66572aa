"""Other versions: what is tested, and what is said where something is missing or fails."""

import json
import subprocess
import sys

import pytest

from livebook import versions


def call(monkeypatch, tmp_path, *arguments: str) -> tuple[int, dict]:
    """The exit code of the command and what it wrote."""
    monkeypatch.setattr(versions, "BUILD", tmp_path)
    monkeypatch.setattr(sys, "argv", ["versions", *arguments])
    with pytest.raises(SystemExit) as stop:
        versions.main()
    return int(stop.value.code), json.loads((tmp_path / "versions.json").read_text())


def answer(monkeypatch, failing: str, text: str) -> list[list[str]]:
    """Let every command succeed but those with the word in them; returns the list of commands."""
    commands = []

    def run(command: list[str], **_) -> subprocess.CompletedProcess:
        commands.append([str(word) for word in command])
        return subprocess.CompletedProcess(command, int(failing in commands[-1]), text, "")

    monkeypatch.setattr(versions.subprocess, "run", run)
    return commands


def test_the_tests_of_the_library_need_no_book():
    names = {path.name for path in versions.library_tests()}
    assert {"test_kernels.py", "test_training.py", "test_datasets.py"} <= names
    assert not {"test_site.py", "test_mutants.py", "test_versions.py"} & names


def test_a_missing_python_is_told_and_is_no_failure(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, rows = call(monkeypatch, tmp_path, "3.12")
    assert code == 0
    summary = "not tested: no python3.12 here"
    assert rows == {"3.12": {"python": None, "versions": {}, "passed": None, "summary": summary}}


def test_a_stub_of_a_python_is_a_missing_one(monkeypatch, tmp_path):
    answer(monkeypatch, "--version", "")
    assert call(monkeypatch, tmp_path, "3.13")[1]["3.13"]["passed"] is None


@pytest.mark.parametrize(("word", "step"), [("install", "installation"), ("-q", "tests")])
def test_a_step_that_fails_is_told_in_its_last_line(monkeypatch, tmp_path, word, step):
    answer(monkeypatch, word, "many words\n1 failed in 2 s\n")
    code, rows = call(monkeypatch, tmp_path, "newest")
    told = rows["newest"]["passed"], rows["newest"]["summary"]
    assert (code, *told) == (1, False, f"{step}: 1 failed in 2 s")


def test_only_torch_is_held_back_from_the_newest(monkeypatch, tmp_path):
    commands = answer(monkeypatch, "", "3 passed in 2 s")
    for name in ("newest", "3.11"):
        assert call(monkeypatch, tmp_path, name)[1][name]["summary"] == "3 passed"
    newest, constrained = [command for command in commands if "install" in command]
    assert [word.split("==")[0] for word in newest if "==" in word] == ["torch"]
    assert str(versions.CONSTRAINTS) in constrained


def test_an_unknown_name_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["versions", "2.7"])
    with pytest.raises(SystemExit):
        versions.main()
    assert "version: expected one of 3.11, 3.12, 3.13, newest, got '2.7'" in capsys.readouterr().err
