"""CLAP with your own events: a tiny model with random weights, saved to disk by the tests."""

import json

import numpy as np
import pytest
import torch

from tagasc.audio.packed import PackedAudio
from tagasc.sources.source import SourceOptions, open_source
from tagasc.utils.errors import UserError
from tests.helpers import CPU, packed
from tests.tagasc.sources.models import waves, windows_of

hf = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")
EVENTS = ["bell", "dog", "rain"]
RATE, SECONDS = 4000, 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model for 2 s at 4 kHz."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder = tmp_path_factory.mktemp("clap")
    letters = sorted(ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {token: n for n, token in enumerate([*special, *letters])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    hf.RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(0)
    text = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 16, "max_position_embeddings": 80, "projection_dim": 8, "initializer_range": 0.3}
    sound = {"num_mel_bins": 16, "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4}
    sound |= {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16}
    sound |= {"projection_dim": 8, "initializer_range": 0.3, "num_classes": 3}
    config = hf.ClapConfig(text_config=text, audio_config=sound, projection_dim=8)
    hf.ClapModel(config).save_pretrained(folder)
    sizes = {"feature_size": 16, "sampling_rate": RATE, "hop_length": 125, "max_length_s": SECONDS}
    extractor = hf.ClapFeatureExtractor(
        **sizes, fft_window_size=256, frequency_min=0, frequency_max=2000, truncation="rand_trunc"
    )
    extractor.save_pretrained(folder)
    (folder / "events.txt").write_text("\n".join(EVENTS) + "\n")
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of 0.2, 1, 10 and 35 s."""
    return PackedAudio(packed(tmp_path_factory.mktemp("clips") / "clips", waves(rate=RATE), RATE))


def options(model, **changes):
    return SourceOptions(**{"events": model / "events.txt"} | changes)


def reference(folder, clips, prompt, temperature):
    """Similarities of sound and sentences, by the model's own forward pass, and the softmax in NumPy."""
    network = hf.ClapModel.from_pretrained(folder).eval()
    extractor = hf.AutoFeatureExtractor.from_pretrained(folder)
    words = hf.AutoTokenizer.from_pretrained(folder)(
        [prompt.format(x) for x in EVENTS], padding=True, return_tensors="pt"
    )
    rows = []
    for clip in clips.clips:
        wave = np.array(clips.samples[clip.start : clip.start + clip.frames, 0])
        tags = []
        for window in windows_of(wave, SECONDS * RATE):
            inputs = extractor(window, sampling_rate=RATE, return_tensors="pt")
            inputs["is_longer"] = torch.tensor([[False]])
            with torch.inference_mode():
                logits = network(**words, **inputs).logits_per_audio[0].numpy() / temperature
            tags.append(np.exp(logits) / np.exp(logits).sum())
        rows.append(np.mean(tags, axis=0))
    return rows


@pytest.mark.parametrize(("prompt", "temperature"), [("This is a sound of {}.", 1.0), ("{}", 5.0)])
def test_tags_are_a_softmax_over_the_events(model, clips, prompt, temperature):
    source = open_source(f"clap:{model}", CPU, options(model, prompt=prompt, temperature=temperature))
    tags = source.tags(clips)
    np.testing.assert_allclose(tags, reference(model, clips, prompt, temperature), atol=1e-4)
    np.testing.assert_allclose(tags.sum(axis=1), 1, rtol=1e-5)
    assert np.ptp(tags, axis=1).min() > 0.01
    record = source.record()
    assert source.classes == record["events"] == EVENTS
    assert (record["prompt"], record["temperature"], record["activation"]) == (prompt, temperature, "softmax")
    assert (record["window_seconds"], record["kind"]) == (SECONDS, "CLAP")
    assert record["parameters"] > 1000


def test_the_embedding_has_length_one(model, clips):
    source = open_source(f"clap:{model}", CPU, options(model, take="embedding"))
    vectors = source.tags(PackedAudio(clips.folder))
    assert vectors.shape == (4, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors[:2], axis=1), 1, rtol=1e-4)  # of one window each


def test_the_same_clip_gets_the_same_tags(model, clips):
    """The extractor of transformers draws at random; nothing that is drawn may reach the tags."""
    source = open_source(f"clap:{model}", CPU, options(model))
    np.testing.assert_array_equal(source.tags(clips), source.tags(clips))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"events": None}, "clap: needs --events FILE"),
        ({"prompt": "a sound"}, r"--prompt must have \{\} where the event stands"),
        ({"temperature": 0.0}, "--temperature be above 0"),
        ({"activation": "sigmoid"}, "--activation does not go with clap:.*: it takes a softmax over your events"),
    ],
)
def test_wrong_options_are_one_clear_line(model, changes, message):
    with pytest.raises(UserError, match=message):
        open_source(f"clap:{model}", CPU, options(model, **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "mine.txt does not exist; write one event a line into it"),
        (b"bell\n", "at least two distinct names, but found 1"),
        (b"bell\ndog\nbell\n", "'bell' is listed twice"),
        ("glöckchen\nfür".encode("latin-1"), "mine.txt is not UTF-8 text"),
    ],
)
def test_a_wrong_list_of_events_is_one_clear_line(model, tmp_path, content, message):
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_source(f"clap:{model}", CPU, options(model, events=tmp_path / "mine.txt"))


def test_events_go_with_clap_only(model, tmp_path):
    with pytest.raises(UserError, match="--events does not go with"):
        open_source(f"hf:{model}", CPU, options(model))


def test_a_model_that_is_no_clap_is_refused(tmp_path):
    hf.ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(tmp_path)
    (tmp_path / "events.txt").write_text("bell\ndog\n")
    with pytest.raises(UserError, match=r"it is no CLAP model; for an audio classifier use hf:"):
        open_source(f"clap:{tmp_path}", CPU, options(tmp_path))


def test_weights_that_are_missing_are_refused(model, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(model, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    tensors.pop("audio_projection.linear1.weight")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights that would be random: audio_projection.linear1.weight"):
        open_source(f"clap:{copy}", CPU, options(copy))
