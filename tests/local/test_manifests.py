import gzip
import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import load_manifest

from local import manifests
from local.manifests import AudioFormat, ClipEntry, listed_file, write
from local.splits import split_by_location
from local.tau import city_of
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tagasc.utils.tables import Row
from tests.helpers import RATE, SECONDS, run, succeed


@settings(deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=2, max_size=12))
def test_no_location_is_split_and_the_order_does_not_matter(seed, sizes):
    entries = [
        ClipEntry(f"{scene}-{number}-{n}", None, (scene,), {"location": f"city{number % 3}-{scene}{number}"})
        for scene in ("bus", "tram")
        for number, size in enumerate(sizes)
        for n in range(size)
    ]
    train, validation = split_by_location(entries, 0.15, seed, city_of)
    assert len(train) + len(validation) == len(entries)
    assert not {e.custom["location"] for e in train} & {e.custom["location"] for e in validation}
    for part in (train, validation):
        assert {e.labels[0] for e in part} == {"bus", "tram"}
    again = split_by_location(entries[::-1], 0.15, seed, city_of)
    assert {e.id for e in again[1]} == {e.id for e in validation}


@pytest.fixture
def entries(tmp_path):
    """Seven clips of growing length, not sorted by name."""
    entries = []
    for number in (3, 1, 4, 0, 5, 2, 6):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.zeros((80 + number, 2)), 8000)
        entries.append(ClipEntry(path.stem, path, ("bus",), {"location": "a"}))
    return entries


RECORD = provenance.record("test", {}, {})
AUDIO = AudioFormat(8000, 2, "convert it", (0.0, 1.0))


@pytest.mark.parametrize("jobs", [1, 2])
def test_manifests_written_in_parts_are_complete_and_in_order(tmp_path, entries, jobs, monkeypatch):
    monkeypatch.setattr(manifests, "_PER_PART", 3)
    opened, open_audio = [], manifests.open_audio
    monkeypatch.setattr(manifests, "open_audio", lambda path: opened.append(path) or open_audio(path))
    write(tmp_path / "out", "x", {"all": entries, "few": entries[:2]}, RECORD, AUDIO, jobs)
    assert len(list((tmp_path / "out").iterdir())) == 2 * 3 + 1
    recordings, supervisions, cuts = (
        list(load_manifest(tmp_path / f"out/x_{kind}_all.jsonl.gz")) for kind in ("recordings", "supervisions", "cuts")
    )
    for items in (recordings, supervisions, cuts):
        assert [item.id for item in items] == [entry.id for entry in entries]
    for entry, recording, supervision, cut in zip(entries, recordings, supervisions, cuts, strict=True):
        assert recording.num_samples == cut.num_samples == 80 + int(entry.id)
        assert cut.recording == recording
        assert cut.supervisions == [supervision]
        assert supervision.custom | {"content": 0} == {"labels": ["bus"], "location": "a", "content": 0}
    if jobs == 1:
        assert len(opened) == 7 + 2


@pytest.mark.parametrize(
    ("frames", "rate", "message"), [(80, 16000, r"2\.wav has 16000 Hz, not 8000"), (0, 8000, r"2\.wav has no samples")]
)
def test_nothing_is_written_if_a_file_has_the_wrong_format(tmp_path, entries, frames, rate, message):
    soundfile.write(entries[5].path, np.zeros((frames, 2)), rate)
    with pytest.raises(UserError, match=message):
        write(tmp_path / "out", "x", {"all": entries}, RECORD, AUDIO, 2)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("program", "header", "split"),
    [("scene_csv", "file,scene,split", ("train", "train", "validation", "test")), ("tagging_csv", "file,labels,split", ("curated",) * 4)],
)  # fmt: skip
def test_symbolic_links_are_not_resolved(tmp_path, entries, program, header, split):
    """A folder and a file are links that lead out of the table's folder."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus").mkdir()
    for entry in entries[:4]:
        soundfile.write(tmp_path / f"elsewhere/{entry.id}.wav", np.full(80, int(entry.id) / 10), 8000)
    (tmp_path / "corpus/clips").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus/4.wav").symlink_to("../elsewhere/4.wav")
    names = ("clips/3.wav", "clips/../clips/1.wav", "4.wav", "clips/0.wav")
    labels = ("bus", "tram", "bus", "bus")
    rows = [header, *(f"{name},{label},{part}" for name, label, part in zip(names, labels, split, strict=True))]
    (tmp_path / "corpus/table.csv").write_text("\n".join(rows) + "\n")
    succeed(f"local/{program}.py", tmp_path / "corpus/table.csv", tmp_path / "out")
    cuts = {c.supervisions[0].id: c for p in set(split) for c in load_manifest(tmp_path / f"out/{program}_cuts_{p}.jsonl.gz")}  # fmt: skip
    sources = {name: cut.recording.sources[0].source for name, cut in cuts.items()}
    assert sources == {name: str(tmp_path / f"corpus/{name}.wav") for name in ("clips/3", "clips/1", "4", "clips/0")}


@pytest.mark.parametrize(
    ("program", "name", "rows"),
    [
        ("scene_csv", "scenes.csv", ["file,scene", *(f"{n}.wav,{'bus' if n % 2 else 'tram'}" for n in range(6))]),
        ("tagging_csv", "sounds.csv", ["file,labels", "0.wav,drill", '1.wav,"drill,voice"']),
    ],
)
def test_the_folder_of_the_table_is_accepted(tmp_path, program, name, rows):
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", np.full(80, number / 10), 8000)
    assert f"{tmp_path / name} does not exist" in run(f"local/{program}.py", tmp_path, tmp_path / "out").error
    (tmp_path / name).write_text("\n".join(rows) + "\n")
    succeed(f"local/{program}.py", tmp_path, tmp_path / "out")
    assert "up to date" in succeed(f"local/{program}.py", tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("name", ["", ".", "..", "../a.wav", "clips/../../a.wav", "/etc/passwd", "../corpus2/a.wav"])
def test_a_file_outside_the_tables_folder_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is not in the table's folder; fix the line"):
        listed_file(tmp_path / "corpus/table.csv", Row({"file": name}, "line 2"))


def test_audio_replaced_by_another_of_the_same_length_is_packed_again(scene_corpus, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(scene_corpus, corpus)
    options = ("--sampling-rate", RATE, "--seconds", SECONDS, "--allow-partial")
    manifests = ("local/tau2019.py", corpus, tmp_path / "data", *options)
    packing = ("steps/pack_audio.py", "--manifests", tmp_path / "data", "--out", tmp_path / "audio")
    for program in (manifests, packing):
        succeed(*program)
    assert succeed(*manifests).count("up to date") == 1
    wav = sorted(corpus.rglob("*.wav"))[0]
    soundfile.write(wav, np.zeros((int(RATE * SECONDS), 2)), RATE, subtype=soundfile.info(wav).subtype)
    assert "outdated (its input audio has changed" in succeed(*manifests)
    output = succeed(*packing)
    assert output.count("outdated") == 1  # one split
    assert output.count("up to date") == 3


@pytest.mark.parametrize("how", ["cut short", "missing"])
def test_a_damaged_manifest_is_made_again(scene_corpus, tmp_path, how):
    manifests = ("local/tau2019.py", scene_corpus, tmp_path, "--sampling-rate", RATE, "--seconds", SECONDS)
    succeed(*manifests, "--allow-partial")
    path = tmp_path / "tau2019_cuts_train.jsonl.gz"
    before = gzip.decompress(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-20])
    if how == "missing":
        path.unlink()
    assert f"{path.name} missing or damaged" in succeed(*manifests, "--allow-partial")
    assert gzip.decompress(path.read_bytes()) == before
