"""Build the site from executed notebooks: ``python -m livebook.site [--notebooks FOLDER]``."""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml

from . import paths
from .picture import picture

BOOK = ("_config.yml", "_toc.yml", "references.bib")
TEXTS = ("intro.md", "guide.md", "api.md", "status.md", "bibliography.md")
PICTURE = ("02_leave_one_out.ipynb", "fig-helpful", "helpful.png")


def build(root: Path, notebooks: Path) -> Path:
    """Build aside, and put the new site in the place of the old one once it is complete."""
    check(root, notebooks)
    new, site = root / "_build" / "site.new", root / "_build" / "html"
    shutil.rmtree(new, ignore_errors=True)
    try:
        collect(root, notebooks, new / "book")
        jupyter_book(new, root / "_build" / "site.log")
        swap(new / "_build" / "html", site)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return site / "index.html"


def check(root: Path, notebooks: Path) -> None:
    """Every notebook that ``_toc.yml`` names is there, and every one that is there can be read."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [Path(chapter["file"]) for part in toc["parts"] for chapter in part["chapters"]]
    named = [notebooks / f"{page.name}.ipynb" for page in pages if page.parent.name == "chapters"]
    for path in sorted({*named, *notebooks.glob("*.ipynb")}):
        try:
            nbformat.validate(nbformat.reads(path.read_text(encoding="utf-8"), 4))
        except FileNotFoundError:
            raise SystemExit(f"{path}: expected an executed notebook, got no such file") from None
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise SystemExit(
                f"{path}: expected a notebook, got a damaged file ({reason})"
            ) from None


def collect(root: Path, notebooks: Path, book: Path) -> None:
    """Put together what Jupyter Book reads: pages, notebooks, and the picture of the first page."""
    for folder in ("chapters", "data"):
        (book / folder).mkdir(parents=True)
    for name in (*BOOK, *TEXTS):
        shutil.copy(root / name, book)
    for path in notebooks.glob("*.ipynb"):
        shutil.copy(path, book / "chapters")
    notebook, figure, name = PICTURE
    (book / "data" / name).write_bytes(picture(notebooks / notebook, figure))


def jupyter_book(folder: Path, log: Path) -> None:
    """Build ``<folder>/book`` into ``<folder>/_build/html``; a warning is a failure."""
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["--path-output", folder, "-W", "-n", "--keep-going", "-q"]
    done = subprocess.run(
        [program, "build", folder / "book", *options], capture_output=True, text=True, check=False
    )
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        print(done.stdout + done.stderr)
        raise SystemExit(f"site: expected a build without warnings, got the above ({log})")


def swap(new: Path, site: Path) -> None:
    """Put the new folder in the place of the old one, which stays if that fails."""
    old = site.with_name("html.old")
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.rename(old)
    try:
        new.rename(site)
    except OSError:
        if old.exists():
            old.rename(site)
        raise
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Build the site; the last good one stays unless the new one is complete."""
    parser = argparse.ArgumentParser(prog="python -m livebook.site", description=main.__doc__)
    parser.add_argument("--notebooks", type=Path, help="their folder; chapters by default")
    options = parser.parse_args()
    try:
        index = build(paths.ROOT, options.notebooks or paths.CHAPTERS)
    except (OSError, RuntimeError) as error:
        raise SystemExit(f"site: {error}") from error
    except KeyboardInterrupt:
        print("interrupted: the last site is as it was", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"The book: {index.as_uri()}")


if __name__ == "__main__":
    main()
