"""Rows of retraining: which points they leave out, and which rows are still to be measured."""

import torch

import studies

BOTH = studies.Setting(
    dataset="mnist-5k-7v9", n_train=40, n_test=8, width=50, scale=0.1, ridge=1.0, seed=0,
    method="preconditioned", steps=6, n_left_out=8,
)  # fmt: skip
RANDOM = BOTH.but(n_left_out=4, only_random=True)
CHANGE = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


def test_points_at_random_are_the_same_with_and_without_the_most_influential():
    both, random = BOTH.choose(CHANGE), RANDOM.choose(CHANGE)
    assert random == both[:4]
    assert len(set(both)) == 8
    rest = [i for i in range(40) if i not in random]
    strength = CHANGE.square().mean(dim=1)
    assert set(both[4:]) == set(sorted(rest, key=lambda i: -strength[i])[:4])


def test_all_points_can_be_drawn():
    assert sorted(RANDOM.but(n_left_out=40).choose(CHANGE)) == list(range(40))


def test_a_row_of_random_points_is_that_part_of_a_row_of_both():
    place = studies.Place(torch.device("cpu"), torch.float64)
    both, random = (studies.measure(s, place, n_twice=2, n_shown=3) for s in (BOTH, RANDOM))
    assert random["groups"]["at random"] == both["groups"]["at random"]
    assert random["groups"]["all"] == random["groups"]["at random"]
    assert set(random["groups"]) == {"at random", "all"}
    assert studies.groups_of(random) == ["at random"]
    assert studies.groups_of(both) == ["at random", "most influential"]
    assert studies.n_drawn(both) == studies.n_drawn(random) == 4
    assert random["groups"]["all"] != both["groups"]["all"]


def test_what_a_row_does_not_say_was_the_only_way_when_it_was_made():
    old = {
        key: value for key, value in vars(BOTH).items() if key not in ("smoothing", "only_random")
    }
    assert studies.n_drawn(old) == 4
    assert studies.missing([BOTH, RANDOM], [old]) == [RANDOM]
    assert studies.missing([BOTH], [vars(RANDOM) | {"n_left_out": 8}]) == [BOTH]
    assert studies.missing([BOTH, BOTH.but(smoothing=0.3)], [old]) == [BOTH.but(smoothing=0.3)]


def row_of_map(ridge: float, floor: float, **other: object) -> dict:
    """A row as the map of settings has them."""
    kind = {"dataset": "digits", "n_train": 1000, "width": 4000, "scale": 0.1, "ridge": ridge}
    return kind | {"method": "preconditioned", "groups": {"at random": {"floor": floor}}} | other


def test_the_least_quiet_ridge_is_the_first_whose_floor_is_below_a_fifth():
    loud, edge, quiet = row_of_map(0.1, 0.9), row_of_map(1.0, 0.2), row_of_map(10.0, 0.19)
    others = [row_of_map(0.01, 0.0, **other) for other in ({"width": 1000}, {"scale": 1.0})]
    others.append(row_of_map(0.01, 0.0, method="gradient_descent"))
    rows = [row_of_map(100.0, 0.0), quiet, edge, loud, *others]
    assert studies.least_quiet_ridge(rows, "digits") == 10.0
    assert studies.least_quiet_ridge([loud, edge], "digits") is None
    assert studies.least_quiet_ridge(rows, "photographs") is None
