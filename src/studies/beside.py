"""Live results beside those of a recorded full-size run."""

import livebook as book


def live_beside_recorded(live: dict[str, list], name: str) -> list[tuple[str, str, list]]:
    """Data set, "live" or "recorded", and runs: of this page first, then of the record."""
    full = (book.recorded(name) or {"results": {}})["results"]
    rows = [(data, "live", runs) for data, runs in live.items()]
    return rows + [(data, "recorded", runs) for data, runs in full.items()]


def runs_of(results: list[tuple[str, str, list]], *names: str) -> list:
    """All runs of some data sets, live and recorded, as `live_beside_recorded` lists them."""
    return [run for name, _, runs in results for run in runs if name in names]


def numbers_beside(live: dict[str, float], name: str) -> dict[str, list[float]]:
    """The number of each claim, live and, where a full-size run has it, recorded."""
    full = (book.recorded(name) or {"results": {"claims": {}}})["results"]["claims"]
    both = {claim: [value] for claim, value in live.items()}
    for claim in both.keys() & full.keys():
        both[claim].append(full[claim])
    return both


def digits(value: float) -> str:
    """Three digits; errors of rounding as a bound."""
    return f"{value:.3f}" if value > 1e-6 else book.at_most(value)


def recorded_by(results: dict[str, dict]) -> dict[str, str]:
    """What made each recorded entry last, a row of the provenance: commit, date and device."""
    facts = {}
    for name, entry in results.items():
        for key in sorted(key for key in entry if key.startswith("made_by")):
            made, part = entry[key], key.removeprefix("made_by").replace("_", ", ")
            made = ", ".join((f"commit {made['commit']}", made["date"], made["device"]))
            facts[f"recorded {name}{part}, last run"] = made
    return facts
