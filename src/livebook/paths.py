"""Where the book lies, and how a file is written so that nothing half-written is ever left."""

import functools
import tempfile
import uuid
from pathlib import Path

FOLDERS = {"ROOT": "", "CHAPTERS": "chapters", "RECORDED": "data/recorded", "BUILD": "_build"}


@functools.cache
def root() -> Path:
    """The checkout of the book: above this file, else above the current directory."""
    here, current = Path(__file__).resolve(), Path.cwd()
    for folder in (*here.parents, current, *current.parents):
        if (folder / "claims.yml").is_file():
            return folder
    raise RuntimeError(
        f"livebook: expected to be used in a checkout of the book (a folder with claims.yml), "
        f"got {current}"
    )


def __getattr__(name: str) -> Path:
    """``ROOT``, ``CHAPTERS``, ``RECORDED`` and ``BUILD``, looked for when they are first needed."""
    if name not in FOLDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return root() / FOLDERS[name]


def write_atomically(*files: tuple[Path, str | bytes]) -> None:
    """Replace files, each in one step, once all of them are written out beside their targets."""
    contents = [text.encode() if isinstance(text, str) else text for _, text in files]
    targets = [Path(path) for path, _ in files]
    drafts = [path.with_name(f".{uuid.uuid4().hex}.draft") for path in targets]
    try:
        for draft, content in zip(drafts, contents, strict=True):
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
        for path in targets:
            if path.is_dir():
                raise IsADirectoryError(f"{path}: expected a file to replace, got a folder")
        for draft, path in zip(drafts, targets, strict=True):
            draft.replace(path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Create the folder and try a file in it; ``ValueError`` with one sentence if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".draft"):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder}: expected a folder that can be written, got {error.strerror}"
        ) from error
