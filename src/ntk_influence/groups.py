"""Pairs and groups of training points that are left out together."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from . import _check
from .influence import leave_group_out
from .ridge import KernelRidge


class Group(NamedTuple):
    """Training points, and the change of a prediction when all of them are removed."""

    indices: list[int]
    change: Float[Tensor, ""] | Float[Tensor, "c"]


def most_influential_group(model: KernelRidge, k_test_row: Float[Tensor, "n"], size: int) -> Group:
    r"""A group of training points whose removal changes one prediction much, chosen greedily.

    Each step removes the point that, after those before it, brings the prediction farthest from
    that of the whole set. With $v = P k$ its change is $-v_i \alpha_i / P_{ii}$, and its removal is
    an update of rank one: $P \leftarrow P - P e_i e_i^\top P / P_{ii}$, and with it $\alpha$ and
    $v$. The change of the whole group is that of `leave_group_out`, exact for every group. That no
    other group of the size changes more is not guaranteed.

    Parameters
    ----------
    model : KernelRidge
        Fitted to all n training points.
    k_test_row : (n,) kernel between the test point and the training points.
    size : how many points to remove, from 1 to n.

    Returns
    -------
    Group
        Indices in the order of their choice, and the change $f^{\setminus S}(x) - f(x)$.

    Raises
    ------
    ValueError
        A row of another shape, dtype or device; a size that is not from 1 to n.

    Source: the group formula, An, Liu and Venkatesh 2007; greedy choice is common practice.
    """
    model = _check.instance("model", model, KernelRidge)
    k = _check.tensor("k_test_row", k_test_row, (1,))
    P, n = model.inverse, len(model.inverse)
    _check.alike("k_test_row", k, "the model", P)
    _check.require(len(k) == n, "k_test_row", f"shape ({n},)", f"shape {tuple(k.shape)}")
    size = _check.integer("size", size)
    _check.require(size <= n, "size", f"an integer from 1 to {n}", size)
    alpha = model.dual.reshape(n, -1).clone()
    d, v = P.diagonal().clone(), P @ k
    removed = torch.empty(n, size, dtype=P.dtype, device=P.device)  # columns of P, over their roots
    change, group = torch.zeros_like(alpha[0]), []
    for step in range(size):
        after = change - (v / d)[:, None] * alpha
        far = after.norm(dim=1)
        far[group] = -1
        i = int(far.argmax())
        group.append(i)
        change = after[i]
        before = removed[:, :step]
        column = (P[:, i] - before @ before[i]) / d[i].sqrt()
        alpha -= column[:, None] * (alpha[i] / d[i].sqrt())
        v -= column * (v[i] / d[i].sqrt())
        d -= column.square()
        removed[:, step] = column
    f = model.predict(k[None])[0]
    return Group(group, leave_group_out(model, k[None], group)[0] - f)


def pair_residuals(
    model: KernelRidge, points: Int[Tensor, "b"]
) -> Float[Tensor, "n b"] | Float[Tensor, "n b c"]:
    r"""Residuals at some training points j of the models without j and without each i as well.

    With $P$ and $\alpha$ of the whole model, $y_j - f^{\setminus \{i, j\}}(x_j) = (P_{ii} \alpha_j
    - P_{ij} \alpha_i) / (P_{ii} P_{jj} - P_{ij}^2)$, the block formula of two points; where i is j,
    $\alpha_j / P_{jj}$.

    Parameters
    ----------
    model : KernelRidge
        Fitted to all n training points.
    points : (b,) indices j, on the device of the model.

    Returns
    -------
    (n, b) or (n, b, c) tensor; entry (i, j) is the residual at j without both, in the unit of the
    labels.

    Source: An, Liu and Venkatesh 2007.
    """
    P, d = model.inverse, model.inverse.diagonal()
    alpha = model.dual.reshape(len(P), -1)
    here = torch.arange(len(points), device=P.device)
    determinant = torch.outer(d, d[points]) - P[:, points].square()
    determinant[points, here] = 1
    missed = d[:, None, None] * alpha[points] - P[:, points, None] * alpha[:, None]
    missed /= determinant[..., None]
    missed[points, here] = alpha[points] / d[points, None]
    return missed.reshape(len(P), len(points), *model.dual.shape[1:])
