"""What is mended in the built pages: the same pixels in fewer bytes, and the icons asked for."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

from livebook import mend

THEME = Path(find_spec("pydata_sphinx_theme").origin).parent / "theme/pydata_sphinx_theme/static"
PAGE = """\
<script defer src="../_static/scripts/fontawesome.js?digest=1"></script>
<script src="../_static/scripts/bootstrap.js"></script>
<button class="btn search-button-field pst-js-only" title="Search" aria-label="Search" data-x="1">
<i class="fa-solid fa-sun"></i> Search</button>
<details><summary aria-label="Toggle hidden content">Show</summary></details>
<img src="../_images/a.png" alt="A"> a.png
"""


@pytest.fixture
def site(tmp_path):
    """A page with one icon, one picture and the theme's style."""
    for folder in ("_images", "_static/scripts", "_static/styles", mend.FONT.parent):
        (tmp_path / folder).mkdir(parents=True)
    for name in (mend.FONT, mend.DRAWS_ICONS):
        (tmp_path / name).write_bytes((THEME / name.relative_to("_static")).read_bytes())
    style = ".fa-sun:before{content:'x'}.fa-sun:before{content:\"\\f185\"}"
    others = '.fa-moon:before{content:"\\f186"}.note{content:"\\f05a"}html{--icon:"\uf0eb"}'
    (tmp_path / "_static" / "styles" / "a.css").write_text(style + others)
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "a.html").write_text(PAGE)
    pixels = np.random.default_rng(0).integers(0, 9, (40, 60, 4)).astype(np.uint8) * 28
    pixels[..., 3] = 255
    pixels[:, 30:] = (0, 0, 0, 0)  # the part that is transparent becomes white
    Image.fromarray(pixels).save(tmp_path / "_images" / "a.png")
    return tmp_path, pixels


def test_a_picture_keeps_its_pixels(site):
    folder, pixels = site
    mend.mend(folder)
    assert [path.name for path in (folder / "_images").iterdir()] == ["a.webp"]
    shown = np.array(Image.open(folder / "_images" / "a.webp").convert("RGB"))
    assert (shown[:, :30] == pixels[:, :30, :3]).all()
    assert (shown[:, 30:] == 255).all()


def test_a_page_asks_for_what_is_there_and_names_what_is_read(site):
    folder, _ = site
    mend.mend(folder)
    page = (folder / "chapters" / "a.html").read_text()
    assert '<img src="../_images/a.webp" alt="A"> a.png' in page
    assert "fontawesome" not in page
    assert "bootstrap" in page
    assert "aria-label" not in page
    assert 'pst-js-only" data-x="1">' in page


def test_the_font_has_the_icons_that_are_asked_for(site):
    folder, _ = site
    whole = (folder / mend.FONT).stat().st_size
    mend.mend(folder)
    with TTFont(folder / "_static" / "icons.woff") as font:
        assert set(font.getBestCmap()) == {0xF185, 0xF05A, 0xF0EB}
    assert (folder / "_static" / "icons.woff").stat().st_size < whole / 50
