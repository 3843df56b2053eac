import json
import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagasc.audio import pack as module
from tagasc.audio.pack import Source, pack, quantise
from tagasc.audio.packed import PackedAudio, packed_splits
from tagasc.audio.waveform import preemphasis
from tagasc.utils import provenance
from tagasc.utils.errors import UserError


@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=50))
def test_24_bit_samples_are_rounded_not_truncated(samples):
    """Integer arithmetic gives the nearest 16-bit value within full scale."""
    exact = np.array(samples, np.int64)
    rounded = quantise((exact / 2**23).astype(np.float32)).astype(np.int64)
    clipped = np.clip(exact, None, 32767 * 256)
    assert (np.abs(rounded * 256 - clipped) <= 128).all()


@pytest.mark.parametrize(("slope", "expected"), [(0, 61), (1, 55), (2, 37), (3, 28)])
def test_rounding_error_after_pre_emphasis(slope, expected):
    """Noise at -40 dB whose power falls with frequency to the power of ``slope``, from 20 Hz; 10 s at 48 kHz."""
    random, frequencies = np.random.default_rng(0), np.fft.rfftfreq(480_000, 1 / 48_000)
    spectrum = random.normal(size=(2, len(frequencies))) * np.maximum(frequencies, 20) ** (-slope / 2)
    wave = np.fft.irfft((spectrum[0] + 1j * spectrum[1]) * (frequencies >= 20))
    wave *= 0.01 / wave.std()
    exact, error = (
        preemphasis(torch.from_numpy(part)[None, :, None]).square().mean()
        for part in (wave, quantise(wave.astype(np.float32)) / 32768 - wave)
    )
    assert 10 * float(torch.log10(exact / error)) == pytest.approx(expected, abs=0.6)


def test_16_bit_samples_are_unchanged():
    every = np.arange(-32768, 32768)
    assert (quantise((every / 32768).astype(np.float32)) == every).all()


def sources(folder, count=5, frames=1000, subtype="PCM_16"):
    random = np.random.default_rng(0)
    clips = []
    for number in range(count):
        path = folder / f"{number}.wav"
        soundfile.write(path, random.uniform(-0.5, 0.5, (frames, 2)), 8000, subtype=subtype)
        clips.append(Source(str(number), str(path), 0, frames, frames, 2, 8000, ("x",)))
    return clips


RECORD = provenance.record("test", {}, {})


@pytest.mark.parametrize("jobs", [1, 2])
def test_packed_samples_and_checksums_match_the_files(tmp_path, jobs):
    pack(sources(tmp_path), tmp_path / "out", RECORD, jobs=jobs)
    packed = PackedAudio(tmp_path / "out")
    for number, clip in enumerate(packed.clips):
        expected, _ = soundfile.read(tmp_path / f"{number}.wav", dtype="int16")
        samples = np.array(packed.samples[clip.start : clip.start + clip.frames])
        assert (samples == expected).all()
        assert clip.crc32 == zlib.crc32(samples)


def test_float32_keeps_24_bit_samples_exactly(tmp_path):
    pack(sources(tmp_path, subtype="PCM_24"), tmp_path / "out", RECORD, "float32")
    expected, _ = soundfile.read(tmp_path / "0.wav", dtype="float32")
    assert (np.array(PackedAudio(tmp_path / "out").samples[:1000]) == expected).all()


def test_clips_are_padded_and_cut_to_one_length(tmp_path):
    clips = sources(tmp_path, 2)
    shorter = replace(clips[0], available=990, frames=995)
    pack([shorter, replace(clips[1], frames=995)], tmp_path / "a", RECORD)
    packed = PackedAudio(tmp_path / "a")
    assert packed.one_length() == 995
    assert (packed.samples[990:995] == 0).all()
    assert (packed.samples[980:990] != 0).any()


def test_an_interrupted_run_resumes(tmp_path, monkeypatch):
    clips = sources(tmp_path, 40, frames=50)
    decode, calls = module._decode_chunk, []

    def broken(work):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(work)
        return decode(work)

    monkeypatch.setattr(module, "_decode_chunk", broken)
    with pytest.raises(KeyboardInterrupt):
        pack(clips, tmp_path / "out", RECORD)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module, "_decode_chunk", decode)
    shutil.copytree(tmp_path / ".partial.out", tmp_path / ".partial.damaged")
    decoded = []
    monkeypatch.setattr(module, "_decode_chunk", lambda work: decoded.append(len(work)) or decode(work))
    pack(clips, tmp_path / "out", RECORD)
    assert sum(decoded) == 40 - 16
    monkeypatch.setattr(module, "_decode_chunk", decode)
    pack(clips, tmp_path / "uninterrupted", RECORD)
    assert (tmp_path / "out" / "audio.npy").read_bytes() == (tmp_path / "uninterrupted" / "audio.npy").read_bytes()
    index = [json.loads((tmp_path / name / "index.json").read_text()) for name in ("out", "uninterrupted")]
    assert index[0] == index[1]
    # After a power cut the journal may list a clip whose samples never reached the disk.
    damaged = np.load(tmp_path / ".partial.damaged/audio.npy", mmap_mode="r+")
    damaged[50:100] = 0
    damaged.flush()
    pack(clips, tmp_path / "damaged", RECORD)
    assert (tmp_path / "damaged" / "audio.npy").read_bytes() == (tmp_path / "uninterrupted" / "audio.npy").read_bytes()


@pytest.mark.parametrize(
    "line",
    [b"[99, {}]", b"[-1, {}]", b"[1e99, {}]", b"[null, {}]", b"{}", b"[", b"7", b"\xff\xfe", b"[" * 200_000, b'[0, {"crc32": 5}]'],
    ids=lambda line: repr(line[:12]),
)  # fmt: skip
def test_a_damaged_journal_costs_only_its_own_lines(tmp_path, line, monkeypatch):
    """The journal of an interrupted run has 16 clips and a line that fits none."""
    clips = sources(tmp_path, 20, frames=50)
    decode, decoded = module._decode_chunk, []
    monkeypatch.setattr(module, "_decode_chunk", lambda work: decode(work) if len(work) == 16 else decode(None))
    with pytest.raises(TypeError):
        pack(clips, tmp_path / "out", RECORD)
    journal = tmp_path / ".partial.out/done.jsonl"
    fields = json.dumps(json.loads(journal.read_text().splitlines()[0])[1]).encode()
    journal.write_bytes(line.replace(b"{}", fields) + b"\n" + journal.read_bytes())
    monkeypatch.setattr(module, "_decode_chunk", lambda work: decoded.append(len(work)) or decode(work))
    pack(clips, tmp_path / "out", RECORD)
    assert decoded == [4]
    expected, _ = soundfile.read(tmp_path / "0.wav", dtype="int16")
    assert (PackedAudio(tmp_path / "out").samples[:50] == expected).all()


@pytest.mark.parametrize("content", [b"", b"no array", "one clip"])
def test_a_damaged_unfinished_array_is_written_again(tmp_path, content):
    clips = sources(tmp_path, 3)
    pack(clips, tmp_path / "whole", RECORD)
    partial = tmp_path / ".partial.out"
    shutil.copytree(tmp_path / "whole", partial)
    provenance.write(partial, RECORD)
    (partial / "done.jsonl").write_text("")
    np.save(partial / "audio.npy", np.zeros((10, 2), np.int16)) if content == "one clip" else (
        partial / "audio.npy"
    ).write_bytes(content)
    pack(clips, tmp_path / "out", RECORD)
    assert (tmp_path / "out/audio.npy").read_bytes() == (tmp_path / "whole/audio.npy").read_bytes()


def test_samples_that_are_not_finite_are_an_error(tmp_path):
    clips = sources(tmp_path, 1, frames=10, subtype="FLOAT")
    soundfile.write(clips[0].path, np.full((10, 2), np.nan), 8000, subtype="FLOAT")
    with pytest.raises(UserError, match=r"0\.wav holds samples that are not finite"):
        pack(clips, tmp_path / "out", RECORD)
    assert not (tmp_path / "out").exists()


def test_the_ratio_of_signal_to_rounding_error_is_logged(tmp_path, caplog, monkeypatch):
    """Rounding a full-scale sine, longer than a block, adds an error energy of a twelfth of a squared step."""
    monkeypatch.setattr(module.log, "propagate", True)
    frames = 3 * module._BLOCK // 2
    sine = np.sin(0.01 * np.arange(frames))[:, None]
    soundfile.write(tmp_path / "0.wav", 0.99 * sine, 8000, subtype="PCM_24")
    with caplog.at_level("INFO", "tagasc"):
        pack([Source("0", str(tmp_path / "0.wav"), 0, frames, frames, 1, 8000, ("x",))], tmp_path / "out", RECORD)
    assert "signal to rounding error 98.0 dB in the median clip" in caplog.text
    stored = np.array(PackedAudio(tmp_path / "out").samples)
    assert PackedAudio(tmp_path / "out").clips[0].crc32 == zlib.crc32(stored)


def test_packed_splits_belong_to_the_exact_name_of_the_corpus(tmp_path):
    """Unfinished folders and folders without packed audio are not splits."""
    for name in ("cafe_train", "cafe_test", "cafe_events_curated", "my_cafe_test", ".partial.cafe_validation"):
        pack(sources(tmp_path, 1), tmp_path / name, RECORD)
    (tmp_path / "cafe_notes").mkdir()
    assert packed_splits(tmp_path, "cafe") == {"test": tmp_path / "cafe_test", "train": tmp_path / "cafe_train"}
    assert list(packed_splits(tmp_path, "cafe_events")) == ["curated"]
    assert packed_splits(tmp_path / "nowhere", "cafe") == {}
