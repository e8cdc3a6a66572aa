"""Every wrong formula in mutants.py turns the tests red, and the right ones leave them green.

Each copy of the library is tested in a process of its own. It is forked from a server that has
imported what they need and done nothing with it, which is quick and safe.
"""

import io
import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

TESTS = Path(__file__).parent
LIBRARY = TESTS.parent / "src" / "ntk_influence"
RIGHT = [
    "test_kernels.py",
    "test_ridge.py",
    "test_influence.py",
    "test_network.py",
    "test_bad_input.py",
    "test_training.py",
    "test_bounds.py",
    "test_finite_width.py",
    "test_complexity.py",
    "test_dynamics.py",
]
SERVER = multiprocessing.get_context("forkserver")
# torch.testing imports the last one when it is first called.
SERVER.set_forkserver_preload(
    ["beartype", "hypothesis", "jaxtyping", "torch", "torch.distributed.tensor"]
)


def run_pytest(folder: str, files: list[str]) -> tuple[int, str]:
    """In a process of its own: pytest's exit code and output with the library from the folder."""
    os.environ["NTK_INFLUENCE_COPY"] = folder  # conftest.py checks it, and keeps the tests light
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    sys.path.insert(0, folder)
    options = ["-xq", "--assert=plain", "-k", "not digits", "-p", "no:unraisableexception"]
    settings = ["-o", "addopts=", "-o", f"cache_dir={folder}/cache"]
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(output):
        code = pytest.main([*options, *settings, *(str(TESTS / file) for file in files)])
    return int(code), output.getvalue()


def run_copy(folder: Path, files: list[str], mutant: Mutant | None) -> tuple[int, str]:
    """Exit code and output of the tests of a copy of the library, with one text replaced."""
    copy = folder / "ntk_influence"
    shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant:
        source = (copy / mutant.module).read_text()
        found = source.count(mutant.old)
        assert found == 1, f"{mutant.name}: {mutant.old!r} occurs {found} times"
        (copy / mutant.module).write_text(source.replace(mutant.old, mutant.new))
    with ProcessPoolExecutor(1, mp_context=SERVER) as pool:
        return pool.submit(run_pytest, str(folder), files).result()


def test_the_right_formulas_leave_the_tests_green(tmp_path):
    code, output = run_copy(tmp_path, RIGHT, None)
    assert code == pytest.ExitCode.OK, output


@pytest.mark.parametrize(
    ("mutant", "file"),
    [pytest.param(m, file, id=f"{m.name}-{file}") for m in MUTANTS for file in m.tests],
)
def test_a_wrong_formula_turns_the_tests_red(mutant, file, tmp_path):
    code, output = run_copy(tmp_path, [file], mutant)
    # Not only no success: the tests were collected, ran, and failed.
    assert code == pytest.ExitCode.TESTS_FAILED, f"{mutant.name} is not noticed:\n{output}"


def test_mutants_have_names_of_their_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
