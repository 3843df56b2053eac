import numpy as np
import pytest
import torch
from sklearn.feature_selection import f_classif

from tagasc.report.analysis import attention_maps, attention_perplexity, distinctive_events, eta_squared
from tagasc.scene.network import SceneNetwork
from tagasc.scene.systems import System
from tagasc.scene.trunk import TrunkConfig

RANDOM = np.random.default_rng(0)
PLACES = RANDOM.integers(3, size=60)
VALUES = RANDOM.random((60, 4)) + np.eye(3, 4)[PLACES]


def test_dependence_is_the_share_of_variance_between_scenes():
    """η² follows from the F of an analysis of variance with 3 groups and 60 clips."""
    f, _ = f_classif(VALUES, PLACES)
    np.testing.assert_allclose(eta_squared(VALUES, PLACES, 3), 2 * f / (2 * f + 57))
    assert eta_squared(np.ones((60, 1)), PLACES, 3).tolist() == [0]


def test_each_scenes_own_event_distinguishes_it():
    _, rows = distinctive_events(VALUES, ["a", "b", "c", "d"], PLACES, ["x", "y", "z"])
    assert [row[1][0] for row in rows] == ["a", "b", "c"]
    here, elsewhere = VALUES[PLACES == 0, 0].mean(), VALUES[PLACES != 0, 0].mean()
    assert f"({here:.3f}, else {elsewhere:.3f})" in rows[0][1]


@pytest.mark.parametrize(
    "system", [System(heads=2, attention_layers=1), System("before_code", 2, 2, 2, shared=True)], ids=["own", "shared"]
)
def test_attention_maps_are_those_that_the_network_multiplies_with(system):
    torch.manual_seed(0)
    network = SceneNetwork(TrunkConfig(8, (8, 8)), system, 3, 4, 1).eval()
    tags, feature_map = torch.rand(5, 4), torch.rand(5, 8, 7)
    maps = attention_maps(network, tags.numpy())
    assert maps.shape == (5, 2, 4)
    np.testing.assert_allclose(maps.mean(axis=2), 1, rtol=1e-5)
    with torch.inference_mode():
        attended = network.fusion.to_feature_map(feature_map, tags) / feature_map
    np.testing.assert_allclose(attended[:, :, 0].numpy() * 4, maps.reshape(5, 8), rtol=1e-4)


def test_effective_filters():
    even, one = np.ones((2, 1, 4)), np.array([[[4.0, 0, 0, 0]]] * 2)
    np.testing.assert_allclose(attention_perplexity(np.concatenate([even, one], axis=1)), [4, 1], rtol=1e-6)
