"""What of the unit tests notices a change: those that reach its line, quickest first."""

import hashlib
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

import asking
from changes import Mutant, body_around
from coverage import CoverageData


def trace(library: Path, file: Path, place: Path) -> None:
    """Run a test file under coverage: which test reaches which line, and how long each takes."""
    place.mkdir(parents=True, exist_ok=True)
    settings = f"source={library}\ndynamic_context=test_function\ndata_file={place}/coverage"
    (place / "coverage.ini").write_text(f"[run]\n{settings}\n")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={place}/coverage.ini"]
    command += ["-m", "pytest", *asking.options(place), f"--junitxml={place}/draft.xml", file]
    subprocess.run(command, env=os.environ | asking.surroundings(library.parent), check=True)
    (place / "draft.xml").rename(place / "junit.xml")


class Tests:
    """Which tests reach a line, and for how long: one run of each test file under coverage."""

    def __init__(self, library: Path, files: list[Path], folder: Path) -> None:
        self.library, self.seconds, self.state = library, Counter(), {}
        self.files = {file.name: file for file in files}
        self.lines = defaultdict(lambda: defaultdict(set))
        for file in files:
            place = folder / f"{file.stem}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"
            self.state[file.name] = place.name
            if not (place / "junit.xml").exists():
                trace(library, file, place)
            times = Counter()
            for case in ElementTree.parse(place / "junit.xml").iter("testcase"):
                times[f"{file.name}::{case.get('name').split('[')[0]}"] += float(case.get("time"))
            self.seconds.update(times)
            data = CoverageData(str(place / "coverage"))
            data.read()
            named = {f"{file.name}::{n.rpartition('.')[2]}" for n in data.measured_contexts()}
            for path in data.measured_files():
                for line, names in data.contexts_by_lineno(path).items():
                    tests = {f"{file.name}::{name.rpartition('.')[2]}" for name in names}
                    if any(name.startswith("hypothesis.") for name in names):  # does not say whose
                        tests |= times.keys() - named
                    self.lines[path][line] |= tests & times.keys()
            data.close()

    def reaching(self, mutant: Mutant) -> list[str]:
        """The tests of a line, else of its function, else of its module, quickest first."""
        path = self.library / f"{mutant.module}.py"
        lines = self.lines[str(path)]
        for body in ([mutant.line], body_around(path, mutant.line), lines):
            if found := set().union(*(lines.get(line, ()) for line in body)):
                return sorted(found, key=lambda node: (self.seconds[node], node))
        return []

    def outcome(
        self, mutant: Mutant, asked: asking.Asking, new: list[str], found: list[dict]
    ) -> dict:
        """What notices a mutant, among the tests of new files that reach it.

        Those that have noticed another change of the module come first.
        """
        first = {row["noticed"] for row in found if row["module"] == mutant.module}
        tests = [test for test in self.reaching(mutant) if self.state[test.split("::")[0]] in new]
        tests.sort(key=lambda test: test not in first)
        for batch in in_batches(tests) if tests else []:
            if noticed := self.ask(asked, mutant, batch):
                return {"noticed": noticed}
        return {"noticed": ""}

    def confirm(self, asked: asking.Asking, found: list[dict]) -> None:
        """That the tests which noticed something pass without a change."""
        tests = sorted({row["noticed"] for row in found} & self.seconds.keys())
        if tests and (failed := self.ask(asked, None, tests)):
            raise ValueError(f"tests: expected to pass without a change, got {failed} to fail")

    def ask(self, asked: asking.Asking, mutant: Mutant | None, tests: list[str]) -> str:
        """The first of some tests that notices a mutant; nothing if it survives them."""
        nodes = [f"{self.files[file]}::{name}" for file, name in (t.split("::") for t in tests)]
        seconds = sum(self.seconds[test] for test in tests)
        return asked.about(self.library, mutant, nodes, seconds)


def in_batches(tests: list[str]) -> list[list[str]]:
    """First those of the file that has most of them, then the others."""
    [(most, _)] = Counter(test.split("::")[0] for test in tests).most_common(1)
    own = [test for test in tests if test.startswith(f"{most}::")]
    return [batch for batch in (own, [test for test in tests if test not in own]) if batch]
