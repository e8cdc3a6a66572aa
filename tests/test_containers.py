"""Image, dev container and Binder say what the book says; they are not built here."""

import json
import os
import re
import subprocess
import tomllib

import yaml

from livebook.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
LINES = [line.partition(" ") for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]
DEVCONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BINDER = (ROOT / ".binder" / "postBuild").read_text()


def lines(instruction):
    """The arguments of every such instruction of the Dockerfile."""
    return [rest.strip() for name, _, rest in LINES if name == instruction]


def test_everywhere_the_python_is_the_oldest_that_the_book_takes():
    oldest = re.search(r">=(\d+\.\d+)", PROJECT["requires-python"])[1]
    assert lines("FROM") == [f"python:{oldest}-slim AS base", "base AS book"]
    assert (ROOT / ".binder" / "runtime.txt").read_text() == f"python-{oldest}\n"
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                if "setup-python" in step.get("uses", ""):
                    assert step["with"]["python-version"].split()[-1] == oldest


def test_what_is_copied_is_there_and_what_is_built_is_not_copied():
    for line in lines("COPY"):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        assert all((ROOT / source).exists() for source in sources)
    left_out = set((ROOT / ".dockerignore").read_text().split())
    assert {".git", ".venv", "_build", "shared"} <= left_out
    named = {word for line in lines("COPY") for word in line.split()}
    for part in (PROJECT["readme"], *PROJECT["license-files"], "Makefile", "constraints.txt"):
        assert part in named  # the installation comes before the rest is copied


def test_nothing_is_installed_or_run_as_root_but_two_debian_packages():
    instructions = [name for name, _, _ in LINES]
    user = instructions.index("USER")
    assert "pip" not in " ".join(rest for _, _, rest in LINES[:user])
    assert lines("USER") == ["1000"]
    assert "--uid 1000 reader" in DOCKERFILE
    assert DEVCONTAINER["remoteUser"] == "reader"


def test_every_package_comes_in_the_version_that_was_tested():
    for command in re.findall(r"pip install [^&\n]*", DOCKERFILE + BINDER):
        assert "-c constraints.txt" in command
    pinned = (ROOT / "constraints.txt").read_text().replace("_", "-")
    for extra in PROJECT["optional-dependencies"]["lab"]:
        assert re.search(rf"^{re.match(r'[a-z-]+', extra)[0]}==", pinned, re.MULTILINE)


def test_what_is_called_exists():
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = set(re.findall(r"make (\w+)", text.stdout)) | {".venv/.installed"}
    (command,) = lines("CMD")
    called = [json.loads(command), DEVCONTAINER["postCreateCommand"].split()]
    called += [words.split() for words in re.findall(r"make \S+", " ".join(lines("RUN")))]
    assert all(make == "make" and target in targets for make, target in called if make == "make")
    assert (ROOT / re.search(r"^python (src\S+)", BINDER, re.MULTILINE)[1]).exists()
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)


def test_the_dev_container_builds_on_a_stage_of_the_image():
    build = DEVCONTAINER["build"]
    assert (ROOT / ".devcontainer" / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT
    assert any(line.endswith(f" AS {build['target']}") for line in lines("FROM"))
    url = DEVCONTAINER["containerEnv"]["PIP_EXTRA_INDEX_URL"]
    assert lines("ARG") == [f"PIP_EXTRA_INDEX_URL={url}"]
