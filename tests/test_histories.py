"""Zeros of sums of exponentials, counted with a certificate, and forgetting events."""

from math import log10

import pytest
import torch
from problems import make_problem, unit_rows
from torch.testing import assert_close

import ntk_influence as ni
from studies import histories
from studies.histories import Exponentials, sampled


def grid(first=1e-4, last=97.0, a_decade=40):
    """Times that are no zeros of the tests: there a value is rounding, and nothing certain."""
    count = round(a_decade * (log10(last) - log10(first))) + 1
    return torch.logspace(log10(first), log10(last), count, dtype=torch.float64)


def with_zeros(at):
    """A polynomial in exp(-t) with a zero at t = 0 and at these times, as Exponentials."""
    polynomial = torch.ones(1, dtype=torch.float64)
    for t in (0.0, *at):
        zero = torch.exp(torch.tensor(-t, dtype=torch.float64))
        shifted = torch.cat([polynomial.new_zeros(1), polynomial])
        polynomial = shifted - zero * torch.cat([polynomial, polynomial.new_zeros(1)])
    # sum_j p_j x^j = sum_j -p_j (1 - x^j), since the p_j add up to 0
    return Exponentials(torch.arange(1.0, len(polynomial)).double(), -polynomial[None, 1:])


@pytest.mark.parametrize("at", [[], [0.3], [0.3, 2.0], [0.1, 0.3, 0.9], [0.2, 0.5, 1.0, 2.0]])
def test_as_many_zeros_as_were_put_there(at):
    f = with_zeros(at)
    assert_close(f.at(torch.tensor(at).double()), torch.zeros(1, len(at)).double())
    count, sure = histories.zeros(sampled(f, grid()))
    assert (int(count), bool(sure)) == (len(at), True)
    assert bool(histories.settled(sampled(f, grid())))


def test_a_double_zero_and_two_that_are_too_near_are_not_certain():
    for at in ([1.0, 1.0], [1.0, 1.0 + 1e-6]):
        assert not histories.zeros(sampled(with_zeros(at), grid()))[1]
    count, sure = histories.zeros(sampled(with_zeros([1.0, 1.1]), grid(a_decade=200)))
    assert (int(count), bool(sure)) == (2, True)


def test_the_offset_moves_zeros_and_extremes_stay():
    f = Exponentials(torch.tensor([1.0, 3.0]).double(), torch.tensor([[2.0, -1.0]]).double())
    # f = 1 - 2 x + x^3 with x = exp(-t): least at x = sqrt(2/3), where it is 1 - 4/3 sqrt(2/3)
    for offset, expected in ((-2.0, 0), (-0.5, 1), (0.05, 2), (0.2, 0)):
        count, sure = histories.zeros(sampled(f, grid()), offset)
        assert (int(count), bool(sure)) == (expected, True)
        assert bool(histories.settled(sampled(f, grid()), offset))
    count, sure = histories.zeros(sampled(f, grid(last=10.0), order=1))
    assert (int(count), bool(sure)) == (1, True)


def test_what_is_before_or_after_the_grid_is_not_settled():
    assert not histories.settled(sampled(with_zeros([0.3]), grid(first=0.5)))
    assert not histories.settled(sampled(with_zeros([2.0]), grid(last=1.0)))


@pytest.mark.parametrize("m", [1, 2, 4, 5])
def test_derivatives_are_those_of_the_exponential_and_bounds_hold(m):
    tau = torch.linspace(-6, 4, 101).double().requires_grad_()
    value = 1 - torch.exp(-tau.exp())
    for _ in range(m):
        (value,) = torch.autograd.grad(value.sum(), tau, create_graph=True)
    s = tau.detach().exp()
    assert_close(histories.derivative(m, s), value.detach(), atol=1e-12, rtol=0)
    bound = histories.derivative(m, s[:-1], s[1:])
    assert (value[:-1].abs() <= bound * (1 + 1e-12)).all()
    assert (value[1:].abs() <= bound * (1 + 1e-12)).all()


def test_the_error_of_the_cubic_is_within_its_bound():
    f, times = with_zeros([0.2, 1.0, 2.0]), grid(a_decade=5)
    h = float((times[1] / times[0]).log())
    found = sampled(f, times)
    value, slope = found.value, found.slope
    halfway = (times[:-1] * times[1:]).sqrt()
    cubic = (value[:, :-1] + value[:, 1:]) / 2 + h / 8 * (slope[:, :-1] - slope[:, 1:])
    error = (cubic - f.at(halfway)).abs()
    assert (error <= h**4 / 384 * found.bound + 1e-12).all()
    assert error.max() > 1e-5  # a bound that is put to the test


def test_courses_are_those_of_the_flow_and_signs_those_of_a_fine_grid():
    problem, times = make_problem(n=12, n_test=30), grid(first=1e-5, last=1e4)
    K, y, ridge, k_test = problem.K, problem.y, problem.ridge, problem.k_test
    flow, whole = ni.fit_kernel_flow(K, y, ridge), histories.course_without(K, y, ridge, k_test, [])
    some = [0.01, 1.0, 100.0]
    assert_close(whole.at(torch.tensor(some).double()).T, flow.predict(some, k_test))
    whole = sampled(whole, times)
    influence = flow.loo_influence(times.tolist(), k_test, problem.y_test)
    for i in range(12):
        without = histories.course_without(K, y, ridge, k_test, [i])
        expected = flow.leave_one_out(some, k_test)[:, i]
        assert_close(without.at(torch.tensor(some).double()).T, expected, atol=1e-8, rtol=0)
        count, sure = histories.sign_changes(whole, sampled(without, times), problem.y_test)
        signs = influence[:, i].sign()
        on_grid = (signs[1:] != signs[:-1]).sum(dim=0)
        assert sure.double().mean() > 0.8
        missed = (count - on_grid)[sure]  # two zeros in one step, one of each factor
        assert (missed >= 0).all()
        assert (missed % 2 == 0).all()
        assert (missed == 0).double().mean() > 0.9


def test_pairs_are_counted_one_by_one_and_extremes_are_those_of_a_fine_grid():
    problem = make_problem(n=9, n_test=20)
    K, y, ridge, k_test = problem.K, problem.y, problem.ridge, problem.k_test
    longest = 1 / (ridge + float(torch.linalg.eigvalsh(K)[0]))
    times = grid(first=1e-5, last=40 * longest)
    given = K, y, ridge, k_test, problem.y_test
    changes, sure, peaks, sure_peaks = histories.of_pairs(*given, [4, 0], times)
    courses = [histories.course_without(K, y, ridge, k_test, removed) for removed in ([], [4], [0])]
    whole, *without = courses
    fine = grid(first=1e-5, last=longest, a_decade=2000)
    for row, other in enumerate(without):
        alone = histories.sign_changes(sampled(whole, times), sampled(other, times), problem.y_test)
        assert torch.equal(changes[row], alone[0])
        assert torch.equal(sure[row], alone[1])
        rising = (other.at(fine) - whole.at(fine)).diff(dim=1) > 0
        turns = (rising[:, 1:] != rising[:, :-1]).sum(dim=1)
        assert torch.equal(peaks[row][sure_peaks[row]], turns[sure_peaks[row]])
        assert sure_peaks[row].double().mean() > 0.5
    assert len(peaks.unique()) > 1


def test_the_first_time_below_a_level_is_between_two_times():
    times = torch.tensor([1.0, 10.0, 100.0]).double()
    losses = torch.tensor(
        [[4.0, 0.5, 9.0, 2.0], [2.0, 0.4, 8.0, 1.0], [0.0, 3.0, 7.0, 0.5]]
    ).double()
    found = histories.first_below(times, losses, 1.0)
    expected = torch.tensor([10 * 10**0.5, 1.0, torch.inf, 10.0]).double()
    assert_close(found, expected)


def test_forgetting_is_from_right_to_wrong():
    correct = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]]).bool()
    assert histories.forgetting_events(correct).tolist() == [1, 2, 0, torch.inf]


def test_a_linear_model_is_visited_once_an_epoch_and_learns():
    X = unit_rows(30, 5)
    y = torch.sign(X[:, 0])
    model = torch.nn.Sequential(torch.nn.Linear(5, 1, bias=False), torch.nn.Flatten(0)).double()
    torch.nn.init.zeros_(model[0].weight)
    how = {"epochs": 30, "batch": 7, "step": 0.5, "seed": 0}
    correct = histories.visited(model, X, y, **how)
    assert correct.shape == (30, 30)
    assert not correct[0, torch.randperm(30, generator=torch.Generator().manual_seed(0))[:7]].any()
    assert correct[-1].double().mean() > 0.9
