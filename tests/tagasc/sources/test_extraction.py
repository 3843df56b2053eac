"""Stage 4 with any source: embeddings, the description of the source, speed, and extractions that are cut off."""

import json

import numpy as np
import pytest

from steps import extract_tags
from tagasc.audio.packed import AudioPart, JoinedAudio, PackedAudio
from tagasc.sources import own
from tagasc.sources.source import SourceOptions, open_source
from tagasc.tagger.inference import Ensemble
from tagasc.tagger.tags import TagVectors
from tagasc.utils.errors import UserError
from tagasc.utils.files import read_json
from tests.helpers import CPU, MEL, Stop, noise, packed, run, succeed, tiny
from tests.tagasc.sources.models import CLASSES, RATE, wave_model, write_sidecar

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path):
    """Two packed splits, of 11 and 3 clips of 1 to 3 s, and a tagger with windows of 2 s."""
    (tmp_path / "audio").mkdir()
    packed(tmp_path / "audio/own_train", noise(0, [RATE, 2 * RATE, 3 * RATE] * 3 + [RATE, RATE]), RATE)
    packed(tmp_path / "audio/own_test", noise(1, [RATE] * 3), RATE)
    write_sidecar(wave_model(tmp_path / "model.onnx", ["N", "S"]), input="waveform", window=2)
    return tmp_path


def command(folder, *options):
    options = ("--audio", folder / "audio", "--corpus", "own", "--device", "cpu", *options)
    return "steps/extract_tags.py", "--tags-from", f"onnx:{folder / 'model.onnx'}", "--out", folder / "tags", *options


def test_a_part_of_a_packed_folder_is_a_packed_folder(folder):
    whole = JoinedAudio(PackedAudio(folder / "audio/own_train"))
    part = AudioPart(whole, 4, 7)
    assert part.ids == whole.ids[4:7]
    assert part.starts.tolist() == [0, 2 * RATE, 5 * RATE]
    first = whole.clips[4].start
    np.testing.assert_array_equal(part.samples, whole.samples[first : first + 6 * RATE])
    part.compare_all()


def test_the_source_is_described_beside_its_tags(folder):
    succeed(*command(folder))
    record = read_json(folder / "tags/source.json", "")
    assert record["kind"] == "ONNX"
    assert record["source"] == "onnx:model.onnx"
    assert set(record["sha256"]) == {"model.onnx", "model.yaml"}
    assert (record["sampling_rate"], record["window_seconds"], record["classes"]) == (RATE, 2, 4)
    assert (record["short"], record["long"], record["take"], record["activation"]) == (
        "repeat", "mean", "probability", "none",
    )  # fmt: skip
    assert record["lengths"] == {"repeated": 8, "whole": 3, "windows": 3}
    assert (record["clips"], record["audio_seconds"]) == (14, 5 + 6 + 9 + 3)
    assert record["seconds"] > 0
    succeed(*command(folder))  # all is up to date, so the figures of the first run stay
    assert read_json(folder / "tags/source.json", "") == record


def test_a_changed_setting_makes_the_tags_outdated(folder):
    succeed(*command(folder))
    before = TagVectors.read(folder / "tags/own_train.npz").values
    assert "outdated (short was 'repeat' and is 'pad'), made again" in succeed(*command(folder, "--short", "pad"))
    after = TagVectors.read(folder / "tags/own_train.npz").values
    assert np.abs(after - before).max() > 0.01
    assert "outdated (long was 'mean' and is 'max')" in succeed(*command(folder, "--short", "pad", "--long", "max"))
    assert read_json(folder / "tags/source.json", "")["long"] == "max"
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model.replace(b"tiny", b"tinx"))
    assert "its input tag source has changed since" in succeed(*command(folder, "--short", "pad", "--long", "max"))


def test_an_extraction_resumes_after_its_finished_parts(folder, monkeypatch):
    """To the same tags as without an interruption; clips that are finished are not tagged again."""
    monkeypatch.setattr(extract_tags, "PART", 4)
    tagged, source = [], open_source(f"onnx:{folder / 'model.onnx'}", CPU)
    folders = sorted((folder / "audio").iterdir())
    extract_tags.Extraction(source, folder / "expected", False).tag_all(folders)
    tags = source.tags

    def until(packed):
        if len(tagged) == 9:
            raise Stop
        tagged.extend(packed.ids)
        return tags(packed)

    tagged += ["x"] * 2  # so that it stops in the train split, after the first part
    source.tags = until
    with pytest.raises(Stop):
        extract_tags.Extraction(source, folder / "tags", False).tag_all(folders)
    assert not (folder / "tags/own_train.npz").exists()
    assert len(list((folder / "tags/own_train.parts").iterdir())) == 1
    assert read_json(folder / "tags/source.json", "")["kind"] == "ONNX"  # written first
    tagged[:] = ["x"] * 10
    extract_tags.Extraction(source, folder / "tags", False).tag_all(folders)
    assert tagged[10:] == PackedAudio(folder / "audio/own_train").ids[4:]
    for name in ("own_train", "own_test"):
        found, expected = (TagVectors.read(folder / f"{place}/{name}.npz") for place in ("tags", "expected"))
        np.testing.assert_array_equal(found.values, expected.values)
    assert sorted(path.name for path in (folder / "tags").iterdir()) == ["own_test.npz", "own_train.npz", "source.json"]
    assert read_json(folder / "tags/source.json", "")["clips"] == 7


def test_parts_of_another_tagger_are_not_used(folder, monkeypatch):
    monkeypatch.setattr(extract_tags, "PART", 4)
    folders = [folder / "audio/own_train"]
    source = open_source(f"onnx:{folder / 'model.onnx'}", CPU, SourceOptions(short="pad"))
    work = extract_tags.Extraction(source, folder / "tags", False)
    monkeypatch.setattr(extract_tags.shutil, "rmtree", lambda *_, **__: None)  # the parts stay
    work.tag_all(folders)
    assert len(list((folder / "tags/own_train.parts").iterdir())) == 3
    other = open_source(f"onnx:{folder / 'model.onnx'}", CPU)
    extract_tags.Extraction(other, folder / "tags", False).tag_all(folders)
    expected = other.tags(PackedAudio(folders[0]))
    np.testing.assert_allclose(TagVectors.read(folder / "tags/own_train.npz").values, expected, atol=1e-6)


def test_an_embedding_has_its_kind_in_the_file_and_may_be_any_number(folder):
    write_sidecar(folder / "model.onnx", input="waveform", window=2, embedding="logits")
    succeed(*command(folder, "--take", "embedding"))
    vectors = TagVectors.read(folder / "tags/own_train.npz")
    assert (vectors.kind, vectors.classes) == ("embedding", [f"value {n}" for n in range(1, 5)])
    assert vectors.values.min() < 0 or vectors.values.max() > 1
    assert json.loads((folder / "tags/source.json").read_text())["take"] == "embedding"
    again = open_source(str(folder / "tags/own_train.npz"), CPU)  # such a file is a source too
    assert again.record()["take"] == "embedding"
    with np.load(folder / "tags/own_train.npz") as file:
        arrays = dict(file)
    for change, message in (
        ({"kind": "odd"}, r"kind must be one of probability \| embedding, not 'odd'"),
        ({"values": np.full_like(arrays["values"], np.nan)}, "are not all numbers finite"),
    ):
        np.savez(folder / "wrong.npz", **arrays | change)
        with pytest.raises(UserError, match=message):
            TagVectors.read(folder / "wrong.npz")
    del arrays["kind"]
    np.savez(folder / "wrong.npz", **arrays)
    with pytest.raises(UserError, match=r"not all numbers in 0\.\.1"):
        TagVectors.read(folder / "wrong.npz")


def test_the_embedding_of_the_recipes_own_tagger(tmp_path, monkeypatch):
    """The penultimate layer of its last network: the last layer makes its logits from it."""
    ensemble = Ensemble([tiny(0, 4), tiny(1, 4)], MEL, CLASSES, (0,))
    monkeypatch.setattr(own, "load_tagger", lambda folder, device: ensemble)
    (tmp_path / "tagger.json").write_text("{}")
    clips = PackedAudio(packed(tmp_path / "clips", noise(0, [9000] * 3), MEL.sampling_rate))
    source = open_source(str(tmp_path), CPU, SourceOptions(take="embedding"))
    values = source.tags(clips)
    assert values.shape == (3, 8)
    assert source.classes == [f"value {n + 1}" for n in range(8)]
    last = ensemble.networks[1].curated[-1]
    logits = values @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    expected = Ensemble([ensemble.networks[1]], MEL, CLASSES, (0,)).tag_scenes(clips, CPU)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, atol=1e-5)
    record = source.record()
    assert (record["kind"], record["networks"], record["take"], record["classes"]) == ("own tagger", 2, "embedding", 8)
    assert source.settings() == {"take": "embedding"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx:", "names nothing"),
        ("keras:model", "there is no source keras:; use one of hf, onnx, py, clap"),
        ("nowhere", "tagger.json does not exist; run stage 3"),
        (__file__, "is a file; write what it is before it, such as onnx:"),
    ],
)
def test_a_wrong_name_is_one_clear_line(name, message):
    with pytest.raises(UserError, match=message):
        open_source(name, CPU)


@pytest.mark.parametrize(
    "option", [{"short": "pad"}, {"long": "max"}, {"take": "embedding"}, {"prompt": "{}"}, {"temperature": 2.0}]
)
def test_options_that_a_source_lacks_are_refused(tmp_path, option):
    np.savez(tmp_path / "x.npz", ids=["a"], classes=["b"], values=[[0.5]])
    with pytest.raises(UserError, match=f"--{next(iter(option))} does not go with"):
        open_source(str(tmp_path / "x.npz"), CPU, SourceOptions(**option))


def test_nothing_is_written_where_the_tagger_is_wrong(folder):
    write_sidecar(folder / "model.onnx", input="waveform", classes=["a", "b"])
    assert "for 1 windows and 2 classes" in run(*command(folder)).error
    assert not (folder / "tags").exists()


def test_a_clip_that_is_not_finite_is_named(tmp_path):
    wave = np.full((RATE, 1), np.nan)
    clips = PackedAudio(packed(tmp_path / "clips", [wave], RATE))
    write_sidecar(wave_model(tmp_path / "model.onnx", ["N", "S"]), input="waveform")
    with pytest.raises(UserError, match="a clip such as clip0 has samples that are not finite; leave it out"):
        open_source(f"onnx:{tmp_path / 'model.onnx'}", CPU).tags(clips)
