"""A plugin of pytest's: which lines of a package the cells of a notebook run.

``COVERED`` names the folder of the package, ``COVERAGE_FILE`` the file that coverage.py writes.
"""

import os

import pytest
from nbval.plugin import IPyNbFile

BEGIN = "import coverage; coverage.Coverage(source=[{!r}]).start()"
END = "import coverage; c = coverage.Coverage.current(); c.stop(); c.save()"


def _in_kernel(file: IPyNbFile, code: str) -> None:
    reply = file.kernel.kc.execute_interactive(code, silent=True, timeout=600)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"coverage: {reply['ename']}: {reply['evalue']}")


@pytest.hookimpl(trylast=True)  # around what livebook.nbval_plugin has put there
def pytest_configure(config: pytest.Config) -> None:
    """Begin when a kernel has been started, end before it is stopped."""
    setup, teardown = IPyNbFile.setup, IPyNbFile.teardown

    def begin(file: IPyNbFile) -> None:
        setup(file)
        _in_kernel(file, BEGIN.format(os.environ["COVERED"]))

    def end(file: IPyNbFile) -> None:
        _in_kernel(file, END)
        teardown(file)

    IPyNbFile.setup, IPyNbFile.teardown = begin, end
