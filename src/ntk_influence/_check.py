"""Checks of arguments: one sentence that names the argument, what was expected and what came."""

from collections import Counter
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor


def require(condition: bool, argument: str, expected: str, got: object) -> None:
    """Raise the library's one kind of complaint unless the condition holds."""
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def tensor(argument: str, value: object, dims: tuple[int, ...]) -> None:
    """A finite, non-empty real floating-point tensor with one of the given numbers of axes."""
    require(isinstance(value, Tensor), argument, "a torch tensor", type(value).__name__)
    floats = (torch.float32, torch.float64)
    require(value.dtype in floats, argument, "dtype torch.float32 or torch.float64", value.dtype)
    axes = " or ".join(str(d) for d in dims)
    require(value.ndim in dims, argument, f"{axes} axes", f"shape {tuple(value.shape)}")
    require(value.numel() > 0, argument, "at least one entry", f"shape {tuple(value.shape)}")
    # A sum is finite only if every entry is, and unlike isfinite it needs no temporary array.
    if not torch.isfinite(value.sum()):
        bad = value.numel() - int(torch.isfinite(value).sum())
        require(bad == 0, argument, "finite entries", f"{bad} NaN or infinite entries")


def alike(argument: str, value: Tensor, other: str, reference: Tensor) -> None:
    """The same dtype and device as another argument."""
    for attribute in ("dtype", "device"):
        ours, theirs = getattr(value, attribute), getattr(reference, attribute)
        require(ours == theirs, argument, f"the {attribute} of {other} ({theirs})", ours)


def unit_rows(argument: str, X: Tensor) -> None:
    """Rows of norm one, up to a thousand roundings of the dtype."""
    deviation = float((torch.linalg.vector_norm(X, dim=1) - 1).abs().max())
    tolerance = 1e3 * torch.finfo(X.dtype).eps
    expected = f"rows of unit norm (within {tolerance:.1e}; divide each row by its norm)"
    require(deviation <= tolerance, argument, expected, f"a norm that is off by {deviation:.1e}")


def nonnegative(argument: str, value: object) -> None:
    """A finite number that is not negative."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    require(number, argument, "a number", type(value).__name__)
    require(0 <= value < float("inf"), argument, "a finite number >= 0", value)


def times(argument: str, value: object) -> list[float]:
    """Numbers of at least zero, infinity included, as a list."""
    values = value.tolist() if isinstance(value, Tensor) else value
    listed = isinstance(values, Iterable) and not isinstance(values, str)
    require(listed, argument, "a sequence of numbers", repr(value))
    values = list(values)
    require(len(values) > 0, argument, "at least one time", "none")
    for t in values:
        number = isinstance(t, Real) and not isinstance(t, bool)
        representable = number and (0 <= t <= 1e300 or t == float("inf"))
        require(representable, argument, "numbers >= 0, at most 1e300 or infinite", repr(t))
    return [float(t) for t in values]


def positive_integer(argument: str, value: object) -> None:
    """An integer of at least one; booleans and floats are refused."""
    number = isinstance(value, Integral) and not isinstance(value, bool)
    require(number and value >= 1, argument, "an integer >= 1", repr(value))


def seed(argument: str, value: object) -> None:
    """An integer that every generator of random numbers accepts."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    expected = "an integer from 0 to 2**32 - 1"
    require(whole and 0 <= value < 2**32, argument, expected, repr(value))


def indices(argument: str, value: object, n: int) -> list[int]:
    """Distinct integers from 0 to n - 1, as a list."""
    values = value.tolist() if isinstance(value, Tensor) else value
    require(isinstance(values, Iterable), argument, "a sequence of indices", repr(value))
    chosen = list(values)
    for i in chosen:
        whole = isinstance(i, Integral) and not isinstance(i, bool)
        require(whole, argument, "integer indices", repr(i))
        require(0 <= i < n, argument, f"indices from 0 to {n - 1}", i)
    repeated = [i for i, count in Counter(chosen).items() if count > 1]
    require(not repeated, argument, "distinct indices", f"{repeated[:1]} more than once")
    return chosen
