import numpy as np
import pytest
import torch

from tagasc.report.analysis import attention_maps
from tagasc.scene.network import SceneNetwork
from tagasc.scene.systems import System
from tagasc.scene.trunk import TrunkConfig


@pytest.mark.parametrize(
    "system", [System(heads=2, attention_layers=1), System("before_code", 2, 2, 2, shared=True)], ids=["own", "shared"]
)
def test_attention_maps_match_the_factors_that_the_network_applies(system):
    torch.manual_seed(0)
    network = SceneNetwork(TrunkConfig(8, (8, 8)), system, 3, 4, 1).eval()
    tags, feature_map = torch.rand(5, 4), torch.rand(5, 8, 7)
    maps = attention_maps(network, tags.numpy())
    assert maps.shape == (5, 2, 4)
    np.testing.assert_allclose(maps.mean(axis=2), 1, rtol=1e-5)
    with torch.inference_mode():
        attended = network.fusion.to_feature_map(feature_map, tags) / feature_map
    np.testing.assert_allclose(attended[:, :, 0].numpy() * 4, maps.reshape(5, 8), rtol=1e-4)
