"""The run on a graphics card, dry: at toy size on whatever device there is."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from livebook import paths

TOY = {
    "n_train": 30,
    "n_test": 5,
    "n_left_out": 4,
    "n_twice": 1,
    "settings": [
        {"dataset": "mnist-5k-7v9", "width": 40, "smoothing": 0.0, "method": "gradient_descent"},
        {"dataset": "mnist-5k-7v9", "width": [40, 60]},
    ],
}
TOY["settings"][0]["steps"] = None
# A second chapter, whose rows come first.
WIDE = TOY | {"n_left_out": 3, "settings": [TOY["settings"][0] | {"only_random": True}]}


def run(to, minutes):
    """Whatever the run reports, and its exit status."""
    profile = to / "toy.yaml"
    profile.write_text(
        yaml.safe_dump({"31_error_and_width": WIDE, "16_quiet_truth": TOY}, sort_keys=False)
    )
    command = [sys.executable, paths.ROOT / "benchmarks" / "gpu.py", "--profile", profile]
    command += ["--to", to / "out", "--minutes", str(minutes), "--chapters"]
    surroundings = os.environ | {"PYTHONPATH": str(paths.ROOT / "src")}
    surroundings.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings)
    assert done.returncode == 0, done.stderr
    return json.loads((to / "out" / "gpu.json").read_text())


def rows(to, chapter="16_quiet_truth"):
    """The rows of this size that were written, beside those that are recorded."""
    text = (to / "out" / f"{chapter}.json").read_text()
    return [row for row in json.loads(text)["results"]["rows"] if row["n_train"] == 30]


def test_a_run_measures_every_row_once_and_goes_on_where_it_was(tmp_path):
    report = run(tmp_path, 5)
    assert report["new rows"] == 4
    assert "stopped" not in report
    assert "passed" in report["unit tests"]
    found = rows(tmp_path)
    assert [row["width"] for row in found] == [40, 40, 60]
    (wide,) = rows(tmp_path, "31_error_and_width")
    assert wide["only_random"]
    assert wide["n_left_out"] == 3
    assert all(row["made_by"]["dtype"] == "torch.float32" for row in found)
    assert all(0 < row["groups"]["all"]["floor"] < 10 for row in found)
    again = run(tmp_path, 5)
    assert again["new rows"] == 0
    assert rows(tmp_path) == found


def test_a_run_out_of_time_keeps_what_it_has(tmp_path):
    report = run(tmp_path, 0.005)
    assert report["stopped"] == "after 0.005 minutes"
    assert report["new rows"] <= 4  # a quick machine may be through before it is asked to stop
    assert run(tmp_path, 5)["new rows"] == 4 - report["new rows"]
    assert len(rows(tmp_path)) == 3


def test_the_profile_lists_what_a_run_reads():
    profile = yaml.safe_load((paths.ROOT / "profiles" / "gpu.yaml").read_text())
    assert list(profile) == ["31_error_and_width", "16_quiet_truth"]
    assert all(set(TOY) <= set(parameters) for parameters in profile.values())


@pytest.mark.parametrize(
    ("option", "value"), [("--minutes", "0"), ("--minutes", "nan"), ("--profile", "missing.yaml")]
)
def test_what_cannot_be_run_is_one_sentence(option, value):
    command = [sys.executable, paths.ROOT / "benchmarks" / "gpu.py", option, value]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{option}: expected" in done.stderr
    assert "Traceback" not in done.stderr
