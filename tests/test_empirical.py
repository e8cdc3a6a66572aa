"""The kernel of any module against Jacobians by autograd, closed forms, and its own promises."""

import math

import pytest
import torch
from problems import refused, unit_rows
from torch import nn
from torch.testing import assert_close

import ntk_influence as ni
from ntk_influence import empirical_ntk

nan = float("nan")


class TwoLayer(nn.Module):
    """The network of the paper as a module, of which the first layer alone is trained."""

    def __init__(self, network: ni.TwoLayerReLU) -> None:
        super().__init__()
        self.W = nn.Parameter(network.W.clone())
        self.a = nn.Parameter(network.a.clone(), requires_grad=False)

    def forward(self, X):
        return torch.relu(X @ self.W.T) @ self.a / math.sqrt(len(self.a))


class Answer(nn.Module):
    """A module whose answer is made by a function."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.ones(4).double()), answer

    def forward(self, X):
        return self.answer(X * self.weight)


def mlp(outputs: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, outputs)
    return nn.Sequential(*layers).double()


def cnn() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
    model = nn.Sequential(*first, nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2)).double()
    model(images(30, seed=9))  # running statistics other than 0 and 1
    return model


def images(n: int, seed: int = 0):
    return unit_rows(n, 36, seed).reshape(n, 1, 6, 6) * 6


def by_autograd(model: nn.Module, X):
    """The Jacobian (n, c, p), one backward pass for each output of each point."""
    weights = [w for w in model.parameters() if w.requires_grad]
    rows = []
    for x in X:
        f = model(x[None]).flatten()
        grads = [torch.autograd.grad(entry, weights, retain_graph=True) for entry in f]
        rows.append(torch.stack([torch.cat([g.flatten() for g in grad]) for grad in grads]))
    return torch.stack(rows)


MODELS = {"MLP": (mlp, unit_rows), "CNN": (cnn, lambda n, dim=0, seed=0: images(n, seed))}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("budget", [100_000, 2**30])
def test_equals_the_jacobian_of_autograd_row_by_row(name, budget):
    make, points = MODELS[name]
    model, X, Z = make(), points(7, 4), points(5, 4, seed=1)
    found = [empirical_ntk(model, X, Z, outputs=o, budget=budget) for o in ("full", "trace")]
    within = [empirical_ntk(model, X, outputs=o, budget=budget) for o in ("full", "trace")]
    J, J_z = (by_autograd(model.eval(), P) for P in (X, Z))
    for full, trace, other in ((*found, J_z), (*within, J)):
        # Sums of a few hundred products of order one.
        assert_close(full, torch.einsum("ikp,jlp->ijkl", J, other), atol=1e-10, rtol=0)
        mean = torch.einsum("ikp,jkp->ij", J, other) / J.shape[1]
        assert_close(trace, mean, atol=1e-10, rtol=0)


@pytest.mark.parametrize("outputs", [None, 3])
def test_equals_the_kernel_of_the_two_layer_network(outputs):
    network = ni.TwoLayerReLU.initialise(6, 40, 0.3, 0, outputs=outputs)
    X, Z = unit_rows(8, 6), unit_rows(3, 6, seed=1)
    module = TwoLayer(network)
    assert_close(empirical_ntk(module, X), network.ntk(X), atol=1e-12, rtol=0)
    assert_close(empirical_ntk(module, X, Z), network.ntk(X, Z), atol=1e-12, rtol=0)
    c = outputs or 1
    full = empirical_ntk(module, X, Z, outputs="full")
    assert full.shape == (8, 3, c, c)
    assert_close(full[..., 0, 0], network.ntk(X, Z), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_network_is_within_its_sampling_error_of_the_limit(seed):
    """Each entry is x.z times the share of m units that are active on both, a binomial share."""
    width, X = 4000, unit_rows(6, 5, seed)
    module = TwoLayer(ni.TwoLayerReLU.initialise(5, width, 1.0, seed))
    K, cosine = ni.relu_ntk(X), X @ X.T
    share = K / cosine
    deviation = cosine.abs() * (share * (1 - share) / width).sqrt()
    assert ((empirical_ntk(module, X) - K).abs() <= 5 * deviation).all()


def test_a_gram_matrix_is_exactly_symmetric_and_positive():
    for budget in (20_000, 2**30):
        K = empirical_ntk(mlp(), unit_rows(9, 4), budget=budget)
        F = empirical_ntk(mlp(), unit_rows(9, 4), outputs="full", budget=budget)
        assert torch.equal(K, K.T)
        assert torch.equal(F, F.permute(1, 0, 3, 2))
        square = F.permute(0, 2, 1, 3).reshape(27, 27)
        for matrix in (K, square):
            eigenvalues = torch.linalg.eigvalsh(matrix)
            assert eigenvalues.min() > -1e-12 * eigenvalues.max()  # a rounding for each point


def test_weights_that_are_shared_count_once_with_their_whole_gradient():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4).double(), nn.Linear(4, 4).double()
            self.two.weight = self.one.weight

        def forward(self, X):
            return self.two(torch.tanh(self.one(X)))

    model, X = Tied(), unit_rows(5, 4)
    J = by_autograd(model, X).flatten(1)
    assert_close(empirical_ntk(model, X), J @ J.T / 4, atol=1e-10, rtol=0)


def test_tokens_are_points_too():
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    X = torch.tensor([[0, 1], [1, 6], [3, 3]])
    J = by_autograd(model, X).flatten(1)
    assert_close(empirical_ntk(model, X), J @ J.T / 2, atol=1e-10, rtol=0)


def test_single_precision_stays_single():
    model, X = mlp(), unit_rows(6, 4)
    exact = empirical_ntk(model, X)
    single = empirical_ntk(model.float(), X.float())
    assert single.dtype == torch.float32
    # Forty roundings of 6e-8 on entries of at most ten.
    assert_close(single.double(), exact, atol=4e-5, rtol=0)


def test_the_module_is_left_as_it_was():
    model, X = cnn(), images(4)
    model.train()
    model[1].eval()  # a mixture, on purpose
    model[6].weight.grad = torch.ones_like(model[6].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    K = empirical_ntk(model, X)
    with pytest.raises(ValueError, match="model"):
        empirical_ntk(model, X[:, 0])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[6].weight.grad, torch.ones_like(model[6].weight))
    assert model[0].weight.grad is None
    assert all(w.requires_grad for w in model.parameters())
    assert not K.requires_grad
    assert torch.equal(K, empirical_ntk(model, X))  # nothing random, nothing learned


def test_points_that_come_out_of_another_module_pass_no_gradient_on():
    model, X = mlp(), unit_rows(3, 4)
    before = empirical_ntk(model, X)
    after = empirical_ntk(model, X.clone().requires_grad_())
    assert not after.requires_grad
    assert torch.equal(after, before)


def peak(call) -> int:
    """Most bytes of tensors alive at once during a call, from the allocator's own events."""
    with torch.profiler.profile(profile_memory=True) as profile:
        call()
    events = profile.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    alive = most = 0
    for _, change in changes:
        alive += change
        most = max(most, alive)
    return most


@pytest.mark.parametrize("budget", [4 * 10**6, 16 * 10**6])
@pytest.mark.parametrize("second", [None, 40])
def test_the_memory_stays_within_the_budget(budget, second):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 200), nn.ReLU(), nn.Linear(200, 3)).double()
    X = unit_rows(60, 50)
    Z = None if second is None else unit_rows(second, 50, seed=1)
    gradients = 60 * 3 * 8 * sum(w.numel() for w in model.parameters())
    assert gradients > 15 * 10**6  # so that they do not all fit into either budget
    result = 3 * 8 * len(X) * len(X if Z is None else Z)
    used = peak(lambda: empirical_ntk(model, X, Z, budget=budget))
    assert used <= budget + result
    assert used >= budget / 2  # and the budget is used


def test_what_computes_small_gradients_counts_too():
    """Few weights on large images: their gradients are a ten-thousandth of what is computed."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    model, X, budget = (
        nn.Sequential(*layers).double(),
        unit_rows(40, 900).reshape(-1, 1, 30, 30),
        4e6,
    )
    assert peak(lambda: empirical_ntk(model, X, budget=int(budget))) <= budget


def test_the_least_budget_that_is_named_works_and_one_byte_less_does_not():
    model, X = mlp(), unit_rows(5, 4)
    with pytest.raises(ValueError, match=r"^budget: expected at least .* bytes") as caught:
        empirical_ntk(model, X, budget=5_000)
    least = int(str(caught.value).split("at least ")[1].split(" ")[0].replace(",", ""))
    exact = empirical_ntk(model, X)
    assert_close(empirical_ntk(model, X, budget=least), exact, atol=1e-14, rtol=0)
    with pytest.raises(ValueError, match="budget"):
        empirical_ntk(model, X, budget=least - 1)


def test_a_kernel_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("ntk_influence._check.free_memory", lambda device: 10**6)
    with pytest.raises(ValueError, match=r"^X: expected a kernel and the budget within"):
        empirical_ntk(mlp(), unit_rows(5, 4))
    empirical_ntk(mlp(), unit_rows(5, 4), budget=500_000)


X = unit_rows(5, 4)
MIXED = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1).double())
BATCH = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).double()
LOST = mlp()
with torch.no_grad():
    LOST[0].weight[0, 0] = nan
SQUARE_ROOT = Answer(lambda Y: (Y - Y.detach()).abs().sum(1).sqrt())
FROZEN = mlp().requires_grad_(False)
BAD = {
    "no module": (lambda: empirical_ntk(torch.relu, X), "model", "a Module", "builtin"),
    "nothing trainable": (lambda: empirical_ntk(FROZEN, X), "model", "require a gradient", "none"),
    "NaN weights": (lambda: empirical_ntk(LOST, X), "model.0.weight", "finite", "1 NaN"),
    "mixed weights": (lambda: empirical_ntk(MIXED, X), "model.1.weight", "float32", "float64"),
    "statistics of a batch": (lambda: empirical_ntk(BATCH, X), "model", "running", "in 1"),
    "a matrix of outputs": (
        lambda: empirical_ntk(Answer(lambda Y: Y[:, :, None]), X),
        "model",
        "each point",
        "(1, 4, 1) of one",
    ),
    "no tensor of outputs": (
        lambda: empirical_ntk(Answer(lambda Y: [Y]), X),
        "model",
        "each point",
        "list",
    ),
    "one output for all": (
        lambda: empirical_ntk(Answer(torch.sum), X),
        "model",
        "each point",
        "shape ()",
    ),
    "a decision on values": (
        lambda: empirical_ntk(Answer(lambda Y: Y.sum(1) if Y.sum() > 0 else -Y.sum(1)), X),
        "model",
        "each point",
        "RuntimeError",
    ),
    "infinite gradients": (lambda: empirical_ntk(SQUARE_ROOT, X), "model", "finite grad", "NaN"),
    "images for vectors": (
        lambda: empirical_ntk(mlp(), images(3)),
        "model",
        "takes each point",
        "RuntimeError",
    ),
    "points as a list": (lambda: empirical_ntk(mlp(), [1.0]), "X", "a torch tensor", "list"),
    "no points": (lambda: empirical_ntk(mlp(), X[:0]), "X", "at least one", "(0, 4)"),
    "NaN points": (lambda: empirical_ntk(mlp(), X * nan), "X", "finite", "20 NaN"),
    "single points": (lambda: empirical_ntk(mlp(), X.float()), "X", "float64", "float32"),
    "half points": (lambda: empirical_ntk(mlp(), X.half()), "X", "float32 or", "float16"),
    "no axis": (lambda: empirical_ntk(mlp(), torch.tensor(3)), "X", "at least one", "()"),
    "other points": (lambda: empirical_ntk(mlp(), X, X[:, :3]), "Z", "(n, 4)", "(5, 3)"),
    "single Z": (lambda: empirical_ntk(mlp(), X, X.float()), "Z", "float64", "float32"),
    "NaN Z": (lambda: empirical_ntk(mlp(), X, X * nan), "Z", "finite", "20 NaN"),
    "outputs": (lambda: empirical_ntk(mlp(), X, outputs="sum"), "outputs", "'full'", "'sum'"),
    "budget of zero": (lambda: empirical_ntk(mlp(), X, budget=0), "budget", ">= 1", "0"),
    "budget as a float": (lambda: empirical_ntk(mlp(), X, budget=1e9), "budget", "integer", "1"),
}


@pytest.mark.usefixtures("without_annotations")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(case):
    refused(*BAD[case])
