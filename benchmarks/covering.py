"""A plugin of pytest's: which lines of a package the cells of a notebook run.

``COVERED`` names the folder of the package, ``COVERAGE_FILE`` the file that coverage.py writes.
"""

import os

import pytest
from nbval.plugin import IPyNbFile

BEGIN = "import coverage; coverage.Coverage(source=[{!r}], data_suffix=False).start()"
END = "coverage.Coverage.current().stop(); coverage.Coverage.current().save()"
_setup, _teardown = IPyNbFile.setup, IPyNbFile.teardown


def _in_kernel(file: IPyNbFile, code: str) -> None:
    reply = file.kernel.kc.execute_interactive(code, silent=True, timeout=600)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"coverage: {reply['ename']}: {reply['evalue']}")


def _begin(file: IPyNbFile) -> None:
    _setup(file)
    _in_kernel(file, BEGIN.format(os.environ["COVERED"]))


def _end(file: IPyNbFile) -> None:
    _in_kernel(file, END)
    _teardown(file)


def pytest_configure(config: pytest.Config) -> None:
    """Put the two functions above around nbval's own."""
    IPyNbFile.setup, IPyNbFile.teardown = _begin, _end
