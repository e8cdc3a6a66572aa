"""The site as one PDF: every page in order, bookmarks, links that stay inside."""

import io
import shutil

import pytest

pypdf = pytest.importorskip("pypdf", reason="the extra pdf is not installed (make pdf brings it)")
from livebook import pdf  # noqa: E402

HEAD = "<!doctype html><html lang=en><title>A page</title><body>"
ONE = '<h1>One<a>#</a></h1><a href="two.html#there">on</a> <a href="https://example.org/">out</a>'
LINE = "<pre style='font-size: 14px; font-family: monospace'>" + "x" * 99 + "|</pre>"


@pytest.mark.skipif(not any(map(shutil.which, pdf.CHROMIUM)), reason="no chromium found")
def test_pages_are_bound_in_order_and_links_stay_inside(tmp_path):
    (tmp_path / "one.html").write_text(HEAD + ONE)
    (tmp_path / "two.html").write_text(f"{HEAD}<h1>Two</h1>{LINE}<p id=there>there</p>")
    target = tmp_path / "book.pdf"
    count = pdf.build(tmp_path, ["one", "two"], target)
    book = pypdf.PdfReader(io.BytesIO(target.read_bytes()))
    assert count == len(book.pages) == 2
    assert [mark.title for mark in book.outline] == ["One", "Two"]
    inside, outside = (link.get_object() for link in book.pages[0]["/Annots"])
    assert inside["/Dest"][0] in (1, book.pages[1].indirect_reference)
    assert outside["/A"]["/URI"] == "https://example.org/"
    assert "x|" in book.pages[1].extract_text()


def test_without_a_site_or_a_browser_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pdf.paths, "BUILD", tmp_path, raising=False)
    with pytest.raises(SystemExit, match="pdf: expected a built site, found none"):
        pdf.main()
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="pdf: expected Chromium, found none"):
        pdf.build(tmp_path, [], tmp_path / "book.pdf")
    assert list(tmp_path.iterdir()) == []
