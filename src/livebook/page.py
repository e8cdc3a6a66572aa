"""What a chapter displays: device, source listings, numbers for the prose, figures, provenance."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from . import paths, records


def pick_device(device: str) -> torch.device:
    """The named device; ``auto`` is CUDA where there is one, else the CPU.

    Every chapter begins with this call, so it also sets the look of the figures and notes the
    commit.
    """
    _begin()
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def _begin() -> None:
    plt.style.use(paths.ROOT / "matplotlibrc")
    records.commit()


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
    rows = records.environment(device) | {k.replace("_", " "): v for k, v in facts.items()}
    table(["what", "value"], list(rows.items()))
