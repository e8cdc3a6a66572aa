"""The comparison that `make test` makes finds what it should, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from small_book import chapter

from livebook import run
from livebook.nbval_plugin import _text, agree


@pytest.mark.parametrize(
    ("reference", "new", "rtol", "same"),
    [
        ("slope -0.5000001", "slope -0.5000002", 1e-6, True),
        ("slope -0.5001", "slope -0.5002", 1e-6, False),
        ("slope -0.5001", "slope -0.5002", 1e-2, True),
        ("3 points", "4 points", 0.5, False),
        ("slope 0.5", "Slope 0.5", 1e-6, False),
        ("1e-10", "1e-11", 1e-6, False),
        ("a 0.1 b 0.2", "a 0.1", 1e-6, False),
        ("-0.5", "0.5", 1e-6, False),
        ("nan", "0.5", 1e-6, False),
        ("v1.2.3", "v1.2.4", 1.0, False),
    ],
)
def test_numbers_may_differ_within_the_tolerance_and_text_may_not(reference, new, rtol, same):
    assert agree(reference, new, rtol) is same


def nbval(notebook: Path) -> subprocess.CompletedProcess:
    """The comparison that `make test` runs, on one notebook."""
    options = ["-p", "livebook.nbval_plugin", "--nbval", "--nbval-current-env", "-q"]
    quiet = ["-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null", "--rootdir", "/"]
    command = [sys.executable, "-m", "pytest", *options, *quiet, str(notebook)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The text of an executed notebook with a float, a text, a picture and an explorer."""
    folder = tmp_path_factory.mktemp("executed")
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    survey = "from livebook.explorer import explorer\nexplorer([{'f': x / 7}], ['data:,'])"
    source = chapter(folder, "small", "print('ratio', x / 3)", plot, survey)
    return run.execute(source, {}, 120)


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
    ],
    ids=[
        *("as is", "last digit", "third digit", "text", "picture", "not executed"),
        *("number of the explorer", "page of the explorer"),
    ],
)
def test_nbval_finds_what_it_should(executed, tmp_path, old, new, outcome):
    notebook = tmp_path / "small.ipynb"
    notebook.write_text(executed.replace(old, new))
    result = nbval(notebook)
    assert result.returncode == outcome, result.stdout


def test_the_order_of_keys_in_an_output_does_not_matter():
    one, other = {"claim": "a", "measured": "1.61"}, {"measured": "1.66", "claim": "a"}
    assert agree(_text([one]), _text([other]), 0.1)
    assert not agree(_text([one]), _text([other]), 0.01)
