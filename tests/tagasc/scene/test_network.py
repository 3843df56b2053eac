import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from torchvision.models import resnet34

from tagasc.audio.waveform import preemphasis
from tagasc.scene.fusion import TagAttention, TagTransform
from tagasc.scene.network import SceneNetwork
from tagasc.scene.pooling import pooled_activation
from tagasc.scene.systems import System, read_systems, select
from tagasc.scene.trunk import Block, TrunkConfig
from tagasc.tagger.network import TaggerConfig, TaggerNetwork
from tagasc.training.weights import parameters
from tagasc.utils.cli import from_values
from tagasc.utils.errors import SettingError
from tests.helpers import ROOT

SYSTEMS = read_systems(ROOT / "egs/systems.yaml")
TABLE1, RELEASED = (
    from_values(TrunkConfig, yaml.safe_load((ROOT / f"egs/dcase2019/conf/trunk_{name}.yaml").read_text()), name)
    for name in ("table1", "released")
)
EVERY = {name: variant.system for name, variant in select(SYSTEMS, ["all"], ROOT).items()}
SMALL = TrunkConfig(64, (64, 64, 64), code_size=6)  # with fewer filters, 32 heads would be softmaxes of one value


@pytest.mark.parametrize(
    ("trunk", "system", "count"),
    [
        (TABLE1, "baseline", 714_058),
        (RELEASED, "baseline", 636_736),
        (RELEASED, "shared_h4_l3", 676_784),
        (TABLE1, "shared_h4_l3", 748_986),
    ],
)
def test_parameter_counts_of_the_paper(trunk, system, count):
    assert parameters(SceneNetwork(trunk, EVERY[system], 10)) == count


def test_the_defaults_are_table_1():
    assert TrunkConfig() == TABLE1


def test_the_tables_have_the_papers_systems():
    grid = [(heads, layers) for heads in (2, 4, 8, 16, 32) for layers in range(4)]
    both = [(heads, concat, attention) for heads in (2, 4) for concat in (3, 4) for attention in (3, 4)]
    wanted = {
        "table2": {
            "baseline": System(),
            "codecat": System("code"),
            "codecat_fc": System("code_fc"),
            **{f"beforecode_l{layers}": System("before_code", layers) for layers in range(1, 6)},
        },
        "table3": {f"att_h{h}_l{n}": System(heads=h, attention_layers=n) for h, n in grid},
        "table4": {f"separate_h{h}_c{c}_a{a}": System("before_code", c, h, a) for h, c, a in both},
        "table5": {f"shared_h{h}_l{n}": System("before_code", n, h, n, shared=True) for h, n in grid},
    }
    assert wanted == SYSTEMS


@pytest.mark.parametrize(("trunk", "frames"), [(TABLE1, 18), (RELEASED, 24)])
def test_feature_map_of_a_ten_second_clip(trunk, frames):
    network = SceneNetwork(trunk, System(), 10).eval()
    with torch.inference_mode():
        assert network.feature_map(torch.randn(1, 480_000, 2)).shape == (1, 128, frames)


def test_trunk_is_the_strided_convolution_and_blocks_of_table_1():
    """Compared with the same weights in nn.Conv1d, activation before pooling as in Table 1."""
    torch.manual_seed(0)
    network = SceneNetwork(TrunkConfig(8, (8, 8), code_size=4), System(), 3).eval()
    trunk, samples = network.trunk, torch.randn(2, 12 * 9 * 3 + 5, 2)
    wave = preemphasis(samples)
    stem = nn.Conv1d(2, 8, 12, stride=12)
    stem.weight.data = trunk.stem.weight.data.reshape(8, 12, 2).transpose(1, 2)
    stem.bias.data = trunk.stem.bias.data

    def norm(x, layer):
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    x = F.leaky_relu(norm(stem(wave.transpose(1, 2)), trunk.stem_norm), 0.3)
    for block in trunk.blocks:
        y = F.leaky_relu(norm(F.conv1d(x, block.conv1.weight[:, :, 0], block.conv1.bias, padding=1), block.norm1), 0.3)
        y = norm(F.conv1d(y, block.conv2.weight[:, :, 0], block.conv2.bias, padding=1), block.norm2)
        x = F.max_pool1d(F.leaky_relu(y + x, 0.3), 3)
    torch.testing.assert_close(network.feature_map(samples), x, rtol=1e-5, atol=1e-5)


def test_compiled_pooling_equals_torchs(monkeypatch):
    """Gradients too, with equal values, left-over frames and NaN."""
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (4, 8, 1, 92)).double()
    x[0, 0, 0, :4] = torch.tensor([0, torch.nan, 1, torch.nan])
    x.requires_grad_()
    weight = torch.randn(4, 8, 1, 30, dtype=torch.float64)
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        pooled = pooled_activation(x, 0.25)
        results.append((pooled, *torch.autograd.grad((pooled * weight).sum(), x)))
    for wanted, pooled in zip(*results, strict=True):
        torch.testing.assert_close(pooled, wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slope": -0.1}, "slope must not be negative"),
        ({"code_size": 0}, "must be positive"),
        ({"block_filters": (128, 64)}, "set shortcut_convolution: true"),
    ],
)
def test_impossible_trunks_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        TrunkConfig(**settings)


def test_shortcut_is_a_convolution_only_where_the_width_changes():
    assert isinstance(Block(8, 8, 0.3).shortcut, nn.Identity)
    assert sum(p.numel() for p in Block(8, 4, 0.3).shortcut.parameters()) == 8 * 4 * 3 + 4


def test_attention_is_equation_2():
    """Compared with a loop: a softmax within each head, then each filter's row of M times its value of A."""
    torch.manual_seed(0)
    attend = TagAttention(tags=5, filters=12, heads=3)
    feature_map, tags = torch.randn(2, 12, 7), torch.rand(2, 5)
    attended = attend(feature_map, tags).detach().numpy()
    weight, bias = (p.detach().numpy().astype(np.float64) for p in (attend.projection.weight, attend.projection.bias))
    for clip in range(2):
        projected = weight @ tags[clip].numpy() + bias
        for head in range(3):
            rows = range(4 * head, 4 * head + 4)
            total = sum(np.exp(projected[row]) for row in rows)
            for row in rows:
                expected = feature_map[clip, row].numpy() * np.exp(projected[row]) / total
                np.testing.assert_allclose(attended[clip, row], expected, rtol=1e-4, atol=1e-6)
    sums = attend.attention(tags).reshape(2, 3, 4).sum(dim=2)
    torch.testing.assert_close(sums, torch.ones(2, 3))


def test_tag_transform_activates_its_last_layer_too():
    transform = TagTransform(4, 2, 0.3)
    assert [type(part) for part in transform] == [nn.Linear, nn.LeakyReLU] * 2
    tags = torch.rand(3, 4)
    assert torch.equal(TagTransform(4, 0, 0.3)(tags), tags)


@pytest.mark.parametrize("name", EVERY)
def test_every_system_sends_a_gradient_to_every_parameter(name):
    """Except biases before batch normalisation, which have no effect."""
    torch.manual_seed(1)
    network = SceneNetwork(SMALL, EVERY[name], scenes=4, tags=5)
    code, logits = network(torch.randn(6, 12 * 27 * 2, 2), torch.rand(6, 5))
    assert code.shape == (6, 11 if name == "codecat" else 6)
    assert logits.shape == (6, 4)
    F.cross_entropy(logits, torch.arange(6) % 4).backward()
    without_effect = {"trunk.stem.bias"} | {f"trunk.blocks.{n}.conv{c}.bias" for n in range(3) for c in (1, 2)}
    for parameter_name, value in network.named_parameters():
        gradient = value.grad is not None and value.grad.abs().max() > 0
        assert gradient != (parameter_name in without_effect), parameter_name


def test_a_clips_result_does_not_depend_on_the_batch():
    network = SceneNetwork(SMALL, EVERY["shared_h4_l3"], scenes=4, tags=5).double().eval()
    samples, tags = torch.randn(5, 700, 2).double(), torch.rand(5, 5).double()
    with torch.inference_mode():
        torch.testing.assert_close(network(samples, tags)[0][2:3], network(samples[2:3], tags[2:3])[0])


def test_codecat_gives_the_svm_code_and_tags():
    network = SceneNetwork(SMALL, System(concat="code"), scenes=4, tags=5).eval()
    tags = torch.rand(2, 5)
    assert torch.equal(network(torch.randn(2, 700, 2), tags)[0][:, 6:], tags)


@pytest.mark.parametrize(
    "record",
    [
        {"concat_layers": 2},
        {"attention_layers": 1},
        {"heads": -1},
        {"concat": "before_code", "shared": True, "concat_layers": 1},
        {"concat": "before_code", "heads": 2, "concat_layers": 1, "attention_layers": 2, "shared": True},
    ],
)
def test_impossible_systems_are_refused(record):
    with pytest.raises(ValueError, match=r"needs|negative"):
        System(**record)


def test_heads_must_divide_the_filters():
    with pytest.raises(ValueError, match="does not divide"):
        SceneNetwork(SMALL, System(heads=5), 4)


def test_the_tagger_is_resnet34_with_two_heads():
    """Parameters as published; torchvision's trunk, except for a stem of one channel and max instead of mean pooling."""
    torch.manual_seed(0)
    tagger = TaggerNetwork(TaggerConfig(), 80).eval()
    assert parameters(tagger) == 24_592_224
    reference = resnet34().eval()
    reference.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    reference.avgpool, reference.fc = nn.AdaptiveMaxPool2d(1), nn.Identity()
    weights = {name: value for name, value in tagger.state_dict().items() if not name.startswith(("curated", "noisy"))}
    wanted = reference.state_dict()
    assert [value.shape for value in weights.values()] == [value.shape for value in wanted.values()]
    reference.load_state_dict(dict(zip(wanted, weights.values(), strict=True)))
    log_mel = torch.randn(1, 128, 64)
    with torch.inference_mode():
        torch.testing.assert_close(tagger.features(log_mel), reference(log_mel.unsqueeze(1)), rtol=1e-4, atol=1e-4)
