"""Stages 4 to 9 with an embedding in place of tags: standardised alike everywhere, and never named."""

import numpy as np
import pytest

from tagasc.audio.packed import PackedAudio, packed_splits
from tagasc.backend.codes import Codes
from tagasc.tagger.tags import TagVectors
from tagasc.utils.files import write_npz
from tests.helpers import ROOT, run, scene_options, succeed

SYSTEMS = "baseline codecat att_h2_l1 codecat@constant codecat@shuffled"
VALUES = 7


@pytest.fixture(scope="module")
def embedding(audio, tmp_path_factory):
    """A file of random values, unlike probabilities, for every scene clip."""
    ids = [clip for folder in packed_splits(audio, "tau2019").values() for clip in PackedAudio(folder).ids]
    values = np.random.default_rng(0).normal(3, 10, (len(ids), VALUES)).astype(np.float32)
    path = tmp_path_factory.mktemp("embedding") / "ears.npz"
    classes = np.array([f"value {n + 1}" for n in range(VALUES)])
    write_npz(path, {}, ids=np.array(ids), classes=classes, values=values, kind=np.array("embedding"))
    return path


@pytest.fixture(scope="module")
def chain(audio, embedding, tmp_path_factory):
    """A recipe's folder after stages 4 to 7."""
    folder = tmp_path_factory.mktemp("chain")
    tags, out = folder / "dump/tags/ears", folder / "exp/table1-ears"
    succeed("steps/extract_tags.py", "--tags-from", embedding, "--audio", audio, "--out", tags)
    options = ("--systems", SYSTEMS, "--systems-file", ROOT / "egs/systems.yaml")
    succeed("steps/train_scene.py", *scene_options(audio, tags, out), *options)
    succeed("steps/extract_codes.py", "--audio", audio, "--tags", tags, "--out", out, *options)
    succeed("steps/score_svm.py", "--out", out, *options)
    return folder


def expected(chain, split):
    """The embedding of a split, standardised over the training clips, with NumPy alone."""
    read = lambda name: TagVectors.read(chain / f"dump/tags/ears/tau2019_{name}.npz").values.astype(np.float64)
    train = read("train")
    return ((read(split) - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32)


@pytest.mark.parametrize("split", ["train", "validation", "test", "unused"])
def test_network_and_svm_get_the_embedding_standardised_over_the_training_clips(chain, split):
    codes = lambda run: Codes.read(chain / f"exp/table1-ears/codes/{run}/{split}.npz").codes
    np.testing.assert_array_equal(codes("tags_only/seed0"), expected(chain, split))
    np.testing.assert_array_equal(codes("codecat/seed1")[:, -VALUES:], expected(chain, split))
    np.testing.assert_allclose(codes("codecat@constant/seed1")[:, -VALUES:], 0, atol=1e-6)
    shuffled = codes("codecat@shuffled/seed1")[:, -VALUES:]
    assert (np.sort(shuffled, axis=0) == np.sort(expected(chain, split), axis=0)).all()
    assert (shuffled != expected(chain, split)).any(axis=1).all()


def test_the_report_gives_an_embeddings_values_no_names(chain):
    options = {"recipe": chain, "experiment": chain / "exp/table1-ears", "tags": chain / "dump/tags/ears"}
    options["tagger"] = chain / "exp/tagger/ears"
    succeed("steps/report.py", *(word for name, value in options.items() for word in (f"--{name}", value)))
    page = (chain / "exp/report/RESULTS.md").read_text(encoding="utf-8")
    tags, _, attention = page.partition("## Tags by scene")[2].partition("## Attention by scene")
    assert f"an embedding: its {VALUES} values have no names" in tags
    assert "value 1" not in page
    assert "![attention by scene and filter](attention.png)" in attention.partition("## Map")[0]


def test_a_logarithm_of_an_embedding_is_refused_before_anything_is_trained(audio, chain, tmp_path):
    options = scene_options(audio, chain / "dump/tags/ears", tmp_path / "out", tag_scale="log")
    outcome = run("steps/train_scene.py", *options, "--systems", "baseline codecat")
    assert outcome.status != 0
    assert "tag_scale log is for probabilities" in outcome.error
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_embedding_is_not_exported(audio, chain, embedding):
    where = {"recipe": chain, "experiment": chain / "exp/table1-ears", "tags": chain / "dump/tags/ears"}
    options = [word for name, value in where.items() for word in (f"--{name}", value)]
    options += ["--audio", audio, "--tags-from", embedding, "--export-system", "codecat"]
    assert "holds an embedding; a bundle takes probabilities" in run("steps/export.py", *options).error
    assert not (chain / "exp/bundle/codecat").exists()
