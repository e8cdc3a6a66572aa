"""Chapters are run side by side, reported, interrupted and replaced as promised."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import pytest
from small_book import chapter, finished, refused, start

from livebook import notebooks, paths, run, times


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
    source = chapter(tmp_path / "chapters", "failing", "y = x", cell, "print('never')")
    with pytest.raises(SystemExit) as stop:
        run.execute(source, {}, 3)
    assert str(stop.value).startswith("chapters/failing.md, cell 3: ")
    assert message in str(stop.value)


def test_the_kernel_is_this_interpreter_whatever_jupyter_finds(tmp_path, monkeypatch):
    for name in ("python3", "python"):
        spec = tmp_path / "jupyter" / "kernels" / name / "kernel.json"
        spec.parent.mkdir(parents=True)
        other = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
        spec.write_text(json.dumps(other))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    source = chapter(tmp_path / "chapters", "here", "import sys; print(sys.prefix)")
    notebook = nbformat.reads(run.execute(source, {}, 60), 4)
    assert notebook.cells[-1].outputs[0].text.strip() == run.sys.prefix


def left_over(book: Path) -> list[str]:
    """What a run left under ``_build`` besides the run times."""
    return sorted(path.name for path in (book / "_build").iterdir() if path.name != times.NAME)


def test_a_run_writes_notebooks_and_run_times_and_leaves_nothing_else(tmp_path):
    threads = "import os; print(os.environ.get('OMP_NUM_THREADS'))"
    keep = "import livebook; kept = livebook.Checkpoint(None)"
    for name in ("01_one", "02_two", "03_three"):
        chapter(tmp_path / "chapters", name, threads, keep)
    free = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    code, output = finished(tmp_path, "--jobs", 2, env=free)
    assert code == 0, output
    lines = output.splitlines()
    assert [line.split()[1] for line in lines].count("started") == 3
    assert sum(" done in " in line for line in lines) == 3
    assert {line.split()[0] for line in lines[:2]} == {"01_one", "02_two"}
    for path in (tmp_path / "target").iterdir():
        assert nbformat.read(path, 4).cells[2].outputs[0].text == "1\n"
    code, output = finished(tmp_path, "03_three", "--jobs", 2, env=free)
    assert code == 0, output
    assert "cell 4/4" in output
    alone = nbformat.read(tmp_path / "target" / "03_three.ipynb", 4)
    assert alone.cells[2].outputs[0].text == "None\n"
    assert left_over(tmp_path) == []
    kept = json.loads((tmp_path / "_build" / times.NAME).read_text())
    assert kept.keys() == {"default"}
    assert kept["default"].keys() == {"01_one", "02_two", "03_three"}


def test_a_kernel_with_processes_of_its_own_tidies_them_up(tmp_path):
    begin = "import subprocess; p = subprocess.Popen(['sleep', '60'], start_new_session=True)"
    end = f"import atexit; atexit.register(lambda: open({str(tmp_path / 'tidy')!r}, 'x'))"
    chapter(tmp_path / "chapters", "01_one", begin, end, "atexit.register(p.kill);")
    code, output = finished(tmp_path)
    assert code == 0, output
    assert (tmp_path / "tidy").exists()


@pytest.mark.parametrize(
    ("folder", "kind"), [("_build", "default"), ("data/recorded", "results")], ids=["here", "else"]
)
def test_the_longest_chapter_begins_first(tmp_path, folder, kind):
    for name in ("01_one", "02_two", "03_three"):
        chapter(tmp_path / "chapters", name)
    known = {kind: {"01_one": 1.0, "02_two": 30.0, "03_three": 2.0}}
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / times.NAME).write_text(json.dumps(known))
    code, output = finished(tmp_path, "--jobs", 1)
    assert code == 0, output
    done = [line.split()[0] for line in output.splitlines() if " done in " in line]
    assert done == ["02_two", "03_three", "01_one"]


def test_one_failure_stops_the_others_and_writes_nothing(tmp_path):
    chapter(tmp_path / "chapters", "01_bad", "y = x", "raise ValueError('no such digit')")
    chapter(tmp_path / "chapters", "02_slow", "import time; time.sleep(60)")
    chapter(tmp_path / "chapters", "03_waits", "print(x)")
    begun = time.monotonic()
    code, output = finished(tmp_path, "--jobs", 2)
    assert code == 1
    assert time.monotonic() - begun < 45
    last = output.splitlines()[-1]
    assert last == "chapters/01_bad.md, cell 3: ValueError: no such digit"
    assert "Traceback" not in output
    assert "03_waits" not in output
    assert list((tmp_path / "target").iterdir()) == left_over(tmp_path) == []


def test_killed_between_two_chapters_leaves_the_old_notebooks(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    chapter(tmp_path / "chapters", "01_quick", "print(x)")
    chapter(tmp_path / "chapters", "02_slow", "import time; time.sleep(2)")
    for name in ("01_quick", "02_slow"):
        (target / f"{name}.ipynb").write_text("old")
    with start(tmp_path) as process:
        while "01_quick" not in (line := process.stdout.readline()) or "done" not in line:
            assert line, "the run stopped before its first chapter was done"
        process.send_signal(signal.SIGKILL)
    assert [path.read_text() for path in sorted(target.iterdir())] == ["old", "old"]
    code, output = finished(tmp_path)
    assert code == 0, output
    assert all(nbformat.read(path, 4).cells for path in target.iterdir())


def kernels(mark: str) -> list[int]:
    """The running processes that carry the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"LIVEBOOK_TEST={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "status", "count", "whole_group"),
    [
        (signal.SIGINT, 130, 1, True),
        (signal.SIGINT, 130, 2, True),
        (signal.SIGTERM, 143, 1, False),
        (signal.SIGTERM, 143, 2, True),
        (signal.SIGKILL, -9, 2, False),
    ],
)
def test_a_signal_ends_everything_and_leaves_nothing(tmp_path, number, status, count, whole_group):
    busy = f"""
    import pathlib, time, livebook
    kept = livebook.Checkpoint(None)
    (pathlib.Path({str(tmp_path)!r}) / f"begun{{x}}").touch()
    time.sleep(100)
    """
    for i in range(count):
        chapter(tmp_path / "chapters", f"0{i}_busy", f"x = {i}", busy)
    mark = f"{tmp_path.name}-{os.getpid()}"
    options = {"env": os.environ | {"LIVEBOOK_TEST": mark}, "start_new_session": True}
    with start(tmp_path, "--jobs", 2, **options) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("begun*"))) < count and time.monotonic() < deadline:
            time.sleep(0.1)
        if whole_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == status, output
    assert "Traceback" not in output
    deadline = time.monotonic() + 20
    while kernels(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kernels(mark) == []
    assert list((tmp_path / "target").iterdir()) == []
    if number != signal.SIGKILL:
        assert "interrupted: nothing was written" in output.splitlines()[-1]
        assert left_over(tmp_path) == []


def test_the_rows_of_a_chapter_are_shared_out_as_asked(tmp_path):
    rows = """
    import os
    import livebook as book

    def row(number):
        return number, os.environ["OMP_NUM_THREADS"], os.getpid()

    found = book.rows(row, range(3))
    print([row[:2] for row in found], os.getpid() in {row[2] for row in found})
    """
    chapter(tmp_path / "chapters", "01_rows", rows)
    free = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    for workers, here in ((1, True), (2, False)):
        code, output = finished(tmp_path, "--workers", workers, env=free)
        assert code == 0, output
        (said,) = nbformat.read(tmp_path / "target" / "01_rows.ipynb", 4).cells[-1].outputs
        assert said.text == f"[(0, '1'), (1, '1'), (2, '1')] {here}\n"


def test_a_cluster_that_cannot_be_reached_is_refused_before_the_run(tmp_path, monkeypatch):
    chapter(tmp_path / "chapters", "01_one")
    sentence = refused(monkeypatch, tmp_path, "--cluster", "tcp://127.0.0.1:9")
    assert sentence.startswith("cluster: expected ")
    assert "\n" not in sentence


# What it writes


def on_another_device(self: Path, target: Path) -> None:
    """A rename that refuses to leave its folder, as between two file systems."""
    if self.parent.resolve() != target.parent.resolve():
        raise OSError(18, "Invalid cross-device link")
    self.rename(target)


def test_no_file_is_moved_from_one_folder_to_another(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", on_another_device)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    targets = [tmp_path / part for part in ("a", "new/b", "link/c", "link/deeper/d")]
    paths.write_atomically(*((path, path.name) for path in targets))
    assert [path.read_text() for path in targets] == ["a", "b", "c", "d"]
    assert not [path for path in tmp_path.rglob(".*")]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("other", "\udc80", UnicodeEncodeError),
        ("file/below", "new", OSError),
        ("folder", "new", OSError),
        ("/proc/none/file", "new", OSError),
    ],
)
def test_a_failed_write_keeps_the_old_file(tmp_path, name, content, error):
    path = tmp_path / "file"
    (tmp_path / "folder").mkdir()
    paths.write_atomically((path, "old"))
    with pytest.raises(error):
        paths.write_atomically((path, "new"), (tmp_path / name, content))
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "folder"]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    paths.write_atomically((tmp_path / "written", ""))
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    "to", ["file", "file/below", "/proc/none", "/proc", "/dev/null/x", "taken"]
)
def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path, monkeypatch, to):
    chapter(tmp_path / "chapters", "01_one")
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "01_one.ipynb").mkdir(parents=True)
    sentence = refused(monkeypatch, tmp_path, "--to", tmp_path / to)
    assert sentence.startswith(str(tmp_path / to))
    assert "expected a" in sentence
    assert "\n" not in sentence


def test_a_build_folder_that_cannot_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    chapter(tmp_path / "chapters", "01_one")
    (tmp_path / "_build").symlink_to(tmp_path / "nowhere" / "else")
    assert refused(monkeypatch, tmp_path).startswith(f"{tmp_path / '_build'}: expected a folder")


def test_run_times_are_kept_for_each_profile_and_chapter(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    for profile, seconds in [
        ("default", {"00": 1.0, "01": 2.0}),
        ("paper", {"00": 900.0}),
        ("default", {"01": 3.0}),
    ]:
        times.file().write_text(times.merged(profile, seconds))
    assert times.read() == {"00": 1.0, "01": 3.0}
    assert times.read("paper") == {"00": 900.0}
    assert times.read("gpu") == {}


def test_run_times_of_this_machine_count_more_than_recorded_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    (tmp_path / "recorded").mkdir()
    recorded = {"results": {"00": 9.0, "01": 5.0, "02": 1.0}}
    (tmp_path / "recorded" / times.NAME).write_text(json.dumps(recorded))
    assert times.longest_first(["00", "01", "02", "03"]) == ["03", "00", "01", "02"]
    times.file().write_text(times.merged("default", {"00": 2.0}))
    assert times.longest_first(["00", "01", "02"]) == ["01", "00", "02"]
    assert times.longest_first(["00", "01", "02"], "paper") == ["00", "01", "02"]


def test_run_times_are_recorded_when_every_chapter_has_one(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    monkeypatch.setattr(notebooks, "sources", lambda: {"00": None, "01": None})
    times.file().write_text(times.merged("default", {"00": 2.0}))
    with pytest.raises(
        SystemExit, match=r"^times: expected one for every chapter, got none for 01$"
    ):
        times.main()
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    times.file().parent.mkdir()
    times.file().write_text(times.merged("default", {"00": 2.0, "01": 3.0}))
    times.main()
    found = json.loads((tmp_path / times.NAME).read_text())
    assert found["results"] == {"00": 2.0, "01": 3.0}
    assert found["provenance"]["commit"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "3",
        "null",
        '{"00": 7.1}',
        '{"default": 3}',
        '{"default": {"00": "x"}}',
        "\x00",
    ],
)
def test_damaged_run_times_count_as_absent(tmp_path, monkeypatch, text):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    times.file().write_text(text)
    assert times.read() == {}
    assert json.loads(times.merged("default", {"00": 1.0})) == {"default": {"00": 1.0}}


# Sources


@pytest.mark.parametrize(
    "head", [b"\xef\xbb\xbf", "\ufeff".encode("utf-16-le"), b"\xff", b"# \xe9\n"]
)
def test_a_source_that_is_not_plain_utf8_is_one_sentence(tmp_path, monkeypatch, head):
    source = chapter(tmp_path / "chapters", "01_one")
    source.write_bytes(head + source.read_bytes())
    with pytest.raises(ValueError, match=r"^01_one\.md: expected (plain )?UTF-8, got [^\n]*$"):
        notebooks.read_source(source)
    assert refused(monkeypatch, tmp_path).startswith("01_one.md: expected")


def test_line_ends_of_windows_change_nothing(tmp_path):
    source = chapter(tmp_path, "01_one", "print(x)")
    before = notebooks.read_source(source)
    source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    assert notebooks.read_source(source) == before


def test_git_keeps_the_ends_of_lines_on_every_machine():
    names = ["chapters/00_notation.md", "chapters/00_notation.ipynb", "data/helpful.png"]
    command = ["git", "check-attr", "eol", "text", "--", *names]
    asked = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip("not a git checkout")
    assert asked.stdout.count("eol: lf") >= 2
    assert "helpful.png: text: unset" in asked.stdout
