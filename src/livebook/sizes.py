"""How large the effects are that the guide warns of, from the records of the chapters."""

from collections.abc import Iterable, Iterator

from .records import recorded

SHOWN = ("mnist-7v9", "cifar-car-plane")  # of the data sets in a record


def table() -> list[str]:
    """One row for each warning; a record that is not there leaves its row out."""
    lines = ["| what | how large | where |", "|---|---|---|"]
    for name, rows in ROWS.items():
        found = recorded(name)
        lines += [f"| {' | '.join(row)} |" for row in rows(found)] if found else []
    return lines if len(lines) > 2 else [*lines, "| nothing recorded | | |"]


def _ridge(record: dict) -> Iterator[tuple[str, str, str]]:
    for name, runs in _shown(record):
        rates = dict(zip(runs[0]["ridges"], runs[0]["rates"], strict=True))
        rates = {ridge: rates[ridge] for ridge in (0.01, 1.0, 100.0) if ridge in rates}
        ridges, leverage = _listed(rates), _listed(r["d_eff / n"] for r in rates.values())
        errors = _listed(rate["error rate"] for rate in rates.values())
        what = f"relative error of IHVP, kernel of {name}, n = {runs[0]['n']:,}"
        large = f"{errors} at ridges {ridges} (mean leverage {leverage})"
        yield what, large, "{doc}`chapters/06_regularisation`"


def _ranks(record: dict) -> Iterator[tuple[str, str, str]]:
    for name, runs in _shown(record):
        rate = runs[0]["rates"][0]
        large = (
            f"Pearson {rate['Pearson']:.2f}, while truth is {rate['slope']:.0f} times the estimate"
        )
        what = f"what a correlation hides, {name}, ridge {runs[0]['ridges'][0]:g}"
        yield what, large, "{doc}`chapters/05_ihvp`"


def _training(record: dict) -> Iterator[tuple[str, str, str]]:
    where, found = "{doc}`chapters/15_ihvp_trained`", record["results"]
    name, ridges = record["parameters"]["dataset"], found["retraining"]["ridges"]
    runs, kinks = found["retraining"]["rows"], found["kinks"]
    first, last = (run[0] if isinstance(run, list) else run for run in (runs[0], runs[-1]))
    for what, key in (
        ("activations that change in training (drift of the kernel)", "flips"),
        ("noise floor of retraining with ReLU, of the change", "floor"),
    ):
        at = f"{first[key]:.2f} at ridge {ridges[0]:g}, {last[key]:.2f} at ridge {ridges[-1]:g}"
        yield f"{what}, {name}", at, where
    errors = [sum(run["error"] for run in kinks[k]) / len(kinks[k]) for k in ("ReLU", "smoothed")]
    large = f"{errors[0]:.2f} with ReLU, {errors[1]:.2f} with smoothed kinks"
    what = f"relative error of corrected IHVP in trained networks, {name}, ridge {ridges[0]:g}"
    yield what, large, where


def _damping(record: dict) -> Iterator[tuple[str, str, str]]:
    where = "{doc}`chapters/20_conventions`"
    for library, entry in record["results"].items():
        rows = [r for r in entry["rows"] if "default damping" in r["method"]]
        if rows:
            errors, ridges = (
                _listed(r["error_to_ihvp"] for r in rows),
                _listed(r["ridge"] for r in rows),
            )
            what = f"default damping of {library} in the place of the ridge"
            yield what, f"IHVP off by {errors} times its size at ridges {ridges}", where


def _shown(record: dict) -> list[tuple[str, list]]:
    return [(name, record["results"][name]) for name in SHOWN if name in record["results"]]


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{float(f'{value:.2g}'):g}" for value in values)


ROWS = {
    "06_regularisation": lambda record: [*_ridge(record), *_ranks(record)],
    "15_ihvp_trained": _training,
    "conventions": _damping,
}
