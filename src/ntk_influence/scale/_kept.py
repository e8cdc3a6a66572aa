"""What has been made of a factor, in the hands of whoever gives a place for it."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .. import _check


class Kept:
    """Tiles of one factor, and block columns of its inverse, in a checkpoint.

    The checkpoint has ``save(name, tensor)`` and ``load(name)``, which is None for what it lacks.
    It travels to the workers, and all of them have to see the same place. A name tells the points,
    the ridge, the size of a tile and the kernel apart: what belongs to others is never used.
    """

    def __init__(
        self, checkpoint: Any, X: np.ndarray, ridge: float, size: int, kernel: Callable
    ) -> None:
        """Name the problem by all that its factor depends on."""
        for method in ("save", "load"):
            can = callable(getattr(checkpoint, method, None))
            _check.require(can, "checkpoint", f"a {method} method", type(checkpoint).__name__)
        a, b = (torch.tensor(rows) for rows in (X[:8], X[-8:]))
        with torch.no_grad():
            some = kernel(a, b).numpy()
        facts = [repr((X.shape, str(X.dtype), ridge, size)).encode(), X.tobytes(), some.tobytes()]
        self.checkpoint = checkpoint
        self.problem = hashlib.sha256(b" ".join(facts)).hexdigest()[:16]

    def load(self, place: object) -> np.ndarray | None:
        """What is kept of this place, or None."""
        found = self.checkpoint.load(self._name(place))
        return None if found is None else found.numpy()

    def save(self, place: object, value: np.ndarray) -> np.ndarray:
        """Keep it, and give it back."""
        try:
            self.checkpoint.save(self._name(place), torch.tensor(value))
        except OSError as error:
            raise RuntimeError(
                f"checkpoint: expected room for {value.nbytes / 2**20:,.1f} MiB, got "
                f"{error.strerror or error}; what was kept before is kept, and the same call goes "
                "on from it"
            ) from None
        return value

    def _name(self, place: object) -> str:
        """One name for each problem and place."""
        parts = place if isinstance(place, tuple) else (place,)
        return "-".join(map(str, (self.problem, *parts)))
