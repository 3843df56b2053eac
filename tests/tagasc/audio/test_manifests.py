import gzip

import pytest
from lhotse import AudioSource, CutSet, Recording, SupervisionSegment

from tagasc.audio.manifests import cut_manifests, read_sources, state_of
from tagasc.utils.errors import UserError


def write_cuts(path, custom, frames=990):
    recording = Recording("a", [AudioSource("file", [0, 1], "/a.wav")], 1000, frames, frames / 1000)
    cut = recording.to_cut()
    cut.supervisions = [SupervisionSegment("a", "a", 0.0, cut.duration, cut.channel, custom=custom)]
    CutSet.from_cuts([cut]).to_file(path)
    return path


@pytest.mark.parametrize(("custom", "frames"), [({"seconds": 1.0}, 1000), ({"seconds": 0.98}, 980), ({}, 990)])
def test_a_clip_gets_the_length_that_its_manifest_states(tmp_path, custom, frames):
    (source,) = read_sources(write_cuts(tmp_path / "x_cuts_train.jsonl.gz", {"labels": ["park"], **custom}))
    assert (source.first, source.available, source.frames) == (0, 990, frames)
    assert (source.path, source.channels, source.sampling_rate, source.labels) == ("/a.wav", 2, 1000, ("park",))


def test_a_clip_without_samples_is_an_error(tmp_path):
    path = write_cuts(tmp_path / "x_cuts_train.jsonl.gz", {"seconds": 0.0001})
    with pytest.raises(UserError, match="a would hold no sample"):
        read_sources(path)


def damaged(path, change):
    content = change(path.read_bytes())
    path.write_bytes(content)
    return path


def as_stage_2_reads(path):
    state_of(path)
    read_sources(path)


DAMAGE = {
    "truncated": lambda content: content[:-20],
    "not gzip": lambda content: b"{}" + content,
    "a flipped bit": lambda content: content[:40] + bytes([content[40] ^ 16]) + content[41:],
    "no cut": lambda _: gzip.compress(b'{"id": "a"}\n'),
    "not JSON": lambda _: gzip.compress(b"cut\n"),
    "a list": lambda _: gzip.compress(b"[1]\n"),
    "a negative start": lambda content: gzip.compress(gzip.decompress(content).replace(b'"start": 0', b'"start": -9', 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_manifest_is_one_clear_line(tmp_path, name):
    path = damaged(write_cuts(tmp_path / "x_cuts_train.jsonl.gz", {"labels": ["park"]}), DAMAGE[name])
    with pytest.raises(UserError, match=r"x_cuts_train\.jsonl\.gz is damaged .*; run stage 1 \(manifests\) again"):
        as_stage_2_reads(path)


def test_the_state_of_a_manifest_does_not_depend_on_where_the_corpus_is(tmp_path):
    original = write_cuts(tmp_path / "x_cuts_train.jsonl.gz", {"labels": ["park"], "content": 7})
    state = state_of(original)
    text = gzip.decompress(original.read_bytes())
    for old, new, same in ((b"/a.wav", b"/other/disk/a.wav", True), (b"/a.wav", b"/b.wav", False), (b"7", b"8", False)):
        other = damaged(tmp_path / original.name, lambda _, old=old, new=new: gzip.compress(text.replace(old, new)))
        assert (state_of(other) == state) is same, new


def test_manifests_are_found_by_corpus_and_split(tmp_path):
    for name in ("cafe_cuts_train", "cafe_cuts_test", "cafe_events_cuts_train", "cafe_recordings_train"):
        (tmp_path / f"{name}.jsonl.gz").touch()
    assert list(cut_manifests(tmp_path)) == [("cafe", "test"), ("cafe", "train"), ("cafe_events", "train")]
    (tmp_path / "cafe_cuts_not_used.jsonl.gz").touch()
    with pytest.raises(UserError, match="the split 'not_used' must have a name without _"):
        cut_manifests(tmp_path)
