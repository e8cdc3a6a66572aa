"""Small chapters, and the comparison that `make test` runs, on one notebook."""

import subprocess
import sys
import textwrap
from pathlib import Path

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
    path = folder / f"{name}.md"
    blocks = [f"\n```{{code-cell}} ipython3\n{textwrap.dedent(cell)}\n```\n" for cell in cells]
    path.write_text(HEADER + "".join(blocks))
    return path


def nbval(notebook: Path, *more: str) -> subprocess.CompletedProcess:
    """The comparison that `make test` runs, on one notebook."""
    options = ["-p", "livebook.nbval_plugin", "--nbval", "--nbval-current-env", "-q", *more]
    quiet = ["-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null", "--rootdir", "/"]
    command = [sys.executable, "-m", "pytest", *options, *quiet, str(notebook)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
