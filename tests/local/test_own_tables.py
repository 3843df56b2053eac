"""Your own tables: what scene_csv.py and tagging_csv.py make of rows as people write them."""

import itertools
import re
import struct
import unicodedata
import zlib
from collections import Counter

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

from local.cochlscene import PATTERN as COCHLSCENE
from tagasc.utils.tables import clean
from tests.helpers import run, succeed
from tests.local.test_cochlscene import write_tree

FRAMES = 400


def sounds(folder, names, channels=1):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        value = zlib.crc32(name.encode()) / 2**33  # no two clips have the same content
        soundfile.write(folder / name, np.full((FRAMES, channels), value), 8000)


def clips(out, program, kind="scene"):
    """Labels, location and length of each clip, by split and id."""
    found = {}
    for path in out.glob(f"{program}_cuts_*.jsonl.gz"):
        for cut in load_manifest(path):
            custom = cut.supervisions[0].custom
            split = path.name.removesuffix(".jsonl.gz").rpartition("_")[2]
            found[cut.supervisions[0].id] = (split, custom["labels"], custom.get("location"), cut.num_samples)
    return found


def scene_table(folder, edit=lambda row: row, header="file,scene,place", count=12):
    """Two scenes, each at six places; ``edit`` changes a row's text."""
    sounds(folder, [f"{n}.wav" for n in range(count)])
    rows = [edit(f"{n}.wav,{('forge', 'crêche')[n % 2]},{('Fés', 'Döl')[n % 2]} {n // 2}") for n in range(count)]
    table = folder / "scenes.csv"
    table.write_text("\n".join([header.replace("place", "location"), *rows]) + "\n", encoding="utf-8")
    return table


@pytest.mark.parametrize("form", ["NFD", "NFKD"])
def test_blanks_and_unicode_forms_make_no_new_scene_or_location(tmp_path, form):
    def edit(row):
        number = int(row.partition(".")[0])
        return " , ".join(unicodedata.normalize(form if number % 3 else "NFC", row).split(",")) + "\t"

    table = scene_table(tmp_path, edit)
    succeed("local/scene_csv.py", table, tmp_path / "out")
    found = clips(tmp_path / "out", "scene_csv")
    assert {labels[0] for _, labels, _, _ in found.values()} == {"forge", "crêche"}
    assert len({location for _, _, location, _ in found.values()}) == 12


def test_a_file_is_found_whatever_the_form_of_its_name_on_the_disk(tmp_path):
    """A corpus from a disk that keeps names decomposed, listed by a program that composes them, and the other way."""
    names = [f"crêche/é{n}.wav" for n in range(4)] + [f"forêt/{n}ü.wav" for n in range(4)]
    sounds(tmp_path, [unicodedata.normalize("NFD" if n < 4 else "NFC", name) for n, name in enumerate(names)])
    rows = [f"{unicodedata.normalize('NFC' if n < 6 else 'NFD', name)},{'ab'[n % 2]}" for n, name in enumerate(names)]
    (tmp_path / "scenes.csv").write_text("\n".join(["file,scene", *rows]), encoding="utf-8")
    succeed("local/scene_csv.py", tmp_path, tmp_path / "out")
    found = clips(tmp_path / "out", "scene_csv")
    assert set(found) == {clean(name.removesuffix(".wav")) for name in names}
    succeed("steps/pack_audio.py", "--manifests", tmp_path / "out", "--out", tmp_path / "audio")


@pytest.mark.parametrize(
    ("header", "edit", "message"),
    [
        ("file,scene,LOCATION", str, "has the column 'LOCATION'; write it as location"),
        ("file,scene,loca tion", str, "has the column 'loca tion'; write it as location"),
        ("file,scene,place", lambda row: row.replace("Fés 2", ""), "scenes.csv, line 6 has no location; fix the line, or remove"),
        ("file,scene,place", lambda row: row.replace("11.wav", "11.flac"), "11.flac; add them, or fix the table"),
        ("file,scene,place", lambda row: row.replace("11.wav", "a\\\\11.wav"), "folders are separated by /"),
    ],
)  # fmt: skip
def test_a_scene_table_that_leaves_a_doubt_is_an_error(tmp_path, header, edit, message):
    outcome = run("local/scene_csv.py", scene_table(tmp_path, edit, header), tmp_path / "out")
    assert message in outcome.error
    assert not (tmp_path / "out").exists()


def test_scenes_that_differ_in_case_are_warned_of(tmp_path):
    table = scene_table(tmp_path, lambda row: row.replace("forge", "Forge") if row.startswith(("4", "8")) else row)
    assert "the scenes 'Forge' and 'forge' are taken for two" in run("local/scene_csv.py", table, tmp_path / "out").said


@pytest.mark.parametrize(
    ("frames", "remedy"),
    [
        (FRAMES + 3, "give --scene-seconds 0.05 to cut or pad the clips (--seconds 0.05 without run.sh)"),
        (FRAMES // 2, "cut the clips to one length first"),
    ],
)
def test_scene_clips_of_other_length_are_found_before_anything_is_written(tmp_path, frames, remedy):
    table = scene_table(tmp_path)
    soundfile.write(tmp_path / "7.wav", np.zeros(frames), 8000)
    error = run("local/scene_csv.py", table, tmp_path / "out").error
    assert f"7.wav has {frames} frames, the usual length is 400 (0.05 s), and 1 of 12 clips differ from it" in error
    assert error.endswith(remedy)
    assert not (tmp_path / "out").exists()
    if "give" in remedy:
        succeed("local/scene_csv.py", table, tmp_path / "out", "--seconds", 0.05)


@pytest.mark.parametrize(
    ("channels", "rate", "message"),
    [(2, 8000, "7.wav has 2 channel(s), not 1; convert it"), (1, 22050, "7.wav has 22050 Hz, not 8000; convert it")],
)
def test_a_clip_of_another_format_is_told_with_a_remedy_that_a_table_has(tmp_path, channels, rate, message):
    table = scene_table(tmp_path)
    soundfile.write(tmp_path / "7.wav", np.zeros((FRAMES, channels)), rate)
    error = run("local/scene_csv.py", table, tmp_path / "out").error
    assert message in error
    assert "to the format of 0.wav, the first clip of the table" in error
    assert "--sampling-rate" not in error


def tagging(tmp_path, *lines):
    sounds(tmp_path, ["x/a.wav", "x/b.wav", "x/c.wav"])
    (tmp_path / "sounds.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "local/tagging_csv.py", tmp_path, tmp_path / "out"


def test_a_line_per_label_is_read_as_a_line_per_clip(tmp_path):
    """Lines of one clip need not follow one another, and may name its file in several ways."""
    succeed(*tagging(tmp_path, "file,labels,split", "x/a.wav,saw,curated", "x/b.wav,horn,test", "x/./a.wav,horn,curated",
                     ",,", "x/c.wav,saw,curated", 'x/a.wav,"saw,drum",curated'))  # fmt: skip
    found = {name: row[:2] for name, row in clips(tmp_path / "out", "tagging_csv").items()}
    assert found == {
        "x/a": ("curated", ["saw", "horn", "drum"]), "x/c": ("curated", ["saw"]), "x/b": ("test", ["horn"]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,labels,Split", "x/a.wav,saw,test"], "has the column 'Split'; write it as split"),
        (["file,labels,split", "x/a.wav,saw,curated", "x/b.wav,saw,"], "line 3 has no split; fix the line, or remove the column"),
        (["file,labels,split", "x/a.wav,saw,curated", "x/a.wav,horn,test"], "line 3: x/a.wav is in both curated and test"),
        (["file,labels", 'x/a.wav,"saw,,horn"'], "line 2: an empty label or a duplicate label"),
        (["file,labels", 'x/a.wav,"saw, saw "'], "line 2: an empty label or a duplicate label"),
    ],
)  # fmt: skip
def test_a_tagging_table_that_leaves_a_doubt_is_an_error(tmp_path, lines, message):
    assert message in run(*tagging(tmp_path, *lines)).error


def test_columns_that_nothing_reads_are_named(tmp_path):
    said = succeed(*tagging(tmp_path, "file,labels,splits,onset", "x/a.wav,saw,test,0.5", "x/b.wav,horn,test,1"))
    assert "not read: column splits, onset; known are file, labels, split" in said


def test_an_mp3_without_a_true_length_is_listed_and_packed_whole(tmp_path):
    wave = 0.3 * np.random.default_rng(0).normal(size=20000)
    sounds(tmp_path, ["b.wav"])
    soundfile.write(tmp_path / "a.mp3", wave, 16000, format="MP3", bitrate_mode="VARIABLE")
    soundfile.write(tmp_path / "b.wav", wave, 16000)
    content = (tmp_path / "a.mp3").read_bytes()
    at = content.index(b"Xing") + 8
    (tmp_path / "a.mp3").write_bytes(content[:at] + struct.pack(">I", 12) + content[at + 4 :])
    (tmp_path / "sounds.csv").write_text("file,labels\na.mp3,saw\nb.wav,horn\n")
    succeed("local/tagging_csv.py", tmp_path, tmp_path / "out")
    assert clips(tmp_path / "out", "tagging_csv")["a"][3] >= 20000
    succeed("steps/pack_audio.py", "--manifests", tmp_path / "out", "--out", tmp_path / "audio")
    samples = np.load(tmp_path / "audio/tagging_csv_curated/audio.npy")
    assert np.abs(samples[15000:20000]).mean() > 3000


def test_a_corpus_that_moved_is_listed_again_and_not_packed_again(tmp_path):
    scene_table(tmp_path / "here")
    packing = ("steps/pack_audio.py", "--manifests", tmp_path / "data", "--out", tmp_path / "audio")
    succeed("local/scene_csv.py", tmp_path / "here", tmp_path / "data")
    succeed(*packing)
    (tmp_path / "here").rename(tmp_path / "there")
    assert "outdated" in succeed("local/scene_csv.py", tmp_path / "there", tmp_path / "data")
    assert succeed(*packing).count("up to date") == 3
    succeed(*packing, "--force")  # the manifests hold the new place


def folders(root, name="{scene}/{place}_{device}_{n}.wav"):
    """Two scenes at six places each, recorded by two devices, called as ``name`` says."""
    names = [
        name.format(
            scene=scene, place=f"p{place}{scene[0]}", device=device, n=n, split=("Train", "Val", "Test")[place % 3]
        )
        for n, (scene, place, device) in enumerate(
            itertools.product(("forge", "crêche"), range(6), ("phone", "studio"))
        )
    ]
    sounds(root, names)
    return names


PATTERN = "(?P<scene>[^/]+)/(?P<location>[^_]+)_(?P<device>[^_]+)_.*"


def test_a_folder_alone_is_read_and_written_as_the_table_that_it_stands_for(tmp_path):
    folders(tmp_path / "corpus")
    said = succeed("local/scene_csv.py", tmp_path / "corpus", tmp_path / "out", "--from-folders", "--pattern", PATTERN)
    assert re.search(r"crêche +\d+ \(\d\) .*\n.*forge +\d+ \(\d\) .*\n.*all +\d+ \(\d+\)", said)
    for line in (
        "length: 0.05 s (24 clips)",
        "sampling rate: 8000 Hz (24 clips)",
        "channels: 1 (24 clips)",
        "fields: device",
    ):
        assert line in said
    found = clips(tmp_path / "out", "scene_csv")
    assert {row[2] for row in found.values()} == {f"p{n}{s}" for n in range(6) for s in "fc"}
    cut = next(iter(load_manifest(tmp_path / "out/scene_csv_cuts_test.jsonl.gz")))
    assert cut.supervisions[0].custom["device"] in ("phone", "studio")
    # The table gives the same corpus, without the pattern.
    (tmp_path / "corpus/scenes.csv").write_bytes((tmp_path / "out/scenes.csv").read_bytes())
    succeed("local/scene_csv.py", tmp_path / "corpus", tmp_path / "again")
    assert clips(tmp_path / "again", "scene_csv") == found
    assert "up to date" in succeed("local/scene_csv.py", tmp_path / "corpus", tmp_path / "again")


def test_splits_may_be_folders(tmp_path):
    folders(tmp_path / "corpus", "{split}/{scene}/{place}_{device}_{n}.wav")
    options = ("--from-folders", "--pattern", "(?P<split>[^/]+)/" + PATTERN)
    succeed("local/scene_csv.py", tmp_path / "corpus", tmp_path / "out", *options)
    assert {split: 8 for split in ("train", "validation", "test")} == Counter(
        row[0] for row in clips(tmp_path / "out", "scene_csv").values()
    )


def test_without_a_pattern_each_folder_is_a_scene_and_each_clip_a_place(tmp_path):
    folders(tmp_path / "corpus", "{scene}/deeper/{place}_{device}_{n}.wav")
    said = succeed("local/scene_csv.py", tmp_path / "corpus", tmp_path / "out", "--from-folders")
    assert "every clip counts as a separate place" in said
    assert {row[1][0] for row in clips(tmp_path / "out", "scene_csv").values()} == {"forge", "crêche"}


def test_cochlscene_is_read_by_a_pattern_as_by_its_module(tmp_path):
    write_tree(tmp_path / "CochlScene", users=1)
    for number, path in enumerate(sorted((tmp_path / "CochlScene").rglob("*.wav"))):
        path.unlink()
        soundfile.write(path, np.full(441, number / 100), 44100)
    succeed("local/scene_csv.py", tmp_path / "CochlScene", tmp_path / "csv", "--from-folders", "--pattern", COCHLSCENE)
    succeed("local/cochlscene.py", tmp_path / "CochlScene", tmp_path / "own", "--seconds", 0.01)
    named = {name.rpartition("/")[2]: row for name, row in clips(tmp_path / "csv", "scene_csv").items()}
    assert named == clips(tmp_path / "own", "cochlscene")


def test_the_same_content_in_two_splits_is_an_error(tmp_path):
    table = scene_table(
        tmp_path, lambda row: f"{row},{'test' if row[0] in '89' else 'train'}", "file,scene,location,split", 10
    )
    (tmp_path / "8.wav").write_bytes((tmp_path / "2.wav").read_bytes())
    error = run("local/scene_csv.py", table, tmp_path / "out").error
    assert f"{tmp_path}/2.wav in train and {tmp_path}/8.wav in test have the same content; remove one" in error
    assert not (tmp_path / "out").exists()


def test_a_scene_of_few_locations_is_warned_of(tmp_path):
    table = scene_table(
        tmp_path, lambda row: f"{row},{'test' if row[0] in '89' else 'train'}", "file,scene,location,split", 10
    )
    assert "scene forge has test clips of 1 location only" in run("local/scene_csv.py", table, tmp_path / "out").said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pattern", "(?P<scene>x"), "is not a regular expression"),
        (("--pattern", "(?P<place>.*)"), "has no group scene; add"),
        (("--pattern", "(?P<scene>forge)/.*"), "does not match the pattern"),
        (("--pattern", "(?P<scene>[^/]+)/(?P<split>[^_]+)_.*"), "the split is 'p0c'; it must be one of train"),
        (("--pattern", "(?P<scene>[^/]+)/(?:(?P<location>p0.)|p).*"), "has no location, but other files have"),
        (("--pattern", "(?P<scene>[^/]+)/(?P<labels>.*)"), "the column labels has a name that stages use; rename it"),
    ],
)  # fmt: skip
def test_a_folder_that_leaves_a_doubt_is_an_error(tmp_path, options, message):
    folders(tmp_path / "corpus")
    outcome = run("local/scene_csv.py", tmp_path / "corpus", tmp_path / "out", "--from-folders", *options)
    assert message in outcome.error
    assert not (tmp_path / "out").exists()
