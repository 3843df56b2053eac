import subprocess
import sys

import pytest
import yaml

from tagasc.scene.config import SceneTraining
from tagasc.scene.systems import read_systems
from tagasc.scene.trunk import TrunkConfig
from tagasc.tagger.config import InferenceConfig, PseudoLabelConfig, SemiTraining, TaggerTraining
from tagasc.tagger.features import MelConfig
from tagasc.tagger.network import TaggerConfig
from tagasc.utils.cli import _normalise_flags, from_values
from tagasc.utils.errors import UserError
from tests.helpers import ROOT, run

TAGGER_GROUPS = {
    "model": TaggerConfig,
    "mel": MelConfig,
    "training": TaggerTraining,
    "pseudo_labels": PseudoLabelConfig,
    "semi": SemiTraining,
    "inference": InferenceConfig,
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "epoch"),
        ("epochs: many", "epochs"),
        ("epochs: 0", "epochs must be"),
        ("batch: 1", "batch at least 2"),
        ("- 1", "training"),
        ("a: [", "training"),
        ("schedule: linear", "schedule"),
    ],
)
def test_an_error_in_a_configuration_names_the_key_in_one_line(tmp_path, text, message):
    path = tmp_path / "scene.yaml"
    path.write_text(text)
    outcome = run("steps/train_scene.py", "--audio", tmp_path, "--out", tmp_path / "out", "--training", path)
    assert outcome.status != 0
    assert message in outcome.error
    assert not (tmp_path / "out").exists()


def values(path):
    return yaml.safe_load((ROOT / path).read_text())


def test_scene_configurations_of_the_recipes_are_valid():
    for path in ROOT.glob("egs/*/conf/scene*.yaml"):
        from_values(SceneTraining, values(path), str(path))
    paper, released = (
        from_values(SceneTraining, values(f"egs/dcase2019/conf/{name}.yaml"), name) for name in ("paper", "released")
    )
    assert paper == SceneTraining(crop_seconds=None)
    assert released == SceneTraining(crop_seconds=5.0, centre_loss=5e-5)


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("egs/*/conf/tagger*.yaml")))
def test_tagger_configurations_of_the_recipes_are_valid(path):
    tagger = values(path)
    for group, cls in TAGGER_GROUPS.items():
        from_values(cls, tagger.get(group, {}), path)
    assert set(tagger) <= {*TAGGER_GROUPS, "folds", "stages"}


def test_the_papers_tagger_is_the_published_one():
    """Settings are the defaults, with all five folds and both stages."""
    tagger = values("egs/dcase2019/conf/tagger.yaml")
    for group, cls in TAGGER_GROUPS.items():
        assert from_values(cls, tagger.get(group, {}), group) == cls()
    assert (tagger["folds"], tagger["stages"]) == ("all", 2)


@pytest.mark.parametrize("trunk", ["released", "table1"])
def test_trunks_of_the_paper_are_equal_in_all_recipes(trunk):
    """Plain files rather than links, so that a recipe can be copied."""
    paper = values(f"egs/dcase2019/conf/trunk_{trunk}.yaml")
    assert values(f"egs/template/conf/trunk_{trunk}.yaml") == paper
    if trunk == "table1":
        assert values("egs/mini/conf/trunk_paper.yaml") == paper
    for path in ROOT.glob("egs/*/conf/trunk_*.yaml"):
        from_values(TrunkConfig, values(path), str(path))
    assert not [path for path in ROOT.glob("egs/*/conf/*") if path.is_symlink()]


@pytest.mark.parametrize("recipe", ["cochlscene", "dcase2020", "dcase2022"])
def test_other_corpora_use_the_configuration_of_dcase2019(recipe):
    confs = {path.name: path.read_text() for path in (ROOT / f"egs/{recipe}/conf").iterdir()}
    assert confs == {path.name: path.read_text() for path in (ROOT / "egs/dcase2019/conf").iterdir()}


def main(allow_partial: bool = False, clips_per_location: int = 3):
    """Stand in for a program."""


def test_options_accept_dashes_and_flags_need_no_value():
    arguments = "corpus-a --allow-partial --clips-per-location 4 --scenes.clips_per_location=5"
    expected = "corpus-a --allow_partial true --clips_per_location 4 --scenes.clips_per_location=5"
    assert _normalise_flags(main, arguments.split()) == expected.split()
    assert _normalise_flags(main, ["--allow_partial", "false"]) == ["--allow_partial", "false"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("table2: {a: {head: 2}}", "head"),
        ("table2: {a: {heads: 0, attention_layers: 2}}", "needs heads"),
        ("[1]", "must hold"),
        ("t: {a: {}}\nu: {a: {}}", "names two things"),
    ],
)
def test_an_error_in_the_systems_file_is_described(tmp_path, text, message):
    path = tmp_path / "systems.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_systems(path)


def test_an_old_name_of_an_option_names_the_new_one():
    outcome = run("steps/train_scene.py", "--data-on", "gpu")
    assert outcome.status == 2
    assert "option --data-on is now --audio-cache" in outcome.error


def test_a_removed_option_says_what_replaces_it():
    outcome = run("steps/pack_audio.py", "--manifests", "data", "--out", "audio", "--seconds", "10")
    assert outcome.status == 2
    assert "option --seconds was removed: stage 1 (manifests) sets the length of clips" in outcome.error


PRINTER = "from tagasc.utils import cli\ndef main(lines: int = 1):\n    for n in range(lines): print(n)\ncli.run(main)"


@pytest.mark.parametrize("options", [("--lines", "99999"), ("--lines", "3"), ("--help",)])
def test_a_pipe_that_closes_ends_a_program_quietly(options):
    command = [sys.executable, "-c", PRINTER, *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == (0 if options == ("--help",) else 141)  # argparse ignores it
    process.stderr.close()


def test_another_broken_pipe_is_told():
    code = PRINTER.replace("print(n)", "raise BrokenPipeError(32, 'of a worker')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "of a worker" in done.stderr
