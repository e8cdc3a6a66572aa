"""Where the book lies, and how a file is written so that nothing half-written is ever left."""

import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "chapters"
RECORDED = ROOT / "data" / "recorded"
BUILD = ROOT / "_build"


def write_atomically(*files: tuple[Path, str | bytes]) -> None:
    """Replace files, each in one step, once all of them are written out in full elsewhere."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        drafts = [Path(folder, str(number)) for number in range(len(files))]
        for draft, (_, content) in zip(drafts, files, strict=True):
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
        for draft, (path, _) in zip(drafts, files, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(path)
