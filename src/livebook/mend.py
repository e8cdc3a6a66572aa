"""Mend the built pages: what the theme loads and nobody sees, names that are not what is read."""

import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image

FONT = Path("_static", "vendor", "fontawesome", "webfonts", "fa-solid-900.ttf")
DRAWS_ICONS = Path("_static", "scripts", "fontawesome.js")  # the style sheets draw them as well
PAGE = [  # on every page: a pattern and what takes its place
    (r'<script defer src="[^"]*/scripts/fontawesome\.js[^"]*"></script>', ""),
    # a name that lacks what can be read on the button cannot be spoken
    (r'(<button class="btn search-button-field[^>]*?) title="Search" aria-label="Search"', r"\1"),
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),  # of no items
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r"(_images/[\w.-]+)\.png\b", r"\1.webp"),
]


def mend(site: Path) -> None:
    """All of it, in the folder of a site that Sphinx has just built."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for pattern, instead in PAGE:
            text = re.sub(pattern, instead, text)
        page.write_text(text, encoding="utf-8")
    for picture in (site / "_images").glob("*.png"):
        shrink(picture)
    if (site / FONT).exists():
        (site / DRAWS_ICONS).unlink()
        keep_icons(site / FONT, icons(site), site / "_static" / "icons.woff")


def shrink(picture: Path) -> None:
    """The same pixels as WebP, in less than half the bytes; a figure has no transparent part."""
    with Image.open(picture) as image:
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image if image.mode == "RGBA" else None)
    opaque.save(picture.with_suffix(".webp"), lossless=True, method=2, quality=30)
    picture.unlink()


def icons(site: Path) -> set[int]:
    """The characters of the icon font that a page, a script or a style of its own asks for."""
    written = [*site.rglob("*.html"), *(site / "_static").rglob("*.js")]
    asked = set()
    for path in written:
        asked |= set(re.findall(r"fa-[a-z0-9-]+", path.read_text(encoding="utf-8")))
    found = set()
    for path in (site / "_static").rglob("*.css"):
        rules = re.findall(r"([^{}]*)\{([^{}]*)\}", path.read_text(encoding="utf-8"))
        for selector, body in rules:
            names = set(re.findall(r"\.(fa-[a-z0-9-]+):", selector))
            if not names or names & asked:
                found |= {int(code, 16) for code in re.findall(r'"\\([ef][0-9a-f]{3})"', body)}
                found |= {ord(sign) for sign in re.findall("[\ue000-\uf8ff]", body)}
    return found


def keep_icons(font: Path, characters: set[int], to: Path) -> None:
    """A font with these characters alone; where one is missing, the browser asks for the whole."""
    with TTFont(font) as whole:
        few = subset.Subsetter()
        few.populate(unicodes=characters)
        few.subset(whole)
        whole.flavor = "woff"
        whole.save(to)
