"""What the comparison lets pass, and what it finds."""

import json

import nbformat
import pytest
from small_book import chapter, nbval

from livebook import ledger, run
from livebook.compare import (
    BOUND,
    IDENTITY,
    first_difference,
    tables_agree,
    text,
    texts_agree,
    verdicts_agree,
)
from livebook.nbval_plugin import tolerance
from livebook.paths import CHAPTERS


@pytest.mark.parametrize(
    ("reference", "new", "rtol", "same"),
    [
        ("slope -0.5000001", "slope -0.5000002", 1e-6, True),
        ("slope -0.5001", "slope -0.5002", 1e-6, False),
        ("slope -0.5001", "slope -0.5002", 1e-2, True),
        ("3 points", "4 points", 0.5, False),
        ("slope 0.5", "Slope 0.5", 1e-6, False),
        ("1e-10", "1e-11", 1e-6, False),
        ("3.2e-16", "3.3e-16", 1e-6, False),
        ("3.2e-16", "0.0", 1e-6, False),
        ("3.2e-16", "< 1e-12", 1e-6, False),
        ("a 0.1 b 0.2", "a 0.1", 1e-6, False),
        ("-0.5", "0.5", 1e-6, False),
        ("nan", "0.5", 1e-6, False),
        ("v1.2.3", "v1.2.4", 1.0, False),
    ],
)
def test_numbers_may_differ_within_the_tolerance_and_text_may_not(reference, new, rtol, same):
    assert texts_agree(reference, new, rtol) is same


@pytest.mark.parametrize(
    ("reference", "new", "bound", "same"),
    [
        ("(13): < 1e-11  law: < 1e-12", "(13): < 1e-12  law: < 1e-09", IDENTITY, True),
        ("| eq-6 | < 1e-12 | 0.5 |", "| eq-6 | < 1e-10 | 0.5 |", IDENTITY, True),
        ("| eq-6 | < 1e-12 | 0.5 |", "| eq-6 | < 1e-10 | 0.6 |", IDENTITY, False),
        ("'< 1e-12'", "'< 1e-10'", IDENTITY, True),
        ("< 1e-12", "< 1e-08", IDENTITY, False),
        ("< 1e-12", "< 1e-08", 1e-8, True),
        ("< 1e-07", "< 1e-08", IDENTITY, False),
        ("< 1e-07", "< 1e-07", IDENTITY, True),
        ("< 1e-07", "< 1e+01", 1e-6, False),
        ("off by < 1e-12", "wrong by < 1e-12", IDENTITY, False),
        ("< 1e-12", "> 1e-12", IDENTITY, False),
        ("< 1e-12", "1e-12", IDENTITY, False),
        ("p < 0.5", "p < 1e-12", IDENTITY, False),
        ("3 points: < 1e-12", "4 points: < 1e-12", IDENTITY, False),
        ("< 1e-12, < 1e-12", "< 1e-12", IDENTITY, False),
        ("< 1e-12", "nan", IDENTITY, False),
    ],
)
def test_a_bound_is_compared_as_a_bound(reference, new, bound, same):
    assert texts_agree(reference, new, bound=bound) is same


def published(*rows: ledger.Verdict) -> tuple[list[dict], str]:
    """The two forms in which a verdict cell shows its rows."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "display", lambda bundle, raw: shown.append(bundle))
        ledger.verdicts(*rows)
    return json.loads(json.dumps(shown[0][ledger.MIME])), shown[0]["text/markdown"]


def agree(reference: ledger.Verdict, *new: ledger.Verdict) -> bool:
    """Whether both forms agree, and agree on that, beside a row that stays."""
    other = ledger.Verdict("eq-13", "< 1e-12", "holds")
    (rows, table), (new_rows, new_table) = published(reference, other), published(*new, other)
    assert verdicts_agree(rows, new_rows) is tables_agree(table, new_table)
    return verdicts_agree(rows, new_rows)


@pytest.mark.parametrize(
    ("claim", "reference", "new", "same"),
    [
        ("eq-9", "< 1e-12", "< 1e-09", True),
        ("eq-9", "< 1e-11", "< 1e-12", True),
        ("eq-9", "0", "< 1e-12", True),
        ("eq-9", "< 1e-10", "0", True),
        ("eq-9", "< 1e-12", "< 1e-08", False),
        ("eq-9", "0", "< 1e-08", False),
        ("eq-9", "< 1e-12", "1.02e-06", False),
        ("eq-9", "< 1e-12", "-3e-05", False),
        ("eq-9", "< 1e-12", "nan", False),
        ("eq-9", "< 1e-12", "—", False),
        ("law-diagonal", "0", "< 1e-12", True),
        ("law-diagonal", "0", "< 1e-11", False),
        ("law-kappa", "0", "< 1e-12", False),
        ("law-kappa", "0", "0", True),
        ("thm-1", "< 1e-07", "< 1e-08", True),
        ("thm-1", "< 1e-07", "1.02e-06", False),
        ("thm-1", "0.512", "0.513", False),
        ("law-width", "-0.502", "-0.503", False),
    ],
)
def test_a_measured_bound_is_compared_with_the_tolerance_of_its_claim(claim, reference, new, same):
    rows = [ledger.Verdict(claim, measured, "holds") for measured in (reference, new)]
    assert agree(*rows) is same


def test_a_claim_of_rounding_size_may_print_as_a_bound_or_as_a_number(monkeypatch):
    row = ledger.claims()["eq-9"]
    monkeypatch.setitem(ledger.claims(), "eq-9", row | {"tolerance": 1e-6})
    before, after = (ledger.Verdict("eq-9", size, "holds") for size in ("< 1e-06", "1e-06"))
    assert agree(before, after)
    assert agree(after, before)
    monkeypatch.setitem(ledger.claims(), "eq-9", row | {"tolerance": 2e-6})
    assert not agree(before, after)


@pytest.mark.parametrize(
    "changed",
    [
        ("eq-9", "< 1e-12", "not seen here", "ridge > 0.5"),
        ("eq-9", "< 1e-12", "holds", "ridge > 0.5"),
        ("eq-6", "< 1e-12", "holds with limits", "ridge > 0.5"),
        ("eq-9", "< 1e-12", "holds with limits", "ridge > 0.6"),
        ("eq-9", "< 1e-12", "holds with limits", "width > 0.5"),
    ],
    ids=["not seen", "holds", "another claim", "number in its limits", "word in its limits"],
)
def test_a_verdict_that_changed_is_found(changed):
    row = ledger.Verdict("eq-9", "< 1e-12", "holds with limits", "ridge > 0.5")
    assert agree(row, row)
    assert not agree(row, ledger.Verdict(*changed))


def test_a_missing_row_and_one_too_many_are_found():
    row = ledger.Verdict("eq-9", "< 1e-12", "holds")
    assert not agree(row)
    assert not agree(row, row, row)


def test_the_order_of_keys_in_an_output_does_not_matter():
    one, other = {"claim": "a", "measured": "1.61"}, {"measured": "1.66", "claim": "a"}
    assert texts_agree(text([one]), text([other]), 0.1)
    assert not texts_agree(text([one]), text([other]), 0.01)


def test_the_first_line_that_differs_is_the_first_that_does_not_agree():
    reference, new = "0.50000001\n< 1e-12\n0.6\n0.7\n", "0.50000002\n< 1e-11\n0.7\n0.8\n"
    assert first_difference(reference, new, 1e-6, IDENTITY) == "0.6 -> 0.7"
    assert first_difference("one\n", "one\ntwo\n", 1e-6, IDENTITY) == "nothing -> two"


def test_a_tag_states_a_tolerance():
    tags = ["verdict", "rtol=3e-2", "bound=1e-6"]
    assert (tolerance(tags, "rtol", 1.0), tolerance(tags, "bound", 1.0)) == (3e-2, 1e-6)
    assert tolerance(["verdict"], "bound", IDENTITY) == IDENTITY
    with pytest.raises(ValueError, match=r"^tag: expected bound=NUMBER, got 'bound=small'$"):
        tolerance(["bound=small"], "bound", IDENTITY)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """An executed notebook with a float, a picture, an explorer, bounds and a verdict."""
    folder = tmp_path_factory.mktemp("executed")
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    survey = "from livebook.explorer import explorer\nexplorer([{'f': x / 7}], ['data:,'])"
    bounds = "import livebook as book\nprint('error', book.at_most(1e-11))"
    tagged = ":tags: [bound=1e-6]\n\nprint('tagged', book.at_most(1e-8))"
    glued = "book.glue('error', book.at_most(1e-11))"
    verdict = "book.verdicts(book.judge('eq-9', 5e-12), book.judge('thm-1', 0.25))"
    cells = ("print('ratio', x / 3)", plot, survey, bounds, tagged, glued, verdict)
    return run.execute(chapter(folder, "small", *cells), {}, 120)


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("", "", 0),
        ("0.6666666666", "0.6666666667", 0),
        ("0.6666666666", "0.6676666666", 1),
        ("ratio 0", "Ratio 0", 1),
        ('"image/png": "iVBOR', '"image/png": "iVBOS', 0),
        ('"execution_count": 2', '"execution_count": null', 1),
        ('"f": 0.285', '"f": 0.286', 1),
        ('class=\\"ifx', 'class=\\"ify', 0),
        ("error < 1e-10", "error < 1e-12", 0),
        ("tagged < 1e-07", "tagged < 1e-12", 0),
        ("bound=1e-6", "bound=1e-8", 0),
        ("'< 1e-10'", "'< 1e-12'", 0),
        ('"measured": "< 1e-11"', '"measured": "0"', 0),
        ('"measured": "0.25"', '"measured": "0.26"', 1),
        ('"verdict": "holds"', '"verdict": "not seen here"', 1),
        ("| < 1e-11 (", "| < 1e-12 (", 0),
    ],
    ids=[
        *("as is", "last digit", "third digit", "text", "picture", "not executed"),
        *("number of the explorer", "page of the explorer", "bound"),
        *("tagged bound", "no tag needed where identical", "glued bound", "measured bound"),
        *("measured number", "verdict", "bound in the table"),
    ],
)
def test_nbval_finds_what_it_should(executed, tmp_path, old, new, outcome):
    assert old in executed
    notebook = tmp_path / "small.ipynb"
    notebook.write_text(executed.replace(old, new))
    result = nbval(notebook)
    assert result.returncode == outcome, result.stdout


def test_a_bound_above_the_tolerance_is_found(executed, tmp_path):
    notebook = tmp_path / "small.ipynb"
    changed = executed.replace("bound=1e-6", "bound=1e-8").replace(
        "tagged < 1e-07", "tagged < 1e-12"
    )
    notebook.write_text(changed)
    assert nbval(notebook).returncode == 1


def printed_bounds(cell: nbformat.NotebookNode) -> list[float]:
    """The bounds that a cell shows outside a verdict table."""
    plain = [o for o in cell.get("outputs", []) if ledger.MIME not in o.get("data", {})]
    shown = [text(v) for o in plain for v in (o.get("text", ""), *o.get("data", {}).values())]
    return [float(bound) for value in shown for bound in BOUND.findall(value)]


@pytest.mark.parametrize("notebook", sorted(CHAPTERS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_cell_with_a_large_bound_states_its_tolerance(notebook):
    untold = []
    for number, cell in enumerate(nbformat.read(notebook, 4).cells):
        tags, largest = cell.metadata.get("tags", []), max(printed_bounds(cell), default=0.0)
        if largest > tolerance(tags, "bound", IDENTITY) and "nbval-ignore-output" not in tags:
            untold.append(f"cell {number}: expected a tag bound={largest:g} or wider, got {tags}")
    assert untold == []
