import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import load_manifest

from local import manifests
from local.manifests import Entry, split_by_location, write
from local.tau2019 import city_of
from tagasc import provenance
from tagasc.errors import UserError


@settings(deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=2, max_size=12))
def test_no_location_is_split_and_order_does_not_matter(seed, sizes):
    entries = [
        Entry(f"{scene}-{place}-{n}", None, (scene,), {"location": f"city{place % 3}-{scene}{place}"})
        for scene in ("bus", "tram")
        for place, size in enumerate(sizes)
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
    """Seven clips of growing length, in an order that is not that of their names."""
    made = []
    for number in (3, 1, 4, 0, 5, 2, 6):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.zeros((80 + number, 2)), 8000)
        made.append(Entry(path.stem, path, ("bus",), {"location": "a"}))
    return made


RECORD = provenance.made_from("test", {}, {})


@pytest.mark.parametrize("jobs", [1, 2])
def test_manifests_made_in_parts_are_whole_and_in_order(tmp_path, entries, jobs, monkeypatch):
    monkeypatch.setattr(manifests, "_PER_PART", 3)
    opened, info = [], soundfile.info
    monkeypatch.setattr(soundfile, "info", lambda path: opened.append(path) or info(path))
    write(tmp_path / "out", "x", {"all": entries, "few": entries[:2]}, RECORD, 8000, 2, (0.0, 1.0), jobs)
    assert len(list((tmp_path / "out").iterdir())) == 2 * 3 + 1
    recordings, supervisions, cuts = (
        list(load_manifest(tmp_path / f"out/x_{kind}_all.jsonl.gz")) for kind in ("recordings", "supervisions", "cuts")
    )
    for found in (recordings, supervisions, cuts):
        assert [item.id for item in found] == [entry.id for entry in entries]
    for entry, recording, supervision, cut in zip(entries, recordings, supervisions, cuts, strict=True):
        assert recording.num_samples == cut.num_samples == 80 + int(entry.id)
        assert cut.recording == recording
        assert cut.supervisions == [supervision]
        assert supervision.custom == {"labels": ["bus"], "location": "a"}
    if jobs == 1:
        assert len(opened) == 7 + 2


def test_one_wrong_file_and_nothing_is_written(tmp_path, entries):
    soundfile.write(entries[5].path, np.zeros((80, 2)), 16000)
    with pytest.raises(UserError, match=r"2\.wav has 16000 Hz, not 8000"):
        write(tmp_path / "out", "x", {"all": entries}, RECORD, 8000, 2, (0.0, 1.0), 2)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
