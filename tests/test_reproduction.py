"""The pages on the paper come from the ledger, the verdicts and the records alone."""

import re

import pytest

from livebook import deviations, reproduction
from livebook.ledger import Verdict, claims, published
from livebook.paths import CHAPTERS
from livebook.reproduction import paper, scaled

GIVEN = {row.claim: row for path in sorted(CHAPTERS.glob("*.ipynb")) for row in published(path)}
OF_THE_PAPER = {name: claim for name, claim in claims().items() if "picture" in claim}
INTERVALS = {name for name, claim in OF_THE_PAPER.items() if isinstance(claim["tolerance"], list)}


@pytest.mark.parametrize(
    ("tolerance", "factor", "zero", "expected"),
    [
        (0.2, 0.5, None, [-float("inf"), 0.1]),
        ([0.97, 1.0], 0.5, 1.0, [0.985, 1.0]),
        ([0.97, 1.0], 2.0, 1.0, [0.94, 1.0]),
        ([-1.0, -0.3], 0.5, 0.0, [-1.0, -0.6]),
        ([-1.0, -0.3], 2.0, 0.0, [-1.0, -0.15]),
        ([0.6, 1.0], 0.5, 0.5, [0.7, 1.0]),
        ([2.0, 8.0], 2.0, 0.0, [1.0, 8.0]),
        ([0.0, 0.5], 0.5, 0.0, [0.0, 0.25]),
    ],
)
def test_half_the_tolerance_is_twice_as_strict(tolerance, factor, zero, expected):
    assert scaled(tolerance, factor, zero) == pytest.approx(expected)


def test_what_has_no_zero_is_not_scaled():
    assert scaled([0.0, 0.5], 0.5, None) is None


def test_every_interval_of_the_paper_says_where_strictness_is_counted_from():
    assert set(paper()["zero"]) == INTERVALS


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_strictness_is_monotone_and_the_tolerance_itself_gives_the_published_verdict(name):
    row = GIVEN[name]
    words = [reproduction.at_factor(row, factor).partition(" (")[0] for factor in (0.5, 1.0, 2.0)]
    if "—" in words:
        assert OF_THE_PAPER[name]["kind"] == "identity" or paper()["zero"][name] is None
        return
    half, same, double = (word.startswith("holds") for word in words)
    assert words[1] == row.verdict
    assert half <= same <= double


def test_a_loud_truth_is_no_clearer_at_another_tolerance():
    row = Verdict("fig-1", "0.999", "cannot tell", "noise floor 0.3, effect 1")
    assert reproduction.at_factor(row, 2.0) == "cannot tell"
    assert reproduction.at_factor(Verdict("fig-1", "—", "not tested"), 0.5) == "not tested"


def test_a_number_between_half_and_the_whole_falls_at_half():
    assert reproduction.at_factor(Verdict("fig-1", "0.98", "holds"), 0.5) == (
        "not seen here (0.985 to 1.0)"
    )
    assert reproduction.at_factor(Verdict("fig-2", "1.73", "not seen here"), 2.0) == (
        "holds (0.0 to 2.0)"
    )


def test_the_paper_is_there_item_by_item():
    figures, rest = (reproduction.rows(GIVEN, figures=which) for which in (True, False))
    names = [re.search(r"\*\*(.+?)\*\*", line)[1] for line in figures[2:] + rest[2:]]
    assert sorted(names) == sorted(OF_THE_PAPER)
    assert len(figures) == 2 + 13
    assert all(line.count(" | ") == 5 for line in figures[2:] + rest[2:])


def test_table_1_gives_differences_where_both_are_numbers():
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in reproduction.table_1()[2:]]
    assert {(name, width) for name, width, *_ in rows} == {
        (name, f"{width:,}") for name, widths in paper()["table-1"].items() for width in widths
    }
    measured = [row for row in rows if row[2]]
    assert measured
    for row in measured:
        for given, here, less in (row[5:8], row[8:11]):
            difference = float(less.replace("\N{MINUS SIGN}", "-"))
            assert difference == pytest.approx(float(here) - float(given), abs=1.01e-4)
    assert all("not tested" in row[6] for row in rows if not row[2])


@pytest.mark.parametrize("entry", paper()["deviations"], ids=lambda entry: entry["chapter"])
def test_a_deviation_points_to_its_chapter_and_to_what_measures_it(entry):
    assert (CHAPTERS / f"{entry['chapter']}.md").exists()
    assert entry.get("effect") or entry.get("numbers")
    assert set(entry.get("effect", [])) <= set(GIVEN)
    for found in entry.get("numbers", []):
        assert re.search(r"\d", deviations.number_of(found))


def test_what_the_copy_lacks_points_to_chapters():
    for entry in paper()["lacking"]:
        assert (CHAPTERS / f"{entry['chapter']}.md").exists()
    assert len(deviations.lacking()) == 2 + len(paper()["lacking"])


def test_no_number_of_a_result_is_typed_in_the_pages():
    """What is measured comes from elsewhere; what stands in the prose are sizes of the paper."""
    root = CHAPTERS.parent
    for name in ("reproduction.md", "deviations.md"):
        text = re.sub(r"\{cite:t\}`\w+`|table-1|Table 1", "", (root / name).read_text())
        assert set(re.findall(r"\d[\d,.]*\d|\d", text)) <= {"5,000", "1,000"}
