"""Compare the notebooks in other settings: ``python -m livebook.portability [CHAPTER ...]``."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from . import notebooks as books
from .paths import BUILD, RECORDED, ROOT, write_atomically

RETRAINS = ("retrain_without", "ni.train(", "studies.experiment", "studies.measure")
PYTEST = (
    "-p livebook.nbval_plugin --nbval --nbval-current-env --nbval-cell-timeout 600"
    " --dist loadfile -q --tb=no --no-summary --color=no"
)
RESULT = "portability.json"


class Setting(NamedTuple):
    """How notebooks are executed: environment, notebooks at a time, further options."""

    environment: dict[str, str]
    workers: int = 2
    options: tuple[str, ...] = ()


ONE_THREAD = {"OMP_NUM_THREADS": "1"}
OLD_CPU = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
SETTINGS = {
    "old-cpu": Setting(ONE_THREAD | OLD_CPU),
    "two-threads": Setting({"OMP_NUM_THREADS": "2"}, workers=1),
    "perturbed-1": Setting(ONE_THREAD, options=("--nb-perturb", "1")),
    "perturbed-2": Setting(ONE_THREAD, options=("--nb-perturb", "2")),
    "perturbed-3": Setting(ONE_THREAD, options=("--nb-perturb", "3")),
}


def retrains(chapter: str) -> bool:
    """Whether a chapter trains networks, which takes long and agrees to a few percent only."""
    source = books.sources()[chapter].read_text(encoding="utf-8")
    return any(name in source for name in RETRAINS)


def compare(name: str, notebooks: list[Path]) -> dict[str, dict[int, str]]:
    """What differs in one setting: chapter -> code cell, counted from 0 -> its first such line."""
    setting = SETTINGS[name]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = (f"--junit-xml={report}", f"-n{setting.workers}", *setting.options)
        command = [sys.executable, "-m", "pytest", *PYTEST.split(), *options, *map(str, notebooks)]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | setting.environment, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{name}: expected pytest to finish, got its status {done.returncode}")
        return _differences(report)


def _differences(report: Path) -> dict[str, dict[int, str]]:
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        chapter = case.get("classname").removesuffix(".ipynb").rpartition(".")[2]
        cells = found.setdefault(chapter, {})
        if (failure := case.find("failure")) is None and (failure := case.find("error")) is None:
            continue
        told = case.find("properties/property[@name='differs']")
        line = _reason(failure) if told is None else told.get("value")
        cells[int(case.get("name").removeprefix("Cell "))] = line
    return dict(sorted(found.items()))


def _reason(failure: ElementTree.Element) -> str:
    text = failure.text or failure.get("message", "")
    named = re.search(r"Cell \d+: (.+)", text)
    return named[1] if named else (text.strip().splitlines() or ["no message"])[-1]


def main() -> None:
    """Execute and compare notebooks in each setting, and say which cells differ."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("chapters", nargs="*", help="such as 02_leave_one_out; all by default")
    parser.add_argument("--setting", action="append", choices=SETTINGS, help="all by default")
    parser.add_argument("--without-retraining", action="store_true", help="quick chapters only")
    parser.add_argument("--record", action="store_true", help="also into data/recorded")
    options = parser.parse_args()
    known = books.sources()
    for chapter in options.chapters:
        if chapter not in known:
            parser.error(f"chapter: expected one of {', '.join(known)}, got {chapter!r}")
    wanted = options.chapters or list(known)
    if options.without_retraining:
        wanted = [chapter for chapter in wanted if not retrains(chapter)]
    notebooks = [known[chapter].with_suffix(".ipynb") for chapter in wanted]
    found = {name: compare(name, notebooks) for name in options.setting or SETTINGS}
    summary = {name: {c: sorted(cells) for c, cells in by.items()} for name, by in found.items()}
    text = json.dumps(summary, indent=1) + "\n"
    folders = (BUILD, RECORDED) if options.record else (BUILD,)
    write_atomically(*((folder / RESULT, text) for folder in folders))
    lines = [
        f"{name}: {chapter}, code cell {cell}: {line}"
        for name, chapters in found.items()
        for chapter, cells in chapters.items()
        for cell, line in sorted(cells.items())
    ]
    print("\n".join(lines) or f"no cell differs: {', '.join(found)}")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
