"""What the site needs beyond Jupyter Book: local MathJax, mended theme faults, directives."""

import re
import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles

from . import (
    deviations,
    live,
    mend,
    parts,
    reproduction,
    sizes,
    status,
    times,
    truths,
    workers,
)
from .ledger import KINDS, WORDS, Verdict, claims, published

MATHJAX = Path("output", "chtml", "fonts", "woff-v2")
STATIC = Path(__file__).with_name("static")


class ClaimsTable(SphinxDirective):
    """All claims of the ledger, each with its verdict and a link to the chapter that gives it."""

    def run(self) -> list[nodes.Node]:
        word = _words(self)
        rows = ["| claim | where | statement | verdict |", "|---|---|---|---|"]
        for name, claim in claims().items():
            chapter, text = claim["chapter"], " ".join(claim["statement"].split())
            link = f"[{word[name]}](chapters/{chapter}.ipynb)" if chapter else word[name]
            rows.append(f"| **{name}** {claim['kind']} | {claim['paper']} | {text} | {link} |")
        return _parsed(self, rows, "claims")


class ClaimsCount(SphinxDirective):
    """How many claims of each kind have which verdict."""

    def run(self) -> list[nodes.Node]:
        word = _words(self)
        found = Counter((claim["kind"], word[name]) for name, claim in claims().items())
        rows = [f"| kind | {' | '.join(WORDS)} |", "|---" * (1 + len(WORDS)) + "|"]
        for kind in KINDS:
            numbers = (str(found[kind, verdict] or "") for verdict in WORDS)
            rows.append(f"| {kind} | {' | '.join(numbers)} |")
        return _parsed(self, rows, "claims-count")


class PaperMap(SphinxDirective):
    """What the paper has: its place, the verdict, the picture and the chapter, a row each."""

    def run(self) -> list[nodes.Node]:
        word = _words(self)
        rows = ["| in the paper | claim | verdict | picture |", "|---|---|---|---|"]
        for name, claim in claims().items():
            if picture := claim.get("picture"):
                page = f"chapters/{claim['chapter']}.ipynb"
                place = re.sub(r" \((Theorem|Proposition|App).*?\)", "", claim["paper"])
                links = f"[{word[name]}]({page}) | {{numref}}`{picture}`"
                rows.append(f"| {place} | **{name}** | {links} |")
        return _parsed(self, rows, "paper-map")


class AtAGlance(SphinxDirective):
    """The card that opens a chapter: claims, place in the paper, run time, verdicts."""

    def run(self) -> list[nodes.Node]:
        chapter = Path(self.env.docname).name
        seconds = times.read().get(chapter)
        rows = ["| claim | in the paper | verdict |", "|---|---|---|"]
        for row in published(self.env.doc2path(self.env.docname)):
            claim = claims()[row.claim]
            rows.append(f"| **{row.claim}** {claim['kind']} | {claim['paper']} | {row.verdict} |")
        took = f"{seconds:.0f} s on the machine that built this site" if seconds else "not measured"
        card = [":::{admonition} At a glance", "", *rows, ""]
        return _parsed(self, [*card, f"Run time: {took}.", ":::"], "at-a-glance")


class Status(SphinxDirective):
    """What was tried: run times, other versions, other machines."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, status.tables(), "status")


class Sizes(SphinxDirective):
    """How large the effects are that the guide warns of."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, sizes.table(), "sizes")


class Truths(SphinxDirective):
    """What the public truth sets are and how quiet."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, list(truths.described()), "truths")


class TruthHashes(SphinxDirective):
    """How to know the public truth sets again."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, list(truths.known_again()), "truth-hashes")


class LiveExplorer(SphinxDirective):
    """Digits, and a browser that computes whose images their predictions are owed to."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", live.html(), format="html")]


class LiveMathematics(SphinxDirective):
    """The script that computes in the live explorer."""

    def run(self) -> list[nodes.Node]:
        text = live.mathematics()
        return [nodes.literal_block(text, text, language="javascript")]


class Reproduction(SphinxDirective):
    """The paper beside the book: ``figures``, ``theorems`` or ``table-1``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (what,) = self.arguments
        if what == "table-1":
            return _parsed(self, reproduction.table_1(), "table-1")
        rows = reproduction.rows(_verdicts(self), figures=what == "figures")
        return _parsed(self, rows, "reproduction")


class Deviations(SphinxDirective):
    """What is done differently: the ``list``, or what the copy of the paper is ``lacking``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments == ["lacking"]:
            return _parsed(self, deviations.lacking(), "lacking")
        return _parsed(self, deviations.numbered(_verdicts(self)), "deviations")


def _verdicts(directive: SphinxDirective) -> dict[str, Verdict]:
    """The verdict of each claim; one that no chapter judges is not tested."""
    notebooks = sorted(Path(directive.env.srcdir, "chapters").glob("*.ipynb"))
    given = {row.claim: row for path in notebooks for row in published(path)}
    return {name: given.get(name, Verdict(name, "—", "not tested")) for name in claims()}


def _words(directive: SphinxDirective) -> dict[str, str]:
    return {name: row.verdict for name, row in _verdicts(directive).items()}


def _parsed(directive: SphinxDirective, lines: list[str], name: str) -> list[nodes.Node]:
    box = nodes.container(classes=[name])
    given = StringList(lines, "claims.yml")
    directive.state.nested_parse(given, directive.content_offset, box, match_titles=True)
    return [box]


def _formulas(
    app: object, what: str, name: str, item: object, options: object, lines: list
) -> None:
    """Between dollars a docstring holds a formula, as everywhere in the book."""
    text = re.sub(r"\$([^$]+)\$", r":math:`\1`", "\n".join(lines))
    lines[:] = text.split("\n")


def _use_local_mathjax(app: Sphinx, config: object) -> None:
    config.mathjax_path = "mathjax/tex-chtml.js"


def _number_by_file(app: Sphinx) -> None:
    """A reader sees the number that the file of a chapter has, from 0 on."""
    by_order = TocTreeCollectorWithStyles.assign_section_numbers

    def assign_section_numbers(
        collector: TocTreeCollectorWithStyles, env: BuildEnvironment
    ) -> list[str]:
        changed = by_order(collector, env)
        for document, numbers in env.toc_secnumbers.items():
            file = re.match(r"\d+", Path(document).name)
            nodes_of = (env.titles[document], *env.tocs[document].findall(nodes.reference))
            if not file:  # a page of a numbered part that is no chapter
                numbers.update(dict.fromkeys(numbers))
                for node in nodes_of:
                    node.attributes.pop("secnumber", None)
            else:
                first = int(file[0])
                for anchor, number in numbers.items():
                    numbers[anchor] = number and (first, *number[1:])
                for node in nodes_of:
                    if node.get("secnumber"):
                        node["secnumber"] = [first, *node["secnumber"][1:]]
        return changed

    TocTreeCollectorWithStyles.assign_section_numbers = assign_section_numbers


def _write_side_by_side(app: Sphinx, env: BuildEnvironment) -> None:
    """Pages are read one by one, since not all extensions can do more, and written on all cores."""
    app.parallel = workers.usable_cores()


def _copy_static(app: Sphinx, error: Exception | None) -> None:
    """Of the 24 MB in the wheel the pages need one script and its fonts."""
    if error or app.builder.name != "html":
        return
    source = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = Path(app.outdir, "_static", "mathjax")
    shutil.copytree(source / MATHJAX, target / MATHJAX, dirs_exist_ok=True)
    shutil.copy(source / "tex-chtml.js", target)
    for name in ("book.css", "book.js", "preview.js"):
        shutil.copy(STATIC / name, Path(app.outdir, "_static"))
    mend.mend(Path(app.outdir))
    parts.write(Path(app.outdir))


def _mend_page(app: Sphinx, page: str, template: str, context: dict, tree: object) -> None:
    """The theme lists scripts twice (a page error) and knows no default colour mode."""
    seen = set()
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if not (_key(s) in seen or seen.add(_key(s)))]
    context["default_mode"] = "auto"


def _key(script: object) -> tuple:
    body = tuple(sorted(getattr(script, "attributes", {}).items()))
    return getattr(script, "filename", script) or "", body


def setup(app: Sphinx) -> dict:
    """Register the directives and the hooks."""
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("claims-count", ClaimsCount)
    app.add_directive("paper-map", PaperMap)
    app.add_directive("at-a-glance", AtAGlance)
    app.add_directive("status", Status)
    app.add_directive("sizes", Sizes)
    app.add_directive("truths", Truths)
    app.add_directive("truth-hashes", TruthHashes)
    app.add_directive("reproduction", Reproduction)
    app.add_directive("deviations", Deviations)
    app.add_directive("live-explorer", LiveExplorer)
    app.add_directive("live-mathematics", LiveMathematics)
    app.add_css_file("book.css")
    app.add_js_file("book.js")
    app.add_js_file("preview.js")
    app.connect("autodoc-process-docstring", _formulas)
    app.connect("builder-inited", _number_by_file, priority=900)
    app.connect("config-inited", _use_local_mathjax, priority=900)
    app.connect("env-updated", _write_side_by_side, priority=900)
    app.connect("html-page-context", _mend_page, priority=900)
    app.connect("build-finished", _copy_static, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
