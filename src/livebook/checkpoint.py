"""Results of a long run, kept on disk one by one, so that an interrupted run goes on."""

import hashlib
import inspect
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from ntk_influence import network, training

from .paths import ROOT, write_atomically


class Checkpoint:
    """Tensors by name, in a folder of their own for each set of facts and each state of the code.

    ``to`` starts at the root of the book; with None the folder is new and goes with the process.
    """

    def __init__(self, to: str | None, **facts: object) -> None:
        code = inspect.getsource(training) + inspect.getsource(network)
        digest = hashlib.sha256((json.dumps(facts, sort_keys=True) + code).encode()).hexdigest()
        self.passing = None if to else tempfile.TemporaryDirectory()
        self.folder = ROOT / to / digest[:16] if to else Path(self.passing.name)

    def save(self, name: object, value: torch.Tensor) -> None:
        """Keep a tensor; nothing half-written is ever left."""
        buffer = io.BytesIO()
        np.save(buffer, value.cpu().numpy())
        write_atomically((self.folder / f"{name}.npy", buffer.getvalue()))

    def load(self, name: object) -> torch.Tensor | None:
        """The tensor of that name, or None if it is not there yet."""
        path = self.folder / f"{name}.npy"
        return torch.from_numpy(np.load(path, allow_pickle=False)) if path.exists() else None
