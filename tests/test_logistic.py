"""Logistic and softmax regression against explicit weights, differentiated automatically."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from problems import make_problem, refused, unit_rows
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.nn.functional import cross_entropy, one_hot, softplus
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import cross_entropy as losses_of
from ntk_influence import logistic

RIDGES = [1e-3, 0.1, 10.0]


@dataclass(frozen=True)
class Classes:
    """Kernels and labels of two classes, +1 and -1, or of c classes, rows of zeros with a one."""

    K: Tensor
    y: Tensor
    k_test: Tensor
    y_test: Tensor

    def fit(self, ridge: float, kept: list[int] | None = None) -> logistic.KernelLogistic:
        kept = list(range(len(self.y))) if kept is None else kept
        return ni.fit_kernel_logistic(self.K[kept][:, kept], self.y[kept], ridge)

    def without(self, ridge: float, removed: list[int]) -> Tensor:
        """Outputs of the model that is fitted anew without some points."""
        kept = [i for i in range(len(self.y)) if i not in removed]
        return self.fit(ridge, kept).predict(self.k_test[:, kept])

    def refits(self, ridge: float) -> Tensor:
        return torch.stack([self.without(ridge, [i]) for i in range(len(self.y))])


def make_classes(c=None, n=12, n_test=5, seed=0, dtype=torch.float64) -> Classes:
    """Random points whose classes depend on where they are, and not only on that."""
    points = unit_rows(n + n_test, 5, seed)
    noise = torch.randn(n + n_test, c or 2, generator=torch.Generator().manual_seed(seed + 1))
    scores = 2 * points[:, : c or 2] + 0.5 * noise.double()
    classes = scores.argmax(dim=1)
    y = one_hot(classes, c) if c else 2 * classes - 1
    K, k_test = ni.relu_ntk(points[:n]), ni.relu_ntk(points[n:], points[:n])
    return Classes(*(part.to(dtype) for part in (K, y[:n], k_test, y[n:])))


def loss_of(f: Tensor, y: Tensor) -> Tensor:
    """Cross-entropies by somebody else."""
    if y.ndim == 1:
        return softplus(-y * f, threshold=1000)
    return cross_entropy(f, y, reduction="none")


class Explicit:
    """The same model with explicit weights: features, a root of the kernel; dense derivatives."""

    def __init__(self, problem: Classes, ridge: float):
        self.problem, self.ridge = problem, ridge
        whole = torch.cat([problem.K, problem.k_test])
        values, vectors = torch.linalg.eigh(problem.K)
        self.phi = whole @ (vectors / values.sqrt())  # rows of training points, then of test points
        self.n, self.c = len(problem.y), 1 if problem.y.ndim == 1 else problem.y.shape[1]
        dual = problem.fit(ridge).dual.reshape(self.n, -1)
        self.theta = (self.phi[: self.n].T @ dual).flatten()

    def outputs(self, theta: Tensor) -> Tensor:
        f = self.phi @ theta.reshape(-1, self.c)
        return f[:, 0] if self.problem.y.ndim == 1 else f

    def objective(self, theta: Tensor, removed: list[int] = ()) -> Tensor:
        kept = [i for i in range(self.n) if i not in removed]
        losses = loss_of(self.outputs(theta)[kept], self.problem.y[kept])
        return losses.sum() + self.ridge / 2 * theta.square().sum()

    def step(self, removed: list[int]) -> Tensor:
        """Outputs at the test points after one Newton step without some points."""

        def of(theta):
            return self.objective(theta, removed)

        gradient = torch.func.grad(of)(self.theta)
        step = torch.linalg.solve(hessian(of, self.theta), gradient)
        return self.outputs(self.theta - step)[self.n :]

    def ihvp(self) -> Tensor:
        """Derivatives of test losses times inverse Hessian times those of training losses."""

        def each(theta):
            y = torch.cat([self.problem.y, self.problem.y_test])
            return loss_of(self.outputs(theta), y)

        J = jacobian(each, self.theta)
        H = hessian(self.objective, self.theta)
        return J[: self.n] @ torch.linalg.solve(H, J[self.n :].T)

    def hat(self) -> Tensor:
        """The blocks of the hat matrix, curvature of the loss first."""
        J = jacobian(self.outputs, self.theta)
        J = J[: self.n].reshape(self.n, self.c, -1)
        H = hessian(self.objective, self.theta)
        f = self.outputs(self.theta)[: self.n]
        curvature = [
            hessian(lambda out, y=y: loss_of(out[None], y[None])[0], out)
            for out, y in zip(f, self.problem.y, strict=True)
        ]
        return torch.stack(
            [
                w.reshape(self.c, self.c) @ j @ torch.linalg.solve(H, j.T)
                for w, j in zip(curvature, J, strict=True)
            ]
        )


KINDS = pytest.mark.parametrize("c", [None, 3], ids=["two classes", "three classes"])
AT_RIDGES = pytest.mark.parametrize("ridge", RIDGES)


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


# The fit


@KINDS
@AT_RIDGES
def test_the_gradient_is_zero_at_the_minimum(c, ridge):
    explicit = Explicit(make_classes(c), ridge)
    gradient = torch.func.grad(explicit.objective)(explicit.theta)
    assert gradient.norm() <= 1e-11 * (1 + ridge * explicit.theta.norm())


@KINDS
def test_the_dual_is_what_is_left_of_the_labels(c):
    problem = make_classes(c)
    model = problem.fit(0.1)
    f = model.predict(problem.K)
    p = torch.sigmoid(f) if c is None else torch.softmax(f, dim=1)
    near(0.1 * model.dual, (problem.y.clamp(min=0)) - p)


@pytest.mark.parametrize("ridge", [1e-12, 1e-6])
@KINDS
def test_separable_classes_at_a_weak_ridge_are_fitted(c, ridge):
    problem = make_classes(c, n=4, seed=3)
    model = problem.fit(ridge)
    f = model.predict(problem.K)
    chosen = f.sign() if c is None else one_hot(f.argmax(dim=1), c).double()
    assert torch.equal(chosen, problem.y)
    g, _ = losses_of.derivatives(f.reshape(4, -1), problem.y.reshape(4, -1))
    near(-g.reshape(f.shape), ridge * model.dual, 1e-10)


def test_whole_steps_would_go_astray():
    """Points of very different size: without halving, Newton's method goes round and round."""
    points = [[134.4, 6.9], [-1.5, -5.5], [312.3, 649.1]]
    x = torch.tensor(points, dtype=torch.float64)
    y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    model = ni.fit_kernel_logistic(x @ x.T, y, 1.0)
    left = y - torch.softmax(model.predict(x @ x.T), dim=1)
    near(model.dual, left, 1e-8)


def test_two_classes_with_rows_need_twice_the_ridge():
    problem = make_classes()
    rows = one_hot((problem.y > 0).long(), 2).double()
    two, signs = ni.fit_kernel_logistic(problem.K, rows, 0.4), problem.fit(0.2)
    f = logistic.leave_one_out(two, problem.k_test)
    near(f[..., 1] - f[..., 0], logistic.leave_one_out(signs, problem.k_test))
    y_test = one_hot((problem.y_test > 0).long(), 2).double()
    for of in (logistic.loo_influence, logistic.ihvp_influence):
        near(of(two, problem.k_test, y_test), of(signs, problem.k_test, problem.y_test))
    traces = two.leverage.diagonal(dim1=1, dim2=2).sum(dim=1)
    near(traces, signs.leverage)


def test_small_losses_are_exact():
    f = torch.tensor([[40.0, 0.0, -1.0], [0.0, 0.0, 50.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]], dtype=torch.float64)
    small = torch.tensor([-40.0, -50.0]).double().exp() * (1 + torch.tensor([-1.0, 0]).exp())
    assert_close(losses_of.losses(f, y), small, rtol=1e-7, atol=0)
    g, W = losses_of.derivatives(f, y)
    assert_close(g[0, 0], -small[0], rtol=1e-7, atol=0)
    assert_close(W[0, 0, 0], small[0], rtol=1e-7, atol=0)
    assert_close(
        losses_of.losses(f[:, :1], y[:, :1])[0], small[0] / (1 + torch.e**-1), rtol=1e-7, atol=0
    )
    g, W = losses_of.derivatives(f[:1, :1], y[:1, :1])
    assert_close(W[0, 0, 0], -g[0, 0], rtol=1e-7, atol=0)
    assert g[0, 0] != 0


# One Newton step


@KINDS
@AT_RIDGES
def test_leave_one_out_is_the_newton_step_without_the_point(c, ridge):
    problem = make_classes(c)
    explicit = Explicit(problem, ridge)
    expected = torch.stack([explicit.step([i]) for i in range(len(problem.y))])
    near(logistic.leave_one_out(problem.fit(ridge), problem.k_test), expected)


@KINDS
@pytest.mark.parametrize("group", [[3], [5, 0], [1, 2, 7, 4], []])
def test_leave_group_out_is_the_newton_step_without_the_group(c, group):
    problem = make_classes(c)
    model = problem.fit(0.1)
    found = logistic.leave_group_out(model, problem.k_test, group)
    near(found, Explicit(problem, 0.1).step(group))
    if len(group) == 1:
        near(found, logistic.leave_one_out(model, problem.k_test)[group[0]])


@KINDS
def test_without_any_point_nothing_is_predicted(c):
    problem = make_classes(c)
    f = logistic.leave_group_out(problem.fit(0.1), problem.k_test, range(12))
    assert_close(f, torch.zeros_like(f), rtol=0, atol=1e-11)


@pytest.mark.parametrize("outputs", [None, 1])
def test_the_squared_loss_gives_what_it_gives_in_kernel_ridge_regression(outputs):
    """Curvature one: the same formulas are those of ridge regression."""
    problem = make_problem(outputs=outputs)
    ridge = problem.fit()
    same = logistic.KernelLogistic(ridge.dual, ridge.inverse, ridge.ridge, ridge.leverage)
    near(same.predict(problem.k_test), ridge.predict(problem.k_test), 1e-14)
    near(same.one_minus_leverage, ridge.one_minus_leverage, 1e-14)
    expected = ni.leave_one_out(ridge, problem.k_test)
    near(logistic.leave_one_out(same, problem.k_test), expected, 1e-10)
    expected = ni.leave_group_out(ridge, problem.k_test, [4, 1])
    near(logistic.leave_group_out(same, problem.k_test, [4, 1]), expected, 1e-10)


@KINDS
def test_the_error_of_the_step_falls_with_the_ridge(c):
    problem, errors = make_classes(c, n=20), []
    for ridge in (0.01, 0.1, 1.0, 10.0):
        model = problem.fit(ridge)
        f, refits = model.predict(problem.k_test), problem.refits(ridge)
        step = logistic.leave_one_out(model, problem.k_test)
        errors.append(float((step - refits).norm() / (refits - f).norm()))
    assert errors[0] < 1
    assert all(after < before / 2 for before, after in pairwise(errors))


# Leverage and influence


@KINDS
@AT_RIDGES
def test_leverage_is_the_diagonal_of_the_hat_matrix(c, ridge):
    problem = make_classes(c)
    model, hat = problem.fit(ridge), Explicit(problem, ridge).hat()
    near(model.leverage, hat.reshape(model.leverage.shape))
    one = 1.0 if c is None else torch.eye(c).double()
    near(model.one_minus_leverage, one - model.leverage)
    values = torch.linalg.eigvals(hat).real
    assert values.min() >= -1e-12
    assert values.max() < 1


@KINDS
def test_influence_is_the_change_of_the_test_loss(c):
    problem = make_classes(c)
    model, test = problem.fit(0.1), (problem.k_test, problem.y_test)
    before = loss_of(model.predict(problem.k_test), problem.y_test)
    after = [loss_of(f, problem.y_test) for f in logistic.leave_one_out(model, problem.k_test)]
    near(logistic.loo_influence(model, *test), torch.stack(after) - before)
    refits = torch.stack([loss_of(f, problem.y_test) for f in problem.refits(10.0)])
    model = problem.fit(10.0)
    truth = refits - loss_of(model.predict(problem.k_test), problem.y_test)
    near(logistic.loo_influence(model, *test), truth, 1e-2)


@KINDS
@AT_RIDGES
def test_ihvp_is_what_the_inverse_hessian_gives(c, ridge):
    problem = make_classes(c)
    found = logistic.ihvp_influence(problem.fit(ridge), problem.k_test, problem.y_test)
    near(found, Explicit(problem, ridge).ihvp())


def test_without_the_leverage_ihvp_falls_short():
    problem = make_classes()
    model, test = problem.fit(0.1), (problem.k_test, problem.y_test)
    plain = logistic.ihvp_influence(model, *test)
    corrected = logistic.ihvp_influence(model, *test, correct_leverage=True)
    near(plain, corrected * (1 - model.leverage)[:, None])
    f = model.predict(problem.k_test)
    change = logistic.leave_one_out(model, problem.k_test) - f
    g = -problem.y_test * torch.sigmoid(-problem.y_test * f)
    near(corrected, g * change)


@KINDS
def test_single_precision(c):
    single, double = make_classes(c, dtype=torch.float32), make_classes(c)
    found, expected = single.fit(0.1), double.fit(0.1)
    given = [(p.k_test, p.y_test) for p in (single, double)]
    for of in (logistic.loo_influence, logistic.ihvp_influence):
        influence = of(found, *given[0])
        assert influence.dtype == torch.float32
        near(influence.double(), of(expected, *given[1]), 1e-3)


# Bad input


def spoiled(y: Tensor, *values: float) -> Tensor:
    y = y.clone()
    y.view(-1)[: len(values)] = torch.tensor(values)
    return y


TWO, THREE = make_classes(), make_classes(3)
COPIES = TWO.K.repeat(2, 2)
OPPOSED = torch.cat([TWO.y, -TWO.y])
REFUSED = {
    "no ridge": (lambda: TWO.fit(0), "ridge", "a number > 0", "0"),
    "a negative ridge": (lambda: TWO.fit(-1.0), "ridge", "a finite number >= 0", "-1.0"),
    "a ridge that is no number": (lambda: TWO.fit("1"), "ridge", "a number", "str"),
    "repeated points, other labels": (
        lambda: ni.fit_kernel_logistic(COPIES, OPPOSED, 1e-14),
        "ridge",
        "to three digits in torch.float64",
        "try a larger ridge",
    ),
    "separable, and next to no ridge": (
        lambda: make_classes(n=4, seed=3).fit(1e-300),
        "ridge",
        "to three digits",
        "1e-300 (after Newton's method",
    ),
    "one class": (lambda: ni.fit_kernel_logistic(TWO.K, TWO.y.abs(), 1.0), "y", "two classes", "1"),
    "one class of three": (
        lambda: ni.fit_kernel_logistic(TWO.K, THREE.y[:1].repeat(12, 1), 1.0),
        "y",
        "points of two classes or more",
        "1",
    ),
    "labels 0 and 1": (
        lambda: ni.fit_kernel_logistic(TWO.K, (TWO.y + 1) / 2, 1.0),
        "y",
        "labels +1 and -1",
        "0",
    ),
    "numbers of classes": (
        lambda: ni.fit_kernel_logistic(TWO.K, THREE.y.argmax(dim=1), 1.0),
        "y",
        "dtype torch.float32 or torch.float64",
        "torch.int64",
    ),
    "two ones in a row": (
        lambda: ni.fit_kernel_logistic(TWO.K, torch.ones(12, 3).double(), 1.0),
        "y",
        "for each class from 0 to 2",
        "another row 0",
    ),
    "a probability": (
        lambda: ni.fit_kernel_logistic(TWO.K, spoiled(THREE.y, 0.5, 0.5, 0.0), 1.0),
        "y",
        "a row of zeros with a one",
        "another row 0",
    ),
    "minus one in rows": (
        lambda: ni.fit_kernel_logistic(TWO.K, 2 * THREE.y - 1, 1.0),
        "y",
        "a row of zeros with a one",
        "another row 0",
    ),
    "NaN in K": (
        lambda: ni.fit_kernel_logistic(spoiled(TWO.K, float("nan")), TWO.y, 1.0),
        "K",
        "finite",
        "1 NaN",
    ),
    "K not symmetric": (
        lambda: ni.fit_kernel_logistic(spoiled(TWO.K.flip(0), 3.0), TWO.y, 1.0),
        "K",
        "a symmetric matrix",
        "up to",
    ),
    "a test label that is none": (
        lambda: logistic.loo_influence(TWO.fit(0.1), TWO.k_test, 0.5 * TWO.y_test),
        "y_test",
        "labels +1 and -1",
        "0.5",
    ),
    "test labels of two classes for three": (
        lambda: logistic.ihvp_influence(THREE.fit(0.1), THREE.k_test, TWO.y_test),
        "y_test",
        "shape (5, 3)",
        "shape (5,)",
    ),
    "a transposed test kernel": (
        lambda: logistic.leave_one_out(TWO.fit(0.1), TWO.k_test.T),
        "k_test",
        "(transpose it?)",
        "shape (12, 5)",
    ),
    "a point twice": (
        lambda: logistic.leave_group_out(TWO.fit(0.1), TWO.k_test, [1, 1]),
        "group",
        "distinct indices",
        "[1] more than once",
    ),
    "a ridge regression": (
        lambda: logistic.leave_one_out(make_problem().fit(), make_problem().k_test),
        "model",
        "a KernelLogistic",
        "KernelRidge",
    ),
}


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_sentence(case):
    refused(*REFUSED[case])


def test_a_test_kernel_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match=r"^k_test: expected the dtype of the model"):
        TWO.fit(0.1).predict(TWO.k_test.float())
