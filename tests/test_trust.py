"""What a trust report says beyond the library's rows, against fits without the points."""

import pytest
import torch
from torch import nn

import ntk_influence as ni
from livebook.networks import evaluated
from ntk_influence.groups import pair_residuals
from studies import own_network, trust

RIDGE = 0.1


def problem(n=40, test=6, outputs=1):
    data = ni.datasets.load("mnist-5k-7v9", n_train=n, n_test=test)
    y = data.y
    if outputs > 1:
        y = torch.stack([data.y, -data.y, torch.roll(data.y, 1)], dim=1)
    K, k_test = ni.relu_ntk(data.X), ni.relu_ntk(data.X_test, data.X)
    return K, y, k_test, ni.fit_kernel_ridge(K, y, RIDGE)


def without(K, y, row, gone):
    """The prediction of a model that was fitted without some points."""
    kept = [i for i in range(len(K)) if i not in gone]
    model = ni.fit_kernel_ridge(K[kept][:, kept], y[kept], RIDGE)
    return model.predict(row[None, kept])[0]


@pytest.mark.parametrize("outputs", [1, 3])
def test_without_two_points_is_a_refit(outputs):
    K, y, _, model = problem(n=20, outputs=outputs)
    missed = pair_residuals(model, torch.arange(5, 9))
    for column, j in enumerate(range(5, 9)):
        for i in range(len(K)):
            refit = y[j] - without(K, y, K[j], {i, j})
            torch.testing.assert_close(missed[i, column], refit, rtol=0, atol=1e-9)


@pytest.mark.parametrize("outputs", [1, 3])
def test_left_out_predictions_hang_on_what_refits_say(outputs):
    K, y, _, model = problem(n=12, outputs=outputs)
    found = trust.hanging(model, y)
    for j in range(len(K)):
        alone = without(K, y, K[j], {j})
        both = torch.stack([without(K, y, K[j], {i, j}) for i in range(len(K))])
        moved = (both - alone).reshape(len(K), -1).norm(dim=1)
        torch.testing.assert_close(found.prediction[j], alone, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.moved[j], moved.max(), rtol=0, atol=1e-9)
        assert int(found.point[j]) == int(moved.argmax())


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("chunk", [1, 2**24])
def test_what_a_prediction_hangs_on_is_found(outputs, chunk, monkeypatch):
    monkeypatch.setattr(trust, "CHUNK", chunk)
    K, y, k_test, model = problem(n=20, outputs=outputs)
    found = trust.hanging(model, y, k_test)
    for t, row in enumerate(k_test):
        full = model.predict(row[None])[0]
        all_without = torch.stack([without(K, y, row, {i}) for i in range(len(K))])
        moved = (all_without - full).reshape(len(K), -1).norm(dim=1)
        i = int(moved.argmax())
        assert int(found.point[t]) == i
        torch.testing.assert_close(found.without[t], all_without[i], rtol=0, atol=1e-9)
        torch.testing.assert_close(found.moved[t], moved[i], rtol=0, atol=1e-9)
        if outputs == 1:
            turned = int(((all_without > 0) != (full > 0)).sum())
        else:
            turned = int((all_without.argmax(dim=1) != full.argmax()).sum())
        assert int(found.turning[t]) == turned


def test_a_verdict_names_the_place_in_the_file():
    places = ["line 2", "line 5"]
    whole = "label probably wrong; copy of point 1, which has another label; alone"
    told = "label probably wrong; copy of line 5, which has another label; alone"
    assert trust.in_places(whole, 1, places) == told
    assert trust.in_places("nothing to see", -1, places) == "nothing to see"


def test_a_network_is_looked_at_in_eval_mode_and_left_as_it_was():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU(), nn.Dropout(0.9))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    X = torch.ones(5, 2)
    assert torch.equal(evaluated(model, X), evaluated(model, X))
    own_network.near_kinks(model, X)
    assert [part.training for part in model] == [True, True, False]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_share_of_inputs_near_a_kink():
    model = nn.Sequential(nn.ReLU())
    X = torch.cat([torch.full((3, 1), 1e-6), torch.ones(9, 1)])
    assert own_network.near_kinks(model, X) == pytest.approx(0.25)
    assert own_network.near_kinks(nn.Sequential(nn.Tanh()), X) is None
