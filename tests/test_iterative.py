"""Leave-one-out of chosen points without a kernel matrix, beside the dense form."""

import pytest
import torch
from problems import refused, unit_rows
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import iterative

N, CHOSEN = 50, [7, 0, 49]


class Case:
    """A problem, the dense model of it, and what that says of the chosen points."""

    def __init__(self, ridge=0.1, outputs=None, n=N, dtype=torch.float64):
        points = unit_rows(n + 6, 5, 0, dtype)
        columns = () if outputs is None else (outputs,)
        generator = torch.Generator().manual_seed(1)
        labels = torch.rand(n + 6, *columns, generator=generator, dtype=torch.float64).to(dtype)
        self.X, self.Z, self.y, self.y_test = points[:n], points[n:], labels[:n], labels[n:]
        self.ridge = ridge
        self.dense = ni.fit_kernel_ridge(ni.relu_ntk(self.X), self.y, ridge)
        self.k = ni.relu_ntk(self.Z, self.X)

    def fit(self, **options):
        options = {"chosen": CHOSEN, "low_rank": 8, "chunks": 17} | options
        return iterative.fit_kernel_ridge(self.X, self.y, self.ridge, **options)

    def both(self, model):
        """Pairs of what is to a tolerance and what is exact."""
        dense, k = self.dense, self.k
        influence = ni.loo_influence(dense, k, self.y_test)[CHOSEN]
        yield model.predict(self.Z), dense.predict(k)
        yield iterative.leverage(model), dense.leverage[CHOSEN]
        yield iterative.leave_one_out(model, self.Z), ni.leave_one_out(dense, k)[CHOSEN]
        yield iterative.loo_influence(model, self.Z, self.y_test), influence


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("outputs", [None, 3])
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-5, 1e-9])
def test_no_error_exceeds_its_bound(ridge, outputs, tolerance):
    case = Case(ridge, outputs)
    for found, exact in case.both(case.fit(tolerance=tolerance)):
        assert found.value.shape == found.error.shape == exact.shape
        assert bool(((found.value - exact).abs() <= found.error).all())


def test_a_tighter_tolerance_is_a_smaller_error():
    case = Case(outputs=2)
    for found, exact in case.both(case.fit(tolerance=1e-11)):
        # A residual of 1e-11 over a ridge of 0.1, at most a thousand times in an influence.
        assert float(found.error.max()) < 1e-8
        assert_close(found.value, exact, rtol=0, atol=1e-9)


def test_no_bound_is_idle():
    # At one percent the errors are there, and no bound is a hundred times as large as the largest.
    case = Case(1.0, outputs=2)
    for found, exact in case.both(case.fit(tolerance=1e-2, low_rank=2)):
        share = float((found.value - exact).abs().max() / found.error.max())
        assert 1e-2 < share <= 1


def test_quadratic_forms_are_twice_as_exact():
    case = Case(1.0)
    errors = [float(iterative.leverage(case.fit(tolerance=t)).error.max()) for t in (1e-2, 1e-4)]
    # The square of a residual; a column of the identity has norm 1.
    assert errors[0] <= 1e-4
    assert errors[1] <= 1e-8 + 1e-12


def spoiled(model, system, off_dual, off_columns):
    """The model with other solutions, and residuals that belong to them."""
    parts = []
    for part, off in ((model.dual, off_dual), (model.columns, off_columns)):
        parts.append(part._replace(x=part.x + off, residual=part.residual - system @ off))
    names = ("chosen", "probes", "signs", "system", "low_rank", "flat")
    return iterative.IterativeKernelRidge(*parts, **{name: getattr(model, name) for name in names})


def test_bounds_hold_far_from_the_solution_too():
    """A model whose columns are off by construction, not by chance."""
    case = Case(0.05)
    model, system = case.fit(tolerance=1e-9), torch.linalg.inv(case.dense.inverse)
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.randn(N, 4, generator=generator, dtype=torch.float64)
    off = spoiled(model, system, noise[:, :1], noise[:, 1:])
    for found, exact in case.both(off):
        assert bool(((found.value - exact).abs() <= found.error).all())
        assert float(found.error.min()) > 1e-6


def test_the_change_alone_has_a_bound_where_both_solutions_are_off_in_one_direction():
    case = Case(0.1)
    model, system = case.fit(tolerance=1e-9), torch.linalg.inv(case.dense.inverse)
    values, vectors = torch.linalg.eigh(system)
    worst = vectors[:, :1] / values[0]  # residuals of norm 1 in the direction of least curvature
    off = spoiled(model, system, 100 * worst, 0.1 * worst.expand(N, 3))
    k = ni.relu_ntk(case.X)[CHOSEN]
    exact = ni.leave_one_out(case.dense, k)[CHOSEN] - case.dense.predict(k)
    _, change = iterative._changes(off, case.X[CHOSEN])
    error = (change.value[..., 0] - exact).abs()
    assert bool((error <= change.error[..., 0]).all())
    # A quarter of the bound is there: the product of both residuals over the ridge.
    assert float((error / change.error[..., 0]).max()) > 0.25


def test_another_kernel_needs_no_unit_rows():
    case = Case()
    X, Z = 3 * case.X, 2 * case.Z

    def gauss(A, C=None):
        return 2 * torch.exp(-torch.cdist(A, A if C is None else C).square() / 8)

    exact = ni.leave_one_out(ni.fit_kernel_ridge(gauss(X), case.y, 0.1), gauss(Z, X))[CHOSEN]
    options = {"chosen": CHOSEN, "low_rank": 8, "kernel": gauss}
    for tolerance in (1e-1, 1e-10):
        options["tolerance"] = tolerance
        found = iterative.leave_one_out(iterative.fit_kernel_ridge(X, case.y, 0.1, **options), Z)
        assert bool(((found.value - exact).abs() <= found.error).all())
    assert float(found.error.max()) < 1e-7


def test_single_precision_knows_its_rounding():
    case, exact = Case(1.0, dtype=torch.float32), Case(1.0)
    model = case.fit(tolerance=1e-5)
    pairs = zip(case.both(model), exact.both(exact.fit()), strict=True)
    for (found, _), (_, true) in pairs:
        assert found.value.dtype == torch.float32
        assert bool(((found.value - true).abs() <= found.error).all())
        assert float(found.error.max()) < 1e-2


def test_a_preconditioner_may_be_given():
    case = Case()
    low_rank = iterative.low_rank_kernel(case.X, 8, seed=0)
    one, two = case.fit(), case.fit(low_rank=low_rank)
    assert torch.equal(one.dual.x, two.dual.x)
    assert one.low_rank.pivots.tolist() == low_rank.pivots.tolist()
    assert len(case.fit(low_rank=500).low_rank.pivots) <= N


def test_real_digits(digits):
    dense = ni.fit_kernel_ridge(ni.relu_ntk(digits.X), digits.y, 0.5)
    model = iterative.fit_kernel_ridge(digits.X, digits.y, 0.5, chosen=[0, 59], low_rank=20)
    found = iterative.leave_one_out(model, digits.X_test)
    exact = ni.leave_one_out(dense, ni.relu_ntk(digits.X_test, digits.X))[[0, 59]]
    assert bool(((found.value - exact).abs() <= found.error).all())
    assert float(found.error.max()) < 1e-4


# The estimate


def estimates(case, confidence=0.95, tolerance=1e-8):
    for seed in range(12):
        low_rank = iterative.low_rank_kernel(case.X, 8, seed=0)
        model = case.fit(chosen=[], probes=20, seed=seed, low_rank=low_rank, tolerance=tolerance)
        yield iterative.estimate_leverage(model, confidence=confidence)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_intervals_cover_as_often_as_they_say(confidence):
    case = Case(0.1)
    h, inside, total = case.dense.leverage, [], []
    for found in estimates(case, confidence):
        inside.append(((found.lower <= h) & (h <= found.upper)).double().mean())
        total.append(abs(found.total - float(h.sum())) <= found.total_error)
        assert bool((found.lower <= found.value).all())
        assert bool((found.value <= found.upper).all())
        assert found.confidence == confidence
    # 600 intervals in twelve draws: the share has a deviation near 0.03 at one half, 0.015 at 95 %.
    assert abs(float(torch.stack(inside).mean()) - confidence) < 0.12 * (1 - confidence) + 0.04
    assert sum(total) >= (9 if confidence == 0.95 else 2)


def test_the_mean_of_many_probes_is_the_leverage():
    case = Case(0.1)
    model = case.fit(chosen=[], probes=4000)
    found = iterative.estimate_leverage(model)
    # Four deviations of 4,000 probes: a row of lambda P has norm at most 1, near 0.3 here.
    assert_close(found.value, case.dense.leverage, rtol=0, atol=2e-2)
    assert found.total == pytest.approx(float(case.dense.leverage.sum()), abs=0.2)
    assert found.total_error < 0.1
    assert float((found.upper - found.lower).max()) < 0.04


def test_what_is_sure_cuts_intervals_off():
    case = Case(10.0)
    model = case.fit(chosen=[], probes=2, low_rank=30)
    found = iterative.estimate_leverage(model, confidence=0.9999)
    assert bool((found.lower >= model.low_rank.leverage(10.0)).all())
    assert bool((found.upper <= 0.5 / 10.5).all())
    h = case.dense.leverage
    assert bool(((found.lower <= h + 1e-12) & (h <= found.upper + 1e-12)).all())


def test_a_loose_solver_widens_the_interval():
    tight, loose = (next(estimates(Case(0.1), tolerance=t)) for t in (1e-10, 0.2))
    lengths = [float((found.upper - found.lower).mean()) for found in (tight, loose)]
    assert lengths[1] > 1.2 * lengths[0]
    assert loose.total_error > tight.total_error


def test_signs_are_signs_and_follow_the_seed():
    case = Case()
    one, two, other = (case.fit(probes=40, seed=s).signs for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert set(one.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(one.mean())) < 0.1


# Refusals


@pytest.mark.usefixtures("without_annotations")
def test_bad_input_is_refused():
    case = Case()
    fit, model, bare = case.fit, case.fit(probes=2), case.fit(chosen=[])
    refused(lambda: fit(chosen=[50]), "chosen", "indices from 0 to 49", "50")
    refused(lambda: fit(chosen=[1, 1]), "chosen", "distinct indices", "more than once")
    refused(lambda: fit(probes=-1), "probes", "an integer >= 1", "-1")
    refused(lambda: fit(low_rank=0), "low_rank", "an integer >= 1", "0")
    refused(lambda: fit(tolerance=0.0), "tolerance", "a number > 0", "0.0")
    refused(lambda: fit(seed=-1), "seed", "an integer from 0", "-1")
    refused(lambda: fit(chunks=0), "chunks", "an integer >= 1", "0")
    call = iterative.fit_kernel_ridge
    refused(lambda: call(case.X, case.y, 0.0), "ridge", "a number > 0", "0.0")
    refused(lambda: call(case.X, case.y[:9], 1.0), "y", "50 rows", "(9,)")
    refused(lambda: call(case.X, case.y.float(), 1.0), "y", "the dtype of X", "float32")
    refused(lambda: model.predict(2 * case.Z), "X_test", "unit norm", "off by")
    refused(lambda: model.predict(case.Z[:, :4]), "X_test", "5 columns", "4")
    refused(lambda: model.predict(case.Z.float()), "X_test", "the dtype", "float32")
    leave, score = iterative.leave_one_out, iterative.loo_influence
    refused(lambda: leave(bare, case.Z), "model", "at least one chosen point", "none")
    refused(lambda: leave(case.dense, case.Z), "model", "a IterativeKernelRidge", "KernelRidge")
    refused(lambda: score(model, case.Z, case.y), "y_test", "shape (6,)", "(50,)")
    refused(lambda: iterative.leverage(bare), "model", "at least one chosen point", "none")
    estimate = iterative.estimate_leverage
    refused(lambda: estimate(bare), "model", "at least two probes", "0")
    refused(lambda: estimate(model, confidence=1.0), "confidence", "a number below 1", "1.0")
    refused(lambda: estimate(model, confidence=0.0), "confidence", "a number > 0", "0.0")
