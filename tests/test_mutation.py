"""The mutation score on a toy library: what survives is told, and finished mutants are kept."""

import json
import sys

import pytest

from livebook import records, status
from livebook.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
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

    def changed(_, module: str, name: str, __: int) -> mutation.Mutant:
        was, now = CHANGES[name]
        line = SOURCE[: SOURCE.index(was)].count("\n") + 1
        return mutation.Mutant(module, line, name, was, now, SOURCE.replace(was, now))

    positions = [("arithmetic", name, 0) for name in CHANGES]
    monkeypatch.setattr(mutation, "positions", lambda _: list(positions))
    monkeypatch.setattr(mutation, "mutant", changed)
    monkeypatch.setattr(mutation, "SECONDS", 3)
    return library, [file], tmp_path / "kept"


def test_what_is_noticed_and_what_survives_and_finished_mutants_are_kept(toy):
    rows = {row["operator"]: row["noticed"] for row in mutation.run(*toy, len(CHANGES), 0)}
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
    mutation.run(*toy, len(CHANGES), 0)
    assert (toy[2] / "rows.jsonl").read_text().splitlines() == written
    toy[1][0].write_text(TEST + "\n\ndef test_twice():\n    assert arithmetic.unused(2) == 4\n")
    mutation.run(*toy, len(CHANGES), 0)
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
        mutation.run(library, [file], kept, 1, 0)


def test_the_tool_changes_what_computes_and_spares_texts_and_the_star_of_options(tmp_path):
    pytest.importorskip("cosmic_ray")
    source = 'def f(a, *, b: int | None = 1):\n    return f"{a + 1}", a - b\n'
    (tmp_path / "module.py").write_text(source)
    made = [mutation.mutant(tmp_path, *at) for at in mutation.positions(tmp_path)]
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


def test_the_status_page_shows_what_is_on_record():
    killed = records.recorded("mutation")["results"]["killed"]
    page = "\n".join(status.tables())
    assert f"{killed['count']} of {killed['of']}, {killed['count'] / killed['of']:.1%}" in page
    assert killed["count"] / killed["of"] >= 0.9
