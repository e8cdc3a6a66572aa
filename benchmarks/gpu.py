"""What needs a graphics card, in a fixed number of minutes, most valuable first.

``python benchmarks/gpu.py [--minutes M] [--to FOLDER] [--profile FILE] [--chapters NAME ...]`` runs
the rows of each chapter that the profile lists and, beside them, since they keep a card waiting,
the tests that compare a card with the processor and, where a notebook can be executed, the first
chapters. A row is written as soon as it is done, and every finished retraining is kept in
``checkpoints.tar``: run it again with the same folder to go on. It needs torch and the core
library, and no network.
"""

import argparse
import json
import signal
import subprocess
import sys
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
import yaml

import livebook as book
import studies
from livebook import paths

FIRST = ("01_two_layer_kernel", "02_leave_one_out", "03_lazy_training")
TESTS = [sys.executable, "-m", "pytest", "-q", "tests/test_devices.py"]


class OutOfTimeError(BaseException):
    """The minutes are over; what is finished is kept. No handler of errors may hold it up."""


def stop(signal_number: int, frame: object) -> None:
    """Leave the run where it is."""
    raise OutOfTimeError


def beside(command: list[str], log: Path, *needs: str) -> subprocess.Popen | None:
    """A command that runs beside the rows and writes into a log; None if a package is missing."""
    if not command or any(find_spec(name) is None for name in needs):
        return None
    with log.open("w") as file:
        return subprocess.Popen(command, cwd=paths.ROOT, stdout=file, stderr=subprocess.STDOUT)


def finished(process: subprocess.Popen | None, log: Path) -> str:
    """The last line that a command wrote, or why there is none; one that still runs is stopped."""
    if process is None:
        return "not tested: nothing was asked for, or a package is missing"
    if process.poll() is None:
        process.terminate()
        process.wait()
        return "not tested: the minutes were over"
    return (log.read_text().strip().splitlines() or ["no output"])[-1]


def verdicts(names: list[str], to: Path) -> dict[str, str]:
    """Verdicts of chapters on this device, beside those that are committed."""
    found = {}
    for name in names:
        here, committed = to / "executed" / f"{name}.ipynb", paths.CHAPTERS / f"{name}.ipynb"
        if not here.exists():
            found[name] = "did not run"
            continue
        from livebook.ledger import published

        words = [{row.claim: row.verdict for row in published(p)} for p in (here, committed)]
        found[name] = "same verdicts" if words[0] == words[1] else f"differs: {words[0]}"
    return found


def rows_so_far(chapter: str, to: Path) -> list[dict]:
    """The rows of an earlier run into this folder, else those that are recorded."""
    if (path := to / f"{chapter}.json").exists():
        return json.loads(path.read_text(encoding="utf-8"))["results"]["rows"]
    return (book.recorded(chapter) or {"results": {"rows": []}})["results"]["rows"]


def rows(chapter: str, parameters: dict, place: studies.Place, to: Path, known: list[dict]) -> None:
    """Measure what is missing, in order; each row is written when it is done."""
    base = studies.Setting(
        dataset="mnist-7v9",
        n_train=parameters["n_train"],
        n_test=parameters["n_test"],
        width=10_000,
        scale=0.1,
        ridge=10.0,
        seed=0,
        method="preconditioned",
        steps=20,
        n_left_out=parameters["n_left_out"],
        smoothing=0.3,
    )
    how, before = {"n_twice": parameters["n_twice"], "n_shown": 25}, list(known)
    for new in studies.new_rows(base, parameters["settings"], place, before, **how):
        known[:] = before + new
        book.record(to, chapter, {"rows": known}, place.device, dtype=str(place.dtype))
        row = new[-1]
        what = [row[key] for key in ("dataset", "n_train", "width", "smoothing")]
        print(f"{chapter}: {len(new)} new rows, the last {what}", flush=True)


def main() -> None:
    """Everything in order, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--to", type=Path, default=paths.ROOT / "_build" / "gpu")
    parser.add_argument("--profile", type=Path, default=paths.ROOT / "profiles" / "gpu.yaml")
    parser.add_argument("--chapters", nargs="*", default=FIRST)
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes: expected a number above 0, got {options.minutes:g}")
    if not options.profile.is_file():
        parser.error(f"--profile: expected a YAML file, got {options.profile}")
    to, kept = options.to.resolve(), options.to.resolve() / "checkpoints.tar"
    profile = yaml.safe_load(options.profile.read_text(encoding="utf-8"))
    to.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, stop)
    started, device = time.perf_counter(), book.pick_device("auto")
    torch.backends.cuda.matmul.allow_tf32 = False
    report = {"made by": book.made_by(device)}
    known = {chapter: rows_so_far(chapter, to) for chapter in profile}
    before = sum(map(len, known.values()))
    if kept.exists():
        with tarfile.open(kept) as file:
            file.extractall(to, filter="data")
    execute = [sys.executable, "-m", "livebook.run", "--to", str(to / "executed")]
    execute = [*execute, *options.chapters] if options.chapters else []
    logs = {"unit tests": to / "tests.log", "chapters": to / "chapters.log"}
    processes = {
        "unit tests": beside(TESTS, logs["unit tests"], "pytest", "beartype"),
        "chapters": beside(execute, logs["chapters"], "papermill", "jupytext"),
    }
    try:
        signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
        place = studies.Place(device, torch.float32, str(to / "checkpoints"))
        for chapter, parameters in profile.items():
            rows(chapter, parameters, place, to, known[chapter])
        for process in filter(None, processes.values()):
            process.wait()
    except OutOfTimeError:
        report["stopped"] = f"after {options.minutes:g} minutes"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        report |= {what: finished(process, logs[what]) for what, process in processes.items()}
        report |= {
            "verdicts": verdicts(options.chapters, to),
            "new rows": sum(map(len, known.values())) - before,
            "seconds": round(time.perf_counter() - started, 1),
        }
        paths.write_atomically((to / "gpu.json", json.dumps(report, indent=1) + "\n"))
        if (to / "checkpoints").exists():
            with tarfile.open(kept, "w") as file:
                file.add(to / "checkpoints", "checkpoints")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
