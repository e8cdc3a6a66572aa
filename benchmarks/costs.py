"""What one call of a library costs; a large one in a process of its own, stopped at a limit.

Seconds are those of the processor, one thread: on a machine that others use as well they are what
the call takes, where the clock on the wall is not.
"""

import ctypes
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import psutil
from torch import Tensor

MOST_MIB = 1536
Timed = tuple[Tensor, float, float, float]


def timed(action: Callable[[], Tensor]) -> Timed:
    """A result, seconds of the processor and of the clock, and growth of the peak memory in MiB."""
    ctypes.CDLL(None).malloc_trim(0)  # what is freed goes back, so that it is counted if used again
    Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    before, wall, processor = _peak_mib(), time.perf_counter(), time.process_time()
    found = action()
    spent = time.process_time() - processor, time.perf_counter() - wall
    return found, *spent, _peak_mib() - before


def against(closed: Callable[[], Tensor], action: Callable[[], Tensor]) -> tuple[Tensor, dict]:
    """Scores and their cost, with its ratio to that of the closed form in the same process."""
    found, seconds, wall, mib = timed(action)
    base = timed(closed)[1]
    if base < 0.1:  # a first call, and scheduling, weigh on it
        base = median(timed(closed)[1] for _ in range(9))
    costs = {"seconds": seconds, "closed_form_seconds": base, "ratio": seconds / base}
    return found, costs | {"wall_seconds": wall, "peak_mib": mib}


def say(kind: str, row: dict) -> None:
    """A line for `watched_rows`."""
    print(json.dumps({kind: row}), flush=True)


def watched_rows(most_seconds: float, *command: str) -> Iterator[dict]:
    """A row for each method: the command is given 0, 1, ... until it has nothing to start."""
    for index in range(100):
        row = _watched([sys.executable, *command, str(index)], most_seconds)
        if row is None:
            return
        print(json.dumps(row), flush=True)
        yield row


def _watched(command: list[str], most_seconds: float) -> dict | None:
    """The row that a process says, or why it has none; None if it has started nothing."""
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        with output.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err)
        watched, reason, base = psutil.Process(process.pid), None, None
        while process.poll() is None and reason is None:
            time.sleep(0.1)
            try:
                spent, mib = watched.cpu_times().user, watched.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                break
            if base is None and "started" in _said(output):
                base = spent
            if base is not None and spent - base > most_seconds:
                reason = f"more than {most_seconds:g} s"
            if mib > MOST_MIB:
                reason = f"more than {MOST_MIB / 1024:g} GiB"
        if reason is not None:
            process.kill()
        process.wait()
        said = _said(output)
        if reason is None and process.returncode:
            reason = errors.read_text().strip().splitlines()[-1][:120]
    if reason is None:
        return said.get("row")
    return said.get("started", {}) | {"unfinished": reason}


def _said(output: Path) -> dict:
    """The lines of `say` in what a process has written so far."""
    said = {}
    for line in output.read_text().splitlines():
        if line.startswith(('{"started"', '{"row"')) and line.endswith("}"):
            said |= json.loads(line)
    return said


def _peak_mib() -> float:
    """The largest resident memory of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
