"""Ask every link of the book whether it still leads somewhere: ``python -m livebook.links``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from . import paths, site

CLOSED = "403"  # a publisher that answers browsers alone; no sign that the page is gone


def broken(root: Path, notebooks: Path) -> list[str]:
    """Page, line, address and reason of each link that leads nowhere."""
    folder = root / "_build" / "links"
    shutil.rmtree(folder, ignore_errors=True)
    site.collect(root, notebooks, folder / "book")
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["--path-output", folder, "--builder", "linkcheck", "-q"]
    command = [program, "build", folder / "book", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = folder / "_build" / "html" / "output.json"
    if not found.exists():
        raise SystemExit(f"links: expected a report of Sphinx, got\n{done.stdout}{done.stderr}")
    rows = map(json.loads, found.read_text(encoding="utf-8").splitlines())
    return [
        f"{row['filename']}:{row['lineno']} {row['uri']}: {row['info']}"
        for row in rows
        if row["status"] in ("broken", "timeout") and not row["info"].startswith(CLOSED)
    ]


def main() -> None:
    """Print what is broken; a failure if anything is."""
    found = broken(paths.ROOT, paths.CHAPTERS)
    print("\n".join(found) or "every link leads somewhere")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
