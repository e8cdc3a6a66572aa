"""The public truth is what it says, and a score of it is 1 for itself and 0 for noise."""

import json
import shutil
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import refused
from torch.testing import assert_close

import ntk_influence as ni
from livebook.paths import ROOT
from ntk_influence import conventions, truth

EXACT = [name for name in truth.NAMES if name.startswith("kernel")]
TRAINED = [name for name in truth.NAMES if name not in EXACT]
CORRELATIONS = (
    *("pearson", "spearman", "pearson_above", "spearman_above"),
    *("pearson_per_test_point", "spearman_per_test_point", "top_k", "loo_corr", "lds"),
)
ROUNDING = {"abs": 1e-12}


known = cache(truth.load)  # first called in a test, so that a wrong seal is a test that fails


def noise(like, seed=0):
    """Independent normal numbers of that shape."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).double()


def small():
    """Four of six points left out, three test points, noise in two of the points."""
    changes = noise(torch.empty(4, 3), 1)
    f, y = noise(torch.empty(3), 2), torch.tensor([1.0, -1.0, 1.0]).double()
    again = changes + torch.tensor([0.0, 0.9, 0.0, 0.3])[:, None] * noise(changes, 3)
    influence, second = ((f - y) * c + c**2 / 2 for c in (changes, again))
    floor = (again - changes).square().mean(dim=1).sqrt()
    indices = torch.tensor([10, 20, 30, 40, 50, 60]), torch.tensor([70, 80, 90])
    left_out = torch.tensor([50, 10, 60, 20])
    given = (influence, f, changes, y, *indices, left_out, floor, second)
    return truth.Truth("small", *given, {}, {}, "", 1)


# What the sets are


@pytest.mark.parametrize("name", truth.NAMES)
def test_a_set_holds_what_it_says(name):
    t = known(name)
    left_out, n_test = t.influence.shape
    assert t.changes.shape == (left_out, n_test)
    assert t.predictions.shape == t.y_test.shape == t.test.shape == (n_test,)
    assert t.floor.shape == t.left_out.shape == (left_out,)
    assert left_out >= 60
    assert torch.equal(t.train[t.rows], t.left_out)
    assert len(set(t.left_out.tolist())) == left_out
    assert not set(t.train.tolist()) & set(t.test.tolist())
    assert t.settings["n_left_out"] == left_out
    assert len(t.hash) == 64
    assert t.provenance["commit"] != "unknown"
    assert "dirty" not in t.provenance["commit"]


@pytest.mark.parametrize("name", truth.NAMES)
def test_influence_is_the_test_loss_without_the_point_less_that_with_it(name):
    t = known(name)
    before = (t.predictions - t.y_test).square() / 2
    after = (t.predictions + t.changes - t.y_test).square() / 2
    assert_close(t.influence, after - before, atol=1e-13, rtol=0)  # losses of order one


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_set_is_what_the_closed_form_gives_for_digits(name):
    t, ridge = known(name), known(name).settings["ridge"]
    data = ni.datasets.load(*(t.settings[key] for key in ("dataset", "n_train", "n_test")))
    assert torch.equal(t.train, data.index)
    assert torch.equal(t.test, data.index_test)
    model = ni.fit_kernel_ridge(ni.relu_ntk(data.X), data.y, ridge)
    k_test = ni.relu_ntk(data.X_test, data.X)
    assert name == f"kernel-{ridge:g}"
    assert t.second is None
    assert t.floor.abs().max() == 0
    # Rounding times the condition number of the system, at most 1e4.
    assert_close(t.predictions, model.predict(k_test), atol=1e-10, rtol=0)
    assert_close(t.influence, ni.loo_influence(model, k_test, data.y_test), atol=1e-10, rtol=0)


def test_a_network_trained_again_on_digits_is_the_published_one():
    t, s = known("smoothed-1"), known("smoothed-1").settings
    data = ni.datasets.load(s["dataset"], s["n_train"], s["n_test"])
    size = (data.X.shape[1], s["width"], s["scale"], s["seed"])
    network = ni.TwoLayerReLU.initialise(*size, smoothing=s["smoothing"])
    task, how = (network, data.X, data.y, s["ridge"]), {"method": s["method"]}
    trained = ni.train(*task, max_steps=s["steps"], **how)
    f = trained.predict(data.X_test)
    point = t.rows[:1].tolist()
    without = ni.retrain_without(*task, point, data.X_test, trained=trained, **how)
    # Smooth: rounding does not grow by more than a million in 160 steps.
    assert_close(f, t.predictions, atol=1e-8, rtol=0)
    assert_close(without - f, t.changes[:1], atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", TRAINED)
def test_the_floor_of_a_network_is_below_a_fifth_of_most_changes_but_not_zero(name):
    t = known(name)
    size = t.changes.square().mean(dim=1).sqrt()
    assert (t.floor > 0).all()
    assert t.floor.norm() < size.norm() / 5
    assert 0 < t.provenance["moves_on"] < 1 / 5


def test_sets_are_small_and_travel_with_the_package():
    sizes = [path.stat().st_size for path in truth.FOLDER.iterdir()]
    assert len(sizes) == len(truth.NAMES) + 1
    assert sum(sizes) <= 2e6
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "truths/*" in project["tool"]["setuptools"]["package-data"]["ntk_influence"]


# What is not the published set is refused


def copied(monkeypatch, to):
    shutil.copytree(truth.FOLDER, to)
    monkeypatch.setattr(truth, "FOLDER", to)
    return to / "kernel-1.npz", to / "truths.json"


def one_number(npz, index):
    arrays = dict(np.load(npz))
    arrays["changes"][3, 4] *= 1 + 1e-15
    np.savez_compressed(npz, **arrays)


def one_setting(npz, index):
    sets = json.loads(index.read_text())
    sets["kernel-1"]["settings"]["ridge"] = 2.0
    index.write_text(json.dumps(sets))


TAMPERED = {
    "one number": one_number,
    "one setting": one_setting,
    "another set": lambda npz, index: shutil.copy(npz.with_name("kernel-10.npz"), npz),
    "half a file": lambda npz, index: npz.write_bytes(npz.read_bytes()[:5000]),
    "no file": lambda npz, index: npz.unlink(),
    "no list": lambda npz, index: index.write_text("{}"),
}


@pytest.mark.parametrize("change", TAMPERED)
def test_a_set_that_was_changed_is_refused_in_one_sentence(change, monkeypatch, tmp_path):
    npz, index = copied(monkeypatch, tmp_path / "truths")
    TAMPERED[change](npz, index)
    with pytest.raises(
        ValueError, match=r"kernel-1\.npz: expected the set with SHA-256 .*anew\), got"
    ) as caught:
        truth.load("kernel-1")
    assert "\n" not in str(caught.value)
    if change != "no list":
        assert truth.load("kernel-0.1").hash == known("kernel-0.1").hash


def written(folder, name):
    """A set of the same kind as a large one, with the numbers of a small one."""
    arrays = dict(np.load(truth.FOLDER / "kernel-1.npz"))
    facts = {"version": 1, "settings": {"ridge": 1.0}, "provenance": {}}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    sealed = {name: facts | {"hash": truth.seal(arrays, facts)}}
    (folder / "truths.json").write_text(json.dumps(sealed))


@pytest.mark.parametrize("name", truth.LARGE)
def test_a_large_set_comes_from_its_folder_and_says_what_is_missing(name, tmp_path):
    for root in (None, tmp_path, str(tmp_path)):
        expected = f"a folder with {name}.npz (`make truths` writes it to _build/truths)"
        refused(lambda root=root: truth.load(name, root=root), "root", expected, str(root))
    written(tmp_path, name)
    found = truth.load(name, root=str(tmp_path))
    assert found.name == name
    assert torch.equal(found.influence, known("kernel-1").influence)
    arrays = dict(np.load(tmp_path / f"{name}.npz"))
    arrays["predictions"][2] += 1e-9
    np.savez_compressed(tmp_path / f"{name}.npz", **arrays)
    with pytest.raises(ValueError, match=r"SHA-256 .*run make truths anew\), got"):
        truth.load(name, root=tmp_path)


def test_the_folder_of_large_sets_does_not_stand_in_for_the_package(tmp_path):
    written(tmp_path, "kernel-10")
    assert truth.load("kernel-10", root=tmp_path).hash == known("kernel-10").hash


# What a score is


@pytest.mark.parametrize("name", truth.NAMES)
def test_the_truth_itself_is_perfect(name):
    found = truth.score(known(name).influence, known(name))
    assert {key: found[key] for key in CORRELATIONS} == pytest.approx(
        dict.fromkeys(CORRELATIONS, 1.0), **ROUNDING
    )
    assert found["slope"] == pytest.approx(1, **ROUNDING)
    assert found["slope_above"] == pytest.approx(1, **ROUNDING)
    assert found["relative_error"] == 0


@pytest.mark.parametrize("name", TRAINED)
def test_a_second_retraining_reaches_the_ceiling_and_no_more(name):
    t = known(name)
    found = truth.score(t.second, t)
    for key in CORRELATIONS:
        assert found[key] == found[f"{key}_ceiling"]
        assert found[key] < 1 or key == "top_k"
    assert found["relative_error"] == found["relative_error_floor"] > 0


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_truth_has_no_ceiling_but_one(name):
    found = truth.score(noise(known(name).influence), known(name))
    assert all(found[f"{key}_ceiling"] == pytest.approx(1, **ROUNDING) for key in CORRELATIONS)
    assert found["relative_error_floor"] == 0
    assert found["share_above"] == 1


@pytest.mark.parametrize("name", truth.NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_noise_scores_zero_within_its_spread(name, seed):
    t = known(name)
    left_out, n_test = t.influence.shape
    scale = float(t.influence.norm()) / (left_out * n_test) ** 0.5
    found = truth.score(scale * noise(t.influence, seed), t)
    # Independent pairs, whatever their distribution: standard error one over the root of how many.
    spread = 5 / (left_out * n_test * found["share_above"]) ** 0.5
    for key in (*CORRELATIONS, "slope", "slope_above"):
        if key != "top_k":
            assert abs(found[key]) < spread
    assert abs(found["top_k"] - 10 / left_out) < 5 / (10 * n_test) ** 0.5
    assert found["relative_error"] == pytest.approx(2**0.5, rel=0.1)


def test_sizes_show_in_the_slope_and_the_error_and_nowhere_else():
    t = known("kernel-1")
    half = truth.score(t.influence / 2, t)
    assert half["slope"] == pytest.approx(2, **ROUNDING)
    assert half["slope_above"] == pytest.approx(2, **ROUNDING)
    assert half["relative_error"] == pytest.approx(0.5, **ROUNDING)
    assert half["pearson"] == pytest.approx(1, **ROUNDING)
    opposite = truth.score(-3 * t.influence, t)
    assert opposite["slope"] == pytest.approx(-1 / 3, **ROUNDING)
    assert opposite["spearman"] == opposite["lds"] == pytest.approx(-1, **ROUNDING)
    assert opposite["relative_error"] == pytest.approx(4, **ROUNDING)
    assert opposite["top_k"] == 1


def ranks(values):
    return np.argsort(np.argsort(values))


def test_every_number_by_hand():
    t, k = small(), 2
    estimate = t.influence + 0.5 * noise(t.influence, 4)
    found = truth.score(estimate, t, k=k)
    a, b = estimate.numpy(), t.influence.numpy()
    above = np.abs(t.changes.numpy()) > t.floor.numpy()[:, None]
    assert 0 < above.mean() < 1
    x, z = a.ravel(), b.ravel()
    assert found["pearson"] == pytest.approx(np.corrcoef(x, z)[0, 1])
    assert found["spearman"] == pytest.approx(np.corrcoef(ranks(x), ranks(z))[0, 1])
    assert found["slope"] == pytest.approx(np.linalg.lstsq(x[:, None], z)[0][0])
    assert found["relative_error"] == pytest.approx(((x - z) ** 2).sum() ** 0.5 / (z @ z) ** 0.5)
    assert found["share_above"] == above.mean()
    x, z = a[above], b[above]
    assert found["pearson_above"] == pytest.approx(np.corrcoef(x, z)[0, 1])
    assert found["spearman_above"] == pytest.approx(np.corrcoef(ranks(x), ranks(z))[0, 1])
    assert found["slope_above"] == pytest.approx(np.linalg.lstsq(x[:, None], z)[0][0])
    columns = range(a.shape[1])
    pearson = [np.corrcoef(a[:, j], b[:, j])[0, 1] for j in columns]
    spearman = [np.corrcoef(ranks(a[:, j]), ranks(b[:, j]))[0, 1] for j in columns]
    assert found["pearson_per_test_point"] == pytest.approx(np.mean(pearson))
    assert found["spearman_per_test_point"] == pytest.approx(np.mean(spearman))
    for most in (1, 2, 3):
        largest = [[set(np.abs(m[:, j]).argsort()[-most:]) for j in columns] for m in (a, b)]
        shared = [len(one & other) / most for one, other in zip(*largest, strict=True)]
        assert truth.score(estimate, t, k=most)["top_k"] == pytest.approx(np.mean(shared))
    assert 0 < found["top_k"] < 1


def test_the_floor_is_the_distance_of_two_retrainings():
    for name in TRAINED:
        t = known(name)
        arrays = dict(np.load(truth.FOLDER / f"{name}.npz"))
        for i in range(0, len(t.floor), 20):
            apart = arrays["second_changes"][i] - arrays["changes"][i]
            assert float(t.floor[i]) == pytest.approx((apart @ apart / len(apart)) ** 0.5)
        above = t.changes.abs() > t.floor[:, None]
        assert truth.score(t.second, t)["share_above"] == pytest.approx(
            float(above.double().mean())
        )
        again = arrays["second_predictions"] + arrays["second_changes"]
        after = (again - arrays["y_test"]) ** 2 / 2
        before = (arrays["second_predictions"] - arrays["y_test"]) ** 2 / 2
        assert_close(t.second, torch.from_numpy(after - before), atol=1e-13, rtol=0)


def test_two_correlations_are_those_of_dattri():
    """Frozen from dattri 0.3.0, ``lds`` on minus the losses of all subsets of n - 1 points."""
    t = known("kernel-0.1")
    waves = torch.arange(t.influence.numel()).double().sin().reshape(t.influence.shape)
    found = truth.score(t.influence + t.influence.std() * waves / 2, t)
    assert found["lds"] == pytest.approx(0.48709730743268587, rel=1e-9)
    assert found["loo_corr"] == pytest.approx(0.6608090870738116, rel=1e-9)


def test_the_linear_datamodelling_score_is_that_of_quanda():
    """Recorded in an environment with quanda, which computes in single precision."""
    record = json.loads((ROOT / "data" / "recorded" / "quanda.json").read_text())
    for row in record["results"]["rows"]:
        t = known(row["truth"])
        s = t.settings
        data = ni.datasets.load(s["dataset"], s["n_train"], s["n_test"])
        K = ni.relu_ntk(torch.cat([data.X, data.X_test]))
        problem = ni.estimators.Linearised.of_kernel(K, data.y, s["ridge"], data.y_test)
        if row["method"] == "exact IHVP":
            ours = truth.score(ni.estimators.ihvp(problem), t)["lds"]
            assert row["ours"] == pytest.approx(ours, abs=1e-6)
        assert row["quanda"] == pytest.approx(row["ours"], abs=1e-5)


def test_lds_is_that_of_sums_over_the_points_that_stay():
    t = known("kernel-1")
    a = t.influence + t.influence.std() * noise(t.influence)
    losses = (t.predictions + t.changes - t.y_test).square() / 2
    sums = torch.stack([a.sum(dim=0) - a[i] for i in range(len(a))])
    pairs = zip(sums.T.numpy(), -losses.T.numpy(), strict=True)
    expected = np.mean([np.corrcoef(ranks(x), ranks(z))[0, 1] for x, z in pairs])
    assert truth.score(a, t)["lds"] == pytest.approx(expected, rel=1e-9)


def test_scores_of_all_points_and_of_those_left_out_are_the_same():
    t = small()
    whole = noise(torch.empty(6, 3), 5)
    rows = [4, 0, 5, 1]  # where 50, 10, 60 and 20 are
    assert t.rows.tolist() == rows
    found, expected = truth.score(whole, t, k=2), truth.score(whole[rows], t, k=2)
    assert found == expected
    assert truth.score(whole.float(), t, k=2) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("library", [c.name for c in conventions.LIBRARIES])
def test_scores_of_a_library_are_converted_by_its_name(library):
    t = small()
    ours = noise(torch.empty(6, 3), 6)
    convention = next(c for c in conventions.LIBRARIES if c.name == library)
    theirs = ours / (t.predictions - t.y_test) if convention.of_output else ours
    if convention.exact and not convention.of_output:
        theirs = theirs * 2.0 * (6 if convention.divided else 1)
    theirs = theirs if convention.train_first else theirs.T
    found = truth.score(theirs, t, library=library.upper(), loss=2.0, k=2)
    assert found == pytest.approx(truth.score(ours, t, k=2))


def test_what_is_constant_at_a_test_point_scores_zero_there():
    t = known("kernel-1")
    blind = t.influence.clone()
    blind[:, :25] = 7.0
    found = truth.score(blind, t)
    for key in ("pearson_per_test_point", "spearman_per_test_point", "lds", "loo_corr"):
        assert found[key] == pytest.approx(0.5)


def test_too_few_pairs_above_the_floor_are_not_compared():
    t = small()
    loud = replace(t, floor=torch.full_like(t.floor, 1e3))
    found = truth.score(t.influence, loud, k=2)
    assert found["share_above"] == 0
    assert all(np.isnan(found[f"{key}_above"]) for key in ("pearson", "spearman", "slope"))
    assert found["pearson"] == pytest.approx(1)


T = small()
A = noise(torch.empty(6, 3))
BAD = {
    "no name": (lambda: truth.load("kernel"), "name", "kernel-10, kernel-1, kernel", "'kernel'"),
    "a number": (lambda: truth.load(1), "name", "one of", "1"),
    "transposed": (
        lambda: truth.score(A.T, T, k=1),
        "estimate",
        "shape (4, 3) or (6, 3) (transpose it?)",
        "shape (3, 6)",
    ),
    "transposed, left out": (lambda: truth.score(A[:4].T, T, k=1), "estimate", "pose", "(3, 4)"),
    "other rows": (lambda: truth.score(A[:5], T, k=1), "estimate", "(6, 3)", "shape (5, 3)"),
    "one axis": (lambda: truth.score(A[0], T, k=1), "estimate", "2 axes", "shape (3,)"),
    "an array": (lambda: truth.score(A.numpy(), T, k=1), "estimate", "a torch tensor", "ndarray"),
    "NaN": (lambda: truth.score(A * float("nan"), T, k=1), "estimate", "finite", "18 NaN"),
    "huge": (lambda: truth.score(A * 1e200, T, k=1), "estimate", "at most 1e+148", "e+200"),
    "constant": (lambda: truth.score(0 * A, T, k=1), "estimate", "entries that differ", "0 every"),
    "no truth": (lambda: truth.score(A, "kernel-1"), "truth", "a Truth", "str"),
    "k of none": (lambda: truth.score(A, T, k=0), "k", "an integer >= 1", "0"),
    "k of more": (lambda: truth.score(A, T, k=5), "k", "at most 4", "5"),
    "a loss": (lambda: truth.score(A, T, loss=2.0, k=1), "loss", "1 without a library", "2.0"),
    "a library": (
        lambda: truth.score(A, T, library="pidvl", k=1),
        "library",
        "did you mean pyDVL?",
        "pidvl",
    ),
    "no library": (lambda: truth.score(A, T, library=3, k=1), "library", "a name", "int"),
    "transposed of a library": (
        lambda: truth.score(A, T, library="pyDVL", k=1),
        "scores",
        "shape (n_test, 6) as pyDVL returns them (transpose them?)",
        "(6, 3)",
    ),
    "other test points of a library": (
        lambda: truth.score(A[:, :2].T, T, library="pyDVL", k=1),
        "estimate",
        "shape (4, 3) or (6, 3)",
        "shape (6, 2)",
    ),
}


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(case):
    refused(*BAD[case])
