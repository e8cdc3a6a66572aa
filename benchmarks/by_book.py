"""What of the committed notebooks notices a change: those that run its line, quickest first.

nbval executes a notebook and compares what its cells print with what is committed. No unit test is
asked. Which lines of the library a notebook runs is measured once, by coverage.py in its kernel,
while it is compared without a change.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import asking
from changes import Mutant, run_by
from coverage import CoverageData

NBVAL = ["-p", "nbval.plugin", "-p", "livebook.nbval_plugin", "--nbval", "--nbval-current-env"]
NBVAL += ["--nbval-cell-timeout", "600"]


def trace(library: Path, notebook: Path, place: Path) -> None:
    """Compare a notebook without a change, under coverage: which lines it runs, and how long."""
    place.mkdir(parents=True, exist_ok=True)
    surroundings = os.environ | asking.surroundings(library.parent)
    here = str(Path(__file__).parent)
    surroundings["PYTHONPATH"] = os.pathsep.join([surroundings["PYTHONPATH"], here])
    surroundings |= {"COVERED": str(library), "COVERAGE_FILE": str(place / "coverage")}
    command = [sys.executable, "-m", "pytest", "-x", *asking.options(place), *NBVAL]
    started = time.perf_counter()
    done = subprocess.run([*command, "-p", "covering", notebook], env=surroundings, check=False)
    if done.returncode:
        raise ValueError(f"{notebook.name}: expected to pass without a change, got a failure")
    (place / "seconds").write_text(f"{time.perf_counter() - started:.1f}")


class Book:
    """The notebooks as a judge; each is traced when it is first needed."""

    def __init__(
        self, library: Path, notebooks: list[Path], folder: Path, spared: set[tuple] = frozenset()
    ) -> None:
        self.library, self.folder, self.spared = library, folder, spared
        self.notebooks = {path.stem: path for path in notebooks}  # quickest first
        self.state = {
            name: f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
            for name, path in self.notebooks.items()
        }

    def runs(self, name: str, mutant: Mutant) -> bool:
        """Whether a notebook runs the line of a mutant."""
        place = self.folder / self.state[name]
        if not (place / "seconds").exists():
            trace(self.library, self.notebooks[name], place)
        path = self.library / f"{mutant.module}.py"
        return bool(run_by(path, mutant.line) & lines_of(place / "coverage", path))

    def outcome(
        self, mutant: Mutant, asked: asking.Asking, new: list[str], found: list[dict]
    ) -> dict:
        """The first cell that notices a mutant, and the notebooks that were asked."""
        ran = []
        if (mutant.was, mutant.now) in self.spared:  # the same program: nothing can notice it
            return {"noticed": "", "ran": ran}
        for name, path in self.notebooks.items():
            if self.state[name] not in new or not self.runs(name, mutant):
                continue
            ran.append(name)
            seconds = float((self.folder / self.state[name] / "seconds").read_text())
            arguments = [*NBVAL, str(path)]
            if noticed := asked.about(self.library, mutant, arguments, seconds, hidden=True):
                how = f"{path.name} {noticed}" if noticed in ("import", "time") else noticed
                return {"noticed": how, "ran": ran}
        return {"noticed": "", "ran": ran}

    def confirm(self, asked: asking.Asking, found: list[dict]) -> None:
        """Nothing: every notebook has passed without a change when it was traced."""


def lines_of(file: Path, path: Path) -> set[int]:
    """The lines of a module that coverage.py has seen."""
    data = CoverageData(str(file))
    data.read()
    try:
        return set(data.lines(str(path)) or ())
    finally:
        data.close()
