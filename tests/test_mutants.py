"""Every wrong formula in the folder mutants turns the tests red, the right ones leave them green.

A file of that folder holds the wrong formulas of one module, of the kind one really writes: a name,
a text that occurs once in the module (``- ``), and what stands in its place (``+ ``).

Each copy of the library is tested in a process of its own. It is forked from a server that has
imported what they need and done nothing with it, which is quick and safe. The test that noticed a
wrong formula before is asked first. ``noticed.jsonl`` says which; delete it to have it made anew by
``RECORD_MUTANTS=1 .venv/bin/python -m pytest tests/test_mutants.py -n 2 --dist loadgroup``.
"""

import io
import json
import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src"
NOTICED = TESTS / "mutants" / "noticed.jsonl"
MODULES = sorted(path.stem for path in (TESTS / "mutants").glob("*.txt"))
PACKAGES = {"sweeps": "livebook"}  # of a module that is not the library's
# The tests of a module are those of its name, and with these those of the modules it serves.
TESTED_WITH = {
    "_check": ["bad_input", "numbers", "surroundings"],
    "contour": ["flow", "bad_input"],
    "conv_kernels": ["deep_kernels", "conv_kernels"],
    "cross_entropy": ["logistic"],
    "groups": ["audit"],
    "kronecker": ["estimators"],
    "linearised": ["estimators"],
    "wrong_label": ["audit"],
    "descent": ["descent", "training", "retraining"],
    "training": ["training", "retraining"],
    "ridge": ["ridge", "precision", "bad_input"],
    "flow": ["flow", "bad_input"],
    "iterative_ridge": ["iterative"],
    "leverage_estimate": ["iterative"],
}


class Mutant(NamedTuple):
    """A text that occurs once in a module, and the wrong one."""

    name: str
    module: str
    old: str
    new: str


def read(module: str) -> list[Mutant]:
    """The mutants of a module."""
    text = (TESTS / "mutants" / f"{module}.txt").read_text()
    mutants = []
    for block in text.strip().split("\n\n"):
        name, *lines = block.split("\n")
        old, new = (
            "\n".join(line[2:] for line in lines if line.startswith(sign)) for sign in ("- ", "+ ")
        )
        mutants.append(Mutant(name.removeprefix("# "), module, old, new))
    return mutants


def files_for(module: str) -> list[str]:
    """The files that have to notice."""
    return [f"test_{name}.py" for name in TESTED_WITH.get(module, [module])]


def noticed() -> dict[str, str]:
    """The test that noticed each mutant, by the mutant's name; a later line replaces another."""
    lines = NOTICED.read_text().splitlines() if NOTICED.exists() else []
    return dict(json.loads(line) for line in lines)


FIRST = noticed()
MUTANTS = [mutant for module in MODULES for mutant in read(module)]
RIGHT = sorted({file for module in MODULES for file in files_for(module)})
SERVER = multiprocessing.get_context("forkserver")
# torch.testing imports torch.distributed.tensor when it is first called.
PRELOADED = "beartype hypothesis jaxtyping scipy.optimize scipy.stats torch"
SERVER.set_forkserver_preload([*PRELOADED.split(), "torch.distributed.tensor", "torch.func"])


def run_pytest(folder: str, files: list[str], cache: str) -> tuple[int, str]:
    """In a process of its own: pytest's exit code and output with the library from the folder.

    Tests that failed before, as the cache has it, are asked first.
    """
    os.environ["NTK_INFLUENCE_COPY"] = folder  # conftest.py checks it, and keeps the tests light
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    sys.path.insert(0, folder)
    options = [
        "-xq",
        "--failed-first",
        "--assert=plain",
        "-k",
        "not digits",
        "-p",
        "no:unraisableexception",
    ]
    settings = ["-o", "addopts=", "-o", f"cache_dir={cache}"]
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(output):
        code = pytest.main([*options, *settings, *(str(TESTS / file) for file in files)])
    return int(code), output.getvalue()


def run_copy(folder: Path, files: list[str], mutant: Mutant | None) -> tuple[int, str]:
    """Exit code and output of the tests of a copy of the library, with one text replaced."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("ntk_influence", "livebook"):
        shutil.copytree(SOURCES / package, folder / package, ignore=ignored)
    if mutant:
        package = PACKAGES.get(mutant.module, "ntk_influence")
        module = folder / package / f"{mutant.module}.py"
        source = module.read_text()
        found = source.count(mutant.old)
        assert found == 1, f"{mutant.name}: {mutant.old!r} occurs {found} times"
        module.write_text(source.replace(mutant.old, mutant.new))
    failed = folder / "cache" / "v" / "cache" / "lastfailed"
    failed.parent.mkdir(parents=True)
    first = (FIRST.get(mutant.name) or FIRST.get(mutant.module)) if mutant else None
    failed.write_text(json.dumps({first: True} if first else {}))
    with ProcessPoolExecutor(1, mp_context=SERVER) as pool:
        found = pool.submit(run_pytest, str(folder), files, str(folder / "cache")).result()
    if mutant:
        remember(mutant, *json.loads(failed.read_text()))
    return found


def remember(mutant: Mutant, *failed: str) -> None:
    """Which test noticed a mutant: for the next of its module, and on request for good."""
    for test in failed[:1]:
        FIRST[mutant.module] = test
        if os.environ.get("RECORD_MUTANTS"):
            with NOTICED.open("a") as file:
                file.write(json.dumps([mutant.name, test]) + "\n")


def test_the_right_formulas_leave_the_tests_green(tmp_path):
    code, output = run_copy(tmp_path, RIGHT, None)
    assert code == pytest.ExitCode.OK, output


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}: {mutant.name}")
def test_a_wrong_formula_turns_the_tests_red(mutant, tmp_path):
    code, output = run_copy(tmp_path, files_for(mutant.module), mutant)
    # Not only no success: the tests were collected, ran, and failed.
    assert code == pytest.ExitCode.TESTS_FAILED, f"{mutant.name} is not noticed:\n{output}"


def test_mutants_have_names_of_their_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
