"""External taggers: an .npz, and tiny models of Hugging Face's transformers, saved to disk by the tests."""

import json
import sys

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from tagasc.audio.packed import PackedAudio
from tagasc.sources.source import SourceOptions, open_source
from tagasc.tagger.tags import TagVectors
from tagasc.utils.errors import UserError
from tests.helpers import RATE, packed, run, succeed
from tests.tagasc.sources.models import waves, windows_of

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
LABELS = ["Bell", "Dog", "Rain", "Tram"]


def test_an_external_npz_gives_tags_of_every_split(audio, tmp_path):
    """Ids may be in any order, and of clips that no split has."""
    splits = {folder.name: PackedAudio(folder).ids for folder in audio.glob("tau2019_*")}
    ids = [*sorted(sum(splits.values(), []), reverse=True), "other clip"]
    values = np.random.default_rng(0).random((len(ids), 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", ids=np.array(ids), classes=np.array(LABELS), values=values)
    options = ["--tags-from", tmp_path / "x.npz", "--audio", audio, "--out", tmp_path / "tags"]
    succeed("steps/extract_tags.py", *options)
    for name, expected in splits.items():
        results = TagVectors.read(tmp_path / f"tags/{name}.npz")
        assert (results.ids, results.classes) == (expected, LABELS)
        np.testing.assert_array_equal(results.values, values[[ids.index(clip) for clip in expected]])
    assert succeed("steps/extract_tags.py", *options).count("up to date") == len(splits)
    np.savez(tmp_path / "x.npz", ids=np.array(ids), classes=np.array(LABELS), values=values / 2)
    assert succeed("steps/extract_tags.py", *options).count("outdated (its input tag source has changed") == len(splits)


@pytest.fixture
def nested(tmp_path):
    """Scene clips in nested folders: two packed splits, and tags of both."""
    ids = {"test": ["day/0001", "night/0001"], "train": ["day/0002", "0003"]}
    for split, names in ids.items():
        folder = tmp_path / f"audio/own_{split}"
        folder.mkdir(parents=True)
        rows = [
            {"id": name, "start": 9 * n, "frames": 9, "labels": ["x"], "location": "", "usage": "", "crc32": 0}
            for n, name in enumerate(names)
        ]
        np.save(folder / "audio.npy", np.zeros((18, 1), np.float32))
        (folder / "index.json").write_text(
            json.dumps({"format": 1, "sampling_rate": 8000, "channels": 1, "clips": rows})
        )
    all_ids = [name for names in ids.values() for name in names]
    np.savez(tmp_path / "x.npz", ids=all_ids, classes=LABELS, values=np.tile([0.9, 0.5, 0.2, 0.1], (4, 1)))
    return tmp_path


def score(folder, *rows):
    """Extract tags and score them with a table of events."""
    (folder / "events.tsv").write_text("\n".join(["filename\tevent", *rows]) + "\n")
    options = [
        "--tags-from",
        folder / "x.npz",
        "--audio",
        folder / "audio",
        "--out",
        folder / "tags",
        "--corpus",
        "own",
    ]
    return run("steps/extract_tags.py", *options, "--event-labels", folder / "events.tsv")


def test_events_match_clips_by_path_before_name(nested):
    outcome = score(nested, "day/0001.wav\tBell", "night/0001.wav\tDog", "elsewhere/0003.wav\tRain", "0001.wav\tTram")
    assert outcome.status == 0
    results = json.loads((nested / "tags/scores.json").read_text())["lwlrap"]
    assert results == {"test": pytest.approx(3 / 4), "train": pytest.approx(1 / 3)}


def test_a_split_without_known_events_is_not_scored(nested):
    assert "own_train.npz: not scored, its clips have no known event" in score(nested, "day/0001.wav\tDog").said
    assert json.loads((nested / "tags/scores.json").read_text())["lwlrap"] == {"test": 0.5}


def test_tags_are_not_scored_if_the_tagger_has_no_class_for_any_event(nested):
    """The tags of a tagger with another vocabulary are still usable."""
    outcome = score(nested, "day/0001.wav\tBells")
    assert outcome.status == 0
    assert "tags not scored, it has no event that is a class of the tagger, such as Bell" in outcome.said
    assert (nested / "tags/own_test.npz").exists()
    assert not (nested / "tags/scores.json").exists()


def test_a_table_without_a_known_clip_is_an_error(nested):
    outcome = score(nested, "day/0009.wav\tBell")
    assert "has no clip of the corpus, such as 0003" in outcome.error
    assert not (nested / "tags").exists()


def spectrogram_transformer(folder, problem_type=None):
    """Save a tiny Audio Spectrogram Transformer with random weights."""
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"num_mel_bins": 32, "max_length": 64, "problem_type": problem_type}
    config = hf.ASTConfig(
        **sizes, id2label=dict(enumerate(LABELS)), label2id={name: n for n, name in enumerate(LABELS)}
    )
    hf.ASTForAudioClassification(config).save_pretrained(folder)
    hf.ASTFeatureExtractor(num_mel_bins=32, max_length=64, sampling_rate=16000).save_pretrained(folder)
    return folder


def waveform_transformer(folder):
    """Save a tiny wav2vec 2.0 with random weights, for 8 kHz and one label per clip."""
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    sizes |= {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2}
    sizes |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8}
    config = hf.Wav2Vec2Config(
        **sizes, problem_type="single_label_classification", id2label=dict(enumerate(LABELS[:3])), num_labels=3
    )
    hf.Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    hf.Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True).save_pretrained(folder)
    return folder


def whisper(folder):
    """Save a tiny Whisper with random weights, whose extractor pads every clip to 2 s."""
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 8}
    sizes |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "decoder_attention_heads": 2, "num_mel_bins": 32}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    sizes |= {"init_std": 0.5}  # otherwise, random weights give nearly equal tags to all clips
    config = hf.WhisperConfig(
        **sizes, **tokens, max_source_positions=100, classifier_proj_size=8, id2label=dict(enumerate(LABELS))
    )
    hf.WhisperForAudioClassification(config).save_pretrained(folder)
    hf.WhisperFeatureExtractor(feature_size=32, chunk_length=2, sampling_rate=16000).save_pretrained(folder)
    return folder


def reference_tags(folder, wave, rate, samples, activation):
    """Tag one clip: mean of the channels, resampling, windows, extractor, model, sigmoid or softmax, mean."""
    import transformers as hf

    extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
    model = hf.AutoModelForAudioClassification.from_pretrained(folder).eval()
    mono = resample(torch.from_numpy(wave).mean(dim=1), rate, extractor.sampling_rate)
    tags = []
    for window in windows_of(mono.numpy(), samples):
        inputs = extractor(window, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        with torch.inference_mode():
            tags.append(activation(model(**inputs).logits[0]).numpy())
    return np.mean(tags, axis=0)


@pytest.mark.parametrize(
    ("make", "problem_type", "option", "samples", "activation"),
    [
        (spectrogram_transformer, "multi_label_classification", "auto", 10240, torch.sigmoid),
        (spectrogram_transformer, None, "auto", 10240, lambda logits: logits.softmax(-1)),
        (spectrogram_transformer, None, "sigmoid", 10240, torch.sigmoid),
        (waveform_transformer, ..., "auto", None, lambda logits: logits.softmax(-1)),
        (whisper, ..., "sigmoid", 32000, torch.sigmoid),
    ],
)
def test_tags_of_a_transformers_model_agree_with_a_reference(
    audio, tmp_path, make, problem_type, option, samples, activation
):
    """The test's clips last 1 s, the models' windows 0.64 s, 2 s, and any length."""
    folder = make(tmp_path / "model", *(() if problem_type is ... else (problem_type,)))
    source = open_source(f"hf:{folder}", CPU, SourceOptions(4, option))
    packed = PackedAudio(audio / "tau2019_test")
    results = source.tags(packed)
    assert source.classes == LABELS[: results.shape[1]]
    for number in (0, 5):
        clip = packed.clips[number]
        wave = packed.samples[clip.start : clip.start + clip.frames].astype(np.float32) / 32768
        expected = reference_tags(folder, wave, RATE, samples, activation)
        np.testing.assert_allclose(results[number], expected, atol=1e-4)
    assert np.ptp(results, axis=0).max() > 1e-4


@pytest.mark.parametrize(("make", "samples"), [(spectrogram_transformer, 10240), (whisper, 32000)])
def test_clips_of_any_length_reach_the_model_whole(tmp_path, make, samples):
    """Clips of 0.2, 1, 10 and 35 s; the extractors alone would cut off what exceeds their window."""
    folder = make(tmp_path / "model")
    clips = PackedAudio(packed(tmp_path / "clips", waves(), RATE))
    source = open_source(f"hf:{folder}", CPU, SourceOptions(activation="sigmoid"))
    expected = []
    for clip in clips.clips:
        wave = np.array(clips.samples[clip.start : clip.start + clip.frames])
        expected.append(reference_tags(folder, wave, RATE, samples, torch.sigmoid))
    np.testing.assert_allclose(source.tags(clips), expected, atol=1e-4)
    assert source.lengths(clips)["windows"] >= 2


@pytest.mark.parametrize(
    ("make", "pooled"),
    [
        (spectrogram_transformer, lambda model, x: model.audio_spectrogram_transformer(x).pooler_output),
        (waveform_transformer, lambda model, x: model.projector(model.wav2vec2(x).last_hidden_state).mean(dim=1)),
    ],
)
def test_an_embedding_is_the_pooled_hidden_state(tmp_path, make, pooled):
    import transformers as hf

    folder = make(tmp_path / "model")
    rate = hf.AutoFeatureExtractor.from_pretrained(folder).sampling_rate
    wave = waves([0.64], rate)[0]
    clips = PackedAudio(packed(tmp_path / "clips", [wave], rate))
    source = open_source(f"hf:{folder}", CPU, SourceOptions(take="embedding"))
    inputs = source.extractor(wave[:, 0].astype(np.float32), sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        expected = pooled(source.model, inputs["input_values"])
    np.testing.assert_allclose(source.tags(clips), expected, atol=1e-4)
    assert source.record()["activation"] == "none"


def test_an_extractor_of_unknown_length_is_refused(tmp_path):
    folder = spectrogram_transformer(tmp_path / "model")
    hf = pytest.importorskip("transformers")
    hf.ClapFeatureExtractor().save_pretrained(folder)
    with pytest.raises(UserError, match="how much sound its ClapFeatureExtractor takes is not known; write a py: file"):
        open_source(f"hf:{folder}", CPU)


def test_tags_of_a_transformers_model_are_up_to_date_in_a_second_run(audio, tmp_path):
    folder = spectrogram_transformer(tmp_path / "model", "multi_label_classification")
    options = ["--tags-from", f"hf:{folder}", "--audio", audio, "--out", tmp_path / "tags"]
    assert "4 classes, 16000 Hz, windows of 0.64 s, activation sigmoid" in succeed("steps/extract_tags.py", *options)
    assert succeed("steps/extract_tags.py", *options).count("up to date") == 4
    output = succeed("steps/extract_tags.py", *options, "--activation", "softmax")
    assert output.count("outdated") == 4
    vectors = TagVectors.read(tmp_path / "tags/tau2019_train.npz")
    np.testing.assert_allclose(vectors.values.sum(axis=1), 1, rtol=1e-5)


def test_a_missing_model_is_an_error(audio, tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    outcome = run(
        "steps/extract_tags.py", "--tags-from", f"hf:{tmp_path}/empty", "--audio", audio, "--out", tmp_path / "t"
    )
    assert "cannot be loaded" in outcome.error


def test_a_models_own_code_is_never_run(audio, tmp_path):
    folder = spectrogram_transformer(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForAudioClassification": "evil.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'broken-in')!r}, 'w')\n")
    outcome = run("steps/extract_tags.py", "--tags-from", f"hf:{folder}", "--audio", audio, "--out", tmp_path / "tags")
    assert "cannot be loaded" in outcome.error
    assert not (tmp_path / "broken-in").exists()


def test_weights_that_are_pickles_are_refused(tmp_path):
    folder = spectrogram_transformer(tmp_path / "model")
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        open_source(f"hf:{folder}", CPU)


def change_weights(folder, change):
    """Rewrite a model's weights; ``change`` gets each name and value, and returns both to keep, or None."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = dict(pair for item in load_file(file).items() if (pair := change(*item)))
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (
            spectrogram_transformer,
            lambda name, value: None if name.startswith("classifier.") else (name, value),
            "lacks weights that would be random: classifier.dense.bias, classifier.dense.weight, classifier.layernorm",
        ),
        (  # a layer in the middle of the network
            whisper,
            lambda name, value: None if name == "encoder.conv2.weight" else (name, value),
            "lacks weights that would be random: encoder.conv2.weight;",
        ),
        (
            waveform_transformer,
            lambda name, value: (f"ctc_{name}" if name == "classifier.bias" else name, value),
            "lacks weights that would be random: classifier.bias;",
        ),
    ],
)
def test_a_model_whose_weights_did_not_all_load_is_refused(audio, tmp_path, make, change, message):
    folder = make(tmp_path / "model")
    change_weights(folder, change)
    outcome = run("steps/extract_tags.py", "--tags-from", f"hf:{folder}", "--audio", audio, "--out", tmp_path / "tags")
    assert message in outcome.error
    assert not (tmp_path / "tags").exists()


def test_weights_that_the_model_does_not_have_are_refused(tmp_path):
    """The file has a second layer, which the configuration lacks: tags would come from a part of the model."""
    folder = spectrogram_transformer(tmp_path / "model")
    deeper = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    hf = pytest.importorskip("transformers")
    hf.ASTForAudioClassification(hf.ASTConfig(**deeper)).save_pretrained(tmp_path / "deeper")
    (tmp_path / "deeper/model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(UserError, match=r"weights that this model does not have: .* and .* more; choose"):
        open_source(f"hf:{folder}", CPU)


@pytest.mark.parametrize(("make", "dtype"), [(spectrogram_transformer, torch.bfloat16), (whisper, torch.float16)])
def test_weights_stored_in_16_bits_are_computed_in_float32(audio, tmp_path, make, dtype):
    folder = make(tmp_path / "model")
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"dtype": str(dtype).removeprefix("torch.")}))
    change_weights(folder, lambda name, value: (name, value.to(dtype)))
    packed = PackedAudio(audio / "tau2019_test")
    half = open_source(f"hf:{folder}", CPU)
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}
    tags = half.tags(packed)
    change_weights(folder, lambda name, value: (name, value.float()))
    (folder / "config.json").write_text(json.dumps(stored))
    np.testing.assert_array_equal(tags, open_source(f"hf:{folder}", CPU).tags(packed))


def test_an_error_says_how_to_install_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="needs the package transformers; pip install"):
        open_source("hf:any/model", CPU)
