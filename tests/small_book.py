"""Chapters of a test's own, what runs them, and the comparison that `make test` makes."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from livebook import paths, run

HEADER = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A chapter

```{code-cell} ipython3
:tags: [parameters]

x = 2.0
```
"""


def chapter(folder: Path, name: str, *cells: str) -> Path:
    """A chapter with the given cells after a parameters cell; a cell may begin with ``:tags:``."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.md"
    blocks = [f"\n```{{code-cell}} ipython3\n{textwrap.dedent(cell)}\n```\n" for cell in cells]
    path.write_text(HEADER + "".join(blocks))
    return path


def start(book: Path, *arguments: object, **options: object) -> subprocess.Popen:
    """`python -m livebook.run` on the chapters in ``book``, which builds in ``book/_build``."""
    code = f"""
from pathlib import Path
from livebook import paths, run
book = Path({str(book)!r})
paths.CHAPTERS, paths.BUILD = book / "chapters", book / "_build"
paths.RECORDED = book / "data" / "recorded"
run.main()
"""
    command = [sys.executable, "-c", code, "--to", book / "target", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(part) for part in command], **output, **options)


def refused(monkeypatch: pytest.MonkeyPatch, book: Path, *arguments: object) -> str:
    """The one sentence with which such a run stops before it executes anything."""
    monkeypatch.setattr(paths, "CHAPTERS", book / "chapters")
    monkeypatch.setattr(paths, "BUILD", book / "_build")
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("the chapters were executed"))
    monkeypatch.setattr(sys, "argv", ["run", "--to", str(book / "target"), *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run.main()
    return str(stop.value)


def finished(book: Path, *arguments: object, **options: object) -> tuple[int, str]:
    """The exit status of such a run and what it printed."""
    with start(book, *arguments, **options) as process:
        output = process.communicate(timeout=120)[0]
    return process.returncode, output.strip()


def nbval(notebook: Path, *more: str) -> subprocess.CompletedProcess:
    """The comparison that `make test` runs, on one notebook."""
    options = ["-p", "livebook.nbval_plugin", "--nbval", "--nbval-current-env", "-q", *more]
    quiet = ["-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null", "--rootdir", "/"]
    command = [sys.executable, "-m", "pytest", *options, *quiet, str(notebook)]
    alone = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
