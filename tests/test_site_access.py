"""Every page of the site can be read by everybody, and is light to load.

Generated pages too; of source code, of which there are some thirty pages from one template, two.
"""

import gzip
from urllib.parse import urlsplit

import pytest
import test_site
from axe_playwright_python.base import AXE_SCRIPT
from test_site import DESK, PAGES, PHONE, SITE

address, browser, visit = test_site.address, test_site.browser, test_site.visit
BUILT = sorted(
    str(page.relative_to(SITE).with_suffix(""))
    for page in SITE.rglob("*.html")
    if page != SITE / "index.html"  # leads to the first page
    if "_static" not in page.parts
)
# Pages of source code have one template, and chapters show code in the same colours: one of them
# is looked at, and the largest, where weight and length would be felt first.
SOURCE = "_modules/ntk_influence/ridge"
SOURCES = [page for page in BUILT if page.startswith("_modules/") and page != "_modules/index"]
LARGEST = max(SOURCES, key=lambda page: (SITE / f"{page}.html").stat().st_size, default=SOURCE)
LOOKED_AT = [page for page in BUILT if page not in SOURCES or page in (SOURCE, LARGEST)]
MOST = 1_500_000  # bytes of a page with all that it loads, compressed

# Of all text that has the same colours, size and weight one piece is looked at: contrast depends
# on nothing else. Formulas have the colour of the text that they stand in.
CONTRAST = """() => {
  const seen = new Set(), found = [];
  const look = (node, above) => {
    const s = getComputedStyle(node);
    if (s.display === "none") return;
    const ground = `${above} ${s.backgroundColor} ${s.backgroundImage} ${s.opacity}`;
    const kind = `${ground} ${s.color} ${s.fontSize} ${s.fontWeight}`;
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if ((text || node.matches("input, select")) && !seen.has(kind)) {
      seen.add(kind);
      found.push(node);
    }
    for (const child of node.children) look(child, ground);
  };
  look(document.body, "");
  return axe.run({ include: found }, { runOnly: ["color-contrast", "link-in-text-block"] });
}"""
# What is the same hundreds of times is looked at a few times: formulas, tiles, words of code.
FEW = """() => {
  for (const math of document.querySelectorAll("mjx-container:not(.wide)")) math.textContent = "x";
  document.querySelectorAll(".lv-all button:nth-child(n + 9)").forEach((node) => node.remove());
}"""
PLAIN = """() => {
  for (const word of document.querySelectorAll(".highlight pre span:not([id]):not(:has(a))")) {
    word.replaceWith(...word.childNodes);
  }
}"""
OTHER = """() => axe.run({
  resultTypes: ["violations"],
  rules: { "color-contrast": { enabled: false }, "label-content-name-mismatch": { enabled: true } },
})"""
SCROLLED = "() => axe.run({ runOnly: ['scrollable-region-focusable'] })"


def serious(result):
    """The violations that keep somebody from reading."""
    return [
        (violation["id"], node["target"], node["html"][:150], node["failureSummary"][-150:])
        for violation in result["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def darken(page):
    """What the theme does where the reader's machine turns dark."""
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")


@pytest.fixture(scope="module", params=LOOKED_AT)
def opened(request, browser, address):
    """A page, opened in a fresh browser, and what it loaded."""
    context = browser.new_context(viewport=DESK, color_scheme="light")
    page, loaded = context.new_page(), set()
    page.on("response", lambda response: loaded.add(urlsplit(response.url).path.strip("/")))
    page.goto(f"{address}/{request.param}.html", wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise.then(() => 0)")
    page.evaluate("document.fonts.ready.then(() => 0)")
    yield page, loaded
    context.close()


def test_the_pages_looked_at_are_all_but_source_code_and_two_pages_of_that():
    assert {*PAGES, "genindex", "search", "py-modindex", "_modules/index"} < set(LOOKED_AT)
    assert set(BUILT) - set(LOOKED_AT) == set(SOURCES) - {SOURCE, LARGEST}
    assert {SOURCE, LARGEST} <= set(SOURCES)
    assert len(SOURCES) > 2


def test_a_page_is_light(opened):
    _, loaded = opened
    weight = {name: len(gzip.compress((SITE / name).read_bytes())) for name in loaded}
    assert "_static/book.css" in weight
    assert not [name for name in weight if "fontawesome" in name]
    assert sum(weight.values()) < MOST, sorted(weight.items(), key=lambda item: -item[1])[:8]


def test_everybody_can_read_a_page(opened):
    page, _ = opened
    page.evaluate(AXE_SCRIPT)
    page.add_style_tag(content="* { transition: none !important }")  # no colour half-way
    page.evaluate(FEW)
    assert serious(page.evaluate(CONTRAST)) == []
    darken(page)
    assert serious(page.evaluate(CONTRAST)) == []
    page.evaluate(PLAIN)
    assert serious(page.evaluate(OTHER)) == []
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(400)  # the theme waits 300 ms before it looks what scrolls
    assert serious(page.evaluate(SCROLLED)) == []


def test_what_cannot_be_read_is_noticed(visit):
    page = visit("bibliography.html")
    page.evaluate(AXE_SCRIPT)
    page.add_style_tag(content="article p { color: #999 }")
    page.evaluate("document.querySelector('article').append(document.createElement('button'))")
    assert {fault[0] for fault in serious(page.evaluate(CONTRAST))} == {"color-contrast"}
    assert "button-name" in {fault[0] for fault in serious(page.evaluate(OTHER))}


DARK_GROUNDS = """() => {
  const dark = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return a > 0.2 && r + g + b < 450;
  };
  return [...document.querySelectorAll("body, main, main *")]
    .filter((node) => node.checkVisibility() && dark(getComputedStyle(node).backgroundColor))
    .map((node) => node.outerHTML.slice(0, 150));
}"""
INDEXES = ["genindex", "search", "py-modindex", "_modules/index"]
MIXED = ["chapters/02_leave_one_out", "explorer", "claims", SOURCE, *INDEXES]


@pytest.mark.parametrize("page", MIXED)
def test_a_dark_page_is_printed_on_white_paper_and_can_be_read(visit, page):
    opened = visit(f"{page}.html", color_scheme="dark")
    assert opened.evaluate(DARK_GROUNDS)
    opened.emulate_media(media="print", color_scheme="dark")
    opened.wait_for_function("document.documentElement.dataset.theme === 'light'")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert opened.evaluate(ground) == "rgb(255, 255, 255)"
    assert opened.evaluate(DARK_GROUNDS) == []
    opened.evaluate(AXE_SCRIPT)
    assert serious(opened.evaluate(CONTRAST)) == []
    opened.emulate_media(media="screen", color_scheme="dark")
    opened.wait_for_function("document.documentElement.dataset.theme === 'dark'")


def contrast(node):
    """The contrast of a text to its ground, as WCAG defines it."""
    colours = node.evaluate("""(e) => {
      const look = getComputedStyle;
      let ground = e;
      while (look(ground).backgroundColor.endsWith(", 0)")) ground = ground.parentElement;
      return [look(e).color, look(ground).backgroundColor];
    }""")
    light = []
    for colour in colours:
        parts = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(light) / min(light)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_captions_of_figures_can_be_read(visit, mode):
    opened = visit("chapters/02_leave_one_out.html", color_scheme=mode)
    captions = opened.locator("figcaption .caption-text, figcaption .caption-number").all()
    assert len(captions) > 4
    for caption in captions:
        assert contrast(caption) > 7
        assert int(caption.evaluate("e => getComputedStyle(e).fontWeight")) >= 400
        assert float(caption.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")) >= 14


@pytest.mark.parametrize("page", INDEXES)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_generated_indexes_can_be_read(visit, page, mode):
    opened = visit(f"{page}.html", color_scheme=mode)
    for node in opened.locator("article :is(h1, h2, p, li, td, dd)").all()[:40]:
        if node.inner_text().strip():
            assert contrast(node) > 7
    for node in opened.locator("article a").all()[:40]:
        assert contrast(node) > 4.5


# Previews

CHAPTER = "chapters/02_leave_one_out.html"


def typeset(visit, path, **options):
    """A page with its formulas in place."""
    page = visit(path, **options)
    page.wait_for_selector("html[data-formulas=placed]", state="attached")
    return page


def test_a_link_to_an_equation_shows_it_under_the_mouse_until_the_mouse_leaves(visit):
    page = typeset(visit, CHAPTER)
    preview = page.locator(".preview")
    assert not preview.is_visible()
    link = page.locator("article a[href='#equation-ridge-objective']:not(.headerlink)").first
    link.hover()
    preview.wait_for(state="visible")
    formula = page.locator("#equation-ridge-objective mjx-container")
    assert preview.locator("mjx-container").inner_html() == formula.inner_html()
    assert preview.locator("[id], a, [tabindex]").count() == 0
    box = preview.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= DESK["width"]
    preview.hover()  # it stays where one points at it
    page.wait_for_timeout(400)
    assert preview.is_visible()
    page.mouse.move(1, 1)
    preview.wait_for(state="hidden")
    assert visit.faults == []


def test_a_citation_is_shown_in_the_focus_of_the_keyboard_until_escape(visit):
    page = typeset(visit, CHAPTER, color_scheme="dark")
    preview = page.locator(".preview")
    link = page.locator("article .bibtex-citation a").first
    page.keyboard.press("Tab")  # from now on the focus is that of a keyboard
    link.focus()
    preview.wait_for(state="visible")
    assert "Technometrics" in preview.inner_text()
    assert link.get_attribute("aria-describedby") == preview.get_attribute("id")
    page.evaluate(AXE_SCRIPT)
    assert serious(page.evaluate("axe.run('.preview, .bibtex-citation')")) == []
    assert contrast(preview) > 7
    page.keyboard.press("Escape")
    preview.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.matches('.bibtex-citation a')")


@pytest.mark.parametrize(
    ("target", "says"), [("prop-group", "Proposition 2.1"), ("fig-refits", "Fig.")]
)
def test_a_statement_and_a_figure_are_shown(visit, target, says):
    page = visit(CHAPTER)
    html = (
        (SITE / CHAPTER)
        .read_text()
        .replace('internal" href="#equation-ridge', f'internal" href="#{target}" title="', 1)
    )
    page.route("**/linked.html", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto(page.url.replace("02_leave_one_out", "linked"))
    page.wait_for_selector("html[data-formulas=placed]", state="attached")  # no link moves on
    page.locator(f"article a.reference.internal[href='#{target}']").first.hover()
    page.locator(".preview").wait_for(state="visible")
    assert says in page.locator(".preview").inner_text()


ELSEWHERE = {
    "explorer chapters/02_leave_one_out.html#equation-influence": "(2.2)",
    "chapters/14_theorem_one 03_lazy_training.html#lem-movement": "Lemma 3.1",
    "intro chapters/00_notation.html#fig-digits": "Fig. 0.1",
    "claims chapters/06_regularisation.html": "6. Under a weak ridge",
}


@pytest.mark.parametrize("look", [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
@pytest.mark.parametrize("link", ELSEWHERE)
def test_what_another_page_has_is_shown_in_the_focus_of_the_keyboard(visit, link, look):
    path, target = link.split()
    page = visit(f"{path}.html", viewport=look[0], color_scheme=look[1])
    if page.locator("article .math").count():
        page.wait_for_selector("html[data-formulas=placed]", state="attached")
    assert page.locator("script[src$='parts.js']").count() == 0  # not before it is asked for
    shown, at = page.locator(".preview"), page.locator(f"article a[href='{target}']").first
    page.keyboard.press("Tab")
    at.focus()
    shown.wait_for(state="visible")
    assert ELSEWHERE[link] in shown.inner_text()
    assert "\\" not in shown.inner_text()  # no formula is left as it is typed
    assert shown.locator("[id], a, [tabindex]").count() == 0
    for picture in shown.locator("img").all():
        page.wait_for_function("e => e.naturalWidth > 100", arg=picture.element_handle())
    box = shown.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= look[0]["width"]
    assert at.get_attribute("aria-describedby") == shown.get_attribute("id")
    assert visit.faults == []
    page.evaluate(AXE_SCRIPT)  # asks for style sheets by names that do not exist
    assert serious(page.evaluate("axe.run('.preview')")) == []
    page.keyboard.press("Escape")
    shown.wait_for(state="hidden")


def test_a_preview_that_comes_too_late_or_not_at_all_is_not_shown(visit):
    page = typeset(visit, "claims.html")
    kept = []
    page.route("**/parts.js", lambda route: kept.append(route))
    link = page.locator("article a[href='chapters/06_regularisation.html']").first
    with page.expect_request("**/parts.js"):
        link.hover()
    page.mouse.move(1, 1)
    page.wait_for_timeout(400)
    kept[0].continue_()
    page.wait_for_function("window.parts")
    page.wait_for_timeout(200)
    assert not page.locator(".preview").is_visible()
    page.evaluate("delete window.parts['chapters/06_regularisation.html']")
    link.hover()
    page.wait_for_timeout(400)
    assert not page.locator(".preview").is_visible()
    assert visit.faults == []


def test_a_page_that_is_opened_as_a_file_shows_what_another_has(browser):
    page = browser.new_page()
    page.goto((SITE / "claims.html").as_uri())
    page.wait_for_selector("html[data-formulas=placed]", state="attached")
    page.locator("article a[href='chapters/06_regularisation.html']").first.hover()
    page.locator(".preview").wait_for(state="visible")
    assert "6. Under a weak ridge" in page.locator(".preview").inner_text()
    page.close()


def test_a_touch_shows_no_preview(visit):
    page = typeset(visit, CHAPTER, viewport=PHONE, has_touch=True)
    link = page.locator("article a[href='#equation-ridge-objective']:not(.headerlink)").first
    link.tap()
    page.wait_for_timeout(400)
    assert page.url.endswith("#equation-ridge-objective")
    assert not page.locator(".preview").is_visible()
