"""The table of the guide is read from the records, and from nothing else."""

import re

import pytest

from livebook import paths, records, sizes


def test_every_size_is_that_of_a_record():
    rows = sizes.table()[2:]
    for name in sizes.ROWS:
        assert (paths.RECORDED / f"{name}.json").exists()
    assert len(rows) >= 8
    for row in rows:
        assert row.count("|") == 4
        page = re.search(r"\{doc\}`chapters/(\w+)`", row)[1]
        assert (paths.CHAPTERS / f"{page}.md").exists()
    rates = records.recorded("06_regularisation")["results"]["mnist-7v9"][0]
    error = dict(zip(rates["ridges"], rates["rates"], strict=True))[1.0]["error rate"]
    assert f"{error:.2g}" in next(row for row in rows if "IHVP, kernel of mnist-7v9" in row)


@pytest.mark.parametrize("missing", sizes.ROWS)
def test_a_record_that_is_not_there_leaves_its_rows_out(missing, monkeypatch):
    every = sizes.table()
    there = {name: records.recorded(name) for name in sizes.ROWS if name != missing}
    monkeypatch.setattr(sizes, "recorded", there.get)
    assert 2 < len(sizes.table()) < len(every)


def test_a_book_without_records_says_so(monkeypatch):
    monkeypatch.setattr(sizes, "recorded", lambda name: None)
    assert sizes.table()[2:] == ["| nothing recorded | | |"]


def test_the_guide_types_no_size():
    """Digits in its prose are those of fractions, of pages and of the code."""
    text = (paths.ROOT / "guide.md").read_text()
    prose = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$|^\*\*\d\.", "", text, flags=re.S | re.M)
    assert not re.search(r"\d", prose)
