"""A report is what refits say, its probabilities are calibrated, and a group is what is removed."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from problems import Problem, make_problem, unit_rows
from scipy.optimize import minimize
from scipy.special import expit, softmax
from scipy.stats import norm
from scipy.stats import t as student
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import wrong_label

EPS = torch.finfo(torch.float64).eps
# Condition numbers here are below 1e4 and labels of the order of one.
EXACT = {"atol": 1e-9, "rtol": 1e-9}


def within(problem: Problem) -> Problem:
    """The same problem, with the training points to test on."""
    return Problem(problem.K, problem.y, problem.ridge, problem.K, problem.y)


def report_of(problem: Problem, **options) -> ni.TrustReport:
    given = {"ridge": problem.ridge, "k_test": problem.k_test, "y_test": problem.y_test} | options
    return ni.trust_report(problem.K, problem.y, **given)


def half_squares(errors):
    """The loss of each row, whatever it has of outputs behind it."""
    return errors.square().reshape(*errors.shape[:2], -1).sum(dim=2) / 2


def norm_of(problem: Problem, kept: list[int]):
    """The quadratic form of the labels, from some of the points."""
    y = problem.y[kept].reshape(len(kept), -1)
    return (y * torch.linalg.solve(problem.system[kept][:, kept], y)).sum()


def matches_refits(problem: Problem) -> None:
    """Every column that is no probability and no distance, by solving anew without each point."""
    report, own, everyone = report_of(problem), within(problem), list(range(problem.n))
    whole = problem.predict_without([])
    left_out = own.leave_one_out()[everyone, everyone]
    missed = problem.y - left_out
    fitted = problem.y - own.predict_without([])
    influence = half_squares(problem.leave_one_out() - problem.y_test)
    influence -= half_squares((whole - problem.y_test)[None])
    by_itself = half_squares(missed[None])[0] - half_squares(fitted[None])[0]
    drops = [
        norm_of(problem, everyone) - norm_of(problem, [j for j in everyone if j != i])
        for i in everyone
    ]
    sizes = missed if missed.ndim == 1 else missed.norm(dim=1)
    assert_close(report.loo_prediction, left_out, **EXACT)
    assert_close(report.loo_residual, sizes, **EXACT)
    assert_close(report.helpful, influence.max(dim=1).values, **EXACT)
    assert_close(report.harmful, influence.min(dim=1).values, **EXACT)
    assert_close(report.self_influence, by_itself, **EXACT)
    assert_close(report.complexity, torch.stack(drops), **EXACT)
    leverage = (problem.K @ torch.linalg.inv(problem.system)).diagonal()
    assert_close(report.leverage, leverage, **EXACT)
    assert_close(report.too_small_by, 1 / (1 - leverage), **EXACT)
    shape = (-1, *[1] * (missed.ndim - 1))
    assert_close(report.too_small_by.reshape(shape) * fitted, missed, **EXACT)


def digits_problem(digits, ridge=0.1):
    K, k_test = ni.relu_ntk(digits.X), ni.relu_ntk(digits.X_test, digits.X)
    return Problem(K, digits.y, ridge, k_test, digits.y_test)


@pytest.mark.parametrize("ridge", [0.01, 0.1, 10.0])
def test_real_digits_are_what_refits_say(digits, ridge):
    matches_refits(digits_problem(digits, ridge))


@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_a_report_is_what_refits_say(outputs):
    matches_refits(make_problem(n=9, outputs=outputs, ridge=0.2))


def influence_on_one_another(problem: Problem):
    """Growth of the leave-one-out loss of j (column) when i (row) is removed too, by refits."""
    own = within(problem)
    pairs = torch.full((problem.n, problem.n), torch.nan).double()
    for i in range(problem.n):
        for j in set(range(problem.n)) - {i}:
            both, alone = (own.predict_without(S)[j] for S in ([i, j], [j]))
            losses = [(f - problem.y[j]).square().sum() / 2 for f in (both, alone)]
            pairs[i, j] = losses[0] - losses[1]
    return pairs


def matches_pairs(problem: Problem) -> None:
    report = ni.trust_report(problem.K, problem.y, ridge=problem.ridge)
    pairs = influence_on_one_another(problem)
    assert_close(report.helpful, pairs.nan_to_num(-torch.inf).amax(dim=1), **EXACT)
    assert_close(report.harmful, pairs.nan_to_num(torch.inf).amin(dim=1), **EXACT)


@pytest.mark.parametrize("outputs", [None, 2])
def test_without_test_points_training_points_test_one_another(outputs):
    matches_pairs(make_problem(n=9, outputs=outputs, ridge=0.2))


def test_without_test_points_digits_test_one_another(digits):
    matches_pairs(digits_problem(digits))


# The ridge


def matches_path(problem: Problem, which) -> None:
    report = report_of(problem, ridge=None)
    trace = float(problem.K.trace())
    ratios = (report.ridges[1:] / report.ridges[:-1]).log()
    assert len(report.ridges) == 41
    assert_close(ratios, ratios[:1].expand(40), atol=1e-10, rtol=0)
    assert_close(report.ridges[[0, -1]], trace * torch.tensor([1e-8 / problem.n, 1]).double())
    everyone = list(range(problem.n))
    for r in which:
        K, y, ridge = problem.K, problem.y, float(report.ridges[r])
        own = Problem(K, y, ridge, K, y)
        missed = problem.y - own.leave_one_out()[everyone, everyone]
        error = missed.square().sum() / problem.n
        assert_close(report.loo_errors[r], error, **EXACT)
    assert report.ridge == float(report.ridges[report.loo_errors.argmin()])
    chosen = report_of(problem, ridge=report.ridge)
    assert_close(report.loo_prediction, chosen.loo_prediction, **EXACT)
    assert_close(report.loo_errors, chosen.loo_errors, atol=0, rtol=0)


@pytest.mark.parametrize("outputs", [None, 3])
def test_the_path_is_that_of_refits(outputs):
    matches_path(make_problem(n=9, outputs=outputs), (10, 25, 40))


def test_the_path_of_digits_is_that_of_refits(digits):
    matches_path(digits_problem(digits), range(0, 41, 4))


def test_the_mean_of_the_residuals_is_on_the_path():
    problem = make_problem(n=12)
    report = report_of(problem, ridge=None)
    error = report.loo_residual.square().mean()
    assert_close(report.loo_errors.min(), error, **EXACT)


def test_every_ridge_of_the_path_can_be_fitted_in_single_precision(digits):
    real, labels = ni.relu_ntk(digits.X).float(), digits.y.float()
    ones = torch.ones(60, 60)
    for K, y in ((real, labels), (ones, labels), (real, ones[0])):
        report = ni.trust_report(K, y)
        for name, value in vars(report).items():
            if isinstance(value, torch.Tensor):
                assert value.dtype in (torch.float32, torch.int64), name
                assert torch.isfinite(value).all(), name
        ni.fit_kernel_ridge(K, y, float(report.ridges[0]))


# Neighbours


def test_neighbours_are_those_of_the_kernels_metric():
    X = unit_rows(12, 3)
    X[7], X[11] = X[2], X[2]
    K, y = ni.relu_ntk(X), torch.ones(12).double()
    y[7] = -1
    report = ni.trust_report(K, y, ridge=0.1)
    square = K.diagonal()[:, None] + K.diagonal() - 2 * K
    square.fill_diagonal_(torch.inf)
    for i in range(12):
        others = [j for j in range(12) if j != i]
        nearest = min(others, key=lambda j: float(square[i, j]))
        assert int(report.nearest[i]) == nearest
        assert_close(report.distance[i], square[i, nearest].sqrt(), atol=1e-12, rtol=0)
    copies = {2: 7, 7: 2, 11: 2}
    assert report.duplicate_of.tolist() == [copies.get(i, -1) for i in range(12)]
    assert "copy of point 7, which has another label" in report.verdict[2]
    assert "copy of point 2" in report.verdict[11]
    assert "another" not in report.verdict[11]


def test_inputs_tell_copies_where_the_kernel_cannot():
    """A kernel of one coordinate alone makes copies of what differs in another."""
    X = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [1.0, 0.0]]).double()
    K, y = X[:, :1] @ X[:, :1].T, torch.ones(4).double()
    assert ni.trust_report(K, y, ridge=1.0).duplicate_of.tolist() == [1, 0, -1, 0]
    assert ni.trust_report(K, y, ridge=1.0, X=X).duplicate_of.tolist() == [3, -1, -1, 0]


@pytest.mark.parametrize("levels", [1, 3])  # of one, no share of wrong labels is told from none
def test_the_label_to_look_at_first_comes_first(levels):
    missed = torch.tensor([0.5, -2.0, 1.0, 0.5, -0.1, 3.0])
    wrong = torch.tensor([0.2, 0.0, 0.7, 0.2, 0.0, 0.2]) * (levels > 1)
    report = replace(report_of(make_problem(n=6)), wrong_label=wrong, loo_residual=missed)
    first = [5, 1, 2, 0, 3, 4] if levels == 1 else [2, 5, 0, 3, 1, 4]
    assert report.suspicious.tolist() == first


def test_a_table_has_a_row_of_plain_values_for_each_point():
    problem = make_problem(n=6, outputs=2)
    report = report_of(problem)
    rows = report.rows()
    assert [row["point"] for row in rows] == list(range(6))
    assert next(iter(rows[0])) == "point"
    kinds = (int, float, str, list)
    assert all(type(value) in kinds for row in rows for value in row.values())
    assert rows[3]["loo_prediction"] == report.loo_prediction[3].tolist()
    assert rows[3]["leverage"] == float(report.leverage[3])
    assert not {"ridge", "ridges", "loo_errors", "noise_rate"} & set(rows[0])
    assert rows[2]["verdict"] == report.verdict[2]


# Wrong labels: the model's own data, where every probability is known


def two_classes(n, a, b, rho, seed):
    """Predictions, observed classes, which are flipped, and the posterior by Bayes' rule."""
    rng = np.random.default_rng(seed)
    f = rng.normal(size=n)
    s = expit(a * f + b)
    true = rng.random(n) < s
    flipped = rng.random(n) < rho
    observed = true ^ flipped
    q = np.where(observed, s, 1 - s)
    return f, observed.astype(int), flipped, rho * (1 - q) / (rho * (1 - q) + (1 - rho) * q)


def two_humps(n, gap, rho, seed):
    """Predictions around -gap and +gap, flipped labels, and the true posterior."""
    rng = np.random.default_rng(seed)
    true = rng.random(n) < 0.4
    f = np.where(true, gap, -gap) + rng.standard_t(4, size=n)
    flipped = rng.random(n) < rho
    observed = true ^ flipped
    z = np.where(observed, 1, -1)
    for_it, against = (student(4, loc=sign * gap).pdf(f) for sign in (z, -z))
    share = np.where(observed, 0.4, 0.6)
    wrong, right = rho * (1 - share) * against, (1 - rho) * share * for_it
    return f, observed.astype(int), flipped, wrong / (wrong + right)


def calibrated(probability, wrong, errors=5):
    """In each of ten bins the number of wrong labels lies within some standard errors."""
    for low in np.arange(0, 1, 0.1):
        inside = (low <= probability) & (probability < low + 0.1 + 1e-9 * (low > 0.85))
        p = probability[inside]
        spread = np.sqrt((p * (1 - p)).sum()) + 1
        assert abs(p.sum() - wrong[inside].sum()) < errors * spread


@pytest.mark.parametrize("rho", [0.02, 0.05, 0.2, 0.35])
def test_two_classes_are_calibrated_and_their_noise_is_recovered(rho):
    """With 20,000 points rho is known to about 0.005; five standard errors are allowed."""
    f, observed, flipped, posterior = two_classes(20_000, 4.0, 0.7, rho, seed=1)
    found, rate = wrong_label.of_classes(np.stack([-f, f], axis=1) / 2, observed)
    assert abs(rate - rho) < 0.025
    assert np.abs(found - posterior).mean() < 0.02
    assert np.abs(found - posterior).max() < 0.2
    calibrated(found, flipped)


@pytest.mark.parametrize("rho", [0.02, 0.2])
def test_several_classes_are_calibrated_and_their_noise_is_recovered(rho):
    rng, n, c = np.random.default_rng(2), 20_000, 4
    scores, bias = rng.normal(size=(n, c)), np.array([0.5, -0.5, 1.0, 0.0])
    p = softmax(3.0 * scores + bias, axis=1)
    true = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=c - 1)
    flipped = rng.random(n) < rho
    observed = np.where(flipped, (true + rng.integers(1, c, n)) % c, true)
    found, rate = wrong_label.of_classes(scores, observed)
    assert abs(rate - rho) < 0.025
    calibrated(found, flipped)
    q = p[np.arange(n), observed]
    seen = (1 - rho) * q + rho / (c - 1) * (1 - q)
    assert np.abs(found - rho / (c - 1) * (1 - q) / seen).mean() < 0.02


def test_two_classes_are_a_case_of_several():
    """Any two columns of which the difference is f."""
    f, observed, *_ = two_classes(500, 4.0, 0.7, 0.1, seed=3)
    ways = [np.stack([-f, f], axis=1) / 2, np.stack([0 * f, f], axis=1)]
    found = [wrong_label.of_classes(scores, observed) for scores in ways]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_no_label_is_wrong_where_all_are_predicted(classes):
    observed = np.arange(30) % classes
    scores = np.eye(classes)[observed] * np.linspace(0.5, 1, 30)[:, None]
    probability, rate = wrong_label.of_classes(scores, observed)
    assert rate == 0
    assert not probability.any()


def test_one_wrong_label_among_separated_ones_stands_out():
    observed = np.arange(60) % 2
    scores = np.eye(2)[observed] * np.linspace(0.2, 2, 60)[:, None]
    observed[41] = 0  # at equal margins a flip and a lack of slope are the same thing
    probability, rate = wrong_label.of_classes(scores, observed)
    assert rate == pytest.approx(1 / 60, abs=5e-3)
    assert probability[41] > 0.9
    assert np.delete(probability, 41).max() < 0.01


@pytest.mark.parametrize("classes", [2, 3])
def test_predictions_that_say_nothing_accuse_nobody(classes):
    observed = np.arange(40) % classes
    probability, rate = wrong_label.of_classes(np.zeros((40, classes)), observed)
    assert rate == 0
    assert not probability.any()


def test_one_class_alone_accuses_nobody():
    probability, rate = wrong_label.of_classes(np.ones((9, 3)), np.full(9, 2))
    assert rate == 0
    assert not probability.any()


def test_predictions_that_are_the_opposite_of_the_labels_are_not_believed():
    """With a slope below zero they would be, and their flips would be found."""
    f, observed, *_ = two_classes(500, 4.0, 0.0, 0.2, seed=4)
    probability, rate = wrong_label.of_classes(np.stack([f, -f], axis=1) / 2, observed)
    assert rate == 0
    assert not probability.any()


def best_by_grid(likelihood, starts, bounds):
    """The maximum by a method that asks for no derivative."""
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-7, "fatol": 1e-12}
    how = {"method": "Nelder-Mead", "bounds": bounds, "options": options}
    found = [minimize(lambda t: -likelihood(t), start, **how) for start in starts]
    return min(found, key=lambda fit: fit.fun).x


@pytest.mark.parametrize("rho", [0.05, 0.25])
def test_two_classes_have_the_greatest_likelihood(rho):
    f, observed, *_ = two_classes(600, 4.0, 0.7, rho, seed=7)
    z = 2 * observed - 1

    def likelihood(t):
        return np.log(t[2] + (1 - 2 * t[2]) * expit(z * (t[0] * f + t[1]))).sum()

    starts, bounds = ([2.0, 0.0, 0.1], [6.0, 0.5, 0.3]), [(0, 50), (-20, 20), (0, 0.5)]
    a, b, best = best_by_grid(likelihood, starts, bounds)
    found, rate = wrong_label.of_classes(np.stack([-f, f], axis=1) / 2, observed)
    q = expit(z * (a * f + b))
    assert rate == pytest.approx(best, abs=1e-4)
    assert found == pytest.approx(best * (1 - q) / (best + (1 - 2 * best) * q), abs=1e-3)


@pytest.mark.parametrize("rho", [0.02, 0.05, 0.2, 0.35])
def test_two_humps_are_calibrated_and_their_noise_is_recovered(rho):
    """With 20,000 points rho is known to about 0.005; five standard errors are allowed."""
    f, observed, flipped, posterior = two_humps(20_000, 3.0, rho, seed=1)
    found, rate = wrong_label.of_two_classes(f, observed)
    assert abs(rate - rho) < 0.025
    assert np.abs(found - posterior).mean() < 0.02
    assert np.abs(found - posterior).max() < 0.2
    calibrated(found, flipped)


@pytest.mark.parametrize("rho", [0.05, 0.25])
def test_two_humps_have_the_greatest_likelihood(rho):
    f, observed, *_ = two_humps(600, 3.0, rho, seed=7)

    def parts(theta):
        low, high, scale, share, rho = theta
        by_class = (
            (1 - share) * student(4, low, scale).pdf(f),
            share * student(4, high, scale).pdf(f),
        )
        own, other = np.where(observed, by_class[1], by_class[0]), np.where(observed, *by_class)
        return (1 - rho) * own, rho * other

    def likelihood(theta):
        return np.log(sum(parts(theta))).sum()

    bounds = [(-9, 9), (-9, 9), (0.1, 9), (0.01, 0.99), (0, 0.5)]
    best = best_by_grid(likelihood, ([-2.0, 2.0, 1.0, 0.5, 0.1],), bounds)
    right, wrong = parts(best)
    found, rate = wrong_label.of_two_classes(f, observed)
    assert rate == pytest.approx(best[-1], abs=1e-3)
    assert found == pytest.approx(wrong / (wrong + right), abs=1e-2)


def test_one_wrong_label_of_two_classes_stands_out():
    observed = np.arange(60) % 2
    f = (2 * observed - 1) * np.linspace(0.8, 1.2, 60)
    observed[41] = 0
    probability, rate = wrong_label.of_two_classes(f, observed)
    assert rate == pytest.approx(1 / 60, abs=5e-3)
    assert probability[41] > 0.9
    assert np.delete(probability, 41).max() < 0.01


NOTHING = {
    "predictions that say nothing": (np.zeros(40), np.arange(40) % 2),
    "one class": (np.linspace(-1, 1, 9), np.ones(9, dtype=int)),
    "all predicted": ((2.0 * (np.arange(30) % 2) - 1) * np.linspace(0.5, 1, 30), np.arange(30) % 2),
    "the opposite of the labels": (lambda f, observed: (-f, observed))(
        *two_humps(500, 3.0, 0.2, 4)[:2]
    ),
}


@pytest.mark.parametrize("case", NOTHING)
def test_two_classes_of_which_nothing_is_said_accuse_nobody(case):
    probability, rate = wrong_label.of_two_classes(*NOTHING[case])
    assert rate == 0
    assert not probability.any()


def test_exchanged_classes_change_nothing():
    f, observed, *_ = two_humps(500, 3.0, 0.1, seed=3)
    one, other = (
        wrong_label.of_two_classes(f, observed),
        wrong_label.of_two_classes(-f, 1 - observed),
    )
    assert one[1] == pytest.approx(other[1], abs=1e-9)
    assert one[0] == pytest.approx(other[0], abs=1e-9)


def test_numbers_have_the_greatest_likelihood():
    rng = np.random.default_rng(8)
    r = rng.normal(size=600) * np.where(rng.random(600) < 0.15, 4.0, 1.0)

    def parts(t):
        return [(w, norm(scale=s).pdf(r)) for w, s in ((1 - t[2], t[0]), (t[2], t[0] + t[1]))]

    def likelihood(t):
        return np.log(sum(w * density for w, density in parts(t))).sum()

    best = best_by_grid(likelihood, ([1.0, 2.0, 0.2],), [(0.1, 9), (0, 9), (1e-6, 0.5)])
    found, rate = wrong_label.of_numbers(r[:, None])
    (w, narrow), (v, wide) = parts(best)
    assert rate == pytest.approx(best[2], abs=1e-3)
    assert found == pytest.approx(v * wide / (v * wide + w * narrow), abs=1e-2)


def test_at_most_half_of_the_labels_are_wrong():
    """Predictions that are the opposite of every label are no evidence of flips of all."""
    f, observed, *_ = two_classes(500, 4.0, 0.0, 0.0, seed=4)
    probability, rate = wrong_label.of_classes(np.stack([f, -f], axis=1) / 2, observed)
    assert 0 <= rate <= 0.5
    assert (probability <= 1).all()


@pytest.mark.parametrize("columns", [1, 3])
def test_numbers_with_a_few_wide_residuals(columns):
    rng, n, rho = np.random.default_rng(5), 5000, 0.1
    wide = rng.random(n) < rho
    residuals = rng.normal(size=(n, columns)) * np.where(wide, 6.0, 1.0)[:, None]
    found, rate = wrong_label.of_numbers(1e3 * residuals)
    assert abs(rate - rho) < 0.025  # five standard errors of the fit, with one column
    square = (residuals**2).sum(axis=1)
    odds = rho / (1 - rho) * 6.0**-columns * np.exp(square / 2 * (1 - 1 / 36))
    assert np.abs(found - odds / (1 + odds)).mean() < 0.02
    calibrated(found, wide)


def test_numbers_of_one_normal_or_of_none_accuse_nobody():
    for residuals in (np.random.default_rng(6).normal(size=(1000, 1)), np.zeros((9, 2))):
        probability, rate = wrong_label.of_numbers(residuals)
        assert rate == 0
        assert not probability.any()


# Wrong labels in a report


def caps(n, seed):
    """Two caps of the sphere, and labels of which are flipped."""
    data = ni.datasets.mixture(n, 2, probabilities=(0.5, 0.5), radius=0.9, dim=6, seed=seed)
    flipped = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.1
    return ni.relu_ntk(data.X), data.y, flipped


@pytest.mark.parametrize("columns", [1, 2])
def test_planted_flips_are_found(columns):
    K, y, flipped = caps(200, 0)
    y = torch.where(flipped, -y, y)
    y = y if columns == 1 else torch.stack([y, -y], dim=1)
    report = ni.trust_report(K, y)
    assert abs(report.noise_rate - float(flipped.double().mean())) < 0.05
    calibrated(report.wrong_label.numpy(), flipped.numpy())
    assert (report.wrong_label[flipped] > 0.5).double().mean() > 0.8
    for words, probability in zip(report.verdict, report.wrong_label.tolist(), strict=True):
        assert ("probably wrong" in words) == (probability >= 0.5)


def test_planted_flips_of_digits_are_found(digits):
    data = ni.datasets.load("mnist-5k-7v9", 400, 2)
    flipped = torch.rand(400, generator=torch.Generator().manual_seed(12)) < 0.1
    report = ni.trust_report(ni.relu_ntk(data.X), torch.where(flipped, -data.y, data.y))
    assert abs(report.noise_rate - float(flipped.double().mean())) < 0.06
    assert (report.wrong_label[flipped] > 0.5).double().mean() > 0.7
    assert (report.wrong_label[~flipped] > 0.5).double().mean() < 0.05


def test_the_unit_of_the_labels_says_nothing_about_them():
    K, y, flipped = caps(100, 1)
    y = torch.where(flipped, -y, y)
    one, other = (ni.trust_report(K, unit * y, ridge=0.3) for unit in (1.0, -20.0))
    assert_close(one.wrong_label, other.wrong_label, atol=1e-4, rtol=0)


def test_which_labels_are_classes():
    """Two values, or one larger of two values in each row; all else are numbers."""
    K, y, flipped = caps(200, 0)
    y = torch.where(flipped, -y, y)
    both, c = torch.stack([y, -y], dim=1), torch.stack([y, -y, -torch.ones(200)], dim=1)
    wide = ni.trust_report(K, y).loo_residual.numpy()[:, None]
    for labels, probability in (
        (y, None), (y[:, None], None), (both, None), (c, None),
        (torch.stack([y, y], dim=1), wrong_label.of_numbers(np.hstack([wide, wide]))[0]),
    ):  # fmt: skip
        report = ni.trust_report(K, labels)
        if probability is None:
            assert report.wrong_label[flipped].mean() > 0.5
        else:
            assert_close(report.wrong_label.numpy(), probability, atol=1e-9, rtol=0)


@pytest.mark.parametrize("labels", [[1.0, 1.0], [1.0, -1.0], [0.0, 0.0]])
def test_two_points(labels):
    K = ni.relu_ntk(torch.eye(2).double())
    report = ni.trust_report(K, torch.tensor(labels).double())
    assert (report.wrong_label >= 0).all()
    assert (report.wrong_label <= 1).all()
    assert report.nearest.tolist() == [1, 0]


def test_a_point_without_neighbours_is_called_so():
    X = torch.cat([torch.eye(8).double()[:1], torch.eye(8).double()[1:2].repeat(20, 1)])
    report = ni.trust_report(ni.relu_ntk(X), torch.ones(21).double(), ridge=0.01)
    assert "alone" in report.verdict[0]
    assert not any("alone" in words for words in report.verdict[1:])


def test_nothing_of_the_input_is_changed():
    problem = make_problem(n=8)
    K, y = problem.K.clone(), problem.y.clone()
    report_of(problem, ridge=None)
    ni.most_influential_group(problem.fit(), problem.k_test[0], 4)
    assert torch.equal(K, problem.K)
    assert torch.equal(y, problem.y)


# Groups


def change_without(problem: Problem, t: int, group):
    return (problem.predict_without(list(group)) - problem.predict_without([]))[t]


def matches_greedy(problem: Problem, size: int, t: int = 0) -> None:
    """Each step is the best one by refits, and the change is that of the refit."""
    model = problem.fit()
    indices, change = ni.most_influential_group(model, problem.k_test[t], size)
    assert_close(change, change_without(problem, t, indices), **EXACT)
    for step in range(size):
        before = indices[:step]
        rest = [i for i in range(problem.n) if i not in before]
        reached = {i: float(change_without(problem, t, [*before, i]).norm()) for i in rest}
        assert reached[indices[step]] >= max(reached.values()) - 1e-9


@pytest.mark.parametrize("outputs", [None, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_built_of_the_best_steps(outputs, seed):
    matches_greedy(make_problem(n=10, outputs=outputs, ridge=0.2, seed=seed), 5)


@pytest.mark.parametrize("seed", range(8))
def test_a_group_of_points_that_depend_on_one_another_is_built_of_the_best_steps(seed):
    """Near copies at a small ridge: what is left of a point changes with each removal."""
    matches_greedy(make_problem(n=10, copies=4, dim=2, ridge=0.05, seed=seed), 7)


def test_a_group_of_digits_is_built_of_the_best_steps(digits):
    matches_greedy(digits_problem(digits), 6)


@pytest.mark.parametrize("size", [2, 3])
def test_no_group_of_the_size_changes_much_more(size):
    """Exhaustive at n = 10. Greedy is no guarantee: at least 0.8 of the best is asked, on average
    over 20 problems, and never more than the best."""
    shares = []
    for seed in range(20):
        problem = make_problem(n=10, ridge=0.2, seed=seed)
        reached = abs(float(ni.most_influential_group(problem.fit(), problem.k_test[0], size)[1]))
        groups = combinations(range(10), size)
        shares.append(reached / max(abs(float(change_without(problem, 0, g))) for g in groups))
    assert max(shares) <= 1 + 1e-9
    assert np.mean(shares) > 0.8


def test_all_points_can_be_removed():
    problem = make_problem(n=7, copies=2)
    group = ni.most_influential_group(problem.fit(), problem.k_test[0], 7)
    assert sorted(group.indices) == list(range(7))
    assert_close(group.change, -problem.fit().predict(problem.k_test)[0], atol=1e-9, rtol=0)
