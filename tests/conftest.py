"""Fixtures of all tests: a tiny corpus that went through the first stages, and a tiny recipe."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tagasc.utils import temporary
from tests.helpers import CORPORA, RATE, ROOT, SECONDS, TAGGER, TRUNK, Recipe, succeed, yaml_lines

RECIPE = """
. "{root}/egs/mini/recipe.sh"
systems="baseline shared_h4_l3"
scene_seconds=1
scene_train=6
scene_test=3
clips_per_location=2
tagging_train=34
tagging_noisy=34
noisy=true
tagger=tiny
protocol=both
"""


@pytest.fixture(scope="session", autouse=True)
def _no_flushing() -> Iterator[None]:
    """No test survives a power failure; flushing every file to the disk would take most of the tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(temporary, "to_disk", lambda path: None)
        patch.setattr(temporary, "folder_to_disk", lambda path: None)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: a tiny network is not faster with two, and much slower if the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> Path:
    """A folder with a tiny scene corpus and a tiny tagging corpus."""
    out = tmp_path_factory.mktemp("corpora")
    succeed("local/synthetic/compose.py", "--out", out, *CORPORA)
    return out


@pytest.fixture(scope="session")
def scene_corpus(corpora) -> Path:
    return corpora / "TAU-urban-acoustic-scenes-2019-development"


@pytest.fixture(scope="session")
def tagging_corpus(corpora) -> Path:
    return corpora / "FSDKaggle2019"


@pytest.fixture(scope="session")
def manifests(scene_corpus, tagging_corpus, tmp_path_factory) -> Path:
    """A folder with the manifests of both."""
    out = tmp_path_factory.mktemp("data")
    scenes = ("--sampling-rate", RATE, "--seconds", SECONDS, "--allow-partial")
    succeed("local/tau2019.py", scene_corpus, out / "tau2019", *scenes)
    succeed("local/fsdkaggle2019.py", tagging_corpus, out / "fsdkaggle2019", "--sampling-rate", RATE, "--allow-partial")
    return out


@pytest.fixture(scope="session")
def audio(manifests, tmp_path_factory) -> Path:
    """A folder with the packed audio of both."""
    out = tmp_path_factory.mktemp("audio")
    succeed("steps/pack_audio.py", "--manifests", manifests / "tau2019", "--out", out)
    succeed("steps/pack_audio.py", "--manifests", manifests / "fsdkaggle2019", "--out", out)
    return out


@pytest.fixture(scope="session")
def tagger(audio, tmp_path_factory) -> Path:
    """A folder with a tagger trained for two epochs."""
    out = tmp_path_factory.mktemp("tagger") / "tiny"
    for program in ("train_tagger", "score_tagger"):
        succeed(f"steps/{program}.py", "--audio", audio, "--out", out, *TAGGER)
    return out


@pytest.fixture(scope="session")
def tags(audio, tagger, scene_corpus, tmp_path_factory) -> Path:
    """A folder with the tag vectors of the scene clips."""
    out = tmp_path_factory.mktemp("tags")
    truth = scene_corpus / "event_labels.csv"
    succeed("steps/extract_tags.py", "--tags-from", tagger, "--audio", audio, "--out", out, "--event-labels", truth)
    return out


@pytest.fixture(scope="session")
def recipe(tmp_path_factory) -> Recipe:
    """A recipe with tiny networks, of which nothing has run yet; in a folder whose name has spaces and accents."""
    return write_recipe(tmp_path_factory.mktemp("recipes") / "ma réc été")


def write_recipe(folder: Path) -> Recipe:
    """Write a recipe with tiny networks."""
    (folder / "conf").mkdir(parents=True)
    (folder / "recipe.sh").write_text(RECIPE.format(root=ROOT))
    (folder / "conf/trunk_table1.yaml").write_text(yaml_lines(TRUNK))
    training = {"epochs": 2, "batch": 8, "crop_seconds": 0.5, "learning_rate": 0.003}
    (folder / "conf/scene.yaml").write_text(yaml_lines(training))
    tagger = dict(zip(TAGGER[::2], TAGGER[1::2], strict=True))
    groups = {}
    for name, value in tagger.items():
        group, key = name.removeprefix("--").split(".")
        groups.setdefault(group, {})[key] = value
    text = "".join(
        f"{group}:\n" + "".join(f"  {key}: {value}\n" for key, value in keys.items()) for group, keys in groups.items()
    )
    (folder / "conf/tagger.yaml").write_text(text)
    return Recipe(folder)


@pytest.fixture(scope="session")
def finished(recipe) -> Recipe:
    """The recipe after one bare run."""
    status, said = recipe.run()
    assert status == 0, said
    return recipe
