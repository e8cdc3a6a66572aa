"""Checks of arguments: one sentence that names the argument, what was expected and what came.

Every check returns what it has checked as ``int``, ``float``, a list of them or a tensor, and the
caller goes on with that: a number of numpy's or of torch's never meets the arithmetic.
"""

import math
import reprlib
from collections import Counter
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

T = TypeVar("T")
FLOATS = (torch.float32, torch.float64)


def require(condition: bool, argument: str, expected: str, got: object) -> None:
    """Raise the library's one kind of complaint unless the condition holds."""
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def instance(argument: str, value: object, kind: type[T]) -> T:
    """An object of one of the library's classes."""
    require(isinstance(value, kind), argument, f"a {kind.__name__}", type(value).__name__)
    return value


def tensor(argument: str, value: object, dims: tuple) -> Tensor:
    """A finite, non-empty real floating-point tensor with one of the given numbers of axes."""
    require(isinstance(value, Tensor), argument, "a torch tensor", type(value).__name__)
    floats = " or ".join(str(known) for known in FLOATS)
    require(value.dtype in FLOATS, argument, f"dtype {floats}", value.dtype)
    axes = " or ".join(str(d) for d in dims)
    require(value.ndim in dims, argument, f"{axes} axes", f"shape {tuple(value.shape)}")
    require(value.numel() > 0, argument, "at least one entry", f"shape {tuple(value.shape)}")
    # A sum is finite only if every entry is, and unlike isfinite it needs no temporary array.
    entries = value.detach()
    if not torch.isfinite(entries.sum()):
        bad = entries.numel() - int(torch.isfinite(entries).sum())
        require(bad == 0, argument, "finite entries", f"{bad} NaN or infinite entries")
    return value


def alike(argument: str, value: Tensor, other: str, reference: Tensor) -> None:
    """The same dtype and device as another argument."""
    for attribute in ("dtype", "device"):
        ours, theirs = getattr(value, attribute), getattr(reference, attribute)
        require(ours == theirs, argument, f"the {attribute} of {other} ({theirs})", ours)


def unit_rows(argument: str, X: Tensor, row: str = "row") -> None:
    """Rows of norm one, up to a thousand roundings of the dtype; a row may be an image."""
    deviation = float((torch.linalg.vector_norm(X.detach(), dim=1) - 1).abs().max())
    tolerance = 1e3 * torch.finfo(X.dtype).eps
    expected = f"{row}s of unit norm (within {tolerance:.1e}; divide each {row} by its norm)"
    require(deviation <= tolerance, argument, expected, f"a norm that is off by {deviation:.1e}")


def unit_points(X: object, Z: object = None) -> tuple[Tensor, Tensor | None]:
    """Points with unit rows, and others alike if there are any."""
    X = tensor("X", X, (2,))
    unit_rows("X", X)
    if Z is not None:
        Z = tensor("Z", Z, (2,))
        alike("Z", Z, "X", X)
        require(Z.shape[1] == X.shape[1], "Z", f"{X.shape[1]} columns as in X", Z.shape[1])
        unit_rows("Z", Z)
    return X, Z


def labels(argument: str, value: object, other: str, reference: Tensor, rows: int) -> Tensor:
    """Labels of that many points, (n,) or (n, c), alike another argument; squares stay finite."""
    y = tensor(argument, value, (1, 2))
    alike(argument, y, other, reference)
    require(len(y) == rows, argument, f"{rows} rows as in {other}", f"shape {tuple(y.shape)}")
    _squares_stay_finite(argument, y)
    return y


def labels_of(argument: str, value: object, other: str, reference: Tensor, shape: tuple) -> Tensor:
    """Labels of exactly that shape, alike another argument; squares stay finite."""
    y = tensor(argument, value, (1, 2))
    got, expected = tuple(y.shape), tuple(shape)
    alike(argument, y, other, reference)
    require(got == expected, argument, f"shape {expected}", f"shape {got}")
    _squares_stay_finite(argument, y)
    return y


def _squares_stay_finite(argument: str, y: Tensor) -> None:
    """Sums of squares of what a model makes of the labels are finite, with room to spare."""
    most = math.sqrt(torch.finfo(y.dtype).max) / 1e6
    largest = float(y.detach().abs().max())
    require(largest <= most, argument, f"entries of at most {most:.0e}", f"{largest:.1e}")


def dtype(argument: str, value: object) -> torch.dtype:
    """One of the two dtypes that the library computes in."""
    floats = " or ".join(str(known) for known in FLOATS)
    require(value in FLOATS, argument, floats, value)
    return value


def device(argument: str, value: object) -> torch.device:
    """A device that is there; the CPU if it is None."""
    try:
        found = torch.device("cpu" if value is None else value)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError):  # unknown, or torch was built without it
        require(False, argument, "a device of this machine, such as cpu", _shown(value))
    return found


def fits(argument: str, what: str, needed: int, device: torch.device | str) -> None:
    """Refuse what would not fit into the free memory of a device, before it is allocated."""
    free = free_memory(torch.device(device))
    expected = f"{what} within the {free / 2**30:.1f} GiB of memory that are free on {device}"
    require(needed <= free, argument, expected, f"{needed / 2**30:,.1f} GiB")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def nonnegative(argument: str, value: object) -> float:
    """A finite number that is not negative."""
    converted = _real(value)
    require(converted is not None, argument, "a number", type(value).__name__)
    require(0 <= converted < math.inf, argument, "a finite number >= 0", _shown(value))
    return converted


def positive(argument: str, value: object) -> float:
    """A finite number above zero."""
    converted = nonnegative(argument, value)
    require(converted > 0, argument, "a number > 0", _shown(value))
    return converted


def times(argument: str, value: object) -> list[float]:
    """Numbers of at least zero, infinity included."""
    values = _listed(argument, value, "numbers")
    require(len(values) > 0, argument, "at least one time", "none")
    converted = [_real(t) for t in values]
    for t, given in zip(converted, values, strict=True):
        representable = t is not None and (0 <= t <= 1e300 or given == math.inf)
        require(representable, argument, "numbers >= 0, at most 1e300 or infinite", _shown(given))
    return converted


def numbers(argument: str, value: object) -> list[float]:
    """Finite numbers."""
    values = _listed(argument, value, "numbers")
    converted = [_real(v) for v in values]
    for v, given in zip(converted, values, strict=True):
        finite = v is not None and math.isfinite(v)
        require(finite, argument, "finite numbers", _shown(given))
    return converted


def integer(argument: str, value: object) -> int:
    """An integer of at least one; booleans and floats are refused."""
    converted = _whole(value)
    known = converted is not None and converted >= 1
    require(known, argument, "an integer >= 1", _shown(value))
    require(converted <= 10**100, argument, "an integer of at most 100 digits", _shown(value))
    return converted


def seed(argument: str, value: object) -> int:
    """An integer that every generator of random numbers accepts."""
    converted = _whole(value)
    known = converted is not None and 0 <= converted < 2**32
    require(known, argument, "an integer from 0 to 2**32 - 1", _shown(value))
    return converted


def indices(argument: str, value: object, n: int) -> list[int]:
    """Distinct integers from 0 to n - 1."""
    chosen = []
    for given in _listed(argument, value, "indices"):
        i = _whole(given)
        require(i is not None, argument, "integer indices", _shown(given))
        require(0 <= i < n, argument, f"indices from 0 to {n - 1}", _shown(given))
        chosen.append(i)
    repeated = [i for i, count in Counter(chosen).items() if count > 1]
    require(not repeated, argument, "distinct indices", f"{repeated[:1]} more than once")
    return chosen


def _shown(value: object) -> str:
    """A value, shortened where it is long."""
    return reprlib.repr(value)


def _scalar(value: object) -> object:
    """The number in an array or a tensor without axes; anything else as it is."""
    scalar = isinstance(value, np.ndarray | np.generic | Tensor) and value.ndim == 0
    return value.item() if scalar else value


def _whole(value: object) -> int | None:
    """An int of the same value, or None if it is not an integer."""
    value = _scalar(value)
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return int(value) if whole else None


def _real(value: object) -> float | None:
    """A float of nearly the same value, or None if it is not a real number."""
    value = _scalar(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an exact number beyond the range of floats
        return math.inf if value > 0 else -math.inf


def _listed(argument: str, value: object, of: str) -> list:
    """The entries of a sequence that is not a text."""
    if isinstance(value, np.ndarray | Tensor):
        require(value.ndim == 1, argument, f"a sequence of {of}", f"shape {tuple(value.shape)}")
        return value.tolist()
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    require(listed, argument, f"a sequence of {of}", _shown(value))
    return list(value)
