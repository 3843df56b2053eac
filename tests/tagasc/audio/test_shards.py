"""A packed folder in several files gives the same samples as in one."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagasc.audio import pack as module
from tagasc.audio import shards
from tagasc.audio.pack import Source, pack
from tagasc.audio.packed import AudioPart, JoinedAudio, PackedAudio
from tagasc.audio.store import AudioStore, JoinedStore
from tagasc.utils import provenance
from tagasc.utils.errors import UserError

CPU = torch.device("cpu")
RECORD = provenance.record("test", {}, {})
CLIP = 1000 * 2 * 2e-9  # GB of a clip


@pytest.fixture
def clips(tmp_path):
    """Forty clips, of which the fifth and sixth, and so on, form longer ones."""
    random, made = np.random.default_rng(0), []
    for number in range(40):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, random.uniform(-0.5, 0.5, (1000, 2)), 8000, subtype="PCM_16")
        joined = f"long {number // 2}" if number % 4 < 2 else ""
        made.append(Source(str(number), str(path), 0, 1000, 1000, 2, 8000, ("x",), joined=joined))
    return made


@pytest.fixture
def both(clips, tmp_path):
    pack(clips, tmp_path / "one", RECORD)
    pack(clips, tmp_path / "many", RECORD, jobs=2, shard_gb=7.5 * CLIP)
    return PackedAudio(tmp_path / "one"), PackedAudio(tmp_path / "many")


def test_index_and_samples_are_the_same(both):
    one, many = both
    assert (one.folder / "index.json").read_bytes() == (many.folder / "index.json").read_bytes()
    files = sorted(path.name for path in many.folder.glob("*.npy"))
    assert files == [f"audio.{n}.npy" for n in range(6)]
    assert many.samples.starts == [0, 7000, 14000, 20000, 27000, 34000, 40000]  # never within a longer clip
    assert all(np.load(path).nbytes <= 7.5e9 * CLIP for path in many.folder.glob("*.npy"))
    np.testing.assert_array_equal(np.concatenate(many.samples.parts), one.samples)
    assert (many.samples.shape, many.samples.nbytes, many.channels) == (one.samples.shape, one.samples.nbytes, 2)
    many.compare_all()


def test_windows_and_views_are_the_same(both):
    random = torch.Generator().manual_seed(0)
    for view in (lambda p: p, JoinedAudio, lambda p: AudioPart(p, 3, 33), lambda p: AudioPart(JoinedAudio(p), 2, 20)):
        stores = [AudioStore(view(packed), CPU) for packed in both]
        count = len(stores[0].packed)
        numbers = torch.randint(count, (50,), generator=random)
        starts = torch.randint(-300, 900, (50,), generator=random)
        first, second = (store.windows(numbers, starts, 400) for store in stores)
        assert torch.equal(first, second)
    joined = [JoinedStore([AudioStore(packed, CPU), AudioStore(AudioPart(packed, 5, 25), CPU)]) for packed in both]
    numbers, starts = torch.randint(60, (3, 8), generator=random), torch.randint(600, (3, 8), generator=random)
    for first, second in zip(*(store.batches(numbers, starts, 400) for store in joined), strict=True):
        assert torch.equal(first, second)


def test_a_copy_in_memory_or_on_a_device_is_whole(both):
    one, many = both
    np.testing.assert_array_equal(shards.in_memory(many.samples), one.samples)
    assert torch.equal(shards.on_device(shards.as_tensors(many.samples), CPU), torch.tensor(np.array(one.samples)))


def test_an_interrupted_packing_resumes_in_its_shards(clips, tmp_path, monkeypatch):
    pack(clips, tmp_path / "whole", RECORD, shard_gb=7.5 * CLIP)
    decode, calls = module._decode_chunk, []

    def broken(work):
        if calls:
            raise KeyboardInterrupt
        calls.append(work)
        return decode(work)

    monkeypatch.setattr(module, "_decode_chunk", broken)
    with pytest.raises(KeyboardInterrupt):
        pack(clips, tmp_path / "out", RECORD, shard_gb=7.5 * CLIP)
    decoded = []
    monkeypatch.setattr(module, "_decode_chunk", lambda work: decoded.append(len(work)) or decode(work))
    pack(clips, tmp_path / "out", RECORD, shard_gb=7.5 * CLIP)
    assert sum(decoded) == 40 - 16
    for number in range(6):
        name = f"audio.{number}.npy"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_size_starts_over(clips, tmp_path, monkeypatch):
    decode = module._decode_chunk
    monkeypatch.setattr(module, "_decode_chunk", lambda work: decode(work) if work[0][3] == 0 else decode(None))
    with pytest.raises(TypeError):
        pack(clips, tmp_path / "out", RECORD, shard_gb=7.5 * CLIP)
    monkeypatch.setattr(module, "_decode_chunk", decode)
    pack(clips, tmp_path / "out", RECORD)
    assert [path.name for path in (tmp_path / "out").glob("*.npy")] == ["audio.npy"]
    PackedAudio(tmp_path / "out").compare_all()


@pytest.mark.parametrize("what", ["missing", "shortened", "flipped"])
def test_damage_of_a_shard_is_noticed(both, what):
    path = both[1].folder / "audio.2.npy"
    if what == "missing":
        path.unlink()
    elif what == "shortened":
        np.save(path, np.load(path)[:-7])
    else:
        with path.open("r+b") as file:
            file.seek(-5, 2)
            file.write(b"\xaa")
    with pytest.raises(UserError, match=r"audio\.2\.npy is damaged: clip 19 " if what == "flipped" else "run stage 2"):
        PackedAudio(both[1].folder).compare_all()


@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["", "", "a", "b"])), min_size=1, max_size=30),
    st.integers(0, 40),
)
def test_shards_hold_whole_clips_and_are_no_larger_than_need_be(clips, most):
    ends = np.cumsum([frames for frames, _ in clips]).tolist()
    joined = [name for _, name in clips]
    bounds = shards.plan(ends, joined, most)
    assert (bounds[0], bounds[-1]) == (0, ends[-1])
    assert bounds == sorted(set(bounds))
    # Between these frames a shard may end: not between neighbours of one longer clip.
    breaks = [end for end, now, after in zip(ends, joined, [*joined[1:], ""], strict=True) if not now or now != after]
    assert set(bounds[1:]) <= {*breaks, ends[-1]}
    for first, last in pairwise(bounds):
        assert last - first <= most or not [place for place in breaks if first < place < last]


def test_shards_of_different_kinds_are_refused():
    with pytest.raises(ValueError, match="differ"):
        shards.Shards([np.zeros((3, 2), np.int16), np.zeros((3, 1), np.int16)])
