"""What a run leaves behind says what produced it, and is used again only where it belongs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import livebook
from livebook import Checkpoint, paths, records

SRC = paths.ROOT / "src"


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


@pytest.mark.parametrize(
    "change",
    [
        {"width": 11},
        {"method": "other"},
        {"device": torch.device("cuda")},
        {"device": "meta"},
        {"version": "0.0.1"},
        {"code": "another digest"},
    ],
    ids=lambda change: next(iter(change)) + str(next(iter(change.values()))),
)
def test_a_checkpoint_belongs_to_its_facts_device_torch_and_code(tmp_path, monkeypatch, change):
    names = {"cpu": "a processor", "cuda": "a card", "meta": "nothing"}
    monkeypatch.setattr(records, "device_name", lambda device: names[device.type])
    facts = {"width": 10, "device": "cpu"}
    before = Checkpoint(str(tmp_path), **facts).folder
    assert Checkpoint(str(tmp_path), **facts).folder == before
    if version := change.get("version"):
        monkeypatch.setattr(records, "version", lambda name: version)
    elif code := change.get("code"):
        monkeypatch.setattr(records, "digest", lambda package: code)
    else:
        facts |= change
    assert Checkpoint(str(tmp_path), **facts).folder != before


def test_every_file_of_the_library_counts(tmp_path):
    library = shutil.copytree(records.LIBRARY, tmp_path / "library")
    seen = {records.digest(library)}
    assert seen == {records.digest(records.LIBRARY)}
    files = sorted(library.rglob("*.py"))
    assert len(files) > 10
    for path in files:
        with path.open("a") as file:
            file.write("# changed\n")
        records.digest.cache_clear()
        seen.add(records.digest(library))
    files[0].rename(files[0].with_name("renamed.py"))
    records.digest.cache_clear()
    seen.add(records.digest(library))
    assert len(seen) == len(files) + 2
    records.digest.cache_clear()


def damaged(path: Path, how: str) -> None:
    """Spoil a file that was kept, in one of the ways below."""
    whole = path.read_bytes()
    if how == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif how == "archive":
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(2))
    elif how == "text":
        np.save(path, np.array(["a"]))
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        contents = {
            "empty": b"",
            "garbage": b"\x80\x04" + bytes(range(256)),
            "head only": whole[:20],
            "half": whole[: len(whole) // 2],
            "last byte": whole[:-1],
            "zip": b"PK\x03\x04" + whole,
            "shape": whole.replace(b"(50,)", b"(99,)"),
        }
        path.write_bytes(contents[how])


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "garbage", "head only", "half", "last byte", "zip", "shape"),
        *("pickle", "archive", "text", "folder"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence_that_names_the_file(tmp_path, how):
    kept = Checkpoint(str(tmp_path), width=10)
    kept.save(7, torch.arange(50.0))
    path = kept.folder / "7.npy"
    damaged(path, how)
    with pytest.raises(ValueError, match=r"^[^\n]*expected a tensor[^\n]*delete it[^\n]*$") as stop:
        kept.load(7)
    assert str(path) in str(stop.value)


# Outside the checkout, and without side effects


def python(code: str, cwd: Path, path: Path = SRC, **more: str) -> str:
    """What a fresh interpreter prints; its errors come last."""
    options = {"capture_output": True, "text": True, "check": False, "cwd": cwd}
    surroundings = os.environ | {"PYTHONPATH": str(path)} | more
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, **options)
    return (done.stdout + done.stderr).strip()


def test_importing_the_book_asks_no_git_and_sets_no_style(tmp_path):
    code = """
import subprocess, matplotlib
def refuse(*arguments, **options): raise AssertionError("a program was started")
before, whole = dict(matplotlib.rcParams), subprocess.Popen
subprocess.Popen = refuse
import livebook
changed = {k for k in before if before[k] != matplotlib.rcParams[k] and k != "backend"}
assert not changed, changed
subprocess.Popen = whole
livebook.pick_device("cpu")
assert matplotlib.rcParams["figure.dpi"] == 144
print("as it was")
"""
    assert python(code, tmp_path) == "as it was"


@pytest.fixture
def installed(tmp_path):
    """A copy of the packages as a plain installation puts them, away from the checkout."""
    for package in ("livebook", "ntk_influence"):
        shutil.copytree(SRC / package, tmp_path / "site-packages" / package)
    return tmp_path / "site-packages"


def test_without_its_checkout_the_book_is_imported(installed, tmp_path):
    code = "import livebook; print(len(livebook.__all__), livebook.at_most(1e-9))"
    assert python(code, tmp_path, installed) == f"{len(livebook.__all__)} < 1e-08"


@pytest.mark.parametrize(
    "use",
    [
        "book.judge('a', 1.0)",
        "book.recorded('bench')",
        "book.record('_build', 'a', {}, torch.device('cpu'))",
        "book.Checkpoint('_build')",
        "book.pick_device('cpu')",
        "from livebook.paths import ROOT",
        "import sys, livebook.run as run; sys.argv = ['run', '--to', 'x']; run.main()",
        "import sys, livebook.site as site; sys.argv = ['site']; site.main()",
    ],
)
def test_without_its_checkout_what_needs_it_is_one_sentence(installed, tmp_path, use):
    output = python(f"import torch, livebook as book; {use}", tmp_path, installed)
    last = output.splitlines()[-1]
    assert "livebook: expected to be used in a checkout of the book" in last
    assert str(tmp_path) in last
    assert "main()" not in use or output == last
    assert not (tmp_path / "x").exists()


def test_in_the_checkout_an_installed_copy_finds_it(installed):
    code = "from livebook import paths; print(paths.CHAPTERS)"
    assert python(code, paths.ROOT / "tests", installed) == str(paths.CHAPTERS)


def git(folder: Path, *arguments: str) -> str:
    """What git prints in a folder."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_the_commit_is_that_of_the_book_and_not_of_its_surroundings(tmp_path, monkeypatch):
    commit = records.commit.__wrapped__
    outer, book = tmp_path / "outer", tmp_path / "outer" / "book"
    book.mkdir(parents=True)
    (book / "claims.yml").write_text("claims: []")
    monkeypatch.setattr(paths, "ROOT", book)
    assert commit() == "unknown"
    git(outer, "init", "-q")
    git(outer, "add", "-A")
    git(outer, "commit", "-q", "-m", "outer")
    assert commit() == "unknown"
    with monkeypatch.context() as hook:
        hook.setenv("GIT_DIR", str(outer / ".git"))
        assert commit() == "unknown"
    git(book, "init", "-q")
    assert commit() == "unknown"
    git(book, "add", "-A")
    git(book, "commit", "-q", "-m", "book")
    own = git(book, "rev-parse", "--short=12", "HEAD")
    assert commit() == own
    (book / "claims.yml").write_text("claims: [changed]")
    assert commit() == f"{own}-dirty"
    monkeypatch.setenv("PATH", "/nowhere")
    assert commit() == "unknown"
    monkeypatch.setenv("BOOK_COMMIT", "told")
    assert commit() == "told"


# Records of other libraries

PEERS = records.recorded("peers_on_truth")["results"]


@pytest.mark.parametrize("library", ["captum", "pyinfluence"])
def test_an_entry_of_the_table_is_that_of_the_plainest_call(library):
    """Two scripts that share nothing of signs, scales and ridges."""
    hand = PEERS[library]["by_hand"]
    asked = ("method", "truth")
    same = [r for r in PEERS[library]["rows"] if all(r[key] == hand[key] for key in asked)]
    assert [row["relative_error"] for row in same] == pytest.approx([hand["relative_error"]], 1e-6)
    assert hand["version"] == PEERS[library]["version"]


@pytest.mark.parametrize("library", PEERS)
def test_a_row_says_what_its_scores_cost_or_why_there_are_none(library):
    for row in PEERS[library]["rows"]:
        assert row["truth"]
        assert row["n"] > 0
        if "unfinished" in row:
            assert row["unfinished"]
            continue
        assert row["ratio"] == pytest.approx(row["seconds"] / row["closed_form_seconds"], 1e-9)
        assert min(row["seconds"], row["closed_form_seconds"]) > 0
        assert row["peak_mib"] >= 0
        assert row["error_up_to_scale"] <= row["relative_error"] + 1e-6
