"""The built site in a browser: complete, silent, local, and fit for a phone."""

import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from playwright.sync_api import Error, sync_playwright

from livebook.paths import BUILD, ROOT

SITE = BUILD / "html"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
FILES = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
PAGES = [TOC["root"], *FILES]
CHAPTERS = [file for file in FILES if file.startswith("chapters/")]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}

if CHROMIUM is None and os.environ.get("CI") != "true":
    pytest.skip("no chromium found: the site is not tested in a browser", allow_module_level=True)


class Quiet(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *_):
        pass


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


@pytest.mark.parametrize("page", [TOC["root"], "api", *CHAPTERS])
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


@pytest.mark.parametrize("page", CHAPTERS)
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
    rows = visit("intro.html").locator(".claims tbody tr")
    assert rows.count() == len(claims)
    for row, claim in zip(rows.all(), claims, strict=True):
        assert claim["id"] in row.inner_text()
        if claim["chapter"]:
            assert row.locator("a").get_attribute("href") == f"chapters/{claim['chapter']}.html"
        else:
            assert "not tested" in row.inner_text()


def test_a_folded_solution_opens(visit):
    page = visit("chapters/02_leave_one_out.html")
    inside = page.get_by_text("This is the statistic PRESS").first
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


def test_the_check_sees_a_fault(visit):
    """The guard of the tests above: a broken page must not look like a good one."""
    page = visit("no-such-page.html")
    with pytest.raises(Error):
        page.evaluate("missing.call()")
    page.evaluate("fetch('http://example.invalid/').catch(() => 0)")
    assert any(fault.startswith("404") for fault in visit.faults)
    assert any(fault.startswith("outside request") for fault in visit.faults)
