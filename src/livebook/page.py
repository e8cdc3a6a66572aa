"""What a chapter calls: device, source listings, numbers for the prose, figures, records."""

import ast
import hashlib
import inspect
import io
import json
import platform
import shutil
import subprocess
import tempfile
import textwrap
import time
import weakref
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from ntk_influence import network, training

from .paths import BUILD, RECORDED, ROOT, write_atomically

STARTED = time.perf_counter()
GIT = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
COMMIT = ""
if shutil.which("git"):
    COMMIT = subprocess.run(GIT, capture_output=True, text=True, check=False).stdout.strip()
plt.style.use(ROOT / "matplotlibrc")


def pick_device(device: str) -> torch.device:
    """The named device; ``auto`` is CUDA where there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def show(function: Callable) -> None:
    """List the source of a function without its docstring, so that the page is the code it runs."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    body = ast.parse("\n".join(lines)).body[0].body
    if ast.get_docstring(ast.parse("\n".join(lines)).body[0]) is not None:
        del lines[body[0].lineno - 1 : body[0].end_lineno]
    display(Markdown("```python\n" + "\n".join(lines) + "\n```"))


def glue(name: str, value: object) -> None:
    """Keep a value for the prose (`{glue:text}`); without MyST-NB there is nothing to glue to."""
    try:
        from myst_nb import glue as keep
    except ImportError:
        return
    keep(name, value.item() if isinstance(value, np.generic) else value, display=False)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show a small table."""
    lines = [header, ["---"] * len(header), *rows]
    display(Markdown("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)))


def contact_sheet(
    images: torch.Tensor, captions: Sequence[str], columns: int = 8, frames: Sequence[str] = ()
) -> Figure:
    """Draw images side by side, each with its caption below it and a frame of its colour."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns, 1.35 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image.cpu(), cmap="gray_r" if image.ndim == 2 else None)
        axis.set_xlabel(caption, fontsize=12)
    for axis, colour in zip(axes.flat, frames, strict=False):
        axis.spines[:].set(visible=True, color=colour, linewidth=2.5)
    return figure


def provenance(device: torch.device, **facts: object) -> None:
    """Say what produced this page: device, dtype, versions, and the facts that are passed."""
    rows = _environment(device) | {k.replace("_", " "): v for k, v in facts.items()}
    table(["what", "value"], list(rows.items()))


def record(to: str, name: str, results: dict, device: torch.device, **parameters: object) -> None:
    """Write results to ``<to>/<name>.json`` with their provenance; ``to`` starts at the root."""
    environment = made_by(device) | {"wall_seconds": round(time.perf_counter() - STARTED, 1)}
    environment["dtype"] = parameters.get("dtype", environment["dtype"])
    text = {"parameters": parameters, "provenance": environment, "results": results}
    write_atomically((ROOT / to / f"{name}.json", json.dumps(text, indent=1) + "\n"))


def made_by(device: torch.device) -> dict[str, str]:
    """What produces a result: device, dtype, versions, date, and the commit at the start."""
    when = {"commit": COMMIT or "unknown", "date": time.strftime("%Y-%m-%d")}
    return _environment(device) | when


def recorded(name: str) -> dict | None:
    """The recorded results of that name, or None where nobody has run them."""
    path = RECORDED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


class Checkpoint:
    """Tensors of a long run by name, in a folder for each set of facts and each state of the code.

    ``to`` starts at the root of the book; with None the folder is new and goes with the object.
    """

    def __init__(self, to: str | None, **facts: object) -> None:
        code = inspect.getsource(training) + inspect.getsource(network)
        digest = hashlib.sha256((json.dumps(facts, sort_keys=True) + code).encode()).hexdigest()
        BUILD.mkdir(exist_ok=True)
        self.folder = ROOT / to / digest[:16] if to else Path(tempfile.mkdtemp(dir=BUILD))
        if not to:
            weakref.finalize(self, shutil.rmtree, self.folder)

    def save(self, name: object, value: torch.Tensor) -> None:
        """Keep a tensor; nothing half-written is ever left."""
        buffer = io.BytesIO()
        np.save(buffer, value.cpu().numpy())
        write_atomically((self.folder / f"{name}.npy", buffer.getvalue()))

    def load(self, name: object) -> torch.Tensor | None:
        """The tensor of that name, or None if it is not there yet."""
        path = self.folder / f"{name}.npy"
        return torch.from_numpy(np.load(path, allow_pickle=False)) if path.exists() else None


def _environment(device: torch.device) -> dict[str, str]:
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else f"CPU ({platform.machine()})",
        "dtype": "float64",
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "ntk_influence": version("ntk-influence"),
    }
