"""What was tried, and what came out: run times, other versions, other machines, a card."""

import json

from . import paths, times


def tables() -> list[str]:
    """The lines of the page, in Markdown."""
    return [*_run_times(), "", *_versions(), "", *_portability(), "", *_graphics_card()]


def _run_times() -> list[str]:
    rows = [f"| {name} | {seconds:.0f} |" for name, seconds in sorted(times.read().items())]
    missing = ["| no chapter | *not measured* |"]
    return ["## Run times", "", "| chapter | seconds |", "|---|---|", *(rows or missing)]


def _versions() -> list[str]:
    lines = ["## Versions", "", "| environment | Python | torch | numpy | unit tests |"]
    lines.append("|---|---|---|---|---|")
    for name, row in _recorded("versions").items():
        found = [row["versions"].get(package, "") for package in ("torch", "numpy")]
        cells = [name, row["python"] or "", *found, row["summary"]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _portability() -> list[str]:
    lines = ["## Other machines", "", "| setting | chapters | cells that differ |", "|---|---|---|"]
    for setting, chapters in _recorded("portability").items():
        differ = [f"{name}: {cells}" for name, cells in chapters.items() if cells]
        lines.append(f"| {setting} | {len(chapters)} | {'; '.join(differ) or 'none'} |")
    return lines


def _graphics_card() -> list[str]:
    found = _recorded("gpu")
    lines = ["## A graphics card", "", "| what | came out |", "|---|---|"]
    if not found:
        return [*lines, "| `make gpu` | *not tested* |"]
    made_by = found["made by"]
    lines.append(f"| device | {made_by['device']}, torch {made_by['torch']} |")
    lines.append(f"| tests that compare devices | {found['unit tests']} |")
    lines += [f"| {name} | {verdict} |" for name, verdict in found["verdicts"].items()]
    return lines


def _recorded(name: str) -> dict:
    path = paths.RECORDED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
