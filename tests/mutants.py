"""Wrong formulas, of the kind one really writes: test_mutants.py shows that each is noticed."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A text that occurs once in a module, the wrong one, and the test files it turns red."""

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...]


KERNELS, RIDGE, INFLUENCE = ("test_kernels.py",), ("test_ridge.py",), ("test_influence.py",)
NETWORK, BAD_INPUT = ("test_network.py",), ("test_bad_input.py",)
TRAINING, BOUNDS = ("test_training.py",), ("test_bounds.py",)

MUTANTS = [
    # The kernel, equation (4)
    Mutant(
        "arccos for pi - arccos",
        "kernels.py",
        "torch.arccos(cosine).neg_().add_(math.pi)",
        "torch.arccos(cosine)",
        KERNELS,
    ),
    Mutant("1/pi for 1/(2 pi)", "kernels.py", "div_(2 * math.pi)", "div_(math.pi)", KERNELS),
    Mutant(
        "inner product forgotten",
        "kernels.py",
        "kernel = cosine.mul_(",
        "kernel = torch.ones_like(cosine).mul_(",
        KERNELS,
    ),
    Mutant("no diagonal fix", "kernels.py", "kernel.fill_diagonal_(0.5)", "pass", KERNELS),
    Mutant(
        "no snap of cosines that miss 1 by rounding",
        "kernels.py",
        "rounding = 16 * torch.finfo(X.dtype).eps",
        "rounding = 0.0",
        KERNELS,
    ),
    Mutant(
        "snap of cosines far from 1",
        "kernels.py",
        "rounding = 16 * torch.finfo(X.dtype).eps",
        "rounding = 1e-8",
        KERNELS,
    ),
    Mutant("cosines below -1", "kernels.py", ".clamp_(min=-1)", "", KERNELS),
    # Kernel ridge regression, equations (5) and (6)
    Mutant("missing + ridge I", "ridge.py", "A.diagonal().add_(ridge)", "pass", RIDGE),
    Mutant("ridge doubled", "ridge.py", "add_(ridge)", "add_(2 * ridge)", RIDGE),
    Mutant("ridge of a mean loss", "ridge.py", "add_(ridge)", "add_(n * ridge)", RIDGE),
    Mutant("ridge on every entry", "ridge.py", "A.diagonal().add_(ridge)", "A.add_(ridge)", RIDGE),
    Mutant(
        "inverse of the factor",
        "ridge.py",
        "torch.cholesky_inverse(factor, out=factor)",
        "torch.linalg.inv(factor)",
        RIDGE,
    ),
    Mutant("system solved twice", "ridge.py", "dual=P @ y", "dual=P @ (P @ y)", RIDGE),
    Mutant(
        "leverage is 1 - h", "ridge.py", "return 1 - self.ridge *", "return self.ridge *", RIDGE
    ),
    Mutant("leverage without the ridge", "ridge.py", "1 - self.ridge * self", "1 - self", RIDGE),
    Mutant(
        "labels predicted backwards",
        "ridge.py",
        "return k_test @ self.dual",
        "return -k_test @ self.dual",
        RIDGE,
    ),
    Mutant("K overwritten", "ridge.py", "A = K.clone()", "A = K", RIDGE),
    Mutant("symmetry of the first rows only", "ridge.py", "range(0, len(K), rows)", "(0,)", RIDGE),
    Mutant("singular systems let through", "ridge.py", "<= 1e-3 / eps", "<= 1e30", BAD_INPUT),
    Mutant("suggested ridge too small", "ridge.py", "{1e5 * eps", "{1e1 * eps", BAD_INPUT),
    # Influence, equations (8), (9), (13) and (15)
    Mutant("sign of the change", "influence.py", ".div_(-P.", ".div_(P.", INFLUENCE),
    Mutant(
        "change not divided by P_ii",
        "influence.py",
        ".div_(-P.diagonal()[:, None])",
        ".neg_()",
        INFLUENCE,
    ),
    Mutant(
        "change divided by P_ii squared",
        "influence.py",
        ".div_(-P.diagonal()[:, None])",
        ".div_(-P.diagonal()[:, None] ** 2)",
        INFLUENCE,
    ),
    Mutant(
        "change divided by 1 - h",
        "influence.py",
        ".div_(-P.diagonal()[:, None])",
        ".div_(-(1 - model.leverage)[:, None])",
        INFLUENCE,
    ),
    Mutant(
        "test kernel reshaped for transposed",
        "influence.py",
        "(P @ k_test.T)",
        "(P @ k_test.reshape(len(P), -1))",
        INFLUENCE,
    ),
    Mutant(
        "test kernel without the inverse",
        "influence.py",
        "(P @ k_test.T)",
        "k_test.T.clone()",
        INFLUENCE,
    ),
    Mutant(
        "dual of another point",
        "influence.py",
        "change.mul_(alpha[:, None])",
        "change.mul_(alpha.roll(1)[:, None])",
        INFLUENCE,
    ),
    Mutant("change for prediction", "influence.py", "change.add_(f)", "change", INFLUENCE),
    Mutant(
        "half the squared change forgotten",
        "influence.py",
        "(change / 2).add_(residual)",
        "(0 * change).add_(residual)",
        INFLUENCE,
    ),
    Mutant(
        "squared change not halved", "influence.py", "(change / 2)", "change.clone()", INFLUENCE
    ),
    Mutant(
        "loss not halved",
        "influence.py",
        "add_(residual).mul_(change)",
        "add_(residual).mul_(2 * change)",
        INFLUENCE,
    ),
    Mutant("sign of the test label", "influence.py", "dual - y_test", "dual + y_test", INFLUENCE),
    Mutant(
        "outputs summed before squaring",
        "influence.py",
        "    influence = (change / 2)",
        "    if change.ndim == 3:\n"
        "        change, residual = change.sum(dim=2), residual.sum(dim=1)\n"
        "    influence = (change / 2)",
        INFLUENCE,
    ),
    Mutant(
        "outputs averaged",
        "influence.py",
        "influence.sum(dim=2)",
        "influence.mean(dim=2)",
        INFLUENCE,
    ),
    Mutant(
        "IHVP with h for 1 - h", "influence.py", "(1 - model.leverage)", "model.leverage", INFLUENCE
    ),
    Mutant(
        "IHVP divided where it is multiplied",
        "influence.py",
        "first_order * (1",
        "first_order / (1",
        INFLUENCE,
    ),
    Mutant(
        "correction reversed",
        "influence.py",
        "if correct_leverage",
        "if not correct_leverage",
        INFLUENCE,
    ),
    Mutant(
        "group as independent points",
        "influence.py",
        "cholesky(P[S][:, S])",
        "cholesky(P[S][:, S].diagonal().diag())",
        INFLUENCE,
    ),
    Mutant("sign of the group", "influence.py", "change = -(k_test", "change = (k_test", INFLUENCE),
    Mutant(
        "group without the inverse", "influence.py", "(k_test @ P[:, S])", "k_test[:, S]", INFLUENCE
    ),
    # The network, equations (1) and (4)
    Mutant("1/m for 1/sqrt(m)", "network.py", "/ math.sqrt(len(self.a))", "/ len(self.a)", NETWORK),
    Mutant(
        "signs forgotten",
        "network.py",
        "torch.relu(X @ self.W.T) @ self.a",
        "torch.relu(X @ self.W.T).sum(dim=1)",
        NETWORK,
    ),
    Mutant("signs of 0 and 1", "network.py", "a = 2.0 *", "a = 1 +", NETWORK),
    Mutant("uniform weights", "network.py", "torch.randn(", "torch.rand(", NETWORK),
    Mutant("seed ignored", "network.py", "manual_seed(seed)", "manual_seed(0)", NETWORK),
    Mutant("scale applied twice", "network.py", "(scale * W)", "(scale**2 * W)", NETWORK),
    Mutant(
        "weights drawn in their dtype",
        "network.py",
        "generator=generator, dtype=torch.float64)",
        "generator=generator, dtype=dtype)",
        NETWORK,
    ),
    Mutant("units off at their kink", "network.py", "self.W.T >= 0)", "self.W.T > 0)", NETWORK),
    Mutant(
        "patterns of the wrong input",
        "network.py",
        "A @ self.features(Z).T",
        "A @ A[: len(Z)].T",
        NETWORK,
    ),
    Mutant(
        "kernel summed over units",
        "network.py",
        "mul_(A @ A.T).div_(len(self.a))",
        "mul_(A @ A.T)",
        NETWORK,
    ),
    Mutant(
        "inner product of the network forgotten",
        "network.py",
        "(X @ X.T).mul_(A @ A.T)",
        "(A @ A.T)",
        NETWORK,
    ),
    # The checks
    Mutant("norms let through", "_check.py", "1e3 * torch.finfo", "1e6 * torch.finfo", BAD_INPUT),
    Mutant(
        "infinity let through", "_check.py", "if not torch.isfinite(", "if torch.isnan(", BAD_INPUT
    ),
    Mutant(
        "overflow called infinity", "_check.py", "require(bad == 0,", "require(False,", BAD_INPUT
    ),
    Mutant("group from the end", "_check.py", "0 <= i < n", "i < n", BAD_INPUT),
    # Training, equations (2) and (3)
    Mutant(
        "sign of the gradient",
        "training.py",
        "step.size * residual",
        "-step.size * residual",
        TRAINING,
    ),
    Mutant("no pull of the ridge", "training.py", "1 - step.size * self.ridge,", "1.0,", TRAINING),
    Mutant(
        "1/m for 1/sqrt(m) in training",
        "training.py",
        "/ math.sqrt(len(network.a))",
        "/ len(network.a)",
        TRAINING,
    ),
    Mutant(
        "patterns of the initial weights",
        "training.py",
        "A = (Z >= 0)",
        "A = (self.Z_start + 0 * Z >= 0)",
        TRAINING,
    ),
    Mutant(
        "pull to zero weights",
        "training.py",
        "Z.copy_(self._push(M)).add_(self.Z_start)",
        "Z.copy_(self._push(M)).add_(shrink * self.Z_start)",
        TRAINING,
    ),
    Mutant("point not left out", "training.py", "points] = 0", "points] = 1", TRAINING),
    Mutant(
        "every copy without the same point",
        "training.py",
        "other.keep[torch.arange(len(points)), points] = 0",
        "other.keep[:, points[0]] = 0",
        TRAINING,
    ),
    Mutant(
        "outputs share their residual",
        "training.py",
        "(self.keep[:, :, None] * beta) @ self.signs.T",
        "(self.keep[:, :, None] * beta.mean(dim=2, keepdim=True)).expand_as(beta) @ self.signs.T",
        TRAINING,
    ),
    Mutant(
        "outputs solved for as if they shared no unit",
        "training.py",
        "if self.signs.shape[1] == 1:",
        "if True:",
        TRAINING,
    ),
    Mutant(
        "preconditioner without the ridge",
        "training.py",
        "self._solve(A, target, self.ridge + step.damping)",
        "self._solve(A, target, step.damping + 1e-6)",
        TRAINING,
    ),
    Mutant(
        "damping on the kernel but not on the ridge",
        "training.py",
        "target = (1 - part) * residual + part * at_start",
        "target = at_start",
        TRAINING,
    ),
    Mutant(
        "linearised about the wrong weights",
        "training.py",
        "(A * self.Z_start) @ self.signs",
        "0 * (A * self.Z_start) @ self.signs",
        TRAINING,
    ),
    Mutant(
        "preconditioner without 1/m",
        "training.py",
        "mul_(self.G / A.shape[-1])",
        "mul_(self.G)",
        TRAINING,
    ),
    Mutant(
        "kernel frozen at the start",
        "training.py",
        "_pairs(A).to",
        "_pairs(((self.Z_start >= 0) + 0 * A).to(A.dtype)).to",
        TRAINING,
    ),
    Mutant(
        "left-out points stay in the kernel",
        "training.py",
        ".mul_(kept).mul_(kept.mT)",
        "",
        TRAINING,
    ),
    Mutant(
        "one triangle of the pairs forgotten",
        "training.py",
        "pairs[:, : start + rows, start : start + rows] = block.mT",
        "pairs[:, : start + rows, start : start + rows] = 0",
        TRAINING,
    ),
    Mutant(
        "times of the flow not differences",
        "training.py",
        "[after - before for before,",
        "[after for before,",
        TRAINING,
    ),
    Mutant(
        "warm start from cold weights",
        "training.py",
        "M = trained.movement[None]",
        "M = everything.start()",
        TRAINING,
    ),
    Mutant(
        "part of the way taken for all",
        "training.py",
        "(moved - stayed) / part",
        "(moved - stayed)",
        TRAINING,
    ),
    Mutant(
        "weights without their inputs",
        "training.py",
        "self.network.W + ((self.X.T @ M)",
        "self.network.W + (0 * (self.X.T @ M)",
        TRAINING,
    ),
    Mutant(
        "step size not halved",
        "training.py",
        "size / 2, 2 * stretch, True",
        "size, stretch, True",
        TRAINING,
    ),
    # Bounds
    Mutant(
        "1/m for 1/sqrt(m) in the radius",
        "bounds.py",
        "R = n * rho / (ridge * sqrt(width))",
        "R = n * rho / (ridge * width)",
        BOUNDS,
    ),
    Mutant(
        "radius without the ridge",
        "bounds.py",
        "R = n * rho / (ridge * sqrt(width))",
        "R = n * rho / sqrt(width)",
        BOUNDS,
    ),
    Mutant(
        "sqrt(n) for n in the radius", "bounds.py", "R = n * rho /", "R = sqrt(n) * rho /", BOUNDS
    ),
    Mutant(
        "half of the interval around a kink",
        "bounds.py",
        "return rho, R, 2 * R /",
        "return rho, R, R /",
        BOUNDS,
    ),
    Mutant(
        "density of a variance for that of a scale",
        "bounds.py",
        "(scale * sqrt(2 * pi))",
        "(scale**2 * sqrt(2 * pi))",
        BOUNDS,
    ),
    Mutant(
        "scale for its inverse in the density",
        "bounds.py",
        "R / (scale * sqrt(2 * pi))",
        "R * scale / sqrt(2 * pi)",
        BOUNDS,
    ),
    Mutant(
        "sqrt(pi) for sqrt(2 pi) in the density",
        "bounds.py",
        "(scale * sqrt(2 * pi))",
        "(scale * sqrt(pi))",
        BOUNDS,
    ),
    Mutant(
        "delta for its root in the start",
        "bounds.py",
        "rho = 1 + scale / sqrt(2 * delta)",
        "rho = 1 + scale / (2 * delta)",
        BOUNDS,
    ),
    Mutant(
        "variance of the start without its half",
        "bounds.py",
        "rho = 1 + scale / sqrt(2 * delta)",
        "rho = 1 + scale / sqrt(delta)",
        BOUNDS,
    ),
    Mutant(
        "labels forgotten in the residual",
        "bounds.py",
        "rho = 1 + scale /",
        "rho = scale /",
        BOUNDS,
    ),
    Mutant(
        "Markov without delta",
        "bounds.py",
        "return Drift(2 * n**2 * share,",
        "return Drift(2 * n**2 * p,",
        BOUNDS,
    ),
    Mutant(
        "one unit of a pair flips",
        "bounds.py",
        "return Drift(2 * n**2 * share,",
        "return Drift(n**2 * share,",
        BOUNDS,
    ),
    Mutant("Jacobian drift not rooted", "bounds.py", "sqrt(n * share), 2", "n * share, 2", BOUNDS),
    Mutant(
        "test kernel without the training points",
        "bounds.py",
        "2 * n * share, sqrt(share))",
        "n * share, sqrt(share))",
        BOUNDS,
    ),
    Mutant(
        "test Jacobian of all points",
        "bounds.py",
        "2 * n * share, sqrt(share))",
        "2 * n * share, sqrt(n * share))",
        BOUNDS,
    ),
    Mutant(
        "residual without sqrt(n), Lemma 3",
        "bounds.py",
        "2 * n**2 * share * sqrt(n) * rho",
        "2 * n**2 * share * rho",
        BOUNDS,
    ),
    Mutant(
        "second drive without the ridge, Lemma 3",
        "bounds.py",
        "ridge * n * R * sqrt(width) * share",
        "n * R * sqrt(width) * share",
        BOUNDS,
    ),
    Mutant(
        "second drive without sqrt(m), Lemma 3",
        "bounds.py",
        "ridge * n * R * sqrt(width) * share",
        "ridge * n * R * share",
        BOUNDS,
    ),
    Mutant(
        "not divided by the ridge, Lemma 3",
        "bounds.py",
        "* sqrt(width) * share) / ridge\n",
        "* sqrt(width) * share)\n",
        BOUNDS,
    ),
    Mutant(
        "gap of the training set forgotten, Lemma 4",
        "bounds.py",
        "(drives + sqrt(n) * lemma_3(n, width, scale, ridge, delta)) / ridge",
        "drives / ridge",
        BOUNDS,
    ),
    Mutant(
        "gap without sqrt(n), Lemma 4",
        "bounds.py",
        "drives + sqrt(n) * lemma_3",
        "drives + lemma_3",
        BOUNDS,
    ),
    Mutant(
        "second drive of all points, Lemma 4",
        "bounds.py",
        "+ ridge * R * sqrt(width) * share",
        "+ ridge * n * R * sqrt(width) * share",
        BOUNDS,
    ),
    Mutant(
        "one delta for five events",
        "bounds.py",
        "fifth = n_train, delta / 5",
        "fifth = n_train, delta",
        BOUNDS,
    ),
    Mutant(
        "four events for five",
        "bounds.py",
        "fifth = n_train, delta / 5",
        "fifth = n_train, delta / 4",
        BOUNDS,
    ),
    Mutant("start without its ridge", "bounds.py", "(1 + sqrt(n / ridge) / 2)", "1", BOUNDS),
    Mutant("Hoeffding without its factor two", "bounds.py", "/ (2 * width))", "/ width)", BOUNDS),
    Mutant("Hoeffding of the Gram matrix alone", "bounds.py", "n**2 + 3 * n", "n**2 + n", BOUNDS),
    Mutant(
        "limit kernel of diagonal one",
        "bounds.py",
        "(1 + sqrt(n / (2 * ridge)) / 2)",
        "(1 + sqrt(n / ridge) / 2)",
        BOUNDS,
    ),
    Mutant("C for C + 1", "bounds.py", "(C + 1) * (gap_without", "C * (gap_without", BOUNDS),
    Mutant(
        "gaps subtracted",
        "bounds.py",
        "(gap_without + gap_with)",
        "(gap_without - gap_with)",
        BOUNDS,
    ),
]
