"""The closed form in tiles on Dask, for kernel matrices that no single process holds.

The same names as in one process, with points for kernels and arrays of numpy's for results, and
retraining on several processes. It is imported when it is first asked for, and asks for Dask when
that is first used.
"""

from .influence import leave_group_out, leave_one_out, loo_influence
from .ridge import BlockedKernelRidge, Needs, fit_kernel_ridge, needs
from .sweeps import retrain_without

__all__ = [
    "BlockedKernelRidge",
    "Needs",
    "fit_kernel_ridge",
    "leave_group_out",
    "leave_one_out",
    "loo_influence",
    "needs",
    "retrain_without",
]
