"""Bad input is refused in one sentence: the argument, what was expected, what came."""

import re

import numpy as np
import pytest
import torch
from problems import make_problem, unit_rows
from torch.testing import assert_close

from ntk_influence import (
    KernelRidge,
    TrainedTwoLayerReLU,
    TwoLayerReLU,
    _check,
    complexity,
    contour,
    conv_ntk,
    deep_ntk,
    finite_width,
    fit_kernel_logistic,
    fit_kernel_ridge,
    ihvp_influence,
    leave_group_out,
    leave_one_out,
    logistic,
    loo_influence,
    loo_influence_at,
    most_influential_group,
    predict_at,
    relu_ntk,
    retrain_without,
    train,
    trust_report,
)

pytestmark = pytest.mark.usefixtures("without_annotations")

nan, inf = float("nan"), float("inf")
X, Z = unit_rows(6, 4), unit_rows(3, 4, seed=1)
PROBLEM = make_problem(n=6, n_test=3)
IMAGES, OTHERS = (unit_rows(n, 8, seed=n).reshape(n, 2, 4) for n in (6, 3))
K, y, k_test, y_test = PROBLEM.K, PROBLEM.y, PROBLEM.k_test, PROBLEM.y_test
MODEL = PROBLEM.fit()
MODEL_OF_ONE = fit_kernel_ridge(K, y, 1.0)
SIGNS, TEST_SIGNS = y.sign(), y_test.sign()
LOGISTIC = fit_kernel_logistic(K, SIGNS, 0.1)
MODEL_OF_TWO = make_problem(n=6, n_test=3, outputs=2).fit()
NETWORK = TwoLayerReLU.initialise(4, 8, 0.3, 0)


def ihvp(X=X, y=y, X_test=Z, y_test=y_test, ridge=0.1):
    return finite_width.ihvp_influence(NETWORK, X, y, ridge, X_test, y_test)


def at(times=(1.0,), K=K, y=y, k_test=k_test, y_test=y_test, ridge=0.1, **options):
    return loo_influence_at(times, K, y, ridge, k_test, y_test, **options)


def conv(images=IMAGES, other=None, depth=1, kernel_size=3, **options):
    return conv_ntk(images, other, depth=depth, kernel_size=kernel_size, **options)


def ridge_model(**parts):
    given = {"dual": y, "inverse": K, "ridge": 0.1, "leverage": y} | parts
    return KernelRidge(**given)


def with_entries(tensor: torch.Tensor, *entries: float) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[: len(entries)] = torch.tensor(entries)
    return changed


def refuses(call, argument: str, expected: str, got: str) -> None:
    """The call raises the one kind of sentence, and only that."""
    with pytest.raises(ValueError, match=rf"^{argument}: expected ") as caught:
        call()
    expectation, _, came = str(caught.value).partition(", got ")
    assert expected in expectation
    assert got in came


# Every way to be no tensor of floats, and every call that takes a tensor.

FLOATS = "dtype torch.float32 or torch.float64"
NOT_A_TENSOR_OF_FLOATS = [
    (lambda good: good.numpy(), "a torch tensor", "ndarray"),
    (lambda good: good.tolist(), "a torch tensor", "list"),
    (lambda good: None, "a torch tensor", "NoneType"),
    (lambda good: good.round().long(), FLOATS, "torch.int64"),
    (lambda good: good > 0, FLOATS, "torch.bool"),
    (lambda good: good.to(torch.complex128), FLOATS, "torch.complex128"),
    (lambda good: good.half(), FLOATS, "torch.float16"),
    (lambda good: good[None, None], "axes", "shape (1, 1, "),
    (lambda good: good.sum(), "axes", "shape ()"),
    (lambda good: good[:0], "at least one entry", "shape (0"),
    (lambda good: with_entries(good, nan), "finite", "1 NaN or infinite"),
    (lambda good: with_entries(good, 0, inf), "finite", "1 NaN or infinite"),
    (lambda good: with_entries(good, inf, -inf), "finite", "2 NaN or infinite"),
]
TAKES_A_TENSOR = {
    "relu_ntk X": ("X", X, relu_ntk),
    "relu_ntk Z": ("Z", Z, lambda bad: relu_ntk(X, bad)),
    "deep_ntk X": ("X", X, lambda bad: deep_ntk(bad, depth=2)),
    "deep_ntk Z": ("Z", Z, lambda bad: deep_ntk(X, bad, depth=2)),
    "conv_ntk images": ("images", IMAGES, lambda bad: conv(bad)),
    "conv_ntk other": ("other", OTHERS, lambda bad: conv(IMAGES, bad)),
    "fit_kernel_ridge K": ("K", K, lambda bad: fit_kernel_ridge(bad, y, 0.1)),
    "fit_kernel_ridge y": ("y", y, lambda bad: fit_kernel_ridge(K, bad, 0.1)),
    "fit_kernel_logistic K": ("K", K, lambda bad: fit_kernel_logistic(bad, SIGNS, 0.1)),
    "fit_kernel_logistic y": ("y", SIGNS, lambda bad: fit_kernel_logistic(K, bad, 0.1)),
    "logistic predict k_test": ("k_test", k_test, lambda bad: LOGISTIC.predict(bad)),
    "logistic leave_one_out k_test": (
        "k_test",
        k_test,
        lambda bad: logistic.leave_one_out(LOGISTIC, bad),
    ),
    "logistic leave_group_out k_test": (
        "k_test",
        k_test,
        lambda bad: logistic.leave_group_out(LOGISTIC, bad, [0]),
    ),
    "logistic loo_influence k_test": (
        "k_test",
        k_test,
        lambda bad: logistic.loo_influence(LOGISTIC, bad, TEST_SIGNS),
    ),
    "logistic loo_influence y_test": (
        "y_test",
        TEST_SIGNS,
        lambda bad: logistic.loo_influence(LOGISTIC, k_test, bad),
    ),
    "logistic ihvp_influence k_test": (
        "k_test",
        k_test,
        lambda bad: logistic.ihvp_influence(LOGISTIC, bad, TEST_SIGNS),
    ),
    "logistic ihvp_influence y_test": (
        "y_test",
        TEST_SIGNS,
        lambda bad: logistic.ihvp_influence(LOGISTIC, k_test, bad),
    ),
    "predict k_test": ("k_test", k_test, lambda bad: MODEL.predict(bad)),
    "leave_one_out k_test": ("k_test", k_test, lambda bad: leave_one_out(MODEL, bad)),
    "leave_group_out k_test": ("k_test", k_test, lambda bad: leave_group_out(MODEL, bad, [0])),
    "loo_influence k_test": ("k_test", k_test, lambda bad: loo_influence(MODEL, bad, y_test)),
    "loo_influence y_test": ("y_test", y_test, lambda bad: loo_influence(MODEL, k_test, bad)),
    "ihvp_influence k_test": ("k_test", k_test, lambda bad: ihvp_influence(MODEL, bad, y_test)),
    "ihvp_influence y_test": ("y_test", y_test, lambda bad: ihvp_influence(MODEL, k_test, bad)),
    "finite_width ihvp_influence X": ("X", X, lambda bad: ihvp(X=bad)),
    "finite_width ihvp_influence y": ("y", y, lambda bad: ihvp(y=bad)),
    "finite_width ihvp_influence X_test": ("X_test", Z, lambda bad: ihvp(X_test=bad)),
    "finite_width ihvp_influence y_test": ("y_test", y_test, lambda bad: ihvp(y_test=bad)),
    "finite_width leverage X": ("X", X, lambda bad: finite_width.leverage(NETWORK, bad, 0.1)),
    "trust_report K": ("K", K, lambda bad: trust_report(bad, y)),
    "trust_report y": ("y", y, lambda bad: trust_report(K, bad)),
    "trust_report X": ("X", X, lambda bad: trust_report(K, y, X=bad)),
    "trust_report k_test": (
        "k_test",
        k_test,
        lambda bad: trust_report(K, y, k_test=bad, y_test=y_test),
    ),
    "trust_report y_test": (
        "y_test",
        y_test,
        lambda bad: trust_report(K, y, k_test=k_test, y_test=bad),
    ),
    "most_influential_group k_test_row": (
        "k_test_row",
        k_test[0],
        lambda bad: most_influential_group(MODEL, bad, 2),
    ),
    "complexity K": ("K", K, lambda bad: complexity(bad, y)),
    "complexity y": ("y", y, lambda bad: complexity(K, bad)),
    "loo_influence_at K": ("K", K, lambda bad: at(K=bad)),
    "loo_influence_at y": ("y", y, lambda bad: at(y=bad)),
    "loo_influence_at k_test": ("k_test", k_test, lambda bad: at(k_test=bad)),
    "loo_influence_at y_test": ("y_test", y_test, lambda bad: at(y_test=bad)),
    "network predict X": ("X", X, lambda bad: NETWORK.predict(bad)),
    "network features X": ("X", X, lambda bad: NETWORK.features(bad)),
    "network ntk X": ("X", X, lambda bad: NETWORK.ntk(bad)),
    "network ntk Z": ("Z", Z, lambda bad: NETWORK.ntk(X, bad)),
}
# Leaving these out is no mistake.
WITHOUT_Z = {"relu_ntk Z", "deep_ntk Z", "conv_ntk other", "network ntk Z", "trust_report X"}
# The dtype of the others has to be that of these.
COMES_FIRST = {
    "relu_ntk X",
    "deep_ntk X",
    "conv_ntk images",
    "fit_kernel_logistic K",
    "fit_kernel_ridge K",
    "complexity K",
    "loo_influence_at K",
    "trust_report K",
}


@pytest.mark.parametrize("spoil", NOT_A_TENSOR_OF_FLOATS, ids=lambda spoil: spoil[2])
@pytest.mark.parametrize("call", TAKES_A_TENSOR)
def test_no_finite_tensor_of_floats(call, spoil):
    argument, good, function = TAKES_A_TENSOR[call]
    bad, expected, got = spoil[0](good), *spoil[1:]
    if not (bad is None and call in WITHOUT_Z):
        refuses(lambda: function(bad), argument, expected, got)


@pytest.mark.parametrize("call", sorted(set(TAKES_A_TENSOR) - COMES_FIRST))
def test_another_dtype(call):
    argument, good, function = TAKES_A_TENSOR[call]
    refuses(lambda: function(good.float()), argument, "torch.float64", "torch.float32")


def test_another_device():
    here, there = torch.empty(1), torch.empty(1, device="meta")
    refuses(lambda: _check.alike("Z", there, "X", here), "Z", "the device of X (cpu)", "meta")


# Shapes and values

BAD_VALUES = {
    "rows not of unit norm": (lambda: relu_ntk(2 * X), "X", "unit norm", "off by 1.0e+00"),
    "a row of zeros": (lambda: relu_ntk(X, 0 * Z), "Z", "divide each row", "off by 1.0e+00"),
    "columns as rows": (lambda: relu_ntk(X.T), "X", "unit norm", "off by"),
    "norms just outside the tolerance": (
        lambda: relu_ntk((1 + 3e-13) * X),
        "X",
        "within 2.2e-13",
        "off by 3.0e-13",
    ),
    "inputs of another dimension": (lambda: relu_ntk(X, unit_rows(3, 5)), "Z", "4 columns", "5"),
    "deep, rows not of unit norm": (lambda: deep_ntk(2 * X, depth=1), "X", "unit norm", "1.0e+00"),
    "deep, a row of zeros": (lambda: deep_ntk(X, 0 * Z, depth=1), "Z", "each row", "1.0e+00"),
    "deep, another dimension": (lambda: deep_ntk(X, unit_rows(3, 5), depth=1), "Z", "4 col", "5"),
    "no hidden layer": (lambda: deep_ntk(X, depth=0), "depth", "an integer >= 1", "0"),
    "half a layer": (lambda: deep_ntk(X, depth=1.5), "depth", "an integer >= 1", "1.5"),
    "the last layer trained": (
        lambda: deep_ntk(X, depth=1, train="last"),
        "train",
        "one of all, first",
        "'last'",
    ),
    "a number for what is trained": (lambda: deep_ntk(X, depth=1, train=1), "train", "all", "1"),
    "images not of unit norm": (lambda: conv(2 * IMAGES), "images", "divide each image", "1.0e+00"),
    "an image of zeros": (lambda: conv(0 * IMAGES), "images", "unit norm", "off by 1.0e+00"),
    "other images of another size": (
        lambda: conv(other=OTHERS.mT),
        "other",
        "images of shape (2, 4) as in images",
        "(4, 2)",
    ),
    "other images with channels": (
        lambda: conv(other=OTHERS[..., None]),
        "other",
        "shape (2, 4)",
        "(2, 4, 1)",
    ),
    "no convolution": (lambda: conv(depth=0), "depth", "an integer >= 1", "0"),
    "an even window": (lambda: conv(kernel_size=2), "kernel_size", "an odd integer", "2"),
    "a window beyond the image": (lambda: conv(kernel_size=9), "kernel_size", "at most 7", "9"),
    "no window": (lambda: conv(kernel_size=0), "kernel_size", "an integer >= 1", "0"),
    "memory for less than a pair": (lambda: conv(memory=100), "memory", "bytes for a pair", "100"),
    "no memory for images": (lambda: conv(memory=0), "memory", "an integer >= 1", "0"),
    "kernel not square": (lambda: fit_kernel_ridge(K[:5], y, 0.1), "K", "square", "(5, 6)"),
    "kernel not symmetric": (
        lambda: fit_kernel_ridge(K + 0.1 * torch.ones(6, 6).triu(1).double(), y, 0.1),
        "K",
        "symmetric",
        "1.0e-01",
    ),
    "too few labels": (lambda: fit_kernel_ridge(K, y[:5], 0.1), "y", "6 rows", "(5,)"),
    "labels as a row": (lambda: fit_kernel_ridge(K, y[None], 0.1), "y", "6 rows", "(1, 6)"),
    "one test point as a vector": (lambda: MODEL.predict(k_test[0]), "k_test", "2 axes", "(6,)"),
    "transposed test kernel": (
        lambda: MODEL.predict(k_test.T),
        "k_test",
        "shape (n_test, 6) (transpose it?)",
        "(6, 3)",
    ),
    "test kernel of too few points": (
        lambda: leave_one_out(MODEL, k_test[:, :5]),
        "k_test",
        "shape (n_test, 6)",
        "(3, 5)",
    ),
    "too few test labels": (
        lambda: loo_influence(MODEL, k_test, y_test[:2]),
        "y_test",
        "shape (3,)",
        "(2,)",
    ),
    "test labels as a column": (
        lambda: ihvp_influence(MODEL, k_test, y_test[:, None]),
        "y_test",
        "shape (3,)",
        "(3, 1)",
    ),
    "test labels of one output, a model of two": (
        lambda: loo_influence(MODEL_OF_TWO, k_test, y_test),
        "y_test",
        "shape (3, 2)",
        "(3,)",
    ),
    "network inputs of another dimension": (
        lambda: NETWORK.predict(unit_rows(3, 5)),
        "X",
        "4 columns",
        "(3, 5)",
    ),
    "IHVP with too few labels": (lambda: ihvp(y=y[:5]), "y", "shape (6,)", "(5,)"),
    "IHVP with labels of two outputs": (
        lambda: ihvp(y=y.repeat(2, 1).T),
        "y",
        "shape (6,)",
        "(6, 2)",
    ),
    "IHVP with test labels as a column": (
        lambda: ihvp(y_test=y_test[:, None]),
        "y_test",
        "shape (3,)",
        "(3, 1)",
    ),
    "IHVP with test inputs of another dimension": (
        lambda: ihvp(X_test=unit_rows(3, 5)),
        "X_test",
        "4 columns",
        "(3, 5)",
    ),
    "IHVP without ridge": (lambda: ihvp(ridge=0), "ridge", "> 0", "0"),
    "IHVP with a ridge that is lost in the rounding": (
        lambda: finite_width.ihvp_influence(NETWORK, X.repeat(2, 1), y.repeat(2), 1e-16, Z, y_test),
        "ridge",
        "safely invertible",
        "1e-16",
    ),
    "leverage with a negative ridge": (
        lambda: finite_width.leverage(NETWORK, X, -1.0),
        "ridge",
        ">= 0",
        "-1.0",
    ),
    "leverage without ridge": (
        lambda: finite_width.leverage(NETWORK, X, 0.0),
        "ridge",
        "> 0",
        "0.0",
    ),
    "complexity of an unknown kind": (
        lambda: complexity(K, y, kind="norm"),
        "kind",
        "one of quadratic_form, rkhs_norm",
        "'norm'",
    ),
    "complexity with a negative ridge": (lambda: complexity(K, y, -0.1), "ridge", ">= 0", "-0.1"),
    "a report with a negative ridge": (lambda: trust_report(K, y, ridge=-1), "ridge", ">= 0", "-1"),
    "a report on one point": (lambda: trust_report(K[:1, :1], y[:1]), "K", "two points", "1"),
    "a report on a kernel of zeros": (lambda: trust_report(0 * K, y), "K", "positive eig", "0.0"),
    "a report on a kernel with a negative eigenvalue": (
        lambda: trust_report(K - 0.3 * torch.eye(6).double(), y, ridge=1.0),
        "K",
        "no negative eigenvalue",
        "-",
    ),
    "a report with too few inputs": (lambda: trust_report(K, y, X=X[:5]), "X", "6 rows", "(5, 4)"),
    "a report with a transposed test kernel": (
        lambda: trust_report(K, y, k_test=k_test.T, y_test=y_test),
        "k_test",
        "(transpose it?)",
        "(6, 3)",
    ),
    "no model for the most influential group": (
        lambda: most_influential_group(None, k_test[0], 2),
        "model",
        "Ridge",
        "None",
    ),
    "the row of a test point with too few entries": (
        lambda: most_influential_group(MODEL, k_test[0, :5], 2),
        "k_test_row",
        "shape (6,)",
        "(5,)",
    ),
    "a group of none": (lambda: most_influential_group(MODEL, k_test[0], 0), "size", ">= 1", "0"),
    "a group of more than all": (
        lambda: most_influential_group(MODEL, k_test[0], 7),
        "size",
        "from 1 to 6",
        "7",
    ),
    "no times": (lambda: at([]), "times", "at least one", "none"),
    "a time for times": (lambda: at(1.0), "times", "a sequence", "1.0"),
    "times as text": (lambda: at("12"), "times", "a sequence", "'12'"),
    "negative time": (lambda: at([1.0, -1.0]), "times", ">= 0", "-1.0"),
    "NaN time": (lambda: at([nan]), "times", ">= 0", "nan"),
    "boolean time": (lambda: at([True]), "times", "numbers", "True"),
    "kernel over time not symmetric": (
        lambda: at(K=K + 0.1 * torch.ones(6, 6).triu(1).double()),
        "K",
        "symmetric",
        "1.0e-01",
    ),
    "kernel with a negative eigenvalue": (lambda: at(K=-K), "K", "no negative eigenvalue", "-1"),
    "transposed test kernel over time": (
        lambda: at(k_test=k_test.T),
        "k_test",
        "(transpose it?)",
        "(6, 3)",
    ),
    "too few test labels over time": (lambda: at(y_test=y_test[:2]), "y_test", "(3,)", "(2,)"),
    "negative ridge over time": (lambda: at(ridge=-1.0), "ridge", ">= 0", "-1.0"),
    "an accuracy beyond rounding": (lambda: at(accuracy=1e-15), "accuracy", "1e-13", "1e-15"),
    "an accuracy above one": (lambda: at(accuracy=2.0), "accuracy", "1e-2", "2.0"),
    "no memory": (lambda: at(memory=0), "memory", "integer >= 1", "0"),
    "memory for less than a row": (lambda: at(memory=100), "memory", "bytes", "100"),
    "a step that diverges": (lambda: at(step=1.5), "step", "largest eigenvalue", "1.5"),
    "a step of zero": (lambda: at(step=0.0), "step", "a number above 0", "0.0"),
    "a step of next to nothing": (lambda: at(step=1e-310), "step", "a number above 0", "1e-310"),
    "a time of too many steps": (lambda: at([1e300], step=0.1), "times", "multiples", "1e+300"),
    "a time beyond floats": (lambda: at([10**400]), "times", "at most 1e300", "1000"),
    "the end of training of nothing": (
        lambda: at([inf], K=0 * K, ridge=0.0),
        "times",
        "rounding exceeds",
        "inf",
    ),
    "a list for an accuracy": (lambda: at(accuracy=[1]), "accuracy", "a number", "list"),
    "too many small steps": (lambda: at([1e10], step=1e-6), "times", "multiples", "1e+10"),
    "a time between two steps": (lambda: at([0.35], step=0.1), "times", "multiples", "0.35"),
    "the end of training of copies without a ridge": (
        lambda: at([1.0, inf], K=relu_ntk(torch.cat([X[:3], X[:3]])), ridge=0.0),
        "times",
        "rounding exceeds",
        "inf",
    ),
    "the end of training without a point of copies, prediction alone": (
        lambda: predict_at([1e12], relu_ntk(torch.cat([X[:3], X[:3]])), y, 0.0, k_test),
        "times",
        "rounding exceeds",
        "1e+12",
    ),
    "an accuracy of the contour that is no number": (
        lambda: contour("high"),
        "accuracy",
        "a number",
        "str",
    ),
    "negative ridge": (lambda: fit_kernel_ridge(K, y, -0.1), "ridge", ">= 0", "-0.1"),
    "NaN ridge": (lambda: fit_kernel_ridge(K, y, nan), "ridge", "finite", "nan"),
    "infinite ridge": (lambda: fit_kernel_ridge(K, y, inf), "ridge", "finite", "inf"),
    "boolean ridge": (lambda: fit_kernel_ridge(K, y, True), "ridge", "a number", "bool"),
    "ridge as text": (lambda: fit_kernel_ridge(K, y, "0.1"), "ridge", "a number", "str"),
    "no ridge": (lambda: fit_kernel_ridge(K, y, None), "ridge", "a number", "NoneType"),
    "group index too large": (
        lambda: leave_group_out(MODEL, k_test, [0, 6]),
        "group",
        "from 0 to 5",
        "6",
    ),
    "negative group index": (
        lambda: leave_group_out(MODEL, k_test, [-1]),
        "group",
        "from 0 to 5",
        "-1",
    ),
    "repeated group index": (
        lambda: leave_group_out(MODEL, k_test, [2, 1, 2]),
        "group",
        "distinct",
        "[2] more than once",
    ),
    "float group index": (lambda: leave_group_out(MODEL, k_test, [1.0]), "group", "integer", "1.0"),
    "boolean group": (lambda: leave_group_out(MODEL, k_test, [True]), "group", "integer", "True"),
    "numpy mask as group": (
        lambda: leave_group_out(MODEL, k_test, np.arange(6) > 3),
        "group",
        "integer",
        "False",
    ),
    "torch mask as group": (
        lambda: leave_group_out(MODEL, k_test, torch.arange(6) > 3),
        "group",
        "integer",
        "False",
    ),
    "an index for a group": (lambda: leave_group_out(MODEL, k_test, 2), "group", "sequence", "2"),
    "no group": (lambda: leave_group_out(MODEL, k_test, None), "group", "sequence", "None"),
    "float tensors in a group": (
        lambda: leave_group_out(MODEL, k_test, [torch.tensor(1.0)]),
        "group",
        "integer",
        "tensor(1.)",
    ),
    "text as group": (lambda: leave_group_out(MODEL, k_test, "12"), "group", "sequence", "'12'"),
    "width 0": (lambda: TwoLayerReLU.initialise(4, 0, 0.3, 0), "width", "integer >= 1", "0"),
    "float width": (lambda: TwoLayerReLU.initialise(4, 8.0, 0.3, 0), "width", "integer", "8.0"),
    "boolean width": (lambda: TwoLayerReLU.initialise(4, True, 0.3, 0), "width", "integer", "True"),
    "dim 0": (lambda: TwoLayerReLU.initialise(0, 8, 0.3, 0), "dim", "integer >= 1", "0"),
    "negative dim": (lambda: TwoLayerReLU.initialise(-4, 8, 0.3, 0), "dim", "integer >= 1", "-4"),
    "float dim": (lambda: TwoLayerReLU.initialise(4.0, 8, 0.3, 0), "dim", "integer", "4.0"),
    "seed far beyond 32 bits": (
        lambda: TwoLayerReLU.initialise(4, 8, 0.3, 10**12),
        "seed",
        "0 to 2**32 - 1",
        "1000000000000",
    ),
    "scale 0": (lambda: TwoLayerReLU.initialise(4, 8, 0.0, 0), "scale", "> 0", "0.0"),
    "negative scale": (lambda: TwoLayerReLU.initialise(4, 8, -1.0, 0), "scale", "0", "-1.0"),
    "NaN scale": (lambda: TwoLayerReLU.initialise(4, 8, nan, 0), "scale", "finite", "nan"),
    "scale as text": (lambda: TwoLayerReLU.initialise(4, 8, "1", 0), "scale", "a number", "str"),
}

W, a = NETWORK.W, NETWORK.a
BAD_PARTS = {
    "random signs": (lambda: TwoLayerReLU(W, torch.randn(8).double()), "a", "signs +1 and -1", "8"),
    "a sign of zero": (lambda: TwoLayerReLU(W, a * (a > 0)), "a", "signs", "other entries"),
    "NaN weights": (lambda: TwoLayerReLU(with_entries(W, nan), a), "W", "finite", "1 NaN"),
    "too few signs": (lambda: TwoLayerReLU(W, a[:5]), "a", "8 rows as in W", "(5,)"),
    "signs of another dtype": (lambda: TwoLayerReLU(W, a.float()), "a", "float64", "float32"),
    "integer signs": (lambda: TwoLayerReLU(W, a.long()), "a", FLOATS, "int64"),
    "integer weights": (lambda: TwoLayerReLU(W.long(), a), "W", FLOATS, "int64"),
    "no weights": (lambda: TwoLayerReLU(None, a), "W", "a torch tensor", "NoneType"),
    "a vector of weights": (lambda: TwoLayerReLU(W[0], a), "W", "2 axes", "(4,)"),
    "weights that overflow": (
        lambda: TwoLayerReLU.initialise(4, 8, 1e308, 0),
        "scale",
        "leaves the weights finite in torch.float64",
        "1e+308",
    ),
    "weights that overflow in single precision": (
        lambda: TwoLayerReLU.initialise(4, 8, 1e39, 0, dtype=torch.float32),
        "scale",
        "leaves the weights finite in torch.float32",
        "1e+39",
    ),
    "integer dtype": (
        lambda: TwoLayerReLU.initialise(4, 8, 0.3, 0, dtype=torch.int64),
        "dtype",
        "torch.float32 or torch.float64",
        "int64",
    ),
    "dtype as text": (
        lambda: TwoLayerReLU.initialise(4, 8, 0.3, 0, dtype="float32"),
        "dtype",
        "torch.float32",
        "float32",
    ),
    "a device that is not there": (
        lambda: TwoLayerReLU.initialise(4, 8, 0.3, 0, device="gpu"),
        "device",
        "a device of this machine",
        "'gpu'",
    ),
    "no network": (lambda: train(None, X, y, 0.1), "network", "a TwoLayerReLU", "NoneType"),
    "no network to retrain": (
        lambda: retrain_without(None, X, y, 0.1, [0], Z),
        "network",
        "a TwoLayerReLU",
        "NoneType",
    ),
    "weights for a network": (
        lambda: finite_width.leverage(W, X, 0.1),
        "network",
        "a TwoLayerReLU",
        "Tensor",
    ),
    "no network for IHVP": (
        lambda: finite_width.ihvp_influence(None, X, y, 0.1, Z, y_test),
        "network",
        "a TwoLayerReLU",
        "NoneType",
    ),
    "an initial network for a trained one": (
        lambda: retrain_without(NETWORK, X, y, 0.1, [0], Z, trained=NETWORK),
        "trained",
        "a TrainedTwoLayerReLU",
        "TwoLayerReLU",
    ),
    "no model to leave out of": (lambda: leave_one_out(None, k_test), "model", "KernelR", "None"),
    "a kernel for a model": (lambda: loo_influence(K, k_test, y_test), "model", "Ridge", "Tensor"),
    "no model for IHVP": (lambda: ihvp_influence(None, k_test, y_test), "model", "Ridge", "None"),
    "no model for a group": (lambda: leave_group_out(None, k_test, [0]), "model", "Rid", "None"),
    "a model without a square inverse": (lambda: ridge_model(inverse=K[:5]), "inverse", "squ", "6"),
    "a model of too few duals": (lambda: ridge_model(dual=y[:5]), "dual", "6 rows", "(5,)"),
    "a model of mixed dtypes": (lambda: ridge_model(dual=y.float()), "dual", "float64", "float32"),
    "a model without leverage": (lambda: ridge_model(leverage=None), "leverage", "tensor", "None"),
    "a model with a negative ridge": (lambda: ridge_model(ridge=-1.0), "ridge", ">= 0", "-1.0"),
    "a trained network without a report": (
        lambda: TrainedTwoLayerReLU(W, a, torch.zeros(4, 8).double(), None),
        "report",
        "a Report",
        "NoneType",
    ),
    "coefficients of other units": (
        lambda: TrainedTwoLayerReLU(W, a, torch.zeros(4, 7).double(), None),
        "coefficients",
        "8 columns",
        "(4, 7)",
    ),
}
# Of a model and of a training every square of a label is taken.
TOO_LARGE = "entries of at most 1e+148"
BAD_VALUES |= BAD_PARTS | {
    f"labels of 1e200, {name}": (call, argument, TOO_LARGE, "1.0e+200")
    for name, argument, call in [
        ("ridge", "y", lambda: fit_kernel_ridge(K, 1e200 * y.sign(), 0.1)),
        ("influence", "y_test", lambda: loo_influence(MODEL, k_test, 1e200 * y_test.sign())),
        ("IHVP", "y_test", lambda: ihvp_influence(MODEL, k_test, 1e200 * y_test.sign())),
        ("complexity", "y", lambda: complexity(K, 1e200 * y.sign())),
        ("over time", "y", lambda: at(y=1e200 * y.sign())),
        ("test labels over time", "y_test", lambda: at(y_test=1e200 * y_test.sign())),
        ("training", "y", lambda: train(NETWORK, X, 1e200 * y.sign(), 0.1)),
        ("IHVP at finite width", "y", lambda: ihvp(y=1e200 * y.sign())),
    ]
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_shape_or_value(case):
    refuses(*BAD_VALUES[case])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [2, 50, 500])
def test_a_singular_system_is_refused_and_the_suggested_ridge_works(n, dtype):
    twins = relu_ntk(unit_rows(n // 2, 10, dtype=dtype).repeat(2, 1))
    labels = torch.ones(len(twins), dtype=dtype)
    with pytest.raises(
        ValueError, match=r"^ridge: expected .*, got 0\.0 .*repeated points"
    ) as caught:
        fit_kernel_ridge(twins, labels, 0.0)
    suggested = float(re.search(r"try a ridge of (\S+) or more", str(caught.value))[1])
    assert suggested <= n * 100 * torch.finfo(dtype).eps * 1e3  # no larger than it has to be
    f = fit_kernel_ridge(twins, labels, suggested).predict(twins)
    system = twins.double() + suggested * torch.eye(len(twins)).double()
    exact = twins.double() @ torch.linalg.solve(system, labels.double())
    assert_close(f.double(), exact, atol=1e-2, rtol=0)  # two digits of labels of one


# What looks bad and is not


def test_large_entries_whose_sum_overflows_are_finite():
    huge = torch.full((1, 6), 1.7e308, dtype=torch.float64)
    f = fit_kernel_ridge(K, 1e-300 * y, 1.0).predict(huge)
    assert_close(f, huge @ (1e-300 * MODEL_OF_ONE.dual), atol=0, rtol=1e-12)


@pytest.mark.parametrize("group", [(1, 2), range(1, 3), torch.tensor([1, 2]), np.array([1, 2])])
def test_a_group_may_be_any_sequence_of_integers(group):
    f = leave_group_out(MODEL, k_test, group)
    assert torch.equal(f, leave_group_out(MODEL, k_test, [1, 2]))


@pytest.mark.parametrize("one", [1, np.int64(1), np.float32(1), np.float64(1)])
def test_numbers_of_any_kind_are_numbers(one):
    model, network = fit_kernel_ridge(K, y, one), TwoLayerReLU.initialise(4, 8, one, 0)
    assert torch.equal(model.dual, fit_kernel_ridge(K, y, 1.0).dual)
    assert torch.equal(network.W, TwoLayerReLU.initialise(4, 8, 1.0, 0).W)


def test_integers_of_numpy_are_dimensions():
    network = TwoLayerReLU.initialise(np.int64(4), np.int64(8), 1.0, 0)
    assert torch.equal(network.W, TwoLayerReLU.initialise(4, 8, 1.0, 0).W)


def test_rounded_norms_and_rounded_symmetry_are_let_through():
    relu_ntk((1 + 1e-13) * X)
    fit_kernel_ridge(K + 1e-14 * torch.rand(6, 6).double(), y, 0.1)


def test_models_and_networks_can_be_compared_and_collected():
    """Two of them are the same only if they are one."""
    others = MODEL_OF_ONE, NETWORK, train(NETWORK, X, y, 0.1), contour(1e-5)
    again = fit_kernel_ridge(K, y, 1.0), TwoLayerReLU(W, a), train(NETWORK, X, y, 0.1), None
    for one, other in zip(others, again, strict=True):
        assert one == one
        assert one != other
        assert len({one, other}) == 2
