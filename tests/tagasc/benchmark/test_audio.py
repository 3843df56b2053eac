from tagasc.audio.packed import PackedAudio
from tagasc.benchmark.audio import measure_packing


def test_packing_is_measured(tmp_path):
    (speed,) = measure_packing(tmp_path, 3, 1, 0)
    assert (speed.what, speed.calls) == ("packing to int16, in 1 process(es)", 2)
    assert PackedAudio(tmp_path / "packed").one_length() == 480000
