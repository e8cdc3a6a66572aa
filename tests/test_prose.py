"""What a reader reads: no measured number typed, every figure told in words, two exercises."""

import re

import nbformat
import pytest

from livebook.notebooks import sources
from livebook.paths import ROOT
from livebook.site import contents

SHOWN = list(sources().values())
CHAPTERS = [path for path in SHOWN if path.parent.name == "chapters"]
TEXTS = [ROOT / f"{page}.md" for page in contents(ROOT) if (ROOT / f"{page}.md") not in SHOWN]
CELL = re.compile(r"^```\{code-cell\}.*?^```$", re.MULTILINE | re.DOTALL)
NO_PROSE = [
    re.compile(r"\A---\n.*?\n---\n", re.DOTALL),  # the header
    re.compile(r"^(`{3,})[a-z]+\n.*?^\1$", re.MULTILINE | re.DOTALL),  # code that is shown
    re.compile(r"^`{3,}.*$", re.MULTILINE),
    re.compile(r"^:[\w-]+:.*$", re.MULTILINE),  # options of a directive
    re.compile(r"\$\$.*?\$\$", re.DOTALL),
    re.compile(r"\$[^$]+\$"),
    re.compile(r"\{[\w:-]+\}`[^`]*`"),  # glue, citations, references
    re.compile(r"`[^`]*`"),
    re.compile(r"\]\([^)]*\)|arXiv:\s*[\d.]+"),  # where a link leads
]
# What is measured has decimals or is a share; numbers that count or name are whole.
NUMBER = re.compile(r"(?<![\w.])(\d*\.\d+|\d+e[-+]?\d+|\d+(?= (?:and \d+ )?%))(?!\.?\d)")
FIXED = ("prediction", "a case for pencil and paper")  # before the run, and without one


def prose(text: str) -> str:
    """The text with a blank for whatever is no prose; line and column stay."""
    for pattern in (CELL, *NO_PROSE):
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


def typed(text: str) -> list[str]:
    """Line and number of what is typed in the prose and is no setting of the code.

    A setting stands in a code cell too, a share there as a fraction. A tolerance that was fixed
    before the run stands under *Prediction*; what is computed by hand has a section of its own.
    """
    code = "\n".join(CELL.findall(text))
    settings = {float(number) for number in re.findall(r"(?<![\w.])\d*\.?\d+(?:e-?\d+)?", code)}
    section, found = "", []
    for line_number, line in enumerate(prose(text).splitlines(), 1):
        if line.startswith("## "):
            section = line.removeprefix("## ").strip().lower()
        for number in NUMBER.findall(line):
            value = float(number)
            known = {value} if "." in number or "e" in number else {value, value / 100}
            if not known & settings and section not in FIXED:
                found.append(f"{line_number}: {number}")
    return found


@pytest.mark.parametrize("path", [*SHOWN, *TEXTS], ids=lambda path: path.stem)
def test_no_measured_number_is_typed(path):
    assert typed(path.read_text()) == []


HEAD = "# A chapter\n\n```{code-cell} ipython3\nridges = [0.01, 1.0]\nwrong = 0.2\n```\n\n"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("At ridge 0.01 the error is 0.73.", ["8: 0.73"]),
        ("Of 20 % wrong labels\nit finds 81 %.", ["9: 81"]),
        ("It finds 81 and 90 %, and errs by 3e-4.", ["8: 81", "8: 90", "8: 3e-4"]),
        ("It finds {glue:text}`share:.0f` %, at $p = 0.3$ and `0.4`, [here](a/0.5).", []),
        ("## Prediction\n\nAt most 0.7.\n\n## Results\n\nIt is 0.6.", ["14: 0.6"]),
        ("Chapter 12, equation (4), 5,000 images, MNIST in 2022, 28 x 28.", []),
        ("```{admonition} Note\nIt is 0.6.\n```", ["9: 0.6"]),
        ("In Python 3.11.5.", []),
    ],
)
def test_a_measured_number_is_told_from_a_setting(text, numbers):
    assert typed(HEAD + text) == numbers


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_a_picture_has_a_caption_a_name_and_a_text(path):
    names = []
    for cell in nbformat.read(path.with_suffix(".ipynb"), 4).cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            about = cell.metadata.get("mystnb", {})
            figure, image = about.get("figure", {}), about.get("image", {})
            assert len(figure.get("caption", "")) > 20, cell.source
            assert len(image.get("alt", "")) > 20, cell.source
            assert re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")), cell.source
            names.append(figure["name"])
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", [*SHOWN, *TEXTS], ids=lambda path: path.stem)
def test_a_picture_in_the_text_has_them_too(path):
    text = path.read_text()
    for body in re.findall(r"^```\{figure\}.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        assert re.search(r"^:name: fig-", body, re.MULTILINE)
        assert re.search(r"^:alt: .{20}", body, re.MULTILINE)
        assert re.sub(r"^:.*\n", "", body, flags=re.MULTILINE).strip()
    assert not re.search(r"!\[.{0,19}\]\(", text)
    assert text.count(":img-top:") == len(re.findall(r"^:img-alt: .{20}", text, re.MULTILINE))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_two_or_three_exercises_with_solutions(path):
    text = path.read_text()
    exercises = re.findall(r"\{exercise-start\}.*?\n:label: (\S+)", text)
    solutions = re.findall(r"\{solution-start\} (\S+)\n:class: dropdown", text)
    assert exercises == solutions
    assert 2 <= len(exercises) <= 3


def test_no_label_is_given_twice():
    texts = "\n".join(path.read_text() for path in [*SHOWN, *TEXTS])
    labels = re.findall(r"^:label: (\S+)|^\(([\w-]+)\)=$", texts, re.MULTILINE)
    names = ["".join(label) for label in labels]
    assert sorted(names) == sorted(set(names))
