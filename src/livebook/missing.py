"""Install what is missing where a chapter is opened without the book, as in Colab.

The first cell of a chapter runs this file of a fresh copy of the book, before anything is
installed: it needs the standard library alone. What is there stays as it is; what is missing comes
in the version of ``constraints.txt``.
"""

import importlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CPU = "https://download.pytorch.org/whl/cpu"  # the build of torch without gigabytes of CUDA
TAKES = "a minute or two; ten if PyTorch is among them"


def canonical(requirement: str) -> str:
    """The name of a package in the one spelling that pip compares."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def needed() -> list[str]:
    """What a chapter imports, as ``pyproject.toml`` asks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + project["optional-dependencies"]["chapters"]


def installed() -> set[str]:
    """The packages that are here, in any version."""
    return {canonical(d.name) for d in metadata.distributions() if d.name}


def pip(here: set[str]) -> tuple[list[str], str]:
    """The options of pip that bring what is not here, and the constraints for that alone."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = "\n".join(line for line in lines if canonical(line) not in here)
    options = ["install", "--quiet", "--disable-pip-version-check", *needed()]
    if "torch" not in here and sys.platform == "linux" and not shutil.which("nvidia-smi"):
        options += ["--extra-index-url", CPU]
    return options, constraints


def install() -> None:
    """Say how long it takes, install, and let this very process import the book."""
    if sys.version_info < (3, 11, 5):
        version = ".".join(map(str, sys.version_info[:3]))
        raise RuntimeError(f"python: expected 3.11.5 or newer, got {version}")
    here = installed()
    missing = [canonical(name) for name in needed() if canonical(name) not in here]
    options, constraints = pip(here)
    if missing:
        print(f"Installing {', '.join(missing)}, once: {TAKES}.", flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(constraints)
            file.flush()
            subprocess.run([sys.executable, "-m", "pip", *options, "-c", file.name], check=True)
    sys.path.insert(0, str(ROOT / "src"))
    importlib.invalidate_caches()


if __name__ == "__main__":
    install()
