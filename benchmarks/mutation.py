"""The mutation score: how many of cosmic-ray's small changes of the library its unit tests notice.

``python benchmarks/mutation.py [--sample N] [--seed S] [--minutes M]`` draws mutants at random and
runs each against the tests that reach its line, quickest first, in a process of its own. What is
finished is kept under ``_build/mutation``: the same command goes on where it was interrupted, and
asks those that survived again where a test has changed. ``tests/mutants/survivors.yml`` says of
those that may survive why. Writes ``mutation.json``.
"""

import argparse
import ast
import hashlib
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from difflib import ndiff
from importlib.metadata import version
from pathlib import Path

import asking
import torch
import yaml
from coverage import CoverageData
from scipy.stats import binomtest

from livebook import paths, records, versions

# Operators left out: what they make dies when a tensor meets it, which would flatter the score.
LEFT_OUT = {
    r"ReplaceBinaryOperator_(BitOr|BitAnd)_.*": "the bar of an annotation, and masks",
    r"ReplaceBinaryOperator_.*_(FloorDiv|Mod|Pow|[LR]Shift|Bit\w+)": "no product, sum or quotient",
    r"ReplaceComparisonOperator_(?!Is).*_Is(Not)?": "identity in place of equality",
    r"ReplaceComparisonOperator_Is_(?!Not).*": "equality in place of identity",
    r"ReplaceUnaryOperator_\w+_(Not|Invert)": "not and ~ in place of a minus",
}
NOT_ASKED = ("test_devices.py", "test_gpu.py", "test_scale.py")  # need a card, or Dask
ALSO = ("test_trust.py",)  # what it tests is in the library too
SECONDS = 60  # granted to every question, besides four times what its tests took
KEPT = paths.BUILD / "mutation"
LIBRARY = paths.ROOT / "src" / "ntk_influence"
TESTS = paths.ROOT / "tests"
JUSTIFIED = TESTS / "mutants" / "survivors.yml"


@dataclass(frozen=True)
class Mutant:
    """One change: a module of the library, the first line that changes, and its lines."""

    module: str
    line: int
    operator: str
    was: str
    now: str
    text: str  # the whole module, changed


def positions(library: Path) -> list[tuple[str, str, int]]:
    """Module, operator and occurrence of everything that cosmic-ray changes; texts are spared."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast_from_path

    left_out = re.compile("|".join(f"core/({pattern})" for pattern in LEFT_OUT))
    names = [name for name in sorted(plugins.operator_names()) if not left_out.fullmatch(name)]
    operators = {name: plugins.get_operator(name) for name in names}
    found = []
    for path in sorted(library.glob("*.py")):
        nodes = list(ast_nodes(get_ast_from_path(path)))
        for name, operator in operators.items():
            if operator.arguments():
                continue
            owners = [node for node in nodes for _ in operator().mutation_positions(node)]
            found += [(path.stem, name, i) for i, node in enumerate(owners) if not _spared(node)]
    return found


def _spared(node) -> bool:
    """A part of an f-string, nearly always a message, or the star before keyword-only options."""
    if node.parent and node.parent.type == "parameters":
        return True
    while node := node.parent:
        if node.type == "fstring":
            return True
    return False


def mutant(library: Path, module: str, operator: str, occurrence: int) -> Mutant | None:
    """The mutant at a position; None where it is no Python, or the same program."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    source = (library / f"{module}.py").read_text(encoding="utf-8")
    text = mutate_code(source, plugins.get_operator(operator)(), occurrence)
    try:
        if ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    before, after = source.splitlines(), text.splitlines()
    changes = [c for c in ndiff(before, after) if c[2:].strip()]
    was, now = (" ".join(c[2:].strip() for c in changes if c[0] == sign) for sign in "-+")
    line = next(i for i, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b)
    return Mutant(module, line, operator.removeprefix("core/"), was, now, text)


def trace(library: Path, file: Path, place: Path) -> None:
    """Run a test file under coverage: which test reaches which line, and how long each takes."""
    place.mkdir(parents=True, exist_ok=True)
    settings = f"source={library}\ndynamic_context=test_function\ndata_file={place}/coverage"
    (place / "coverage.ini").write_text(f"[run]\n{settings}\n")
    command = [sys.executable, "-m", "coverage", "run", f"--rcfile={place}/coverage.ini"]
    command += ["-m", "pytest", *asking.options(place), f"--junitxml={place}/draft.xml", file]
    subprocess.run(command, env=os.environ | asking.surroundings(library.parent), check=True)
    (place / "draft.xml").rename(place / "junit.xml")


class Reach:
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

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests of a line, else of its function, else of its module, quickest first."""
        path = self.library / f"{mutant.module}.py"
        lines = self.lines[str(path)]
        for body in ([mutant.line], _function(path, mutant.line), lines):
            if found := set().union(*(lines.get(line, ()) for line in body)):
                return sorted(found, key=lambda node: (self.seconds[node], node))
        return []


def _function(path: Path, line: int) -> range:
    """The lines of the body of the outermost function around a line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= node.end_lineno:
            return range(node.body[0].lineno, node.end_lineno + 1)
    return range(0)


class Asking:
    """The process that answers; it is started once."""

    def __init__(self) -> None:
        command = [sys.executable, Path(asking.__file__)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)

    def __enter__(self) -> "Asking":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def about(self, mutant: Mutant | None, reach: Reach, tests: list[str]) -> str:
        """What notices a mutant: a test by name, ``import``, ``time``; nothing if it survives."""
        limit = SECONDS + math.ceil(4 * sum(reach.seconds[test] for test in tests))
        nodes = [f"{reach.files[file]}::{name}" for file, name in (t.split("::") for t in tests)]
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / reach.library.name
            shutil.copytree(reach.library, copy)  # with what is compiled of the other modules
            if mutant:
                for compiled in (copy / "__pycache__").glob(f"{mutant.module}.*"):
                    compiled.unlink()
                (copy / f"{mutant.module}.py").write_text(mutant.text, encoding="utf-8")
            self.process.stdin.write(json.dumps([folder, nodes, limit]) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())


def in_batches(tests: list[str]) -> list[list[str]]:
    """First those of the file that has most of them, then the others."""
    [(most, _)] = Counter(test.split("::")[0] for test in tests).most_common(1)
    own = [test for test in tests if test.startswith(f"{most}::")]
    return [batch for batch in (own, [test for test in tests if test not in own]) if batch]


def outcome(mutant: Mutant, reach: Reach, asked: Asking, first: set[str], files: list[str]) -> str:
    """What notices a mutant, among the tests of some files that reach it, and which are first."""
    tests = [test for test in reach.tests(mutant) if reach.state[test.split("::")[0]] in files]
    tests.sort(key=lambda test: test not in first)
    for batch in in_batches(tests) if tests else []:
        if noticed := asked.about(mutant, reach, batch):
            return noticed
    return ""


def run(
    library: Path, files: list[Path], kept: Path, size: int, seed: int, minutes: float = math.inf
) -> list[dict]:
    """A sample of mutants with what noticed each; finished ones come from the folder ``kept``.

    They are drawn in a random order: those that are finished within the time are a sample too.
    """
    end = time.monotonic() + 60 * minutes
    known = {}
    rows = kept / "rows.jsonl"
    for line in rows.read_text().splitlines() if rows.exists() else []:
        row = json.loads(line)
        known[tuple(row["at"])] = row
    reach = Reach(library, files, kept)
    drawn = positions(library)
    random.Random(seed).shuffle(drawn)
    found = []
    with Asking() as asked:
        for at in drawn:
            row = known.get(at)
            if len(found) == size:
                break
            new = [name for name in reach.state.values() if not row or name not in row["asked"]]
            if row is None or (not row["noticed"] and new):
                if time.monotonic() > end:
                    break
                if not (changed := mutant(library, *at)):
                    continue
                first = {r["noticed"] for r in found if r["module"] == changed.module}
                started = time.perf_counter()
                noticed = outcome(changed, reach, asked, first, new)
                row = asdict(changed) | {
                    "at": at,
                    "asked": [*reach.state.values()],
                    "noticed": noticed,
                }
                row = {k: v for k, v in row.items() if k != "text"}
                row["seconds"] = round(time.perf_counter() - started, 1)
                with rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(len(found) + 1, row["module"], row["line"], noticed or "SURVIVES", flush=True)
            found.append(row)
        by_tests = sorted({row["noticed"] for row in found} & reach.seconds.keys())
        if by_tests and (failed := asked.about(None, reach, by_tests)):
            raise ValueError(f"tests: expected to pass without a change, got {failed} to fail")
    return found


def reasons(path: Path = JUSTIFIED) -> dict[tuple[str, str, str], str]:
    """Why a mutant may survive: by module, line as it was, and line as it became."""
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    return {(row["module"], row["was"], row["now"]): row["reason"] for row in found}


def summary(rows: list[dict], justified: dict[tuple[str, str, str], str]) -> dict:
    """Counts, the score with its interval, by module, and the survivors with their reasons."""
    survivors = [
        {key: row[key] for key in ("module", "line", "operator", "was", "now")}
        | {"reason": justified.get((row["module"], row["was"], row["now"]), "")}
        for row in rows
        if not row["noticed"]
    ]
    modules = {row["module"]: [0, 0] for row in sorted(rows, key=lambda row: row["module"])}
    for row in rows:
        modules[row["module"]][0] += bool(row["noticed"])
        modules[row["module"]][1] += 1
    how = Counter(
        row["noticed"] if row["noticed"] in ("import", "time") else "test" for row in rows
    )
    return {
        "killed": share(len(rows) - len(survivors), len(rows)),
        "by_a_test": how["test"] - len(survivors),
        "by_import": how["import"],
        "by_time": how["time"],
        "modules": modules,
        "survivors": survivors,
    }


def share(count: int, of: int) -> dict:
    """A share with its 95 % interval, Wilson's."""
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return {
        "count": count,
        "of": of,
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
    }


def main() -> None:
    """Draw mutants, see which the tests notice, and write what came out."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="draw no more after these")
    parser.add_argument("--to", default="data/recorded", help="folder, from the root of the book")
    options = parser.parse_args()
    kept = KEPT / records.digest(LIBRARY)[:16]
    files = [path for path in versions.library_tests() if path.name not in NOT_ASKED]
    files += [TESTS / name for name in ALSO]
    rows = run(LIBRARY, files, kept, options.sample, options.seed, options.minutes)
    results = summary(rows, reasons()) | {"positions": len(positions(LIBRARY))}
    facts = {"tool": f"cosmic-ray {version('cosmic-ray')}", "left_out": LEFT_OUT}
    given = {"sample": options.sample, "seed": options.seed} | facts
    records.record(options.to, "mutation", results, torch.device("cpu"), **given)


if __name__ == "__main__":
    main()
