"""What the library computes does not depend on the device: a card against the processor."""

import pytest
import torch
from problems import small_module, unit_rows

import ntk_influence as ni
from ntk_influence import finite_width

# Training adds some hundred steps; on kinks a last digit can decide, so they are few and smoothed.
TOLERANCE = {"closed form": 1e-9, "trained": 1e-6}


def everything(device: str) -> dict[str, list[torch.Tensor]]:
    """Closed forms, and trained networks, of one problem on a device."""
    X, X_test = (unit_rows(n, 12, seed).to(device) for n, seed in ((40, 0), (8, 1)))
    y, y_test = torch.sign(X[:, 0] + 0.1), torch.sign(X_test[:, 0])
    K, k_test = ni.relu_ntk(X), ni.relu_ntk(X_test, X)
    model, flow = ni.fit_kernel_ridge(K, y, 0.5), ni.fit_kernel_flow(K, y, 0.5)
    found = [K, k_test, model.leverage, model.one_minus_leverage, ni.complexity(K, y, 0.5)]
    images = X.reshape(-1, 3, 4)
    found += [ni.deep_ntk(X, depth=3), ni.deep_ntk(X_test, X, depth=3, train="first")]
    found += [ni.conv_ntk(images, images[:8], depth=2, kernel_size=3)]
    found += [ni.relu_ntk(X, smoothing=0.3), ni.leave_one_out(model, k_test)]
    found += [ni.loo_influence(model, k_test, y_test), ni.ihvp_influence(model, k_test, y_test)]
    found += [ni.leave_group_out(model, k_test, [3, 1])]
    for of, of_test in ((y, y_test), (torch.stack([y > 0, y < 0], 1).to(y), None)):
        classes = ni.fit_kernel_logistic(K, of, 0.5)
        found += [classes.dual, classes.leverage, ni.logistic.leave_one_out(classes, k_test)]
        found += [ni.logistic.leave_group_out(classes, k_test, [3, 1])]
        if of_test is not None:
            found += [ni.logistic.loo_influence(classes, k_test, of_test)]
    found += [flow.predict([0.1, 2.0], k_test), flow.leave_one_out([0.1, 2.0], k_test)]
    module = small_module(12, device)
    found += [ni.empirical_ntk(module, X, X_test), ni.empirical_ntk(module, X, outputs="full")]
    trained = []
    for method in ("gradient_descent", "preconditioned"):
        start = ni.TwoLayerReLU.initialise(12, 50, 0.3, 0, device=device, smoothing=0.5)
        network = ni.train(start, X, y, 0.5, method=method, max_steps=40)
        given = (start, X, y, 0.5, [2, 0], X_test)
        trained += [start.W, network.W, ni.retrain_without(*given, method=method, trained=network)]
        given = (network, X, y, 0.5, X_test, y_test)
        trained += [finite_width.ihvp_influence(*given), finite_width.leverage(network, X, 0.5)]
    return {"closed form": found, "trained": trained}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: not tested")
@pytest.mark.parametrize("kind", TOLERANCE)
def test_a_graphics_card_computes_what_the_processor_does(kind):
    for here, there in zip(everything("cpu")[kind], everything("cuda")[kind], strict=True):
        assert there.device.type == "cuda"
        size = float(here.abs().max())
        assert torch.allclose(there.cpu(), here, rtol=0, atol=TOLERANCE[kind] * size)


def test_the_results_that_are_compared_are_worth_comparing():
    for kind, results in everything("cpu").items():
        assert len(results) >= 10, kind
        assert all(torch.isfinite(part).all() and part.abs().max() > 0 for part in results)
