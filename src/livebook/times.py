"""How long each chapter took, by profile: ``{"default": {"00_notation": 7.1}}``.

``python -m livebook.times`` records those of the last ``make book``, so that the first one
elsewhere knows which chapters are long.
"""

import json
import math
from pathlib import Path

from . import notebooks, paths

NAME = "run_times.json"


def file() -> Path:
    """Where the run times are kept."""
    return paths.BUILD / NAME


def read(profile: str = "default") -> dict[str, float]:
    """Seconds by chapter; a missing or damaged file counts as empty."""
    return _all().get(profile, {})


def longest_first(names: list[str], profile: str = "default") -> list[str]:
    """The chapters in the order of their times, here or as recorded; those of no time lead."""
    recorded = _of_file(paths.RECORDED / NAME) if profile == "default" else {}
    took = recorded.get("results", {}) | read(profile)
    return sorted(names, key=lambda name: -took.get(name, math.inf))


def merged(profile: str, seconds: dict[str, float]) -> str:
    """The text of the file once these times are known; those of other chapters stay."""
    known = _all()
    return json.dumps(known | {profile: known.get(profile, {}) | seconds}, indent=1) + "\n"


def _all() -> dict[str, dict[str, float]]:
    return _of_file(file())


def _of_file(path: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    found = found.items() if isinstance(found, dict) else ()
    return {name: _numbers(rows) for name, rows in found if isinstance(rows, dict)}


def _numbers(rows: dict) -> dict[str, float]:
    return {k: v for k, v in rows.items() if type(v) in (int, float)}


def main() -> None:
    """Record the run times of this checkout, if every chapter has one."""
    from . import records
    from .page import pick_device

    took, device = read(), pick_device("auto")
    lacking = sorted(set(notebooks.sources()) - set(took))
    if lacking:
        raise SystemExit(f"times: expected one for every chapter, got none for {lacking[0]}")
    records.record(paths.RECORDED, Path(NAME).stem, took, device)


if __name__ == "__main__":
    main()
