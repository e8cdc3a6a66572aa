"""Test the library under other versions: ``python -m livebook.versions [NAME ...]``."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from .paths import BUILD, RECORDED, ROOT, write_atomically

NAMES = ("3.11", "3.12", "3.13", "newest")
CONSTRAINTS = ROOT / "constraints.txt"
NEEDS = ("pytest", "hypothesis", "beartype", "mpmath")
SHOWN = ("torch", "numpy", "jaxtyping", "mlxtend", "pooch", "tqdm", *NEEDS)
BOOK = re.compile("livebook|studies")
SLOW = ("test_mutants.py",)  # the same tests, once for every wrong formula


def library_tests() -> list[Path]:
    """The test files that need the library alone, without the book's machinery."""
    tests = (path for path in sorted((ROOT / "tests").glob("test_*.py")) if path.name not in SLOW)
    return [path for path in tests if not BOOK.search(path.read_text(encoding="utf-8"))]


def interpreter(name: str) -> str | None:
    """The command that starts this Python; None where there is none, or only a stub of it."""
    if name == "newest":
        return sys.executable
    try:
        done = subprocess.run([f"python{name}", "--version"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return f"python{name}" if done.returncode == 0 else None


def constraints(name: str) -> list[str]:
    """Pip's options: the newest versions but for torch, whose newest build may be a huge one."""
    if name != "newest":
        return ["-c", str(CONSTRAINTS)]
    return re.findall(r"^torch==.*$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)


def check(name: str) -> dict:
    """Install the library into a fresh environment and run its unit tests there."""
    python = interpreter(name)
    if python is None:
        return _row(f"not tested: no python{name} here")
    folder = BUILD / "versions" / name
    inside = str(folder / "bin" / "python")
    install = ["install", "--quiet", "--disable-pip-version-check", *constraints(name)]
    steps = (
        ("environment", [python, "-m", "venv", "--clear", str(folder)]),
        ("installation", [inside, "-m", "pip", *install, *NEEDS, "-e", str(ROOT)]),
        ("tests", [inside, "-m", "pytest", "-q", *library_tests()]),
    )
    for step, command in steps:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        last = ((done.stdout + done.stderr).strip().splitlines() or [""])[-1]
        if done.returncode:
            return _row(f"{step}: {last}", False, inside)
    return _row(last.rpartition(" in ")[0], True, inside)


def _row(summary: str, passed: bool | None = None, python: str | None = None) -> dict:
    found = _versions(python) if python and Path(python).exists() else {}
    return {
        "python": found.pop("python", None),
        "versions": found,
        "passed": passed,
        "summary": summary,
    }


def _versions(python: str) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json, platform;"
        "print(json.dumps({d.name.lower(): d.version for d in m.distributions()}"
        " | {'python': platform.python_version()}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return {name: found[name] for name in ("python", *SHOWN) if name in found}


def main() -> None:
    """Test the library under each version, and write what came out."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--record", action="store_true", help="also into data/recorded")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"version: expected one of {', '.join(NAMES)}, got {name!r}")
    rows = {}
    for name in options.names or NAMES:
        rows[name] = check(name)
        print(f"{name:<8} {rows[name]['summary']}", flush=True)
    text = json.dumps(rows, indent=1) + "\n"
    folders = (BUILD, RECORDED) if options.record else (BUILD,)
    write_atomically(*((folder / "versions.json", text) for folder in folders))
    sys.exit(any(row["passed"] is False for row in rows.values()))


if __name__ == "__main__":
    main()
