"""What each library computes, written out from its formula, comes back as influence of ours."""

import pytest
import torch
from problems import refused, unit_rows
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import conventions
from ntk_influence.conventions import damping_of, ridge_of, slope, to_ours

N, N_TEST, DIM, RIDGE = 12, 5, 4, 0.3
CURVED = ["pyDVL", "Captum", "kronfluence", "dattri"]
ROUNDING = {"atol": 1e-12, "rtol": 0}  # dense systems of four unknowns, influence of order one


class Linear:
    """A linear model at its minimum: data, labels, weights, and influence in closed form."""

    def __init__(self) -> None:
        Z = unit_rows(N + N_TEST, DIM)
        generator = torch.Generator().manual_seed(1)
        y = torch.randn(N + N_TEST, generator=generator, dtype=torch.float64)
        self.Z, self.y, self.Z_test, self.y_test = Z[:N], y[:N], Z[N:], y[N:]
        self.model = ni.fit_kernel_ridge(self.Z @ self.Z.T, self.y, RIDGE)
        self.k_test = self.Z_test @ self.Z.T
        self.weights = self.Z.T @ self.model.dual

    @property
    def ihvp(self):
        return ni.ihvp_influence(self.model, self.k_test, self.y_test)

    def gradients(self, Z, y, loss):
        """Of the loss of each point at the weights, by automatic differentiation."""

        def of_one(w, z, label):
            return loss / 2 * (z @ w - label) ** 2

        return torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))(self.weights, Z, y)

    def hessian(self, loss, mean):
        def objective(w):
            losses = loss / 2 * (self.Z @ w - self.y) ** 2
            return losses.mean() if mean else losses.sum()

        return torch.autograd.functional.hessian(objective, self.weights)

    def scores(self, damping, loss, *, mean, train_first):
        """g_t^T (H + damping I)^-1 g_i, the formula that these libraries share."""
        g = self.gradients(self.Z, self.y, loss)
        g_test = self.gradients(self.Z_test, self.y_test, loss)
        H = self.hessian(loss, mean) + damping * torch.eye(DIM, dtype=torch.float64)
        found = g_test @ torch.linalg.solve(H, g.T)
        return found.T if train_first else found


LINEAR = Linear()


@pytest.mark.parametrize("loss", [1.0, 2.0, 0.25])
@pytest.mark.parametrize("library", CURVED)
def test_a_formula_of_inverse_hessians_is_ihvp_influence(library, loss):
    form = {"mean": library != "Captum", "train_first": library == "dattri"}
    damping = {"Captum": RIDGE * loss}.get(library, RIDGE * loss / N)
    scores = LINEAR.scores(damping, loss, **form)
    assert damping_of(library, RIDGE, N, loss=loss) == pytest.approx(damping, rel=1e-14)
    assert ridge_of(library, damping, N, loss=loss) == pytest.approx(RIDGE, rel=1e-14)
    found = to_ours(scores, library=library, n=N, loss=loss)
    assert_close(found, LINEAR.ihvp, **ROUNDING)


def test_pyinfluence_divides_by_the_number_of_points_itself():
    K, P, alpha = LINEAR.Z @ LINEAR.Z.T, LINEAR.k_test, LINEAR.model.dual
    K = K + 1e-3 * torch.eye(
        N, dtype=torch.float64
    )  # of full rank, so that its dual Hessian has an inverse
    model = ni.fit_kernel_ridge(K, LINEAR.y, RIDGE)
    alpha = model.dual
    g = (K @ alpha - LINEAR.y)[:, None] * K
    g_test = (P @ alpha - LINEAR.y_test)[:, None] * P
    H = K @ K / N + RIDGE / N * K
    scores = g_test @ torch.linalg.solve(H, g.T) / N
    expected = ni.ihvp_influence(model, P, LINEAR.y_test)
    # The dual Hessian has the square of the condition number of K, which is 3e3.
    assert_close(to_ours(scores, library="pyinfluence", n=N), expected, atol=1e-8, rtol=0)


def test_trak_scores_the_output_and_its_ranking_is_kept():
    residual = LINEAR.Z_test @ LINEAR.weights - LINEAR.y_test
    weights = LINEAR.Z @ LINEAR.weights - LINEAR.y
    H = LINEAR.Z.T @ LINEAR.Z + RIDGE * torch.eye(DIM, dtype=torch.float64)
    scores = (LINEAR.Z @ torch.linalg.solve(H, LINEAR.Z_test.T)) * weights[:, None] * 7.0
    found = to_ours(scores, library="TRAK", n=N, residual=residual)
    assert_close(found, 7 * LINEAR.ihvp, **ROUNDING)


def test_the_damping_of_trak_stands_beside_projected_features():
    """Without a projection features are gradients over the root of their number, k / p = 1 / p."""
    residual = LINEAR.Z_test @ LINEAR.weights - LINEAR.y_test
    Phi, Phi_test = LINEAR.Z / DIM**0.5, LINEAR.Z_test / DIM**0.5
    damping = damping_of("TRAK", RIDGE, N, share=1 / DIM)
    inverse = torch.linalg.inv(Phi.T @ Phi + damping * torch.eye(DIM, dtype=torch.float64))
    scores = Phi @ inverse @ Phi_test.T * (LINEAR.Z @ LINEAR.weights - LINEAR.y)[:, None]
    found = to_ours(scores, library="TRAK", n=N, residual=residual)
    assert_close(found, LINEAR.ihvp, **ROUNDING)
    assert ridge_of("TRAK", damping, N, share=1 / DIM) == pytest.approx(RIDGE, rel=1e-14)


def test_tracin_keeps_its_sign_and_its_ranking():
    g = LINEAR.gradients(LINEAR.Z, LINEAR.y, 1.0)
    scores = 0.1 * LINEAR.gradients(LINEAR.Z_test, LINEAR.y_test, 1.0) @ g.T
    found = to_ours(scores, library="Captum TracInCP", n=N)
    assert torch.equal(found, scores.T)
    strong = ni.fit_kernel_ridge(LINEAR.Z @ LINEAR.Z.T, LINEAR.y, 1e6)
    residual = (-LINEAR.y, -LINEAR.y_test)  # of the model that the ridge holds at zero
    limit = (LINEAR.Z @ LINEAR.Z_test.T) * residual[0][:, None] * residual[1]
    ihvp = ni.ihvp_influence(strong, LINEAR.k_test, LINEAR.y_test)
    assert_close(1e6 * ihvp, limit, atol=1e-4, rtol=0)  # Hessians that are nearly the ridge


def test_positive_is_helpful_in_every_library():
    """A point that repeats a test point and its label helps that test point."""
    twin = Linear()
    twin.Z_test, twin.y_test, twin.k_test = twin.Z, twin.y, twin.Z @ twin.Z.T
    for library in CURVED:
        form = {"mean": library != "Captum", "train_first": library == "dattri"}
        scores = twin.scores(damping_of(library, RIDGE, N), 1.0, **form)
        assert (to_ours(scores, library=library, n=N).diagonal() > 0).all()
    change = ni.loo_influence(twin.model, twin.k_test, twin.y_test)
    assert (change.diagonal() > 0).all()


def test_sklearn_has_no_halves_and_torch_decays_beside_a_mean():
    Z, y, eye = LINEAR.Z, LINEAR.y, torch.eye(DIM, dtype=torch.float64)
    alpha, decay = damping_of("scikit-learn", RIDGE, N), damping_of("torch", RIDGE, N, loss=2.0)
    by_sklearn = torch.linalg.solve(2 * Z.T @ Z + 2 * alpha * eye, 2 * Z.T @ y)
    # Stationary: the gradient of mse_loss plus weight_decay times the weights.
    by_torch = torch.linalg.solve(2 / N * Z.T @ Z + decay * eye, 2 / N * Z.T @ y)
    for weights in (by_sklearn, by_torch):
        assert_close(weights, LINEAR.weights, **ROUNDING)


@pytest.mark.parametrize("ridge", [10.0, 1.0, 0.1, 0.01])
def test_leverage_predicts_the_slope_of_every_point(ridge):
    model = ni.fit_kernel_ridge(LINEAR.Z @ LINEAR.Z.T, LINEAR.y, ridge)
    estimate = ni.ihvp_influence(model, LINEAR.k_test, LINEAR.y_test)
    change = ni.leave_one_out(model, LINEAR.k_test) - model.predict(LINEAR.k_test)
    truth = change * (model.predict(LINEAR.k_test) - LINEAR.y_test)
    assert_close(slope(model.leverage)[:, None] * estimate, truth, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["PYDVL", "pydvl", "Pydvl"])
def test_names_are_known_in_any_case(name):
    assert ridge_of(name, 0.5, 10) == 5.0


def test_the_scores_are_left_alone_and_are_not_shared():
    scores = torch.ones(N_TEST, N, dtype=torch.float64)
    for convention in conventions.LIBRARIES:
        given = scores.T.clone() if convention.train_first else scores.clone()
        options = {"residual": torch.ones(N_TEST).double()} if convention.of_output else {}
        found = to_ours(given, library=convention.name, n=N, **options)
        assert found.shape == (N, N_TEST)
        found.fill_(0)
        assert (given == 1).all()


SCORES = torch.ones(N_TEST, N, dtype=torch.float64)
R = torch.ones(N_TEST, dtype=torch.float64)
NEAREST = {
    "pydlv": "pyDVL",
    "capture": "Captum",
    "kronfluenc": "kronfluence",
    "datri": "dattri",
    "traker": "TRAK",
    "torch-influence": "pyinfluence",
    "tracincp": "Captum TracInCP",
}
BAD = {
    f"a library like {near}": (
        lambda name=name: to_ours(SCORES, library=name, n=N),
        "library",
        f"(did you mean {near}?)",
        repr(name),
    )
    for name, near in NEAREST.items()
} | {
    "nothing like a library": (
        lambda: to_ours(SCORES, library="zzz", n=N),
        "library",
        "TRAK, pyinfluence",
        "'zzz'",
    ),
    "no name": (lambda: to_ours(SCORES, library=None, n=N), "library", "a name", "NoneType"),
    "transposed": (
        lambda: to_ours(SCORES.T, library="pydvl", n=N),
        "scores",
        "shape (n_test, 12) as pyDVL returns them (transpose them?)",
        "(12, 5)",
    ),
    "transposed of dattri": (
        lambda: to_ours(SCORES, library="dattri", n=N),
        "scores",
        "shape (12, n_test) as dattri returns them (transpose them?)",
        "(5, 12)",
    ),
    "other shape": (lambda: to_ours(SCORES, library="pydvl", n=7), "scores", "7)", "(5, 12)"),
    "NaN": (lambda: to_ours(SCORES * float("nan"), library="pydvl", n=N), "scores", "fin", "60"),
    "no points": (lambda: to_ours(SCORES, library="pydvl", n=0), "n", ">= 1", "0"),
    "a loss of zero": (
        lambda: to_ours(SCORES, library="pydvl", n=N, loss=0.0),
        "loss",
        "> 0",
        "0.0",
    ),
    "no residual": (
        lambda: to_ours(SCORES.T, library="trak", n=N),
        "residual",
        "the residuals of the test points of TRAK",
        "None",
    ),
    "a residual too many": (
        lambda: to_ours(SCORES, library="pydvl", n=N, residual=R),
        "residual",
        "None, as scores of a loss of pyDVL",
        "residuals",
    ),
    "short residual": (
        lambda: to_ours(SCORES.T, library="trak", n=N, residual=R[:2]),
        "residual",
        "shape (5,)",
        "(2,)",
    ),
    "no share of TRAK": (lambda: ridge_of("TRAK", 1.0, N), "share", "k / p of TRAK", "None"),
    "a share too many": (
        lambda: damping_of("pydvl", 1.0, N, share=0.5),
        "share",
        "None, as nothing is projected by pyDVL",
        "0.5",
    ),
    "a share of zero": (lambda: ridge_of("trak", 1.0, N, share=0.0), "share", "> 0", "0.0"),
    "a loss of TRAK": (
        lambda: ridge_of("TRAK", 1.0, N, loss=2.0, share=0.5),
        "loss",
        "1, as TRAK fixes it",
        "2.0",
    ),
    "a ridge of TracIn": (
        lambda: damping_of("Captum TracInCP", 1.0, N),
        "library",
        "damping is a ridge",
        "TracInCP",
    ),
    "negative damping": (lambda: ridge_of("pydvl", -1.0, N), "damping", ">= 0", "-1"),
    "negative ridge": (lambda: damping_of("pydvl", -1.0, N), "ridge", ">= 0", "-1"),
    "a loss of sklearn": (
        lambda: ridge_of("scikit-learn", 1.0, N, loss=2.0),
        "loss",
        "1, as scikit-learn fixes it",
        "2.0",
    ),
    "scores of sklearn": (
        lambda: to_ours(SCORES, library="scikit-learn", n=N),
        "library",
        "one of pyDVL",
        "scikit",
    ),
    "a leverage of one": (lambda: slope(torch.tensor([0.2, 1.0])), "leverage", "[0, 1)", "to 1"),
    "a negative leverage": (lambda: slope(torch.tensor([-0.1])), "leverage", "[0, 1)", "-0.1"),
    "a number for leverage": (lambda: slope(0.5), "leverage", "a torch tensor", "float"),
}


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(case):
    refused(*BAD[case])
