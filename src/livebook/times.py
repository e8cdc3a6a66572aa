"""How long each chapter took, by profile: ``{"default": {"00_notation": 7.1}}``."""

import json
from pathlib import Path

from . import paths

NAME = "run_times.json"


def file() -> Path:
    """Where the run times are kept."""
    return paths.BUILD / NAME


def read(profile: str = "default") -> dict[str, float]:
    """Seconds by chapter; a missing or damaged file counts as empty."""
    return _all().get(profile, {})


def merged(profile: str, seconds: dict[str, float]) -> str:
    """The text of the file once these times are known; those of other chapters stay."""
    known = _all()
    return json.dumps(known | {profile: known.get(profile, {}) | seconds}, indent=1) + "\n"


def _all() -> dict[str, dict[str, float]]:
    try:
        found = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    found = found.items() if isinstance(found, dict) else ()
    return {name: _numbers(rows) for name, rows in found if isinstance(rows, dict)}


def _numbers(rows: dict) -> dict[str, float]:
    return {k: v for k, v in rows.items() if type(v) in (int, float)}
