"""Ask pytest whether it notices a changed copy of a package, in a process forked for each question.

A line of standard input holds the folder of the copy, tests, and a limit in seconds of computing;
the answer is the name of the first test that fails, ``import`` where none could be run, ``time``,
or nothing.
This process imports what all questions need and does nothing with it: forking it is quick and safe.
"""

import importlib
import json
import multiprocessing
import os
import resource
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

PRELOADED = ("beartype", "hypothesis", "jaxtyping", "scipy.optimize", "scipy.stats", "torch")
# torch.testing imports the last one when it is first called.
PRELOADED += ("torch.func", "torch.distributed.tensor")


class Noticed:
    """Writes down the first test that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A function's name, without the parameters."""
        if report.failed and not self.path.exists():
            file, name = report.nodeid.split("[")[0].split("::", 1)
            self.path.write_text(f"{Path(file).name}::{name}")


def options(folder: Path) -> list[str]:
    """Pytest's: plain, and with a cache of its own."""
    settings = ["-o", "addopts=", "-o", f"cache_dir={folder / 'cache'}"]
    return ["-q", "--assert=plain", "-p", "no:unraisableexception", *settings]


def surroundings(folder: Path) -> dict[str, str]:
    """The environment in which conftest.py checks the copy, and keeps the tests light."""
    return {
        "NTK_INFLUENCE_COPY": str(folder),
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "",
    }


def run(folder: Path, tests: list[str], limit: int) -> None:
    """In a process of its own: pytest with the package from the folder."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    os.environ.update(surroundings(folder))
    sys.path.insert(0, str(folder))
    with (folder / "output").open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = pytest.main(["-x", *options(folder), *tests], plugins=[Noticed(folder / "noticed")])
    sys.exit(int(code))


def ask(folder: Path, tests: list[str], limit: int) -> str:
    """The answer to one question. On a busy machine the clock says little: computing is limited."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder, tests, limit))
    process.start()
    process.join(100 * limit)
    if process.is_alive():
        process.kill()
        process.join()
    noticed = folder / "noticed"
    if process.exitcode == pytest.ExitCode.OK:
        return ""
    if process.exitcode < 0:
        return "time"
    return noticed.read_text() if noticed.exists() else "import"


def main() -> None:
    """Answer until there is no question left."""
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        folder, tests, limit = json.loads(line)
        print(json.dumps(ask(Path(folder), tests, limit)), flush=True)


if __name__ == "__main__":
    main()
