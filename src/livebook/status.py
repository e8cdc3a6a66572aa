"""What was tried, and what came out: run times, versions, machines, a card, changed formulas."""

import json

from . import paths, times

WAYS = ("a_test", "import", "time")  # how a change of the library is noticed


def tables() -> list[str]:
    """The lines of the page, in Markdown."""
    return [
        *_run_times(),
        "",
        *_versions(),
        "",
        *_portability(),
        "",
        *_graphics_card(),
        "",
        *_mutation(),
    ]


def _run_times() -> list[str]:
    rows = [f"| {name} | {seconds:.0f} |" for name, seconds in sorted(times.read().items())]
    missing = ["| no chapter | *not measured* |"]
    return ["## Run times", "", "| chapter | seconds |", "|---|---|", *(rows or missing)]


def _versions() -> list[str]:
    lines = ["## Versions", "", "| environment | Python | torch | numpy | unit tests |"]
    lines.append("|---|---|---|---|---|")
    for name, row in _recorded("versions").items():
        found = [row["versions"].get(package, "") for package in ("torch", "numpy")]
        cells = [name, row["python"] or "", *found, row["summary"]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _portability() -> list[str]:
    lines = ["## Other machines", "", "| setting | chapters | cells that differ |", "|---|---|---|"]
    for setting, chapters in _recorded("portability").items():
        differ = [f"{name}: {cells}" for name, cells in chapters.items() if cells]
        lines.append(f"| {setting} | {len(chapters)} | {'; '.join(differ) or 'none'} |")
    return lines


def _graphics_card() -> list[str]:
    found = _recorded("gpu")
    lines = ["## A graphics card", "", "| what | came out |", "|---|---|"]
    if not found:
        return [*lines, "| `make gpu` | *not tested* |"]
    made_by = found["made by"]
    lines.append(f"| device | {made_by['device']}, torch {made_by['torch']} |")
    lines.append(f"| tests that compare devices | {found['unit tests']} |")
    lines += [f"| {name} | {verdict} |" for name, verdict in found["verdicts"].items()]
    return lines


def _mutation() -> list[str]:
    """The score of the unit tests on changes that a tool makes at random."""
    lines = ["## Mutation score", "", "| what | came out |", "|---|---|"]
    if not (found := _recorded("mutation")):
        return [*lines, "| `make mutation` | *not measured* |"]
    results, given = found["results"], found["parameters"]
    score, survivors, facts = results["killed"], results["survivors"], found["provenance"]
    justified = sum(bool(row["reason"]) for row in survivors)
    how = ", ".join(f"{results[f'by_{way}']} by {way.replace('_', ' ')}" for way in WAYS)
    why = "justified in `tests/mutants/survivors.yml`"
    lines += [
        f"| tool | {given['tool']}, commit {facts['commit']}, {facts['date']} |",
        f"| drawn, with seed {given['seed']} | {score['of']} of {results['positions']} changes |",
        f"| noticed by the unit tests | {_share(score)}: {how} |",
        "| spared | texts, annotations, what fails on any tensor; `scale`, which needs Dask |",
        f"| not noticed | {len(survivors)}, of which {justified} {why} |",
        *_by_the_book(),
    ]
    lines += ["", "| module of which some were drawn | noticed | of |", "|---|---|---|"]
    modules = results["modules"].items()
    return [*lines, *(f"| `{name}` | {killed} | {drawn} |" for name, (killed, drawn) in modules)]


def _by_the_book() -> list[str]:
    """How many of the same changes a committed notebook notices, without any unit test."""
    if not (found := _recorded("mutation_book")):
        return ["| noticed by the book alone | *not measured* |"]
    results, given, facts = found["results"], found["parameters"], found["provenance"]
    asked = f"{len(results['asked'])} of {given['notebooks']} notebooks asked"
    if changed := results.get("line_has_changed"):
        asked += f", {changed} changes left out whose lines no longer stand"
    why = f"{results['same_program']} the same program, {results['not_run_by_any']} run by none"
    least = "at least " if results["undecided"] else ""
    lines = [
        f"| noticed by the book alone | {least}{_share(results['noticed'])}; {asked}, "
        f"commit {facts['commit']}, {facts['date']} |",
        f"| of those whose line these notebooks run | {_share(results['of_those_run'])} |",
        f"| not noticed by the book | {len(results['survivors'])}: {why} |",
    ]
    if undecided := len(results["undecided"]):
        why = "no asked notebook notices, others are left; the interval allows for either answer"
        lines.append(f"| undecided by the book | {undecided}: {why} |")
    return lines


def _share(share: dict) -> str:
    percent = [f"{100 * value:.1f}" for value in (share["low"], share["high"])]
    of = f"{share['count']} of {share['of']}"
    return f"{of}, {share['count'] / share['of']:.1%} (95 % interval {' to '.join(percent)} %)"


def _recorded(name: str) -> dict:
    path = paths.RECORDED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
