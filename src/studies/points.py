"""Which training points are left out where not all of them can be."""

import torch
from jaxtyping import Float
from torch import Tensor


def choose_points(change: Float[Tensor, "n n_test ..."], count: int) -> list[int]:
    """Points at random, and as many of the most influential others, by their predicted changes."""
    strength = change.square().flatten(1).mean(dim=1)
    generator = torch.Generator("cpu").manual_seed(0)
    order = torch.randperm(len(change), generator=generator, device="cpu")
    at_random = order[: count // 2].tolist()
    ranked = [i for i in strength.argsort(descending=True).tolist() if i not in at_random]
    return at_random + ranked[: count - count // 2]


def drawn_and_ranked(count: int) -> dict[str, slice]:
    """The two groups in the list of `choose_points`, by name."""
    return {"at random": slice(count // 2), "most influential": slice(count // 2, None)}
