import json
import re
import runpy
import sys

import numpy as np
import pytest
import soundfile

from tagasc.audio import levels
from tagasc.audio.pack import Source, pack
from tagasc.audio.packed import PackedAudio
from tagasc.utils import provenance
from tagasc.utils.errors import UserError
from tests.helpers import ROOT

RECORD = provenance.record("test", {}, {})


def packed(folder, *waves, sample_format="int16"):
    """Pack float WAVs; return what levels.json holds."""
    sources = []
    for number, wave in enumerate(waves):
        path = folder / f"{number}.wav"
        soundfile.write(path, np.asarray(wave, np.float32), 8000, subtype="FLOAT")
        sources.append(Source(str(number), str(path), 0, len(wave), len(wave), 1, 8000, ("x",)))
    pack(sources, folder / "out", RECORD, sample_format)
    return json.loads((folder / "out/levels.json").read_text())


@pytest.mark.parametrize("sample_format", ["int16", "float32"])
@pytest.mark.parametrize("unit", [100, 2**15, 2**31])
def test_samples_in_other_units_are_refused(tmp_path, unit, sample_format):
    sine = 0.3 * np.sin(0.05 * np.arange(4000))
    with pytest.raises(UserError, match=r"1\.wav goes beyond full scale: .* divided by full scale"):
        packed(tmp_path, sine, unit * sine, sample_format=sample_format)
    assert not (tmp_path / "out").exists()


def test_loud_music_that_passes_full_scale_for_long_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"its largest sample is 1\.5"):
        packed(tmp_path, 1.5 * np.sin(0.05 * np.arange(4000)))


def test_levels_and_clipping_of_a_split_are_stored_and_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(levels.log, "propagate", True)
    over = np.full(1000, 0.1)
    over[:3] = 1.25
    full = np.full(1000, -0.5)
    full[:2] = -1
    with caplog.at_level("INFO", "tagasc"):
        split = packed(tmp_path, over, full, np.zeros(2000))
    assert split["clips"] == 3
    assert split["silent clips"] == 1
    assert split["clips with samples at full scale"] == 2
    assert split["share of samples at full scale"] == 5 / 4000
    assert split["clips with samples beyond full scale"] == 1
    assert split["largest peak, dB of full scale"] == 1.94
    assert "out: 1 of 3 clips are silent" in caplog.text
    assert "out: 1 clips have samples beyond full scale, which are clipped" in caplog.text
    assert "0.12 % of the samples are at full scale, in 2 clips" in caplog.text
    assert PackedAudio(tmp_path / "out").samples.max() == 32767


def test_the_program_of_the_page_makes_a_corpus_in_other_units_right(tmp_path, monkeypatch):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/packed_audio.md").read_text(encoding="utf-8"), re.S)
    (tmp_path / "rescale.py").write_text(program)
    (tmp_path / "in/a").mkdir(parents=True)
    sine = 0.3 * np.sin(0.05 * np.arange(4000))
    soundfile.write(tmp_path / "in/a/0.wav", 2.0**23 * sine, 8000, subtype="FLOAT")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "in"), str(tmp_path / "out"), str(2**23)])
    runpy.run_path(str(tmp_path / "rescale.py"))
    written, _ = soundfile.read(tmp_path / "out/a/0.wav")
    assert np.abs(written - sine).max() < 2**-22
