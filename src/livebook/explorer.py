"""The explorer: influence over time and ridge, to look through without a kernel."""

import base64
import io
import json
from pathlib import Path

import torch
from IPython.display import display
from PIL import Image

MIME = "application/vnd.livebook.explorer+json"
TEMPLATE = Path(__file__).with_name("static") / "explorer.html"
COLUMNS = 20


def sprite(images: torch.Tensor) -> str:
    """Many small images as one picture in a data URI: PNG if grey, else WebP."""
    n, side = len(images), images.shape[1]
    colour = images.shape[3:]
    sheet = torch.zeros(-(-n // COLUMNS) * side, COLUMNS * side, *colour, dtype=torch.uint8)
    for number, image in enumerate(images.cpu()):
        row, column = (side * part for part in divmod(number, COLUMNS))
        sheet[row : row + side, column : column + side] = image
    picture = Image.fromarray((sheet if colour else 255 - sheet).numpy())
    kind = {"format": "WEBP", "quality": 50} if colour else {"format": "PNG", "optimize": True}
    if not colour:
        picture = picture.quantize(16)
    file = io.BytesIO()
    picture.save(file, **kind)
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind['format'].lower()};base64,{text}"


def explorer(surveys: list[dict], sprites: list[str]) -> None:
    """Show the explorer; what it shows goes beside it as JSON, which the tests compare.

    A survey holds ``name``, ``classes``, ``ridges`` and ``times`` (texts), ``first_ridge`` and
    ``first_time`` (where the sliders start), ``tests`` (pairs of index and class), ``images`` (the
    training indices in the order of the sprite, after the tests), ``labels`` (their classes), ``f``
    and ``loss`` [test][ridge][time], and ``helpful`` and ``harmful`` [test][ridge][time], lists of
    pairs of a training index and its influence.
    """
    shown = [survey | {"sprite": picture} for survey, picture in zip(surveys, sprites, strict=True)]
    data = json.dumps({"columns": COLUMNS, "surveys": shown}, separators=(",", ":"))
    html = TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", data.replace("</", "<\\/"))
    text = "The explorer needs a browser."
    glued = {"scrapbook": {"name": "explorer", "mime_prefix": ""}}  # a page may show it elsewhere
    display({"text/html": html, MIME: surveys, "text/plain": text}, metadata=glued, raw=True)
