"""Take a figure out of a notebook: ``python -m livebook.picture NOTEBOOK FIGURE TARGET``."""

import base64
import sys
from pathlib import Path

import nbformat

from .paths import write_atomically


def picture(notebook: Path, name: str) -> bytes:
    """The PNG of the cell whose figure has that name."""
    for cell in nbformat.read(notebook, 4).cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        for output in cell.get("outputs", []):
            if figure.get("name") == name and "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise SystemExit(f"figure: expected one named {name} in {notebook}, got none")


if __name__ == "__main__":
    source, figure_name, target = sys.argv[1:]
    write_atomically((Path(target), picture(Path(source), figure_name)))
