"""Where the book lies, and how a file is written so that nothing half-written is ever left."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "chapters"
RECORDED = ROOT / "data" / "recorded"
BUILD = ROOT / "_build"


def write_atomically(path: Path, text: str) -> None:
    """Replace the file in one step: a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
