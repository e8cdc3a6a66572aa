"""Ask pytest whether it notices a changed copy of a package, in a process forked for each question.

A line of standard input holds the folder of the copy, pytest's arguments, and a limit in seconds of
computing; the answer is the name of the first test that fails, ``import`` where none could be run,
``time``, or nothing.
This process imports what all questions need and does nothing with it: forking it is quick and safe.
"""

import importlib
import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import changes
import pytest

SECONDS = 60  # granted to every question, besides four times what it took without a change
PRELOADED = ("beartype", "hypothesis", "jaxtyping", "scipy.optimize", "scipy.stats", "torch")
# torch.testing imports the last one when it is first called.
PRELOADED += ("torch.func", "torch.distributed.tensor")


class Asking:
    """The process that answers; it is started once."""

    def __init__(self) -> None:
        command = [sys.executable, Path(__file__)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def about(
        self,
        library: Path,
        changed: changes.Mutant | None,
        arguments: list[str],
        seconds: float,
        hidden: bool = False,
    ) -> str:
        """What notices a mutant: a test by name, ``import``, ``time``; nothing if it survives."""
        limit = SECONDS + math.ceil(4 * seconds)
        with tempfile.TemporaryDirectory() as folder:
            changes.copy_of(library, changed, Path(folder), hidden)
            self.process.stdin.write(json.dumps([folder, arguments, limit]) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())


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


def run(folder: Path, arguments: list[str], limit: int) -> None:
    """In a process of its own: pytest with the package from the folder."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    os.environ.update(surroundings(folder))
    sys.path.insert(0, str(folder))
    with (folder / "output").open("w") as file, redirect_stdout(file), redirect_stderr(file):
        code = pytest.main(
            ["-x", *options(folder), *arguments], plugins=[Noticed(folder / "noticed")]
        )
    sys.exit(int(code))


def ask(folder: Path, arguments: list[str], limit: int) -> str:
    """The answer to one question. On a busy machine the clock says little: computing is limited."""
    process = multiprocessing.get_context("fork").Process(
        target=run, args=(folder, arguments, limit)
    )
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
        folder, arguments, limit = json.loads(line)
        print(json.dumps(ask(Path(folder), arguments, limit)), flush=True)


if __name__ == "__main__":
    main()
