"""What the weekly workflow asks: links, versions; who may do what in a workflow."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from livebook import address, links, versions
from livebook.paths import ROOT

WORKFLOWS = {path.stem: path for path in (ROOT / ".github" / "workflows").glob("*.yml")}
WEEKLY = yaml.safe_load(WORKFLOWS["weekly"].read_text())
CONFIG = "title: A small book\nonly_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n"


class Guarded(SimpleHTTPRequestHandler):
    """A server of one folder that closes one address to all that are not browsers."""

    def do_GET(self):
        if self.path == "/closed.html":
            self.send_error(403)
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_a_link_that_leads_nowhere_is_named_and_one_that_is_closed_is_not(tmp_path):
    book, served = tmp_path / "book", tmp_path / "served"
    (book / "chapters").mkdir(parents=True)
    served.mkdir()
    (served / "here.html").write_text("here")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        pages = " ".join(f"[{name}]({at}/{name}.html)" for name in ("here", "gone", "closed"))
        (book / "intro.md").write_text(f"# A small book\n\n{pages}\n")
        (book / "references.bib").touch()
        toc = "format: jb-book\nroot: intro\nparts: [{caption: One, chapters: []}]\n"
        (book / "_toc.yml").write_text(toc.replace("[]", "[{file: more}]"))
        (book / "more.md").write_text("# More\n")
        (book / "_config.yml").write_text(CONFIG)
        (found,) = links.broken(book, book / "chapters")
        server.shutdown()
    assert found.startswith(f"intro.md:3 {at}/gone.html: 404")


def test_the_weekly_workflow_runs_everything_that_can_break_by_itself():
    steps = [step for job in WEEKLY["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    for command in ("make test", "make book", "make versions", "python -m livebook.links"):
        assert command in commands
    matrix = WEEKLY["jobs"]["versions"]["strategy"]["matrix"]
    assert matrix == {"python-version": list(versions.NAMES)}
    assert not any("cache" in step.get("with", {}) for step in steps)
    (url,) = (line for line in (ROOT / "_config.yml").read_text().splitlines() if "  url: " in line)
    assert url.split()[1] == address.address()  # as `sed` reads it there


def test_a_failure_opens_an_issue_and_only_that_job_may():
    tell = WEEKLY["jobs"]["tell"]
    assert tell["if"] == "failure()"
    assert set(tell["needs"]) == set(WEEKLY["jobs"]) - {"tell"}
    assert "gh issue create" in tell["steps"][0]["run"]
    assert tell["permissions"] == {"issues": "write"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_and_no_job_runs_for_ever(name):
    workflow = yaml.safe_load(WORKFLOWS[name].read_text())
    assert workflow["permissions"] == {"contents": "read"}
    writing = {job for job, what in workflow["jobs"].items() if "permissions" in what}
    assert writing == {"book": {"deploy"}, "weekly": {"tell"}}[name]
    for step in (step for job in workflow["jobs"].values() for step in job["steps"]):
        assert step.get("uses", "actions/").startswith("actions/")
    assert all(job.get("timeout-minutes", 99) <= 90 for job in workflow["jobs"].values())
