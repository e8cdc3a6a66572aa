"""A change of every pixel by rounding takes effect, and finds what is fragile."""

import re

import pytest
import torch
from small_book import chapter, nbval

from livebook import perturb, run
from ntk_influence import datasets


@pytest.fixture
def loaders(monkeypatch):
    """The loaders, put back after the test."""
    for name in ("load", "mixture"):
        monkeypatch.setattr(datasets, name, getattr(datasets, name))


def test_every_pixel_changes_by_rounding_once(loaders):
    names = "mnist-5k-7v9", "mixture"
    plain = [datasets.load(name, 60, 20) for name in names]
    perturb.install(1)
    for name, before in zip(names, plain, strict=True):
        after = datasets.load(name, 60, 20)
        for X, Z in ((before.X, after.X), (before.X_test, after.X_test)):
            change = (Z / X - 1)[X != 0]
            assert 0.8e-15 < change.std() < 1.2e-15
            assert torch.allclose(Z.norm(dim=1), torch.ones(len(Z), dtype=Z.dtype), atol=1e-14)
        assert torch.equal(before.y, after.y)
        assert torch.equal(after.X, datasets.load(name, 60, 20).X)


def test_another_seed_is_another_change():
    X, Z = (perturb.perturbed(datasets.mixture, seed)(30, 5).X for seed in (1, 2))
    assert not torch.equal(X, Z)


LOAD = """
import ntk_influence as ni
X, Z = ni.datasets.load("mnist-5k-7v9", 6, 2).X, ni.datasets.mixture(6, 2).X
"""
ROBUST = """
digest = X.sum().item(), Z.sum().item()
print(f"{digest[0]:.6f} {digest[1]:.6f}", [round(s, 6) for s in (X @ X.T)[0].tolist()])
"""
CHAOTIC = """
value = X[0].max().item()
for _ in range(200):
    value = 4 * value * (1 - value)
print(f"{value:.3f}")
"""


def test_without_the_option_all_is_as_before_and_with_it_the_fragile_cell_is_red(tmp_path):
    exact = "import hashlib\nprint(hashlib.sha256(Z.numpy().tobytes()).hexdigest())"
    notebook = tmp_path / "fragile.ipynb"
    notebook.write_text(
        run.execute(chapter(tmp_path, "fragile", LOAD, ROBUST, CHAOTIC, exact), {}, 120)
    )
    assert nbval(notebook).returncode == 0
    result = nbval(notebook, "--nb-perturb", "1", "-rfE")
    red = re.findall(r"^FAILED .*::(Cell \d+)", result.stdout, re.MULTILINE)
    assert red == ["Cell 3", "Cell 4"], result.stdout


def test_a_perturbation_that_cannot_be_made_is_no_success(tmp_path):
    notebook = tmp_path / "small.ipynb"
    notebook.write_text(run.execute(chapter(tmp_path, "small", "print(1)"), {}, 120))
    result = nbval(notebook, "--nb-perturb", str(2**70))
    assert result.returncode == 1
    assert "--nb-perturb: " in result.stdout, result.stdout
