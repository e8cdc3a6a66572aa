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
NOTEBOOKS = ("chapters", "report")  # folders of pages that are notebooks
PICTURES = {  # that the first page may show, as data/NAME.png
    "helpful": ("02_leave_one_out", "fig-helpful"),
    "refits": ("02_leave_one_out", "fig-refits"),
    "retrained": ("16_quiet_truth", "fig-quiet-scatter"),
    "ihvp": ("06_regularisation", "fig-error-rate"),
    "density": ("07_density", "fig-density"),
    "noise": ("18_label_noise", "fig-led"),
}


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
    pages = [page for page in contents(root) if page.parent.name in NOTEBOOKS]
    named = [_executed(root, notebooks, page) for page in pages]
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


def contents(root: Path) -> list[Path]:
    """The pages that ``_toc.yml`` names, the first one first."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    parts = (part["chapters"] for part in toc["parts"])
    return [Path(toc["root"]), *(Path(page["file"]) for part in parts for page in part)]


def collect(root: Path, notebooks: Path, book: Path) -> None:
    """Put together what Jupyter Book reads: pages, notebooks, and pictures of the first page."""
    for folder in (*NOTEBOOKS, "data"):
        (book / folder).mkdir(parents=True)
    texts = [f"{page}.md" for page in contents(root) if page.parent.name not in NOTEBOOKS]
    for name in (*BOOK, *texts):
        shutil.copy(root / name, book)
    templates = {path.stem for path in (root / "report").glob("*.md")}
    for path in (*notebooks.glob("*.ipynb"), *_templates(root, notebooks)):
        shutil.copy(path, book / ("report" if path.stem in templates else "chapters"))
    first_page = (root / "intro.md").read_text(encoding="utf-8")
    wanted = {name: at for name, at in PICTURES.items() if f"data/{name}.png" in first_page}
    for name, (chapter, figure) in wanted.items():
        shown = picture(notebooks / f"{chapter}.ipynb", figure)
        (book / "data" / f"{name}.png").write_bytes(shown)


def _executed(root: Path, notebooks: Path, page: Path) -> Path:
    """The notebook of a page; committed templates of reports lie in a folder of their own."""
    beside = page.parent.name == "report" and _committed(root, notebooks)
    return (root / "report" if beside else notebooks) / f"{page.name}.ipynb"


def _templates(root: Path, notebooks: Path) -> list[Path]:
    """The committed templates, where the committed chapters are built."""
    return sorted((root / "report").glob("*.ipynb")) if _committed(root, notebooks) else []


def _committed(root: Path, notebooks: Path) -> bool:
    return notebooks.resolve() == (root / "chapters").resolve()


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
