"""Numbers and indices of any type mean what they say: what was checked is what is used."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from problems import RIDGE, make_problem, small_network
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import bounds, datasets, finite_width

pytestmark = pytest.mark.usefixtures("without_annotations")

PROBLEM = make_problem(n=60, n_test=3, dim=8)
MODEL = PROBLEM.fit()
NETWORK, X, Y, X_TEST = small_network()
TRUTH = ni.truth.load("kernel-1")
SCORES = TRUTH.changes.T.contiguous()

INTEGERS = [getattr(np, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
REALS = [np.float16, np.float32, np.float64, np.longdouble]


def zero_axes(value):
    """The ways to hold one number in an array."""
    return [np.array(value), torch.tensor(value)]


def as_integers(value: int) -> list:
    """The same integer in every type that holds it."""
    kinds = [kind for kind in INTEGERS if value <= np.iinfo(kind).max]
    return [value, *(kind(value) for kind in kinds), *zero_axes(value)]


def as_reals(value: float) -> list:
    """The same number, exact in half precision, in every type that holds it."""
    kinds = [*REALS, *(INTEGERS if value == int(value) else [])]
    return [value, Fraction(value), *(kind(value) for kind in kinds), *zero_axes(value)]


def same(results: list) -> None:
    """All results are bit for bit the first."""
    first, *others = (torch.as_tensor(result) for result in results)
    for other in others:
        assert other.dtype == first.dtype
        assert torch.equal(other, first)


INTEGER_ARGUMENTS = {
    "group": lambda i: ni.leave_group_out(MODEL, PROBLEM.k_test, [i, 0]),
    "size of a group": lambda k: ni.most_influential_group(MODEL, PROBLEM.k_test[0], k).indices,
    "depth": lambda n: ni.deep_ntk(X, depth=n),
    "depth of convolutions": lambda n: ni.conv_ntk(X[:, None], depth=n, kernel_size=1),
    "n_train": lambda n: datasets.load("mnist-5k-7v9", n, 4).index,
    "n_test": lambda n: datasets.load("mnist-5k-7v9", 4, n).index_test,
    "seed of data": lambda n: datasets.load("mnist-5k-7v9", 4, 4, seed=n).index,
    "n_train of a mixture": lambda n: datasets.mixture(n, 2).X,
    "n_test of a mixture": lambda n: datasets.mixture(2, n).X_test,
    "seed of a mixture": lambda n: datasets.mixture(2, 2, seed=n).X,
    "dim of a mixture": lambda n: datasets.mixture(2, 2, dim=n).X,
    "dim": lambda n: ni.TwoLayerReLU.initialise(n, 4, 0.5, 0).W,
    "width": lambda n: ni.TwoLayerReLU.initialise(4, n, 0.5, 0).W,
    "seed": lambda n: ni.TwoLayerReLU.initialise(4, 4, 0.5, n).W,
    "outputs": lambda n: ni.TwoLayerReLU.initialise(4, 4, 0.5, 0, outputs=n).a,
    "max_steps": lambda n: ni.train(NETWORK, X, Y, RIDGE, max_steps=n).W,
    "indices": lambda i: ni.retrain_without(NETWORK, X, Y, RIDGE, [i], X_TEST),
    "i of a set": lambda i: bounds.leverage_on_set(PROBLEM.K, 1.0, [0, i], i).distance,
    "n of lemma 1": lambda n: bounds.lemma_1(n, 100, 1.0, 1.0, 0.5),
    "n of lemma 2": lambda n: bounds.lemma_2(n, 100, 1.0, 1.0, 0.5).kernel,
    "n of lemma 3": lambda n: bounds.lemma_3(n, 100, 1.0, 1.0, 0.5),
    "n of lemma 4": lambda n: bounds.lemma_4(n, 100, 1.0, 1.0, 0.5),
    "n of theorem 1": lambda n: bounds.theorem_1(n, 100, 1.0, 1.0, 0.5),
    "n of theorem 4": lambda n: bounds.theorem_4(n, 0.5, 0.25, 1.0, 0.5).rarity,
    "k of a score": lambda k: [*ni.truth.score(TRUTH.changes, TRUTH, k=k).values()],
    "width of theorem 1": lambda n: bounds.theorem_1(100, n, 1.0, 1.0, 0.5),
}
REAL_ARGUMENTS = {
    "ridge": lambda x: ni.fit_kernel_ridge(PROBLEM.K, PROBLEM.y, x).dual,
    "ridge of a complexity": lambda x: ni.complexity(PROBLEM.K, PROBLEM.y, x),
    "ridge of a report": lambda x: ni.trust_report(PROBLEM.K, PROBLEM.y, ridge=x).helpful,
    "ridge over time": lambda x: ni.predict_at([1.0], PROBLEM.K, PROBLEM.y, x, PROBLEM.k_test),
    "times": lambda x: ni.predict_at([x], PROBLEM.K, PROBLEM.y, 1.0, PROBLEM.k_test),
    "step over time": lambda x: ni.predict_at(
        [1.0], PROBLEM.K / 60, PROBLEM.y, 0.25, PROBLEM.k_test, step=x
    ),
    "ridge of training": lambda x: ni.train(NETWORK, X, Y, x, max_steps=3).W,
    "tolerance": lambda x: ni.train(NETWORK, X, Y, RIDGE, tolerance=x).W,
    "step": lambda x: ni.train(NETWORK, X, Y, RIDGE, step=x, max_steps=1).W,
    "size and damping": lambda x: list(vars(ni.Step(x, x)).values()),
    "scale": lambda x: ni.TwoLayerReLU.initialise(4, 4, x, 0).W,
    "ridge at finite width": lambda x: finite_width.leverage(NETWORK, X, x),
    "radius": lambda x: datasets.mixture(2, 2, radius=x).X,
    "probabilities": lambda x: datasets.mixture(9, 2, probabilities=[x, 0.75]).X,
    "scale of lemma 1": lambda x: bounds.lemma_1(10, 100, x, 1.0, 0.5),
    "ridge of lemma 2": lambda x: bounds.lemma_2(60_000, 100, 1.0, x, 0.5).kernel,
    "delta of theorem 1": lambda x: bounds.theorem_1(10, 100, 1.0, 1.0, x),
    "C and gaps": lambda x: bounds.theorem_2(x, x, x),
    "radius of theorem 4": lambda x: bounds.theorem_4(100, 0.5, x, 1.0, 0.5).distance,
    "ridge of theorem 3": lambda x: bounds.theorem_3(PROBLEM.y, x).high,
    "loss of a score": lambda x: [*ni.truth.score(SCORES, TRUTH, library="pyDVL", loss=x).values()],
    "ridge on a set": lambda x: bounds.leverage_on_set(PROBLEM.K, x, [0, 1], 0).distance,
}


@pytest.mark.parametrize("argument", INTEGER_ARGUMENTS)
@pytest.mark.parametrize("value", [2, 5])
def test_an_integer_of_any_type_is_that_integer(argument, value):
    same([INTEGER_ARGUMENTS[argument](i) for i in as_integers(value)])


@pytest.mark.parametrize("argument", REAL_ARGUMENTS)
def test_a_number_of_any_type_is_that_number(argument):
    same([REAL_ARGUMENTS[argument](x) for x in as_reals(0.25)])


@pytest.mark.parametrize("argument", ["ridge", "times", "ridge of training", "scale", "C and gaps"])
def test_a_whole_number_of_any_type_is_that_number(argument):
    same([REAL_ARGUMENTS[argument](x) for x in as_reals(2.0)])


@pytest.mark.parametrize("kind", INTEGERS)
def test_an_array_of_indices_is_no_mask(kind):
    most = min(60, np.iinfo(kind).max + 1)
    group = np.arange(most, dtype=kind)
    expected = ni.leave_group_out(MODEL, PROBLEM.k_test, list(range(most)))
    assert torch.equal(ni.leave_group_out(MODEL, PROBLEM.k_test, group), expected)
    assert_close(expected, torch.zeros(3).double(), atol=1e-10, rtol=0)
    tensor = torch.from_numpy(group.astype(np.int64))
    assert torch.equal(ni.leave_group_out(MODEL, PROBLEM.k_test, tensor), expected)


def test_small_integers_do_not_wrap_around():
    """A product of numpy's own would: 60,000 squared is negative in 32 bits."""
    exact = bounds.lemma_2(60_000, 100, 1.0, 1.0, 0.5)
    assert bounds.lemma_2(np.int32(60_000), np.uint8(100), 1.0, 1.0, 0.5) == exact
    assert min(exact) > 0


WRONG = [True, np.True_, "1", None, [1], np.array([1]), torch.tensor([1]), 1j, np.nan, {}, b"1"]
BEYOND = [10**400, -(10**400), Fraction(10**400), np.longdouble("1e400"), np.inf, -np.inf]


@pytest.mark.parametrize("value", [*WRONG, *BEYOND], ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("argument", REAL_ARGUMENTS)
def test_what_is_no_number_is_refused_in_one_short_sentence(argument, value):
    left_out = ("step", "step over time", "ridge of a report")
    allowed = {"times": np.inf} | dict.fromkeys(left_out)  # the end; the defaults
    tensor_of_gaps = argument == "C and gaps" and isinstance(value, torch.Tensor)
    if tensor_of_gaps or (argument in allowed and value is allowed[argument]):
        return
    with pytest.raises(ValueError, match=r"^\w+: expected .*, got .*") as caught:
        REAL_ARGUMENTS[argument](value)
    assert len(str(caught.value)) < 220


@pytest.mark.parametrize("value", [*WRONG, 2.0, np.float64(2), Fraction(2), 10**400, -1, 0])
def test_what_is_no_size_is_refused(value):
    for call in (
        lambda v: datasets.load("mnist-5k-7v9", v, 4),
        lambda v: datasets.mixture(2, v),
        lambda v: ni.TwoLayerReLU.initialise(4, v, 0.5, 0),
        lambda v: ni.train(NETWORK, X, Y, RIDGE, max_steps=v if v is not None else 0),
        lambda v: bounds.lemma_1(v, 100, 1.0, 1.0, 0.5),
    ):
        with pytest.raises(ValueError, match=r"^\w+: expected .*, got .*"):
            call(value)
