"""What the README shows is what a reader gets."""

import re
import subprocess

from livebook.paths import CHAPTERS, ROOT
from livebook.picture import picture

TEXT = (ROOT / "README.md").read_text()


def test_the_readme_fits_its_limit():
    assert len(TEXT.splitlines()) <= 120


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["influence"].shape == (800, 200)
    assert names["history"].shape == (2, 800, 200)


def test_the_picture_is_the_one_of_the_chapter():
    shown = (ROOT / "data" / "helpful.png").read_bytes()
    assert shown == picture(CHAPTERS / "02_leave_one_out.ipynb", "fig-helpful")


def test_make_help_lists_what_the_readme_names():
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"make (\w+)", text.stdout))
    assert set(re.findall(r"`make (\w+)`", TEXT)) <= targets
    (rest,) = re.findall(r"lists the rest: (.*?)\.\n", TEXT, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", rest)) | {"help", "book", "test"} == targets


def test_every_path_it_names_is_there():
    for path in re.findall(r"\]\(([^)#:]+)\)|^\| `([^`* ]+)` ", TEXT, re.MULTILINE):
        assert (ROOT / "".join(path)).exists(), path
