"""The mutation score: how many of cosmic-ray's small changes of the library are noticed.

``python benchmarks/mutation.py [--sample N] [--seed S] [--minutes M]`` draws mutants at random and
runs each against the tests that reach its line, quickest first, in a process of its own; it writes
``mutation.json``. With ``--by book`` the mutants on record are asked about once more, in the order
in which they were drawn, and the committed notebooks answer, without any unit test; that writes
``mutation_book.json``. ``--within S`` asks only the notebooks that are executed in S seconds.

What is finished is kept under ``_build/mutation``: the same command goes on where it was
interrupted, and asks those that survived again where a test or a notebook has changed.
``tests/mutants/survivors.yml`` says of those that may survive why.
"""

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path

import asking
import torch
import yaml
from by_book import Book
from by_tests import Tests
from changes import LEFT_OUT, Mutant, again, mutant, positions
from scipy.stats import binomtest

from livebook import paths, records, times, versions

NOT_ASKED = ("test_devices.py", "test_gpu.py", "test_scale.py")  # need a card, or Dask
ALSO = ("test_trust.py",)  # what it tests is in the library too
KEPT = paths.BUILD / "mutation"
LIBRARY = paths.ROOT / "src" / "ntk_influence"
TESTS = paths.ROOT / "tests"
JUSTIFIED = TESTS / "mutants" / "survivors.yml"
SHOWN = ("module", "line", "operator", "was", "now")  # of a mutant, on record


def run(
    judge: Tests | Book,
    drawn: Iterable[tuple],
    make: Callable[..., Mutant | None],
    rows: Path,
    size: int,
    minutes: float = math.inf,
) -> list[dict]:
    """What noticed each of the first mutants drawn; finished ones come from the file ``rows``.

    They come in a random order: those that are finished within the time are a sample too.
    """
    end = time.monotonic() + 60 * minutes
    rows.parent.mkdir(parents=True, exist_ok=True)
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    known = {tuple(row["at"]): row for row in map(json.loads, lines)}
    found = []
    with asking.Asking() as asked:
        for at in drawn:
            if len(found) == size:
                break
            row = known.get(at)
            new = [name for name in judge.state.values() if not row or name not in row["asked"]]
            if row is None or (not row["noticed"] and new):
                if time.monotonic() > end:
                    break
                if not (changed := make(*at)):
                    continue
                started = time.perf_counter()
                row = {key: value for key, value in asdict(changed).items() if key != "text"}
                row |= {"at": at, "asked": [*judge.state.values()]}
                row |= judge.outcome(changed, asked, new, found)
                row["seconds"] = round(time.perf_counter() - started, 1)
                with rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                noticed = row["noticed"] or "not noticed"
                print(len(found) + 1, row["module"], row["line"], noticed, flush=True)
            found.append(row)
        judge.confirm(asked, found)
    return found


def by_tests(library: Path, files: list[Path], kept: Path, size: int, seed: int, *rest) -> list:
    """Mutants drawn with a seed, and which test noticed each."""
    judge = Tests(library, files, kept)
    drawn = positions(library)
    random.Random(seed).shuffle(drawn)
    return run(judge, drawn, partial(mutant, library), kept / "rows.jsonl", size, *rest)


def by_book(judge: Book, recorded: list[dict], *rest) -> list[dict]:
    """The mutants on record, and which cell of which notebook noticed each."""
    drawn = [tuple(row[key] for key in SHOWN) for row in recorded]
    make = partial(again, judge.library)
    return run(judge, drawn, make, judge.folder / "book.jsonl", len(drawn), *rest)


def quickest_first(notebooks: Iterable[Path], within: float = math.inf) -> list[Path]:
    """Notebooks by their run times when they were last executed here; unknown times come last."""
    took = times.read()
    order = sorted(notebooks, key=lambda path: (took.get(path.stem, math.inf), path.stem))
    return [path for path in order if took.get(path.stem, math.inf) <= within]


def reasons(path: Path = JUSTIFIED) -> dict[tuple[str, str, str], str]:
    """Why a mutant may survive: by module, line as it was, and line as it became."""
    found = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    return {(row["module"], row["was"], row["now"]): row["reason"] for row in found}


def summary(rows: list[dict], justified: dict[tuple[str, str, str], str]) -> dict:
    """Counts, the score with its interval, by module, the survivors with reasons, and all."""
    survivors = [
        {key: row[key] for key in SHOWN}
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
        "drawn": [{key: row[key] for key in (*SHOWN, "noticed")} for row in rows],
    }


def summary_of_book(rows: list[dict], states: set[str], spared: set[tuple[str, str]]) -> dict:
    """Counts for the book, its survivors, and those for which notebooks are still to be asked.

    ``states`` are those of all its notebooks; nothing can notice what is ``spared``. The interval
    is wide enough for either answer about those that are undecided.
    """
    noticed = [row for row in rows if row["noticed"]]
    others = [row for row in rows if not row["noticed"]]
    same = [row for row in others if (row["was"], row["now"]) in spared]
    left = [row for row in others if row not in same]
    survivors = [row for row in left if states <= set(row["asked"])]
    undecided = [row for row in left if row not in survivors]
    least, most = share(len(noticed), len(rows)), share(len(noticed) + len(undecided), len(rows))
    shown = (*SHOWN, "ran")
    return {
        "noticed": least | {"high": most["high"]},
        "of_those_run": share(len(noticed), sum(bool(row["ran"]) for row in rows)),
        "same_program": len(same),
        "not_run_by_any": sum(not row["ran"] for row in survivors),
        "notebooks": dict(Counter(row["noticed"].split(".ipynb")[0] for row in noticed)),
        "killed": [{key: row[key] for key in (*SHOWN, "noticed")} for row in noticed],
        "survivors": [{key: row[key] for key in shown} for row in survivors + same],
        "undecided": [{key: row[key] for key in shown} for row in undecided],
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


def ask_tests(options: argparse.Namespace, kept: Path) -> None:
    """Draw mutants, see which the tests notice, and write what came out."""
    files = [path for path in versions.library_tests() if path.name not in NOT_ASKED]
    files += [TESTS / name for name in ALSO]
    rows = by_tests(LIBRARY, files, kept, options.sample, options.seed, options.minutes)
    results = summary(rows, reasons()) | {"positions": len(positions(LIBRARY))}
    facts = {"tool": f"cosmic-ray {version('cosmic-ray')}", "left_out": LEFT_OUT}
    given = {"sample": options.sample, "seed": options.seed} | facts
    records.record(options.to, "mutation", results, torch.device("cpu"), **given)


def ask_book(options: argparse.Namespace, kept: Path) -> None:
    """See which of the mutants on record the notebooks notice, and write what came out."""
    drawn = records.recorded("mutation")["results"]["drawn"][: options.sample]
    book = list(paths.CHAPTERS.glob("*.ipynb"))
    equivalent = {k[1:] for k, why in reasons().items() if why.startswith("equivalent")}
    asked = quickest_first(book, options.within)
    judge = Book(LIBRARY, asked, kept, equivalent)
    rows = by_book(judge, drawn, options.minutes)
    results = summary_of_book(rows, set(Book(LIBRARY, book, kept).state.values()), equivalent)
    results["line_has_changed"] = sum(
        again(LIBRARY, *(row[key] for key in SHOWN)) is None for row in drawn
    )
    results["asked"] = sorted(path.stem for path in asked)
    within = options.within if math.isfinite(options.within) else None
    given = {"sample": len(drawn), "notebooks": len(book), "within_seconds": within}
    records.record(options.to, "mutation_book", results, torch.device("cpu"), **given)


def main() -> None:
    """See how many changes of the library the tests, or the notebooks, notice."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--by", choices=("tests", "book"), default="tests")
    parser.add_argument("--sample", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no more after these")
    parser.add_argument("--within", type=float, default=math.inf, help="seconds of a notebook")
    parser.add_argument("--to", default="data/recorded", help="folder, from the root of the book")
    options = parser.parse_args()
    kept = KEPT / records.digest(LIBRARY)[:16]
    {"tests": ask_tests, "book": ask_book}[options.by](options, kept)


if __name__ == "__main__":
    main()
