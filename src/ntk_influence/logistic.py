r"""Kernel logistic and softmax regression, and the effect of removing points by one Newton step.

With $P = (W K + \lambda I)^{-1}$, $W$ the curvature of the loss at the fit, every formula of kernel
ridge regression stays; what was exact there is exact here for the quadratic model at the fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from . import _check
from .cross_entropy import check_classes, derivatives, losses, minimise, system, too_weak
from .ridge import check_problem, check_test_kernel


@dataclass(frozen=True, eq=False)
class KernelLogistic:
    r"""A fitted kernel logistic regression, or a softmax regression of c classes.

    Attributes
    ----------
    dual : (n,) or (n, c) tensor $\alpha$; minus the derivative of the loss at point i is
        $\lambda\alpha_i$, what is left of the label: $\lambda\alpha_i = y_i - p_i$ for rows $y_i$.
    inverse : (n, n) or (n c, n c) tensor $P = (W K + \lambda I)^{-1}$, not symmetric. Rows and
        columns belong to points, and within a point to classes; $W$ has a block for each point.
    ridge : $\lambda > 0$, on the scale of a *sum* of losses.
    leverage : (n,) tensor $h_i = [W K P]_{ii}$ in [0, 1), or the (n, c, c) blocks of it.
    """

    dual: Float[Tensor, "n"] | Float[Tensor, "n c"]
    inverse: Float[Tensor, "nc nc"]
    ridge: float
    leverage: Float[Tensor, "n"] | Float[Tensor, "n c c"]

    @property
    def one_minus_leverage(self) -> Float[Tensor, "n"] | Float[Tensor, "n c c"]:
        r"""$1 - h_i = \lambda P_{ii}$, or its blocks, to all digits also where $h_i$ is near 1."""
        return (self.ridge * _own_blocks(self)).reshape(self.leverage.shape)

    @torch.no_grad()
    def predict(
        self, k_test: Float[Tensor, "n_test n"]
    ) -> Float[Tensor, "n_test"] | Float[Tensor, "n_test c"]:
        r"""Outputs $f(x) = k(x)^\top \alpha$: log odds of class +1, or unnormalised log odds.

        Parameters
        ----------
        k_test : (n_test, n) kernel between test points (rows) and training points (columns).

        Returns
        -------
        (n_test,) or (n_test, c) tensor.

        Raises
        ------
        ValueError
            ``k_test`` transposed or of another shape, dtype or device; NaN or infinity.
        """
        return check_test_kernel(self.dual, k_test) @ self.dual


@torch.no_grad()
def fit_kernel_logistic(
    K: Float[Tensor, "n n"], y: Float[Tensor, "n"] | Float[Tensor, "n c"], ridge: float
) -> KernelLogistic:
    r"""Minimise the sum of cross-entropies plus $\frac\lambda2\|f\|_{\mathcal H}^2$, $f = K\alpha$.

    By Newton's method with halved steps, from $f = 0$. It ends where the gradient in the dual, $g +
    \lambda\alpha$ with $g$ the derivatives of the losses, is within rounding of $f$ from 0:
    $\|g + \lambda\alpha\| \le 100\,\epsilon\,(1 + \|K\|_\infty\|\alpha\|_\infty)\,\|g\|$.

    Parameters
    ----------
    K : (n, n) symmetric positive semidefinite kernel matrix of the training points.
    y : (n,) labels +1 and -1, for the loss $\log(1 + e^{-y f})$; or (n, c) rows of zeros with a
        one, for the loss $\log\sum_k e^{f_k} - y^\top f$. Of the dtype and device of ``K``.
    ridge : $\lambda > 0$. Two classes with rows need twice the ridge of labels +1 and -1.

    Returns
    -------
    KernelLogistic
        With ``dual`` shaped like ``y``.

    Raises
    ------
    ValueError
        ``K`` not square or not symmetric, ``y`` of another length, NaN or infinity, mixed dtypes
        or devices, labels that are no classes or all of one class, a ridge that is not positive or
        at which fewer than three digits would be right; what does not fit into the memory.

    Source: Zhu and Hastie 2005; Rasmussen and Williams 2006, Sec. 3.4 and 3.5.
    """
    K, y, ridge = check_problem(K, y, ridge)
    ridge = _check.positive("ridge", ridge)
    check_classes("y", y)
    of_class = y.sum(dim=0) if y.ndim == 2 else torch.stack([(y > 0).sum(), (y < 0).sum()])
    classes = int((of_class > 0).sum())
    _check.require(classes >= 2, "y", "points of two classes or more", f"{classes}")
    _check.fits("y", "the inverse", 5 * y.numel() ** 2 * K.element_size(), K.device)
    shape, y = y.shape, y.reshape(len(y), -1)
    alpha = minimise(K, y, ridge)
    _, W = derivatives(K @ alpha, y)
    A = system(K, W, ridge)
    P, failed = torch.linalg.inv_ex(A)
    condition = float(torch.linalg.matrix_norm(A, 1) * torch.linalg.matrix_norm(P, 1))
    if failed or not condition <= 1e-3 / torch.finfo(K.dtype).eps:
        raise too_weak(K.dtype, ridge, f"condition number {condition:.0e}")
    n, c = y.shape
    leverage = torch.einsum("iab,ij,jbic->iac", W, K, P.reshape(n, c, n, c))
    blocks = (n,) if len(shape) == 1 else (n, c, c)
    return KernelLogistic(alpha.reshape(shape), P, ridge, leverage.reshape(blocks))


@torch.no_grad()
def leave_one_out(
    model: KernelLogistic, k_test: Float[Tensor, "n_test n"]
) -> Float[Tensor, "n n_test"] | Float[Tensor, "n n_test c"]:
    r"""Outputs at the test points one Newton step away, for each training point left out.

    $f^{\setminus i}(x_t) \approx f(x_t) - k_t^\top P_{:i}\,P_{ii}^{-1}\,\alpha_i$: the step, from
    the fit, of the loss without the point. Exact for the quadratic model of the losses at the fit.

    Parameters
    ----------
    model : KernelLogistic
        Fitted to all n training points.
    k_test : (n_test, n) kernel between test points (rows) and training points (columns).

    Returns
    -------
    (n, n_test) or (n, n_test, c) tensor; entry (i, t) is for test point t without point i.

    Raises
    ------
    ValueError
        ``k_test`` transposed or of another shape, dtype or device; NaN or infinity; a result that
        does not fit into the memory.

    Source: Pregibon 1981; for kernels, Cawley and Talbot 2008; in general, Rad and Maleki 2020.
    """
    f, change = _outputs_and_changes(model, k_test, newton=True)
    return (f + change).reshape(len(change), len(f), *model.dual.shape[1:])


@torch.no_grad()
def leave_group_out(
    model: KernelLogistic, k_test: Float[Tensor, "n_test n"], group: Sequence[int]
) -> Float[Tensor, "n_test"] | Float[Tensor, "n_test c"]:
    r"""Outputs at the test points one Newton step away, with a group of training points left out.

    $f^{\setminus S}(x_t) \approx f(x_t) - k_t^\top P_{:S}\,P_{SS}^{-1}\,\alpha_S$.

    Parameters
    ----------
    model, k_test : as in `leave_one_out`.
    group : indices of the points to remove: distinct integers from 0 to n - 1, in any order. An
        empty group removes nothing; removing every point predicts 0.

    Returns
    -------
    (n_test,) or (n_test, c) tensor.

    Raises
    ------
    ValueError
        An index out of range or repeated; ``k_test`` as in `leave_one_out`.

    Source: Koh, Ang, Teo and Liang 2019, for the one Newton step of a group.
    """
    model = _check.instance("model", model, KernelLogistic)
    f = model.predict(k_test)
    n, alpha = len(model.dual), model.dual.reshape(len(model.dual), -1)
    S = _check.indices("group", group, n)
    P, size = _by_point(model), len(S) * alpha.shape[1]
    P_SS = P[S][:, :, S].reshape(size, size)
    solved = torch.linalg.solve(P_SS, alpha[S].reshape(size, 1)).reshape(alpha[S].shape)
    return f - (k_test @ torch.einsum("jasb,sb->ja", P[:, :, S], solved)).reshape(f.shape)


@torch.no_grad()
def loo_influence(
    model: KernelLogistic,
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
) -> Float[Tensor, "n n_test"]:
    r"""Change of every test loss, a cross-entropy, by the Newton step of `leave_one_out`.

    Parameters
    ----------
    model, k_test : as in `leave_one_out`.
    y_test : (n_test,) labels +1 and -1, or (n_test, c) rows of zeros with a one, as in the fit.

    Returns
    -------
    (n, n_test) tensor, in natural units of information. Positive: removing the point raises the
    test loss, the point is helpful.

    Raises
    ------
    ValueError
        Wrong shapes, NaN or infinity, mixed dtypes or devices, labels that are no classes.

    Source: as `leave_one_out`.
    """
    f, change = _outputs_and_changes(model, k_test, newton=True)
    y_test = _check_test_classes(model, y_test, f)
    return losses(f + change, y_test) - losses(f, y_test)


@torch.no_grad()
def ihvp_influence(
    model: KernelLogistic,
    k_test: Float[Tensor, "n_test n"],
    y_test: Float[Tensor, "n_test"] | Float[Tensor, "n_test c"],
    *,
    correct_leverage: bool = False,
) -> Float[Tensor, "n n_test"]:
    r"""Inverse-Hessian-vector-product influence on the cross-entropy of test points.

    $g_t^\top\,k_t^\top P_{:i}\,g_i$ with the derivatives $g = -\lambda\alpha$ of the losses by the
    outputs. With ``correct_leverage`` the last factor is $(1 - h_i)^{-1} g_i$: to first order in
    the change of the output, the influence of `loo_influence`.

    Parameters
    ----------
    model, k_test, y_test : as in `loo_influence`.
    correct_leverage : divide by $1 - h_i$, or solve with that block.

    Returns
    -------
    (n, n_test) tensor with the unit and sign of `loo_influence`.

    Raises
    ------
    ValueError
        As `loo_influence`.

    Source: Koh and Liang 2017; Giordano et al. 2019; corrected, Rubinstein and Hopkins 2025.
    """
    f, change = _outputs_and_changes(model, k_test, newton=correct_leverage)
    g, _ = derivatives(f, _check_test_classes(model, y_test, f))
    return torch.einsum("ta,ita->it", g, change)


def _by_point(model: KernelLogistic) -> Float[Tensor, "n c n c"]:
    """The inverse with an axis for points and one for classes, twice."""
    n = len(model.dual)
    c = len(model.inverse) // n
    return model.inverse.reshape(n, c, n, c)


def _own_blocks(model: KernelLogistic) -> Float[Tensor, "n c c"]:
    """The blocks of the inverse that belong to one point."""
    return torch.einsum("iaib->iab", _by_point(model))


def _outputs_and_changes(
    model: KernelLogistic, k_test: Float[Tensor, "n_test n"], *, newton: bool
) -> tuple[Float[Tensor, "n_test c"], Float[Tensor, "n n_test c"]]:
    """Outputs, and their changes without each point, by a Newton step or to first order."""
    model = _check.instance("model", model, KernelLogistic)
    f = model.predict(k_test).reshape(len(k_test), -1)
    alpha, P = model.dual.reshape(len(model.dual), -1), _by_point(model)
    rows = len(k_test) + len(alpha)
    _check.fits("k_test", "all changes", 2 * rows * alpha.numel() * f.element_size(), f.device)
    missed = model.ridge * alpha
    if newton:
        missed = torch.linalg.solve(_own_blocks(model), alpha[:, :, None])[:, :, 0]
    change = -torch.einsum("tj,jai->ita", k_test, torch.einsum("jaib,ib->jai", P, missed))
    return f, change


def _check_test_classes(model: KernelLogistic, y_test: Tensor, f: Tensor) -> Tensor:
    """Labels of the test points as a matrix, of the classes of the model."""
    shape = (len(f), *model.dual.shape[1:])
    y_test = _check.labels_of("y_test", y_test, "the model", model.dual, shape)
    check_classes("y_test", y_test)
    return y_test.reshape(f.shape)
