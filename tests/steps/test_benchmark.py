from tagasc.files import read_json
from tests.conftest import run, succeed


def test_the_taggers_speeds_are_measured_in_one_run(tmp_path):
    said = succeed("steps/benchmark.py", "tagger", "--batch", 2, "--seconds", 0, "--json", tmp_path / "speeds.json")
    found = read_json(tmp_path / "speeds.json", "")
    assert [speed["what"].split(",")[0] for speed in found["speeds"]] == [
        "training step",
        "our training step",
        "log-mel of 10-s clips alone",
        "tags of 10-s 48-kHz stereo clips",
    ]
    for speed in found["speeds"]:
        assert speed["clips_per_second"] > 0
        assert speed["calls"] == 2
        assert speed["what"] in said
    assert found["made_from"]["versions"]["torch"]


def test_what_cannot_be_measured_is_one_clear_line():
    assert run("steps/benchmark.py", "heater").status == 2
    assert "--batch at least 2" in run("steps/benchmark.py", "tagger", "--batch", 1).error
