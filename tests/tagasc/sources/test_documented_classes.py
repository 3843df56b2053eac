"""The classes that docs/taggers.md shows are run, with stand-ins for the packages that they import."""

import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from tagasc.audio.packed import PackedAudio
from tagasc.sources.source import open_source
from tests.helpers import CPU, ROOT, noise, packed
from tests.tagasc.sources.models import CLASSES, write_labels

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/taggers.md").read_text(encoding="utf-8"), re.DOTALL)
NAMES = ["Passt", "Cnn14", "Mn10", "Beats"]


class Level(nn.Module):
    """Returns the level of its input for each of four classes."""

    def __init__(self, *_, **__):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, values):
        return values.abs().flatten(1).mean(dim=1, keepdim=True) * self.weight

    def extract_features(self, values, padding_mask):
        assert padding_mask.shape == values.shape
        return self(values).sigmoid(), None


class Pair(Level):
    """Returns them without the dimension of a batch of one, and features."""

    def forward(self, values):
        assert values.ndim == 4
        return super().forward(values).squeeze(), None


class Tagging:
    """Returns probabilities and an embedding in NumPy."""

    def __init__(self, checkpoint_path, device):
        assert device == "cpu"

    def inference(self, waves):
        return Level()(waves).detach().sigmoid().numpy(), np.zeros((len(waves), 2048))


def stand_ins():
    """The packages' modules, each with the names that are imported from it."""
    by_number = dict(enumerate(f"/m/{n}" for n in (2, 0, 1, 3)))
    return {
        "hear21passt.base": {"load_model": Level},
        "panns_inference": {"AudioTagging": Tagging, "labels": CLASSES},
        "helpers.utils": {"NAME_TO_WIDTH": {"mn10_as": 1.0}.get, "labels": CLASSES},
        "models.mn.model": {"get_model": Pair},
        "models.preprocess": {"AugmentMelSTFT": lambda **_: nn.Unflatten(1, (100, -1))},
        "BEATs": {"BEATs": Level, "BEATsConfig": dict},
        "checkpoint": {"cfg": {}, "model": Level().state_dict(), "label_dict": by_number},
    }


def test_there_is_one_class_for_each_tagger_of_about_fifteen_lines():
    assert [re.search(r"class (\w+):", block)[1] for block in BLOCKS] == NAMES
    assert max(len([line for line in block.splitlines() if line.strip()]) for block in BLOCKS) <= 18


@pytest.mark.parametrize("name", NAMES)
def test_a_documented_class_tags(tmp_path, monkeypatch, name):
    modules = stand_ins()
    checkpoint = modules.pop("checkpoint")
    for path, names in modules.items():
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:end]))
            module.__path__ = []
            monkeypatch.setitem(sys.modules, module.__name__, module)
        vars(sys.modules[path]).update(names)
    write_labels(tmp_path / "class_labels_indices.csv")
    text = BLOCKS[NAMES.index(name)].replace("/data/", f"{tmp_path}/")
    for file in re.findall(rf'"({re.escape(str(tmp_path))}/[^"]*pth?)"', text):
        torch.save(checkpoint, file)
    (tmp_path / "mine.py").write_text(text)
    source = open_source(f"py:{tmp_path / 'mine.py'}", CPU)
    assert source.classes == (["Rain", "Bell", "Dog", "Tram"] if name == "Beats" else CLASSES)
    clips = PackedAudio(packed(tmp_path / "clips", noise(0, [16000, 16000]), 16000))
    tags = source.tags(clips)
    assert tags.shape == (2, 4)
    assert tags.min() > 0.5
    assert len(source.hashes) == (1 if name in ("Passt", "Mn10") else 2)
