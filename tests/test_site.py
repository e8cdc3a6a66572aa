"""The built site in a browser: complete, silent, local, and fit for a phone."""

import base64
import io
import json
import math
import os
import re
import shutil
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from playwright.sync_api import Error, sync_playwright

import ntk_influence as ni
from livebook.explorer import MIME
from livebook.paths import BUILD, RECORDED, ROOT

SITE = BUILD / "html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
FILES = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
PAGES = [TOC["root"], *FILES]
CHAPTERS = [file for file in FILES if file.startswith("chapters/")]
TEMPLATES = [file for file in FILES if file.startswith("report/")]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}

if CHROMIUM is None and os.environ.get("CI") != "true":
    pytest.skip("no chromium found: the site is not tested in a browser", allow_module_level=True)


class Quiet(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *_):
        pass

    def copyfile(self, *streams):
        with suppress(ConnectionError):  # a page that is left no longer takes what it asked for
            super().copyfile(*streams)


@pytest.fixture(scope="module")
def address():
    assert (SITE / "index.html").exists(), "no built site: run `make site`"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "no chromium found, and CI=true asks for one"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, address):
    """Open a page of the site; whatever goes wrong on it is kept in ``faults``."""
    contexts, faults = [], []

    def open_page(path, viewport=DESK, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"script: {error}"))
        page.on("console", lambda m: m.type == "error" and faults.append(f"console: {m.text}"))
        page.on("response", lambda r: r.status >= 400 and faults.append(f"{r.status}: {r.url}"))

        def only_local(route):
            if route.request.url.startswith((address, "data:")):
                route.continue_()
            else:
                faults.append(f"outside request: {route.request.url}")
                route.abort()

        page.route("**/*", only_local)
        page.goto(f"{address}/{path}", wait_until="networkidle")
        return page

    open_page.faults = faults
    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_loads_without_a_fault_and_from_here_alone(visit, page):
    visit(f"{page}.html")
    assert visit.faults == []


@pytest.mark.parametrize("page", ["claims", "api", *CHAPTERS])
def test_the_mathematics_is_rendered(visit, page):
    opened = visit(f"{page}.html")
    opened.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
    opened.evaluate("MathJax.startup.promise")
    assert opened.locator("mjx-container").count() > 5
    assert opened.locator("mjx-merror, .MathJax_Error").count() == 0
    assert opened.locator("article .math:not(:has(mjx-container))").count() == 0
    assert not [text for text in opened.locator("article p").all_inner_texts() if "$" in text]


@pytest.mark.parametrize("page", PAGES)
def test_a_phone_scrolls_no_page_sideways(visit, page):
    opened = visit(f"{page}.html", PHONE)
    width = opened.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"], f"the page is {width} pixels wide"


OUT_OF_THE_COLUMN = """() => {
  document.documentElement.dataset.code = "shown";
  for (const details of document.querySelectorAll("article details")) details.open = true;
  const article = document.querySelector("article"), out = [];
  const column = article.getBoundingClientRect().right - parseFloat(getComputedStyle(article).paddingRight);
  const reached = (e, right) => { // is all up to there on the page, or can be scrolled to?
    if (e === article) return right <= column + 1;
    const how = getComputedStyle(e).overflowX;
    if (how === "auto" || how === "scroll") return true;
    if (how === "hidden" && right > e.getBoundingClientRect().right + 1) return false;
    return reached(e.parentElement, right);
  };
  const parts = "article mjx-container, article code, article pre, article table, article img";
  for (const e of document.querySelectorAll(parts)) {
    if (e.checkVisibility() && !reached(e, e.getBoundingClientRect().right)) out.push(e.outerHTML.slice(0, 200));
  }
  return out;
}"""  # noqa: E501


@pytest.mark.parametrize("page", PAGES)
def test_no_formula_and_no_line_of_code_runs_out_of_the_column_of_a_phone(visit, page):
    opened = visit(f"{page}.html", PHONE)
    if opened.locator("article .math").count():
        opened.wait_for_selector("html[data-formulas=placed]", state="attached")
    assert opened.evaluate(OUT_OF_THE_COLUMN) == []


def test_a_formula_that_runs_out_of_the_column_is_noticed(visit):
    opened = visit("chapters/13_noise.html", PHONE)
    opened.wait_for_selector("html[data-formulas=placed]", state="attached")
    opened.add_style_tag(content="mjx-container.wide { max-width: none; overflow: visible }")
    assert opened.evaluate(OUT_OF_THE_COLUMN)


@pytest.mark.parametrize("page", [*CHAPTERS, *TEMPLATES])
def test_every_picture_is_there_and_has_a_text(visit, page):
    opened = visit(f"{page}.html")
    assert opened.locator("article img").count() > 0
    for picture in opened.locator("article img").all():
        assert picture.evaluate("image => image.naturalWidth") > 100
        assert len(picture.get_attribute("alt") or "") > 20


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_card_and_the_verdict_table_say_the_same(visit, page):
    opened = visit(f"{page}.html")
    card = opened.locator(".at-a-glance table tbody tr").all()
    table = opened.locator(".tag_verdict table tbody tr").all()
    said = [row.locator("td").last.inner_text() for row in card]
    shown = [row.locator("td").last.inner_text().split(":")[0] for row in table]
    assert said
    assert said == shown


def test_the_table_of_claims_is_complete_and_links_to_the_chapters(visit):
    claims = yaml.safe_load((ROOT / "claims.yml").read_text())["claims"]
    rows = visit("claims.html").locator(".claims tbody tr")
    assert rows.count() == len(claims)
    for row, claim in zip(rows.all(), claims, strict=True):
        assert claim["id"] in row.inner_text()
        if claim["chapter"]:
            assert row.locator("a").get_attribute("href") == f"chapters/{claim['chapter']}.html"
        else:
            assert "not tested" in row.inner_text()


def test_the_table_of_claims_is_filtered_by_kind_verdict_and_word(visit):
    page = visit("claims.html")
    rows = page.locator(".claims tbody tr")
    page.locator(".claims-filter select[name=kind]").select_option("bound")
    kinds = [row.locator("td").first.inner_text() for row in rows.all() if row.is_visible()]
    claims = yaml.safe_load((ROOT / "claims.yml").read_text())["claims"]
    assert len(kinds) == sum(claim["kind"] == "bound" for claim in claims)
    assert all(kind.endswith("bound") for kind in kinds)
    page.locator(".claims-filter select[name=kind]").select_option("")
    page.locator(".claims-filter input").fill("lemma-")
    assert page.locator(".claims-filter output").inner_text() == f"4 of {len(claims)}"


def test_the_map_of_the_paper_leads_to_a_verdict_and_a_picture(visit):
    claims = yaml.safe_load((ROOT / "claims.yml").read_text())["claims"]
    wanted = [claim for claim in claims if "picture" in claim]
    rows = visit("intro.html").locator(".paper-map tbody tr")
    assert rows.count() == len(wanted)
    for row, claim in zip(rows.all(), wanted, strict=True):
        verdict, picture = (link.get_attribute("href") for link in row.locator("a").all())
        assert verdict == f"chapters/{claim['chapter']}.html"
        assert picture == f"chapters/{claim['chapter']}.html#{claim['picture']}"


def test_code_is_folded_on_a_phone_and_one_switch_shows_it_everywhere(visit):
    page = visit("chapters/02_leave_one_out.html", PHONE)
    switch, code = page.locator(".code-switch"), page.locator(".cell_input").first
    assert switch.inner_text() == "code: folded"
    assert not code.is_visible()
    switch.click()
    assert code.is_visible()
    page.goto(page.url.replace("02_leave_one_out", "01_two_layer_kernel"))
    assert page.locator(".cell_input").first.is_visible()
    assert visit("chapters/02_leave_one_out.html").locator(".cell_input").first.is_visible()


def test_a_folded_solution_opens(visit):
    page = visit("chapters/02_leave_one_out.html")
    inside = page.get_by_text("is the statistic PRESS").first
    assert not inside.is_visible()
    inside.evaluate(
        "e => e.closest('.dropdown, details, .toggle').querySelector('button, summary').click()"
    )
    inside.wait_for(state="visible", timeout=3000)


def test_the_search_finds_a_theorem(visit):
    page = visit("search.html?q=Leave-one-out+closed+form")
    page.wait_for_selector("#search-results li", timeout=10_000)
    assert "02_leave_one_out" in page.locator("#search-results").inner_html()
    assert visit.faults == []


def test_dark_mode_is_dark(visit):
    page = visit("intro.html", color_scheme="dark")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in ground.strip("rgb()").split(",")[:3]) < 200, ground


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_number_that_a_reader_sees_is_that_of_the_file(visit, page):
    opened, number = visit(f"{page}.html"), int(page.partition("/")[2][:2])
    assert opened.locator("article h1").inner_text().startswith(f"{number}. ")
    assert opened.locator("nav .current.active").first.inner_text().startswith(f"{number}. ")
    assert opened.locator("article h2").first.inner_text().startswith(f"{number}.1. ")


@pytest.mark.parametrize("page", ["chapters/02_leave_one_out", "intro"])
def test_a_dark_page_is_printed_light_with_figures_on_white(visit, page):
    opened = visit(f"{page}.html", color_scheme="dark")
    opened.emulate_media(media="print", color_scheme="dark")
    opened.wait_for_function("document.documentElement.dataset.theme === 'light'")

    def brightness(selector, what):
        get = f"e => getComputedStyle(e).{what}"
        colour = opened.locator(selector).first.evaluate(get)
        return sum(int(part) for part in colour.strip("rgba()").split(",")[:3]) / (3 * 255)

    assert brightness("body", "backgroundColor") == 1
    assert brightness("article p", "color") < 0.4
    assert brightness("article h1", "color") < 0.4
    assert brightness("article img", "backgroundColor") == 1
    assert opened.locator("article img").first.evaluate("e => getComputedStyle(e).filter") == "none"


def test_the_check_sees_a_fault(visit):
    """The guard of the tests above: a broken page must not look like a good one."""
    page = visit("no-such-page.html")
    with pytest.raises(Error):
        page.evaluate("missing.call()")
    page.evaluate("fetch('http://example.invalid/').catch(() => 0)")
    assert any(fault.startswith("404") for fault in visit.faults)
    assert any(fault.startswith("outside request") for fault in visit.faults)


# The explorer

RIDGES = [0.01, 0.1, 1.0, 10.0]


@pytest.fixture(scope="module")
def influence():
    """Influence and predictions at a setting of the explorer, from the library alone."""
    d = ni.datasets.load("mnist-5k-7v9", 800, 200)
    K, k = ni.relu_ntk(d.X), ni.relu_ntk(d.X_test, d.X)
    largest = float(torch.linalg.eigvalsh(K)[-1])

    def at(test, time, ridge):
        t = math.inf if time == 9 else 10 ** (time / 2) / largest
        given = [t], K, d.y, RIDGES[ridge], k[test : test + 1]
        values = ni.loo_influence_at(*given, d.y_test[test : test + 1])
        return values[0, :, 0], float(ni.predict_at(*given)[0, 0]), float(d.y_test[test])

    return at


def number(text):
    """A number as the explorer writes it."""
    digits = str.maketrans("\u2212⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789")
    return float(text.translate(digits).replace(" · 10", "e"))


def shown(root, kind):
    """The training images of one row with the values that are written below them."""
    rows = root.locator(f".ifx-{kind} li").all()
    texts = [row.locator("span").nth(1).inner_text() for row in rows]
    return [
        (int(row.get_attribute("data-index")), number(text))
        for row, text in zip(rows, texts, strict=True)
    ]


def check(root, influence):
    """What is on the screen is what the library computes, to the three digits that are shown."""
    test = int(re.search(r"Test image (\d+)", root.locator(".ifx-now").inner_text())[1])
    time, ridge = (int(root.locator(f".ifx-{name}").input_value()) for name in ("time", "ridge"))
    values, f, label = influence(test, time, ridge)
    said = root.locator(".ifx-now").inner_text()
    assert ("seven" in said) == (label > 0)
    assert ("right" in said) == (f * label > 0)
    assert number(re.search(r"predicts ([^,]+),", said)[1]) == pytest.approx(f, rel=5e-3)
    loss = (f - label) ** 2 / 2
    assert number(re.search(r"loss ([^;]+);", said)[1]) == pytest.approx(loss, rel=5e-3)
    for kind, sign in (("helpful", 1), ("harmful", -1)):
        rows = shown(root, kind)
        assert len(rows) == 5
        assert [i for i, _ in rows] == (sign * values).argsort(descending=True)[:5].tolist()
        for i, value in rows:
            assert value == pytest.approx(sign * float(values[i]), rel=5e-3)


def check_pictures(root):
    """Every tile is cut from the sprite where its image lies, up to the levels of grey."""
    d = ni.datasets.load("mnist-5k-7v9", 800, 200)
    for tile in root.locator(".ifx-sheet .ifx-im, .ifx-tests .ifx-im").all():
        kind, index = re.match(r"(\w+) image (\d+)", tile.get_attribute("aria-label")).groups()
        style = tile.evaluate(
            "e => [e.style.backgroundImage, e.style.backgroundSize, e.style.backgroundPosition]"
        )
        sprite = Image.open(io.BytesIO(base64.b64decode(style[0].split("base64,")[1].strip('")'))))
        across, down = (round(float(part.strip("%")) / 100) for part in style[1].split())
        right, below = (float(part.strip("%")) / 100 for part in style[2].split())
        left, top = round(right * (across - 1)) * 28, round(below * (down - 1)) * 28
        part = sprite.convert("L").crop((left, top, left + 28, top + 28))
        shown = torch.from_numpy(np.array(part, dtype=int)).flatten()
        image = (d.images if kind == "training" else d.images_test)[int(index)].flatten()
        assert (255 - shown - image.int()).abs().float().mean() < 8  # half a level of sixteen


def test_the_explorer_follows_keys_clicks_and_drags(visit, influence):
    page = visit("chapters/10_explorer.html")
    root = page.locator(".ifx")
    check(root, influence)
    time = root.locator(".ifx-time")
    time.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert time.input_value() == "1"
    check(root, influence)
    root.locator(".ifx-ridge").press("ArrowLeft")
    check(root, influence)
    root.locator(".ifx-tests label").nth(2).click()
    check(root, influence)
    page.keyboard.press("ArrowRight")  # radio buttons move with the arrows
    assert root.locator(".ifx-tests input").nth(3).is_checked()
    check(root, influence)
    time.scroll_into_view_if_needed()
    box = time.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.66 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], middle, steps=4)
    page.mouse.move(box["x"] + 2, middle, steps=4)
    page.mouse.up()
    assert time.input_value() == "0"
    check(root, influence)
    check_pictures(root)
    assert visit.faults == []


def test_the_explorer_shows_the_recorded_photographs(visit):
    page = visit("chapters/10_explorer.html", PHONE, color_scheme="dark", has_touch=True)
    root = page.locator(".ifx")
    root.locator(".ifx-data label").nth(1).tap()
    root.locator(".ifx-tests label").nth(1).tap()
    survey = json.loads((RECORDED / "10_explorer.json").read_text())["results"]["survey"]
    for kind in ("helpful", "harmful"):
        pairs = survey[kind][1][survey["first_ridge"]][survey["first_time"]]
        assert shown(root, kind) == [(i, abs(value)) for i, value in pairs]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    ground = root.evaluate("e => getComputedStyle(e.closest('.text_html')).backgroundColor")
    assert ground == "rgba(0, 0, 0, 0)"
    assert visit.faults == []


def test_the_explorer_is_small():
    cells = nbformat.read(ROOT / "chapters" / "10_explorer.ipynb", 4).cells
    outputs = [o["data"] for cell in cells for o in cell.get("outputs", []) if "data" in o]
    (explorer,) = [data["text/html"] for data in outputs if MIME in data]
    assert len(explorer.encode()) <= 300 * 1024


def tour(root, influence):
    """Three of the test images, the first among them, which is predicted wrongly."""
    for image in (0, 2, 4):
        root.locator(".ifx-tests label").nth(image).click()
        check(root, influence)
        check_pictures(root)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[survey.helpful, survey.harmful]", "[survey.harmful, survey.helpful]"),
        ("survey.tests.length + survey.images.indexOf", "survey.images.indexOf"),
        ("image(box, survey, k, label)", "image(box, survey, k + 1, label)"),
        ("survey.f[test][ridge][time], loss", "survey.f[test][ridge][0], loss"),
        ("(f > 0) === (label === 0)", "f > 0"),
    ],
    ids=["swapped", "wrong pictures", "wrong tests", "time stands still", "always right"],
)
def test_a_wrong_explorer_is_noticed(visit, influence, old, new):
    page = visit("chapters/10_explorer.html")
    html = (SITE / "chapters" / "10_explorer.html").read_text()
    assert html.count(old) == 1
    wrong = html.replace(old, new)
    page.route("**/wrong.html", lambda route: route.fulfill(body=wrong, content_type="text/html"))
    page.goto(page.url.replace("10_explorer.html", "wrong.html"))
    with pytest.raises(AssertionError):
        tour(page.locator(".ifx"), influence)
