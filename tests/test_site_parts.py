"""The parts of pages that links from other pages show."""

import json

import pytest

from livebook import parts

PAGE = """\
<html><body><h1>A page</h1><div id="menu" class="math">menu</div>
<article><section class="a" id="a-page">
<h1><span class="section-number">2. </span>A page<a class="headerlink" href="#a-page">#</a></h1>
<div class="at-a-glance docutils container">
<div class="admonition"><div class="table"><table><tr><td><p>holds</p></td></tr></table></div>
<p>Run time.</p>
</div>
</div>
<p>Text with <span class="math">\\(x\\)</span>.</p>
<div class="math notranslate" id="equation-one"><span class="eqno">(1)</span>\\[x &lt; 1\\]</div>
<div class="math notranslate">\\[x\\]</div>
<section id="a-section">
<span id="label"></span><span id="other"></span><h2>A section</h2>
<div class="proof theorem admonition" id="thm"><section class="theorem-content" id="proof-content">
<p>For all <b>x</b>.</p><div class="math">\\[y\\]</div></section></div>
<figure class="align-default" id="fig"><img src="../_images/a.webp" alt="A"></figure>
<div class="cell docutils" id="cell">code</div>
</section></section></article></body></html>
"""


def test_a_page_is_taken_apart():
    found = parts.parts(PAGE)
    headings = {"", "a-page", "a-section", "label", "other"}
    assert set(found) == {*headings, "equation-one", "thm", "fig"}
    assert "2. </span>A page" in found["a-page"]
    opening = '<p>Text with <span class="math">\\(x\\)</span>.</p>'
    assert found[""] == f"<div>{found['a-page']}{opening}</div>"
    assert found["label"] == found["a-section"] == "<strong>A section</strong>"
    assert "\\[x &lt; 1\\]" in found["equation-one"]
    assert found["thm"].count("<div") == found["thm"].count("</div>") == 2
    assert 'src="../_images/a.webp"' in found["fig"]


@pytest.mark.parametrize("page", ["", "<p>no article</p>", "<article><h1>Index</h1></article>"])
def test_a_page_without_parts_has_none(page):
    assert parts.parts(page) == {}


def test_the_parts_of_all_pages_are_one_script(tmp_path):
    for folder in ("_static", "chapters"):
        (tmp_path / folder).mkdir()
    (tmp_path / "chapters" / "a.html").write_text(PAGE, encoding="utf-8")
    (tmp_path / "index.html").write_text("<p>leads on</p>")
    parts.write(tmp_path)
    text = (tmp_path / "_static" / "parts.js").read_text(encoding="utf-8")
    found = json.loads(text.removeprefix("window.parts = ").removesuffix(";\n"))
    assert found == {"chapters/a.html": parts.parts(PAGE)}
