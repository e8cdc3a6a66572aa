"""Execute chapters through papermill: ``python -m livebook.run --to FOLDER [CHAPTER ...]``."""

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
import yaml
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from . import notebooks
from .paths import BUILD, CHAPTERS, write_atomically

BAR = "{desc:<24} cell {n_fmt}/{total_fmt}  {elapsed}"


def execute(source: Path, parameters: dict, timeout: int) -> str:
    """The text of the executed notebook; a failure is one sentence that names chapter and cell."""
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        draft, result = Path(folder, "draft.ipynb"), Path(folder, "result.ipynb")
        nbformat.write(notebooks.read_source(source), draft)
        try:
            papermill.execute_notebook(
                draft,
                result,
                parameters=parameters,
                cwd=CHAPTERS,
                kernel_name="python3",
                progress_bar={"desc": source.stem, "bar_format": BAR, "file": sys.stdout},
                execution_timeout=timeout,
            )
        except papermill.PapermillExecutionError as error:
            reason = f"{error.ename}: {error.evalue}"
        except DeadKernelError:
            reason = "the kernel died (out of memory, or killed from outside?)"
        except CellTimeoutError:
            reason = f"no answer within {timeout} s"
        else:
            return notebooks.clean(nbformat.read(result, 4))
        raise SystemExit(f"chapters/{source.name}, cell {_stopped_at(result)}: {reason}")


def _stopped_at(result: Path) -> str:
    """The number of the cell that was begun last, counted as in the source."""
    added = {"papermill-error-cell-tag", "injected-parameters"}
    cells = nbformat.read(result, 4).cells if result.exists() else []
    cells = [cell for cell in cells if not added & set(cell.metadata.get("tags", []))]
    begun = [cell.metadata.get("papermill", {}).get("start_time") for cell in cells]
    return str(max((number for number, start in enumerate(begun) if start), default="unknown"))


def main() -> None:
    """Execute the chapters, and put the notebooks into the folder once all of them succeeded."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("chapters", nargs="*", help="such as 02_leave_one_out; all by default")
    parser.add_argument("--to", type=Path, required=True, help="folder for the notebooks")
    parser.add_argument("--profile", type=Path, help="YAML file: chapter -> parameters")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one cell")
    options = parser.parse_args()
    known = {path.stem: path for path in sorted(CHAPTERS.glob("*.md"))}
    profile = yaml.safe_load(options.profile.read_text("utf-8")) if options.profile else {}
    wanted = options.chapters or [name for name in known if not options.profile or name in profile]
    for name in wanted:
        if name not in known:
            parser.error(f"chapter: expected one of {', '.join(known)}, got {name!r}")
    BUILD.mkdir(exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    texts, seconds = {}, {}
    for name in wanted:
        started = time.perf_counter()
        texts[name] = execute(known[name], profile.get(name, {}), options.timeout)
        seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name:<24} done in {seconds[name]} s", flush=True)
    results = [(options.to / f"{name}.ipynb", text) for name, text in texts.items()]
    write_atomically(*results, (BUILD / "run_times.json", json.dumps(seconds)))


if __name__ == "__main__":
    main()
