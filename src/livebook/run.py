"""Execute chapters through papermill: ``python -m livebook.run --to FOLDER [CHAPTER ...]``."""

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import papermill
import psutil
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from . import notebooks, paths, profiles, times, workers

STOPS = (signal.SIGINT, signal.SIGTERM)
BAR = "{desc:<24} cell {n_fmt}/{total_fmt}  {elapsed}"


class ThisPython(AsyncKernelManager):
    """Starts the kernel with this interpreter, whatever kernels Jupyter finds elsewhere."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """The kernel that the installed ipykernel describes."""
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

    async def start_kernel(self, **options: object) -> None:
        """Without the messages of the kernel itself; what a cell prints goes another way."""
        await super().start_kernel(stderr=subprocess.DEVNULL, **options)

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """At once, unless it has processes of its own: these it has to tidy up itself."""
        with contextlib.suppress(psutil.NoSuchProcess):
            now = now or not psutil.Process(self.provisioner.pid).children()
        await super().shutdown_kernel(now=now, restart=restart)


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop; its number is the argument."""


def execute(source: Path, parameters: dict, timeout: int, bar: bool = True) -> str:
    """The text of the executed notebook; a failure is one sentence that names chapter and cell."""
    with tempfile.TemporaryDirectory() as folder:
        draft, result = Path(folder, "draft.ipynb"), Path(folder, "result.ipynb")
        nbformat.write(notebooks.read_source(source), draft)
        progress = {"desc": source.stem, "bar_format": BAR, "file": sys.stdout}
        try:
            papermill.execute_notebook(
                draft,
                result,
                parameters=parameters,
                cwd=source.parent,
                kernel_name="python3",
                kernel_manager_class=ThisPython,
                progress_bar=progress if bar else False,
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
        raise SystemExit(
            f"{source.parent.name}/{source.name}, cell {_stopped_at(result)}: {reason}"
        )


def _stopped_at(result: Path) -> str:
    """The number of the cell that was begun last, counted as in the source."""
    added = {"papermill-error-cell-tag", "injected-parameters"}
    cells = nbformat.read(result, 4).cells if result.exists() else []
    cells = [cell for cell in cells if not added & set(cell.metadata.get("tags", []))]
    begun = [cell.metadata.get("papermill", {}).get("start_time") for cell in cells]
    return str(max((number for number, start in enumerate(begun) if start), default="unknown"))


def _work(
    source: Path, parameters: dict, timeout: int, folder: str, alone: bool, surroundings: dict
) -> str:
    """One chapter in its own process, with temporary files in the folder."""
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    os.environ.update(surroundings)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what a stopped run did not await
    return execute(source, parameters, timeout, bar=alone)


def run(sources: dict[str, Path], profile: dict, options: argparse.Namespace) -> None:
    """Execute the chapters, the longest first, and write all notebooks once all succeeded."""
    order = times.longest_first(list(sources), _profile_name(options))
    side_by_side = options.jobs or max(1, workers.usable_cores() // (options.workers or 1))
    jobs = min(side_by_side, len(sources))
    texts, seconds = {}, {}
    with tempfile.TemporaryDirectory(dir=paths.BUILD, ignore_cleanup_errors=True) as folder:
        rest = (options.timeout, folder, jobs == 1, _surroundings(options, jobs == 1))
        tasks = {name: (sources[name], profile.get(name, {}), *rest) for name in order}
        for name, text, duration in workers.side_by_side(_work, tasks, jobs):
            if text is not None:
                texts[name], seconds[name] = text, round(duration, 1)
                print(f"{name:<24} done in {seconds[name]} s", flush=True)
            elif jobs > 1:
                print(f"{name:<24} started", flush=True)
    _ignore_signals()
    results = [(target(options.to, sources[name]), texts[name]) for name in sources]
    kept = times.merged(_profile_name(options), seconds)
    paths.write_atomically(*results, (times.file(), kept))


def _surroundings(options: argparse.Namespace, alone: bool) -> dict[str, str]:
    """What a chapter's environment says: one thread unless alone, and who takes its rows."""
    said = {} if alone else {"OMP_NUM_THREADS": "1"}
    if options.workers or options.cluster:
        said["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
        said["BOOK_WORKERS"] = str(options.workers or 1)
        said["BOOK_CLUSTER"] = options.cluster or ""
    return said


def _profile_name(options: argparse.Namespace) -> str:
    return options.profile.stem if options.profile else "default"


def chosen(options: argparse.Namespace) -> tuple[dict[str, Path], dict]:
    """The sources to execute and the profile; ``ValueError`` if anything asked for is not there."""
    sources = notebooks.sources()
    for name in options.chapters:
        profiles.known("chapter", name, sources)
    profile = {}
    if options.profile:
        profile = profiles.read(options.profile)
        profiles.check(options.profile, profile, sources)
        for name in options.chapters:
            profiles.known(f"chapter of {options.profile}", name, profile)
    wanted = dict.fromkeys(options.chapters) or profile or sources
    wanted = {name: path for name, path in sources.items() if name in wanted}
    for path in wanted.values():
        notebooks.read_source(path)
    for folder in (options.to, paths.BUILD):
        paths.check_writable(folder)
    if options.cluster:
        from . import sweeps  # with torch, which takes a second

        sweeps.reach(options.cluster).close()
    for name in wanted:
        if (path := target(options.to, wanted[name])).is_dir():
            raise ValueError(f"{path}: expected a file, got a folder")
    return wanted, profile


def target(folder: Path, source: Path) -> Path:
    """Where a notebook is written: in the folder, or beside its source if that is the chapters'."""
    committed = folder.resolve() == paths.CHAPTERS.resolve()
    return source.with_suffix(".ipynb") if committed else folder / f"{source.stem}.ipynb"


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text}")
    return number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into one exception, so that what was begun is tidied up."""
    before = {number: signal.signal(number, _interrupted) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(number: int, frame: object) -> None:
    _ignore_signals()
    raise Interrupted(number)


def _ignore_signals() -> None:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Execute the chapters, and put the notebooks into the folder once all of them succeeded."""
    parser = argparse.ArgumentParser(prog="python -m livebook.run", description=main.__doc__)
    parser.add_argument("chapters", nargs="*", help="such as 02_leave_one_out; all by default")
    parser.add_argument("--to", type=Path, required=True, help="folder for the notebooks")
    parser.add_argument("--profile", type=Path, help="YAML file: chapter -> parameters")
    parser.add_argument("--timeout", type=_positive, default=900, help="seconds for one cell")
    parser.add_argument("--jobs", type=_positive, help="chapters side by side; cores over workers")
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument("--workers", type=_positive, help="processes for the rows of a chapter")
    rows.add_argument("--cluster", help="address of a Dask scheduler, for these rows")
    options = parser.parse_args()
    try:
        with interruptible():
            run(*chosen(options), options)
    except (ValueError, RuntimeError, OSError) as error:
        raise SystemExit(str(error)) from error
    except Interrupted as stop:
        print(
            "interrupted: nothing was written; checkpoints of long runs are kept", file=sys.stderr
        )
        raise SystemExit(128 + stop.args[0]) from None


if __name__ == "__main__":
    main()
