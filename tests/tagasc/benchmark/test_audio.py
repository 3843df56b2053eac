from tagasc.audio.packed import PackedAudio
from tagasc.benchmark.audio import measure_packing


def test_packing_is_measured_beside_decoding_alone(tmp_path):
    found = list(measure_packing(tmp_path, 3, 1, 0))
    assert [speed.what.split(",")[0] for speed in found] == [
        "decoding alone",
        "packing to int16",
        "decoding alone",
    ]
    assert all(speed.calls == 2 for speed in found)
    assert PackedAudio(tmp_path / "packed").one_length() == 480000
