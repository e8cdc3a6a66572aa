"""Work with the chapters in JupyterLab, on copies: ``python -m livebook.lab``."""

import hashlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from . import paths

FOLDERS = ("chapters", "report")
NOTED = ".copied.json"  # of each copy the digest of what was copied


def prepare(root: Path, target: Path) -> list[Path]:
    """Copy the committed notebooks; a copy that a reader has changed stays. The new copies."""
    noted = target / NOTED
    before = json.loads(noted.read_text(encoding="utf-8")) if noted.exists() else {}
    now, files = {}, []
    for source in sorted(path for folder in FOLDERS for path in (root / folder).glob("*.ipynb")):
        name, content = str(source.relative_to(root)), source.read_bytes()
        copy = target / name
        if copy.exists() and _digest(copy.read_bytes()) != before.get(name):
            now[name] = before.get(name, "")
            continue
        now[name] = _digest(content)
        if before.get(name) != now[name] or not copy.exists():
            files.append((copy, content))
    paths.write_atomically(*files, (noted, json.dumps(now, indent=1) + "\n"))
    return [copy for copy, _ in files]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Copy what is new and start JupyterLab on the copies."""
    if find_spec("jupyterlab") is None:
        raise SystemExit("lab: expected JupyterLab, found none; run `make lab`, which installs it")
    target = paths.BUILD / "lab"
    prepare(paths.ROOT, target)
    print(f"Your copies of the chapters: {target}; delete one to get it back as it was")
    raise SystemExit(subprocess.run(command(target), check=False).returncode)


def command(target: Path) -> list[str]:
    """JupyterLab on a folder; root, as in many containers, has to say that this is meant."""
    root = ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    return [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={target}", *root]


if __name__ == "__main__":
    main()
