"""The mutation score on a toy library: what survives is told, and finished mutants are kept."""

import json
import sys

import nbformat
import pytest

from livebook import paths, records, status
from livebook.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import asking
import by_book
import changes
import mutation

SOURCE = """\
LIMIT = 3


def larger(a, b):
    if a > b:
        return a
    return b


def unused(a):
    return a * 2
"""
TEST = """\
import pytest
from toy import arithmetic


@pytest.mark.parametrize("pair", [(1, 2), (5, 4)])
def test_larger(pair):
    assert arithmetic.larger(*pair) == max(pair)


def test_limit():
    assert arithmetic.larger(0, arithmetic.LIMIT) == 3
"""
CHANGES = {
    "turned": ("a > b", "a < b"),
    "equal": ("a > b", "a >= b"),
    "unreached": ("a * 2", "a / 2"),
    "constant": ("LIMIT = 3", "LIMIT = 4"),
    "broken": ("return b", "return b\n\n\nraise ImportError"),
    "endless": ("return a\n", "while True: pass\n"),
}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A library of one module, a test of it, and the changes above in place of cosmic-ray's."""
    library, file = tmp_path / "src" / "toy", tmp_path / "tests" / "test_arithmetic.py"
    library.mkdir(parents=True)
    file.parent.mkdir()
    (library / "__init__.py").touch()
    (library / "arithmetic.py").write_text(SOURCE)
    file.write_text(TEST)

    def changed(_, module: str, name: str, __: int) -> changes.Mutant:
        was, now = CHANGES[name]
        line = SOURCE[: SOURCE.index(was)].count("\n") + 1
        return changes.Mutant(module, line, name, was, now, SOURCE.replace(was, now))

    positions = [("arithmetic", name, 0) for name in CHANGES]
    monkeypatch.setattr(mutation, "positions", lambda _: list(positions))
    monkeypatch.setattr(mutation, "mutant", changed)
    monkeypatch.setattr(asking, "SECONDS", 3)
    return library, [file], tmp_path / "kept"


def test_what_is_noticed_and_what_survives_and_finished_mutants_are_kept(toy):
    rows = {row["operator"]: row["noticed"] for row in mutation.by_tests(*toy, len(CHANGES), 0)}
    assert rows == {
        "turned": "test_arithmetic.py::test_limit",  # the quicker of two
        "equal": "",
        "unreached": "",
        "constant": "test_arithmetic.py::test_limit",
        "broken": "import",
        "endless": "time",
    }
    written = (toy[2] / "rows.jsonl").read_text().splitlines()
    assert len(written) == len(CHANGES)
    # Again: nothing is asked. With another test: only the survivors are.
    mutation.by_tests(*toy, len(CHANGES), 0)
    assert (toy[2] / "rows.jsonl").read_text().splitlines() == written
    toy[1][0].write_text(TEST + "\n\ndef test_twice():\n    assert arithmetic.unused(2) == 4\n")
    mutation.by_tests(*toy, len(CHANGES), 0)
    again = [json.loads(line) for line in (toy[2] / "rows.jsonl").read_text().splitlines()]
    found = {row["operator"]: row["noticed"] for row in again[len(CHANGES) :]}
    # 2 * 2 is 4 and 2 / 2 is not; nobody tells > from >= where it makes no difference.
    assert found == {"equal": "", "unreached": "test_arithmetic.py::test_twice"}


def test_a_test_that_fails_without_a_change_is_told(toy, monkeypatch):
    library, [file], kept = toy
    monkeypatch.setattr(mutation, "positions", lambda _: [("arithmetic", "equal", 0)])
    place = f"    assert arithmetic.__file__.startswith({str(library)!r})\n"  # not that of a copy
    file.write_text(TEST + place)
    with pytest.raises(ValueError, match="without a change, got test_arithmetic"):
        mutation.by_tests(library, [file], kept, 1, 0)


def test_the_tool_changes_what_computes_and_spares_texts_and_the_star_of_options(tmp_path):
    pytest.importorskip("cosmic_ray")
    source = 'def f(a, *, b: int | None = 1):\n    return f"{a + 1}", a - b\n'
    (tmp_path / "module.py").write_text(source)
    made = [changes.mutant(tmp_path, *at) for at in changes.positions(tmp_path)]
    lines = {m.now.removeprefix('return f"{a + 1}", ') for m in made if m.line == 2}
    assert lines == {"a + b", "a * b", "a / b"}
    assert sorted(m.now.replace("= ", "=") for m in made if m.line == 1) == [
        "def f(a, *, b: int | None =0):",
        "def f(a, *, b: int | None =2):",
    ]


def test_the_score_counts_survivors_and_names_their_reasons():
    rows = [
        {"module": "m", "line": i, "operator": "o", "was": "a", "now": str(i)} for i in range(4)
    ]
    rows = [row | {"noticed": how} for row, how in zip(rows, ("t", "", "", "time"), strict=True)]
    found = mutation.summary(rows, {("m", "a", "2"): "equivalent"})
    assert found["killed"] | {"low": 0, "high": 0} == {"count": 2, "of": 4, "low": 0, "high": 0}
    # By hand: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with p = 1/2, n = 4.
    assert (found["killed"]["low"], found["killed"]["high"]) == (0.15, 0.85)
    assert (found["by_a_test"], found["by_time"], found["by_import"]) == (1, 1, 0)
    assert found["modules"] == {"m": [2, 4]}
    assert [row["reason"] for row in found["survivors"]] == ["", "equivalent"]


def test_every_survivor_on_record_is_justified_and_every_reason_is_of_one():
    found = records.recorded("mutation")
    reasons = mutation.reasons()
    survivors = {(row["module"], row["was"], row["now"]) for row in found["results"]["survivors"]}
    assert survivors == reasons.keys()
    kinds = ("equivalent", "only a message", "only memory or speed", "only a tolerance")
    assert all(reason.split(":")[0] in kinds for reason in reasons.values())


SHOWN = "from toy import arithmetic\nprint(arithmetic.larger(5, 4))"
LISTED = "import inspect\nprint(inspect.getsource(arithmetic.larger))"


@pytest.fixture
def notebook(tmp_path):
    """A notebook of two cells: one prints the larger of two numbers, one lists the function."""
    listing = SOURCE[SOURCE.index("def larger") : SOURCE.index("\n\n\ndef unused")]
    cells = []
    for number, (code, text) in enumerate(((SHOWN, "5\n"), (LISTED, f"{listing}\n\n")), 1):
        output = nbformat.v4.new_output("stream", name="stdout", text=text)
        cells.append(nbformat.v4.new_code_cell(code, execution_count=number, outputs=[output]))
    path = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_a_notebook_notices_what_is_computed_and_not_what_is_listed(toy, notebook):
    library, _, kept = toy
    judge = by_book.Book(library, [notebook], kept)
    recorded = []
    for name in ("turned", "equal", "unreached"):
        was, now = (f"if {part}:" if ">" in CHANGES[name][0] else part for part in CHANGES[name])
        was, now = (f"return {part}" if name == "unreached" else part for part in (was, now))
        row = {"module": "arithmetic", "line": 0, "operator": name, "was": was, "now": now}
        recorded.append(row)
    rows = mutation.by_book(judge, recorded)
    assert [row["noticed"] for row in rows] == ["page.ipynb::Cell 0", "", ""]
    assert [row["ran"] for row in rows] == [["page"], ["page"], []]
    # Again: nothing is asked. What is the same program is not asked either.
    written = (kept / "book.jsonl").read_text()
    mutation.by_book(judge, recorded)
    assert (kept / "book.jsonl").read_text() == written
    same = by_book.Book(library, [notebook], kept / "other", {("if a > b:", "if a >= b:")})
    assert mutation.by_book(same, recorded[1:2])[0]["ran"] == []


def test_a_notebook_that_fails_without_a_change_is_no_judge(toy, notebook):
    notebook.write_text(notebook.read_text().replace("5\\n", "6\\n"))
    judge = by_book.Book(toy[0], [notebook], toy[2])
    change = changes.again(toy[0], "arithmetic", 5, "turned", "if a > b:", "if a < b:")
    with pytest.raises(ValueError, match=r"page.ipynb: expected to pass without a change"):
        judge.runs("page", change)


def test_a_change_on_record_is_found_again_where_its_line_is_there_once(tmp_path):
    (tmp_path / "one.py").write_text("def f(a):\n    a = a + 1\n    return a + 2\n")
    (tmp_path / "two.py").write_text("x = 1\ny = 2\ny = 2\n")
    found = changes.again(tmp_path, "one", 9, "o", "a = a + 1", "a = a - 1")
    assert (found.module, found.line) == ("one", 2)
    assert found.text == "def f(a):\n    a = a - 1\n    return a + 2\n"
    moved = changes.again(tmp_path, "two", 2, "o", "return a + 2", "return a + 3")
    assert (moved.module, moved.line) == ("one", 3)
    assert changes.again(tmp_path, "two", 3, "o", "y = 2", "y = 3").line == 3
    assert changes.again(tmp_path, "two", 1, "o", "y = 2", "y = 3") is None
    assert changes.again(tmp_path, "two", 1, "o", "z = 2", "z = 3") is None


def test_a_line_matters_where_its_statement_or_its_function_runs(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "LIMIT = 3\n\n\n@cache\ndef f(\n    a=1,\n):\n    if (\n        a\n    ):\n"
        "        a = (\n            2\n        )\n    return a\n"
    )
    assert changes.run_by(path, 4) == changes.run_by(path, 6) == {8, 9, 10, 11, 12, 13, 14}
    assert changes.run_by(path, 1) == changes.run_by(path, 4)
    assert changes.run_by(path, 9) == {8, 9, 10}
    assert changes.run_by(path, 12) == {11, 12, 13}
    assert changes.run_by(path, 14) == {14}


def test_the_score_of_the_book_is_as_wide_as_what_is_undecided():
    row = {"module": "m", "line": 1, "operator": "o", "now": "b", "asked": ["x-1", "y-1"]}
    rows = [
        row | {"was": "0", "noticed": "x.ipynb::Cell 3", "ran": ["x"]},
        row | {"was": "1", "noticed": "", "ran": []},
        row | {"was": "2", "noticed": "", "ran": [], "asked": ["x-1"]},
        row | {"was": "3", "noticed": "", "ran": [], "asked": ["x-1"]},
    ]
    found = mutation.summary_of_book(rows, {"x-1", "y-1"}, {("3", "b")})
    # By hand, as above: p = 1/4 below, and p = 2/4 above if what is undecided were noticed.
    assert found["noticed"] == {"count": 1, "of": 4, "low": 0.0456, "high": 0.85}
    assert (found["same_program"], found["not_run_by_any"]) == (1, 1)
    assert (found["of_those_run"]["count"], found["of_those_run"]["of"]) == (1, 1)
    assert found["notebooks"] == {"x": 1}
    assert [row["was"] for row in found["survivors"]] == ["1", "3"]
    assert [row["was"] for row in found["undecided"]] == ["2"]


def test_quick_notebooks_are_asked_first(monkeypatch, tmp_path):
    monkeypatch.setattr(mutation.times, "read", lambda: {"a": 9.0, "b": 3.0})
    paths = [tmp_path / f"{name}.ipynb" for name in "abc"]
    assert [path.stem for path in mutation.quickest_first(paths)] == ["b", "a", "c"]
    assert [path.stem for path in mutation.quickest_first(paths, 5)] == ["b"]


def test_the_record_holds_every_change_that_was_drawn():
    found = records.recorded("mutation")["results"]
    assert mutation.summary(found["drawn"], mutation.reasons()).items() <= found.items()


def test_the_status_page_shows_what_is_on_record():
    killed = records.recorded("mutation")["results"]["killed"]
    page = "\n".join(status.tables())
    assert f"{killed['count']} of {killed['of']}, {killed['count'] / killed['of']:.1%}" in page
    assert killed["count"] / killed["of"] >= 0.9


def test_the_status_page_shows_what_the_book_alone_notices(monkeypatch):
    found = records.recorded("mutation_book")["results"]
    noticed = found["noticed"]
    page = "\n".join(status.tables())
    assert f"{noticed['count']} of {noticed['of']}, " in page.split("noticed by the book alone")[1]
    rows = [row for key in ("killed", "survivors", "undecided") for row in found[key]]
    assert len(rows) == noticed["of"]
    assert noticed["count"] == len(found["killed"]) == sum(found["notebooks"].values())
    drawn = {(row["was"], row["now"]) for row in records.recorded("mutation")["results"]["drawn"]}
    assert all((row["was"], row["now"]) in drawn for row in rows)
    monkeypatch.setattr(status.paths, "RECORDED", paths.BUILD, raising=False)
    assert "*not measured*" in "\n".join(status.tables())
