"""A row of the map of settings: agreement of predicted and retrained influence, above its floor."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial

import torch
from jaxtyping import Float
from scipy.stats import pearsonr, spearmanr
from torch import Tensor

import livebook as book

from .measures import relative_error
from .retraining import (
    Place,
    Run,
    Setting,
    crossed,
    experiment,
    linearised_model,
    retrain_finer_or_coarser,
)


def size_of(change: Float[Tensor, "k n_test ..."]) -> Float[Tensor, "k n_test"]:
    """Size of a change, over its outputs."""
    return change.reshape(*change.shape[:2], -1).norm(dim=2)


def agreement_above(run: Run, part: list[int], least: float) -> dict[str, float]:
    """Correlations of the influences whose predicted change is larger, and their share."""
    large = size_of(run.kernel.change[part]) > least
    predicted, actual = (
        run.influence(of)[part][large].cpu().numpy() for of in ("kernel", "network")
    )
    share = {"share above": float(large.double().mean())}
    if large.sum() < 3:
        return share
    pearson, spearman = (float(of(predicted, actual)[0]) for of in (pearsonr, spearmanr))
    return share | {"Pearson above": pearson, "Spearman above": spearman}


def spread(run: Run, part: list[int], draws: int = 200) -> dict[str, float]:
    """Standard errors of the correlations: bootstrap over the points that are left out."""
    predicted, actual = (run.influence(of)[part].cpu() for of in ("kernel", "network"))
    generator = torch.Generator("cpu").manual_seed(0)
    found = []
    for _ in range(draws):
        drawn = torch.randint(len(part), (len(part),), generator=generator)
        pairs = predicted[drawn].flatten().numpy(), actual[drawn].flatten().numpy()
        found.append([pearsonr(*pairs)[0], spearmanr(*pairs)[0]])
    pearson, spearman = torch.tensor(found).std(dim=0).tolist()
    return {"Pearson, spread": pearson, "Spearman, spread": spearman}


def measure(setting: Setting, place: Place, *, n_twice: int = 2, n_shown: int = 0) -> dict:
    """The setting, the agreement of each group of points, and the floor below it.

    The floor is the distance between changes retrained in two finenesses, relative to the change,
    from a few points of each group. Of the first test points the influences themselves are kept.
    """
    run = experiment(setting, place)
    everyone = list(range(setting.n_left_out))
    members = {name: everyone[part] for name, part in setting.groups.items()}
    twice = [i for group in members.values() for i in group[:n_twice]]
    other = retrain_finer_or_coarser(setting, place, run, twice)
    noise, change = size_of(other - run.network.change[twice]), size_of(run.network.change[twice])
    # With several outputs the kernel of a finite network couples them.
    linearised = linearised_model(setting, place).of(run.points) if run.y.ndim == 1 else None
    row = asdict(setting) | {"last_change": run.report.last_change, "groups": {}}
    for name, group in (members | {"all": everyone}).items():
        rows = [k for k, i in enumerate(twice) if i in group]
        found = run.agreement(group)
        found |= {f"{key}, offset": v for key, v in run.agreement(group, "offset").items()}
        if linearised:
            found["error, linearised"] = relative_error(
                run.network.change[group], linearised.change[group]
            )
        found["floor"] = float(noise[rows].norm() / change[rows].norm())
        found |= spread(run, group)
        found |= agreement_above(run, group, float(noise[rows].square().mean().sqrt()))
        for of in ("kernel", "network") if n_shown else ():
            kept = run.influence(of)[group, :n_shown].flatten().tolist()
            found[f"shown, {of}"] = [float(f"{value:.3g}") for value in kept]
        row["groups"][name] = found
    return row


def least_quiet_ridge(
    rows: list[dict], dataset: str, n_train: int = 1000, width: int = 4000
) -> float | None:
    """The least ridge in a map of implicit steps at which the floor of random points is quiet.

    Quiet is below a fifth of the change, at the scale 0.1; None if no ridge is.
    """
    wanted = {"dataset": dataset, "n_train": n_train, "width": width}
    wanted |= {"scale": 0.1, "method": "preconditioned"}
    found = [row for row in rows if wanted.items() <= row.items()]
    quiet = [row["ridge"] for row in found if row["groups"]["at random"]["floor"] < 1 / 5]
    return min(quiet, default=None)


def n_drawn(row: dict) -> int:
    """How many of a row's left-out points were drawn at random."""
    return row["n_left_out"] if row.get("only_random") else row["n_left_out"] // 2


def groups_of(row: dict) -> list[str]:
    """The groups of left-out points of a row, each on its own."""
    return [name for name in row["groups"] if name != "all"]


def missing(settings: Iterable[Setting], known: list[dict]) -> list[Setting]:
    """The settings that no known row has; older rows say nothing of what was the only way then."""
    rows = [{"smoothing": 0.0, "only_random": False} | row for row in known]
    return [s for s in settings if not any(vars(s).items() <= row.items() for row in rows)]


def new_rows(
    base: Setting, settings: list[dict], place: Place, known: list[dict], **how: int
) -> Iterator[list[dict]]:
    """Measure what is missing; after each, all new rows so far, in the order of the settings."""
    measured = partial(row_of, place=place, **how)
    yield from book.sweep(measured, missing(crossed(base, settings), known))


def row_of(setting: Setting, *, place: Place, **how: int) -> dict:
    """The row of a setting, and what made it."""
    made_by = book.made_by(place.device) | {"dtype": str(place.dtype)}
    return measure(setting, place, **how) | {"made_by": made_by}
