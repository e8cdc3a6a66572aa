"""The built site as one PDF, printed by Chromium: ``python -m livebook.pdf``."""

import io
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link

from . import paths, site

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SCALE = 0.75  # a line of 100 columns of code fits
MARGIN = dict.fromkeys(("top", "bottom", "left", "right"), "16mm")
FORMULAS = "!document.querySelector('.math') || window.MathJax?.startup?.promise"
READY = "window.MathJax?.startup?.promise?.then(() => true)"
BARE = "document.querySelector('#jb-print-toc')?.remove()"  # bookmarks take its place
WHOLE = ".cell_input, figure, .admonition, div.math { break-inside: avoid }"  # on one page


class Quiet(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def copyfile(self, *streams: object) -> None:
        """As far as the page takes it, which may be left meanwhile."""
        with suppress(ConnectionError):
            super().copyfile(*streams)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of this folder, as long as it is needed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def printed(page: Page, address: str) -> tuple[str, bytes]:
    """The title of a page of the site, and its print on A4, its mathematics set."""
    page.goto(address, wait_until="networkidle")
    page.wait_for_function(FORMULAS)
    page.evaluate(READY)
    page.evaluate(BARE)
    page.add_style_tag(content=WHOLE)
    title = page.locator("h1").first.text_content().strip().removesuffix("#").strip()
    return title, page.pdf(format="A4", margin=MARGIN, scale=SCALE)


def bound(prints: dict[str, tuple[str, bytes]], base: str) -> PdfWriter:
    """All prints in one file, with bookmarks; links between pages lead to pages of this file."""
    book, first = PdfWriter(), {}
    for address, (title, content) in prints.items():
        first[address] = len(book.pages)
        for page in PdfReader(io.BytesIO(content)).pages:
            book.add_page(page)
        book.add_outline_item(title=title, page_number=first[address])
    for number, page in enumerate(book.pages):
        for link in [link.get_object() for link in page.pop("/Annots", [])]:
            target = link.get("/A", {}).get("/URI", "")
            options = {"rect": link["/Rect"], "border": [0, 0, 0]}
            inside = first.get(target.partition("#")[0])
            if inside is not None:
                book.add_annotation(number, Link(**options, target_page_index=inside))
            elif target and not target.startswith(base):
                book.add_annotation(number, Link(**options, url=target))
    book.compress_identical_objects()
    return book


def build(folder: Path, pages: Sequence[str], target: Path) -> int:
    """Print the pages of a built site into one file; how many pages that has."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        raise SystemExit("pdf: expected Chromium, found none")
    with served(folder) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page, prints = browser.new_page(color_scheme="light"), {}
        page.set_default_timeout(300_000)
        for name in pages:
            address = f"{base}{name}.html"
            prints[address] = printed(page, address)
            print(f"{name} printed", flush=True)
        browser.close()
        book = bound(prints, base)
    content = io.BytesIO()
    book.write(content)
    paths.write_atomically((target, content.getvalue()))
    return len(book.pages)


def main() -> None:
    """Print the built site in the order of its contents."""
    folder, target = paths.BUILD / "html", paths.BUILD / "book.pdf"
    if not (folder / "index.html").exists():
        sys.exit("pdf: expected a built site, found none; run `make book`")
    count = build(folder, [str(page) for page in site.contents(paths.ROOT)], target)
    print(f"The book, {count} pages: {target}")


if __name__ == "__main__":
    main()
