"""What the book does differently from the paper, and what its copy of the paper lacks."""

from .ledger import Verdict, claims
from .records import recorded
from .reproduction import paper


def numbered(given: dict[str, Verdict]) -> list[str]:
    """The deviations as a numbered list, each with what it amounts to."""
    lines = []
    for number, entry in enumerate(paper()["deviations"], 1):
        lines.append(f"{number}. *The paper:* {entry['paper']} *Here:* {entry['here']}")
        lines.append(f"   In {{doc}}`chapters/{entry['chapter']}`.")
        effects = [*map(_by_claim, (given[name] for name in entry.get("effect", [])))]
        effects += [number_of(found) for found in entry.get("numbers", [])]
        lines += ["", *(f"   - {effect}" for effect in effects), ""]
    return lines


def lacking() -> list[str]:
    """What the copy lacks, and what stands in its place."""
    lines = ["| the copy lacks | here | chapter |", "|---|---|---|"]
    for entry in paper()["lacking"]:
        where = f"{{doc}}`chapters/{entry['chapter']}`"
        lines.append(f"| {entry['what']} | {entry['instead']} | {where} |")
    return lines


def number_of(entry: dict) -> str:
    """A sentence with its numbers from a record; one that is not there is said to be missing."""
    record = recorded(entry["record"])
    if not record:
        return f"not recorded ({entry['record']})"
    start = record["results"]
    if "where" in entry:
        wanted = entry["where"].items()
        (start,) = (r for r in start["rows"] if all(r[key] == value for key, value in wanted))
    return entry["text"].format(*(_at(start, path) for path in entry["paths"]))


def _at(value: object, path: list) -> float:
    for key in path:
        value = value[key]
    return value


def _by_claim(row: Verdict) -> str:
    claim = claims()[row.claim]
    return " ".join(f"**{row.claim}** {row.measured} ({claim['measured']}): {row.verdict}".split())
