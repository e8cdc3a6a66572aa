"""The report from a shell: a page, a table, and nothing half-written."""

import csv
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from livebook import demos, paths, report

NETWORK = """
import torch
from torch import nn

torch.manual_seed(0)

def network():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1)
    )

def prepare(features):
    return torch.tensor(features.reshape(len(features), -1) / features.max())

def trained(seed):
    torch.manual_seed(seed)
    model = network()
    data = {path!r}
    import numpy
    with numpy.load(data) as file:
        X, y = prepare(file["X"]).float(), torch.tensor(2.0 * file["y"] - 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        ((model(X)[:, 0] - y) ** 2).mean().backward()
        optimiser.step()
    return model

torch.manual_seed(0)
initial = network()
model = trained(0)
retrain = trained
"""


def command(*arguments) -> subprocess.CompletedProcess:
    """Run the report as a user does."""
    call = [sys.executable, "-m", "livebook.report", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False, cwd=paths.ROOT)


def rows_of(path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def small_digits(folder, n=80):
    """Pictures of two kinds, eight by eight: a bright left or a bright right half."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = rng.uniform(1, 50, (n, 8, 8))
    X[y == 0, :, :4] += 120
    X[y == 1, :, 4:] += 120
    path = folder / "pictures.npz"
    np.savez(path, X=X, y=y)
    return path


def test_the_demonstration_finds_flipped_digits(tmp_path):
    done = command("--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    rows = rows_of(tmp_path / "report.csv")
    _, planted = demos.digits()
    assert len(rows) == len(planted) == 500
    called = np.array([float(row["wrong_label"]) > 0.5 for row in rows])
    # Three quarters of one in twenty: 5 % flips on digits that a linear rule tells apart to 97 %.
    assert (called & planted).sum() >= 0.75 * planted.sum()
    assert (called & planted).sum() >= 0.5 * called.sum()
    wanted = {"leverage", "wrong_label", "too_small_by", "loo_residual", "complexity", "verdict"}
    assert wanted <= set(rows[0])
    page = (tmp_path / "report.html").read_text()
    assert "Which labels to look at first" in page
    assert "precision" in page
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)
    assert "jp-InputArea" not in page  # no code


def test_a_table_with_lines_and_a_test_table(tmp_path):
    table, _ = demos.breast_cancer()
    frame = table.features.assign(kind=table.labels)
    frame.iloc[:120].to_csv(tmp_path / "data.csv", index=False)
    frame.iloc[120:130].to_csv(tmp_path / "test.csv", index=False)
    test = "--test", tmp_path / "test.csv"
    done = command("--data", tmp_path / "data.csv", "--out", tmp_path / "out", *test)
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out" / "report.csv")
    assert [row["place"] for row in rows[:2]] == ["line 2", "line 3"]
    assert [row["line"] for row in rows[:2]] == ["2", "3"]
    assert rows[0]["label"] == table.labels[0]


def test_numbers_as_labels(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    np.savez(tmp_path / "data.npz", X=X, y=X @ [1.0, -2.0, 0.5] + 7)
    done = command("--data", tmp_path / "data.npz", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "report.csv")) == 60
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert "The error is least at the weakest ridge that rounding allows" in page


def test_where_no_label_is_told_to_be_wrong_the_page_says_what_comes_first(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    np.savez(tmp_path / "data.npz", X=rng.normal(size=(60, 3)) * 0.1 + 2 * y[:, None] - 1, y=y)
    done = command("--data", tmp_path / "data.npz", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {float(row["wrong_label"]) for row in rows_of(tmp_path / "report.csv")} == {0.0}
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert "No share of wrong labels can be told from none here" in page


def test_ones_own_network(tmp_path):
    data = small_digits(tmp_path)
    source = tmp_path / "net.py"
    source.write_text(NETWORK.replace("{path!r}", repr(str(data))))
    done = command("--data", data, "--model", source, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "Warning signs of the network" in page
    for said in ("correlate to", "moved by", "from the kink", "Two trainings differ"):
        assert said in page
    assert "not tested" not in page


BAD_NETWORKS = {
    "missing": (None, "no such file"),
    "no Python": ("model = (", "SyntaxError"),
    "no model": ("x = 1", "model to be a torch module"),
    "raises": ("raise OSError('no weights')", "no weights"),
    "another size": ("from torch import nn\nmodel = nn.Linear(3, 1)", "takes the inputs"),
    "two outputs": ("from torch import nn\nmodel = nn.Linear(64, 2)", "expected 1 outputs"),
    "prepare": (
        "from torch import nn\nmodel = nn.Linear(64, 1)\nprepare = 3",
        "prepare to be a function",
    ),
    "prepare raises": (
        "from torch import nn\nmodel = nn.Linear(64, 1)\ndef prepare(x): return x['no']",
        "got",
    ),
}


@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_a_bad_network_is_one_sentence(case, tmp_path, monkeypatch):
    code, said = BAD_NETWORKS[case]
    source = tmp_path / "net.py"
    if code is not None:
        source.write_text(textwrap.dedent(code))
    monkeypatch.setattr(report, "make", lambda options: pytest.fail("the report was begun"))
    arguments = ["report", "--data", str(small_digits(tmp_path)), "--model", str(source)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        report.main()
    assert said in str(stop.value)
    assert "\n" not in str(stop.value)
    assert not (tmp_path / "out").exists()


def test_a_failure_on_the_way_leaves_the_last_report(tmp_path, monkeypatch):
    for name in ("report.html", "report.csv"):
        (tmp_path / name).write_text("the last one")
    monkeypatch.setattr(report, "TEMPLATE", "report/none.md")
    arguments = ["report", "--data", str(small_digits(tmp_path)), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        report.main()
    for name in ("report.html", "report.csv"):
        assert (tmp_path / name).read_text() == "the last one"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "pictures.npz",
        "report.csv",
        "report.html",
    ]
