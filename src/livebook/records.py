"""What a run leaves behind: recorded results, checkpoints, and what produced them."""

import functools
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
import weakref
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

import ntk_influence

from . import paths

STARTED = time.perf_counter()
LIBRARY = Path(ntk_influence.__file__).parent


def record(to: str, name: str, results: dict, device: torch.device, **parameters: object) -> None:
    """Write results to ``<to>/<name>.json`` with their provenance; ``to`` starts at the root."""
    facts = made_by(device) | {"wall_seconds": round(time.perf_counter() - STARTED, 1)}
    facts["dtype"] = parameters.get("dtype", facts["dtype"])
    text = {"parameters": parameters, "provenance": facts, "results": results}
    paths.write_atomically((paths.ROOT / to / f"{name}.json", json.dumps(text, indent=1) + "\n"))


def made_by(device: torch.device) -> dict[str, str]:
    """What produces a result: device, dtype, versions, date, and the commit at the start."""
    return environment(device) | {"commit": commit(), "date": time.strftime("%Y-%m-%d")}


def recorded(name: str) -> dict | None:
    """The recorded results of that name, or None where nobody has run them."""
    path = paths.RECORDED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@functools.cache
def commit() -> str:
    """The book's commit when this was first asked, which ``pick_device`` does; else ``unknown``.

    A book unpacked inside another repository has no commit: that of its surroundings says nothing.
    A copy without its history may be told by ``BOOK_COMMIT`` what it is a copy of.
    """
    top = _git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != paths.ROOT.resolve():
        return os.environ.get("BOOK_COMMIT", "unknown")
    return _git("describe", "--always", "--dirty", "--abbrev=12") or "unknown"


def _git(*arguments: str) -> str:
    """What git answers about the book's folder, whatever repository a hook points it to."""
    surroundings = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE")}
    command = ["git", "-C", str(paths.ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class Checkpoint:
    """Tensors of a long run by name, in a folder for each set of facts and each state of the code.

    The state is that of the whole library, of torch and of the device. ``to`` starts at the root of
    the book; with None the folder is new and goes with the object.
    """

    def __init__(
        self, to: str | None, *, device: torch.device | str | None = None, **facts: object
    ) -> None:
        if not to:
            self.folder = Path(tempfile.mkdtemp())
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
            return
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        state = [facts, digest(LIBRARY), version("torch"), device_name(torch.device(device))]
        key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        self.folder = paths.ROOT / to / key[:16]

    def save(self, name: object, value: torch.Tensor) -> None:
        """Keep a tensor; nothing half-written is ever left."""
        buffer = io.BytesIO()
        np.save(buffer, value.cpu().numpy())
        paths.write_atomically((self.folder / f"{name}.npy", buffer.getvalue()))

    def load(self, name: object) -> torch.Tensor | None:
        """The tensor of that name, None if it is not there yet; a damaged file is a ValueError."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            return None
        try:
            with path.open("rb") as file:
                return torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False))
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{path}: expected a tensor that was kept whole, got a damaged file ({reason}); "
                "delete it, and its run is done again"
            ) from error


@functools.cache
def digest(package: Path) -> str:
    """One digest of all the Python files of a package, as they are when it is first asked."""
    parts = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        parts.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode() + content)
    return parts.hexdigest()


def device_name(device: torch.device) -> str:
    """The name of the processor or of the graphics card."""
    cuda = device.type == "cuda"
    return torch.cuda.get_device_name(device) if cuda else f"CPU ({platform.machine()})"


def environment(device: torch.device) -> dict[str, str]:
    """Device, dtype and the versions that results depend on."""
    return {
        "device": device_name(device),
        "dtype": "float64",
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "ntk_influence": _own_version(),
    }


def _own_version() -> str:
    """The version of the library, which can be run without being installed."""
    try:
        return version("ntk-influence")
    except PackageNotFoundError:
        return "not installed"
