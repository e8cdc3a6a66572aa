"""What a call costs: operations of its matrix products and factorisations, and numbers held."""

import time
import weakref
from collections.abc import Callable
from math import prod
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten


class Counted(NamedTuple):
    """What a call returns, its operations, and the most float64 numbers that it held at once."""

    result: object
    operations: float
    held: float


def counted(action: Callable) -> Counted:
    """Operations and memory of a call, the same on every machine.

    A product and a sum are two operations. Products of matrices and their factorisations are
    counted, nothing that works entry by entry; factorisations as in Golub and Van Loan, with their
    vectors. Numbers are those of tensors beside the arguments; work space inside a factorisation is
    not seen.
    """
    with FlopCounterMode(display=False, custom_mapping=FACTORISATIONS) as counter, _Held() as held:
        result = action()
    return Counted(result, float(counter.get_total_flops()), held.peak / 8)


def side_by_side(actions: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each call: all in turn, and again, after one round that is not counted.

    What else the machine does counts less than in time that passes.
    """
    found = {name: [] for name in actions}
    for round_ in range(repeats + 1):
        for name, action in actions.items():
            started = time.process_time()
            action()
            if round_:
                found[name].append(time.process_time() - started)
    return found


def of_qr(rows: int, columns: int) -> float:
    """Operations of a thin QR decomposition with its Q."""
    return 4 * rows * columns**2 - 4 * columns**3 / 3


def of_svd(rows: int, columns: int) -> float:
    """Operations of a thin singular value decomposition with its vectors."""
    long, short = max(rows, columns), min(rows, columns)
    return 6 * long * short**2 + 20 * short**3


def of_eigh(order: int) -> float:
    """Operations of a symmetric eigendecomposition with its vectors."""
    return 9 * order**3


FACTORISATIONS = {
    aten.mv: lambda a, x, **_: 2 * prod(a),
    aten.linalg_cholesky_ex: lambda a, **_: a[0] ** 3 / 3,
    aten.cholesky_inverse: lambda a, *_, **__: 2 * a[0] ** 3 / 3,
    aten.cholesky_solve: lambda b, a, *_, **__: 2 * a[0] ** 2 * b[1],
    aten.linalg_qr: lambda a, *_, **__: of_qr(*a),
    aten._linalg_eigh: lambda a, *_, **__: of_eigh(a[0]),
    aten._linalg_svd: lambda a, *_, **__: of_svd(*a),
}


class _Held(TorchDispatchMode):
    """Adds up the memory of what each operation of torch returns, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(
        self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        inputs = tree_leaves((args, kwargs))
        old = {t.untyped_storage().data_ptr() for t in inputs if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage(), old)
        return out

    def _note(self, storage: torch.UntypedStorage, old: set[int]) -> None:
        where = storage.data_ptr()
        if where in old or where in self.known:
            return
        self.known.add(where)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, where, storage.nbytes())

    def _forget(self, where: int, size: int) -> None:
        self.known.discard(where)
        self.now -= size
