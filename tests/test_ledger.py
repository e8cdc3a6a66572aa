"""The ledger is complete, and every claim is reached by exactly one verdict."""

import json
import re
from collections import Counter

import jsonschema
import nbformat
import pytest
import yaml

from livebook import at_most, judge
from livebook.ledger import KINDS, WORDS, Verdict, claims, published
from livebook.paths import CHAPTERS, ROOT

PAPER = [
    *(f"eq-{number}" for number in (4, 6, 9, 13, 15, 17, 19, 20)),
    *(f"lemma-{number}" for number in range(1, 5)),
    *(f"thm-{number}" for number in range(1, 5)),
    *("prop-1", "prop-2", "table-1"),
    *(f"fig-{number}" for number in range(1, 13)),
]
KEYS = {"id", "paper", "kind", "statement", "chapter", "tolerance", "measured", "reason"}
OF_THE_PAPER = re.compile("Sec|Eq|Theorem|Lemma|Proposition|Figure|Table|term")
CHAPTER_NAMES = sorted(path.stem for path in CHAPTERS.glob("*.md"))


SCHEMA = json.loads((ROOT / "claims.schema.json").read_text(encoding="utf-8"))
LEDGER = yaml.safe_load((ROOT / "claims.yml").read_text(encoding="utf-8"))


def test_the_ledger_has_the_form_that_its_schema_says():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(LEDGER, SCHEMA, jsonschema.Draft202012Validator)
    assert SCHEMA["$defs"]["claim"]["properties"]["kind"]["enum"] == list(KINDS)
    names = [claim["id"] for claim in LEDGER["claims"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "guess"},
        {"tolerance": "small"},
        {"tolerance": [0.1]},
        {"tolerance": -1.0},
        {"tolerance": None},
        {"kind": "bound", "tolerance": [0.0, 1.0]},
        {"kind": "identity", "tolerance": 0.1},
        {"chapter": None},
        {"chapter": "two"},
        {"reason": " "},
        {"measured": None},
        {"remark": "one key too many"},
    ],
    ids=str,
)
def test_a_row_of_another_form_is_refused(change):
    row = {**LEDGER["claims"][0], **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"claims": [row]}, SCHEMA, jsonschema.Draft202012Validator)


def test_all_of_the_paper_is_in_the_ledger():
    assert set(PAPER) <= set(claims())


@pytest.mark.parametrize("claim", claims().values(), ids=lambda claim: claim["id"])
def test_a_claim_is_complete(claim):
    assert set(claim) - {"picture"} == KEYS
    assert ("picture" in claim) == bool(OF_THE_PAPER.match(claim["paper"]))
    assert claim["kind"] in KINDS
    assert claim["statement"].strip()
    assert claim["reason"].strip()
    assert (claim["chapter"] is None) == (claim["tolerance"] is None) == (claim["measured"] is None)
    assert claim["chapter"] is None or claim["chapter"] in CHAPTER_NAMES


@pytest.mark.parametrize("claim", claims().values(), ids=lambda claim: claim["id"])
def test_a_tolerance_is_one_of_the_kind(claim):
    """An identity holds to rounding, and a bound is an inequality."""
    tolerance = claim["tolerance"]
    if claim["kind"] == "identity":
        assert not isinstance(tolerance, list)
        assert tolerance <= 1e-8
    if claim["kind"] == "bound":
        assert not isinstance(tolerance, list)


@pytest.mark.parametrize("chapter", CHAPTER_NAMES)
def test_the_picture_of_a_claim_is_in_its_chapter(chapter):
    cells = nbformat.read(CHAPTERS / f"{chapter}.ipynb", 4).cells
    there = {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells}
    wanted = {c["picture"] for c in claims().values() if c["chapter"] == chapter and "picture" in c}
    assert wanted <= there


@pytest.mark.parametrize("chapter", CHAPTER_NAMES)
def test_a_chapter_gives_one_verdict_for_each_of_its_claims(chapter):
    expected = {claim["id"]: 1 for claim in claims().values() if claim["chapter"] == chapter}
    rows = published(CHAPTERS / f"{chapter}.ipynb")
    assert Counter(row.claim for row in rows) == expected
    assert all(row.verdict in WORDS for row in rows)


def test_a_verdict_follows_from_the_tolerance():
    assert judge("eq-9", 1e-10).verdict == "holds"
    assert judge("eq-9", 1e-10, limits="ridge > 0").verdict == "holds with limits"
    assert judge("eq-9", 2e-9).verdict == "not seen here"
    assert judge("law-width", -0.5).verdict == "holds"
    assert judge("law-width", -0.7).verdict == "not seen here"
    assert judge("eq-9", None, "no GPU here") == Verdict("eq-9", "—", "not tested", "no GPU here")


@pytest.mark.parametrize("measured", [-0.5, -0.7, float("nan")])
@pytest.mark.parametrize(
    ("floor", "effect", "quiet"),
    [(0.0, 1.0, True), (0.2, 1.0, True), (0.21, 1.0, False), (3.0, 1.0, False), (0.1, 0.0, False)],
)
def test_neither_success_nor_failure_is_claimed_above_a_loud_floor(measured, floor, effect, quiet):
    verdict = judge("law-width", measured, floor=floor, effect=effect)
    assert (verdict.verdict != "cannot tell") == quiet
    assert ("noise floor" in verdict.limits) != quiet


def test_a_floor_that_is_not_a_number_is_loud():
    assert judge("law-width", -0.5, floor=float("nan"), effect=1.0).verdict == "cannot tell"
    assert judge("law-width", -0.5, "m > 9", floor=0.3, effect=1.0) == Verdict(
        "law-width", "-0.5", "cannot tell", "m > 9; noise floor 0.3, effect 1"
    )
    assert judge("law-width", None, "no GPU", floor=0.3, effect=1.0).verdict == "not tested"


@pytest.mark.parametrize("half", [{"floor": 0.1}, {"effect": 0.1}])
def test_a_floor_comes_with_its_effect(half):
    with pytest.raises(ValueError, match="floor, effect: expected both or none"):
        judge("law-width", -0.5, **half)


def test_a_number_that_is_not_a_number_holds_nothing():
    assert judge("eq-9", float("nan")).verdict == "not seen here"
    assert judge("law-width", float("nan")).verdict == "not seen here"


def test_an_unknown_claim_is_refused():
    with pytest.raises(ValueError, match=r"claim: expected an id from claims\.yml, got 'eq-99'"):
        judge("eq-99", 0.0)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (0.0, "< 1e-12"),
        (9e-13, "< 1e-12"),
        (3e-12, "< 1e-11"),
        (0.004, "< 1e-02"),
        (30.0, "< 1e+02"),
    ],
)
def test_an_error_prints_as_the_power_of_ten_above_it(error, text):
    assert at_most(error) == text


@pytest.mark.parametrize("error", [-1.0, -1e-300, float("nan"), float("inf"), -float("inf")])
def test_what_is_no_error_is_refused(error):
    with pytest.raises(ValueError, match="error: expected a finite number >= 0, got"):
        at_most(error)
