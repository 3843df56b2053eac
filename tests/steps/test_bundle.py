"""Stage 9 and its use: a tiny recipe's bundle, files of every kind, what is refused, and the page that says why."""

import base64
import contextlib
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import skops.io
import soundfile
import torch

from tagasc.bundle import load
from tagasc.bundle.audio import open_sound
from tagasc.bundle.explain import explain
from tagasc.bundle.folder import read_bundle
from tagasc.bundle.runner import against
from tagasc.bundle.schema import SCHEMA, problem
from tagasc.export.calibration import pair_decisions
from tagasc.report.analysis import errors_section
from tagasc.scene.training import load_scene_network
from tests.helpers import RATE, run

SYSTEM = "shared_h4_l3"


@pytest.fixture(scope="module")
def bundle(finished) -> Path:
    """The bundle of the tiny recipe's tag system."""
    outcome = export(finished, SYSTEM)
    assert outcome.status == 0, outcome.said
    return finished.folder / "exp/bundle" / SYSTEM


def export(recipe, system):
    """Run the command of stage 9 as run.sh prints it, in this process."""
    status, command = recipe.run("--stage", 9, "--export-system", system, "--dry-run")
    assert status == 0, command
    program, *options = shlex.split(command)
    with contextlib.chdir(recipe.folder):
        return run(f"steps/{program}", *options)


@pytest.fixture(scope="module")
def clips(finished) -> list[Path]:
    """The files of the recipe's test clips, by id."""
    folder = finished.folder / "corpora/TAU-urban-acoustic-scenes-2019-development/audio"
    listed = csv.DictReader((finished.folder / f"exp/table1-tiny/svm/{SYSTEM}/seed1/predictions.csv").open())
    return [folder / f"{row['clip']}.wav" for row in listed if row["split"] == "test"]


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    """A copy of the bundle, to be changed."""
    return shutil.copytree(bundle, tmp_path / "bündel 1")


def predict(*arguments, status=0):
    """Run predict.py in this process; return what it printed."""
    outcome = run("steps/predict.py", *arguments)
    assert outcome.status == status, outcome.said
    return outcome.said


def answers(tmp_path, *arguments, status=0):
    """Answers and failures by recording, from --json."""
    predict(*arguments, "--json", tmp_path / "answers.json", "--quiet", status=status)
    content = json.loads((tmp_path / "answers.json").read_text())
    return {row["recording"]: row for row in content["answers"]}, content["failures"]


def test_a_bundle_describes_itself(bundle):
    about = read_bundle(bundle)
    assert problem(about) is None
    assert json.loads((bundle / "bundle.schema.json").read_text())["required"] == SCHEMA["required"]
    assert about["system"] == SYSTEM
    assert about["audio"]["frames"] == RATE
    assert (len(about["scenes"]), len(about["events"])) == (10, 17)
    assert about["parity"]["equal_scenes"] == about["parity"]["clips"] == 30
    assert max(about["parity"]["largest_difference"].values()) < 1e-4
    assert about["parity"]["tagger_clips"] == 30
    assert "same scene for 30 of them" in about["parity"]["recipe"]
    assert about["data"]["clips"] == {"test": 30, "train": 40, "unused": 30, "validation": 20}
    assert about["limits"][0].startswith("It was trained on synthetic sounds")
    assert set(about["accuracy"]["by_scene"]) == set(about["scenes"])
    written = {str(path.relative_to(bundle)) for path in bundle.rglob("*.*") if "__pycache__" not in path.parts}
    assert written - set(about["files"]) == {"bundle.json", "provenance.json"}
    card = (bundle / "card.md").read_text()
    for words in ("Synthetic corpus", "Apache-2.0", "ONNX and PyTorch", "run.sh", "test clips"):
        assert words in card


def test_the_example_gives_the_expected_answer(bundle):
    about, classify = read_bundle(bundle), load(bundle)
    answer = classify.classify_file(bundle / about["example"]["file"])
    assert answer.scene == about["example"]["scene"]
    np.testing.assert_allclose(answer.probabilities, about["example"]["probabilities"], atol=1e-5)
    samples, rate = soundfile.read(bundle / "example.wav", dtype="int16")
    assert classify(samples, rate).scene == answer.scene


def test_every_test_clip_gives_the_scene_of_the_recipe(finished, bundle, clips, tmp_path):
    found, failures = answers(tmp_path, bundle, *clips)
    assert not failures
    with (finished.folder / f"exp/table1-tiny/svm/{SYSTEM}/seed1/predictions.csv").open() as file:
        expected = {row["clip"]: row["svm"] for row in csv.DictReader(file) if row["split"] == "test"}
    assert {Path(name).stem: row["scene"] for name, row in found.items()} == expected
    with np.load(finished.folder / "dump/tags/tiny/tau2019_test.npz") as file:
        tags = dict(zip(file["ids"], file["values"], strict=True))
    for name, row in found.items():
        np.testing.assert_allclose(list(row["windows"][0]["events"].values()), tags[Path(name).stem], atol=1e-4)


def test_formats_rates_and_channels(bundle, clips, tmp_path):
    wave, rate = soundfile.read(clips[0])
    expected = answers(tmp_path, bundle, clips[0])[0][str(clips[0])]
    for name, options in {"a.flac": {}, "a 2.wav": {"subtype": "FLOAT"}, "a.w64": {"subtype": "PCM_24"}}.items():
        soundfile.write(tmp_path / name, wave, rate, **options)
    soundfile.write(tmp_path / "lossy.ogg", wave, rate)
    slow = np.repeat(wave, 3, axis=0)  # 48 kHz with images of the spectrum, which resampling removes
    soundfile.write(tmp_path / "48k.wav", slow, 3 * rate)
    soundfile.write(tmp_path / "mono.wav", wave.mean(axis=1), rate)
    time = np.arange(2 * 44100) / 44100
    soundfile.write(tmp_path / "music.mp3", 0.2 * np.sin(2 * np.pi * 440 * time), 44100)
    found, failures = answers(tmp_path, bundle, tmp_path)
    assert not failures
    by_name = {Path(name).name: row for name, row in found.items()}
    for name in ("a.flac", "a 2.wav", "a.w64"):  # the same samples
        assert (by_name[name]["probabilities"], by_name[name]["notes"]) == (expected["probabilities"], [])
    assert by_name["48k.wav"]["notes"] == ["resampled from 48000 to 16000 Hz"]
    assert by_name["mono.wav"]["notes"] == ["2 channels copied from 1"]
    assert by_name["music.mp3"]["notes"][:2] == ["resampled from 44100 to 16000 Hz", "2 channels copied from 1"]
    assert len(by_name["music.mp3"]["windows"]) in (2, 3)
    assert by_name["lossy.ogg"]["scene"] in expected["probabilities"]


def test_bad_files_are_listed_and_the_others_done(bundle, clips, tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE)
    soundfile.write(tmp_path / "cut.flac", soundfile.read(clips[1])[0], RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:20000])
    soundfile.write(tmp_path / "silence.wav", np.zeros((RATE, 2)), RATE)
    soundfile.write(tmp_path / "short.wav", np.random.default_rng(0).normal(0, 0.1, (RATE // 10, 2)), RATE)
    said = predict(bundle, tmp_path, clips[0], tmp_path / "missing\x1b.wav", status=3)
    for words in (
        "empty.wav: ", "is an empty file", "text.wav cannot be read as audio", "none.wav: it holds no sound",
        "missing\\x1b.wav does not exist; check the path", "cut.flac: ", "5 of 8 recordings failed", "silent, so the answer means nothing",
        "0.1 s repeated 10.0 times to fill 1 s",
    ):  # fmt: skip
        assert words in said
    assert "Traceback" not in said
    assert clips[0].name in said
    assert predict(bundle, tmp_path / "text.wav", status=1)


def test_a_long_recording_has_a_timeline(bundle, clips, tmp_path):
    scenes = [soundfile.read(path)[0] for path in (clips[0], clips[0], clips[-1])]
    soundfile.write(tmp_path / "long.wav", np.concatenate(scenes), RATE)
    found = answers(tmp_path, bundle, tmp_path / "long.wav")[0][str(tmp_path / "long.wav")]
    single = answers(tmp_path, bundle, clips[0], clips[-1])[0]
    expected = [single[str(path)]["scene"] for path in (clips[0], clips[0], clips[-1])]
    assert [window["scene"] for window in found["windows"]] == expected
    said = predict(
        bundle, tmp_path / "long.wav", "--hop", 0.25, "--csv", tmp_path / "a.csv", "--dcase", tmp_path / "o.csv"
    )
    assert re.search(r"0:00 to \d:\d\d", said)
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["start"] for row in rows] == [f"{0.25 * number:.3f}" for number in range(9)]
    assert sum(float(rows[0][name]) for name in found["probabilities"]) == pytest.approx(1, abs=1e-4)
    header, row = (line.split("\t") for line in (tmp_path / "o.csv").read_text().splitlines())
    assert header == ["filename", "scene_label", *found["probabilities"]]
    assert (row[0], len(row)) == ("long.wav", len(header))
    assert "--hop 2 must be" in predict(bundle, tmp_path / "long.wav", "--hop", 2, status=1)


def test_lists_patterns_and_standard_input(bundle, clips, tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text(f"{clips[0]}\n\n{clips[1]}\n")
    assert len(answers(tmp_path, bundle, "--list", tmp_path / "list.txt")[0]) == 2
    assert len(answers(tmp_path, bundle, clips[0].parent / "*.wav", clips[0])[0]) == len(
        list(clips[0].parent.iterdir())
    )
    with clips[0].open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file}))
        assert "standard input" in predict(bundle, "-")
    for arguments, message in (((), "no recordings"), ((tmp_path / "*.mp3",), "no file matches")):
        assert message in run("steps/predict.py", bundle, *arguments).error


def test_a_bundle_whose_tagger_is_elsewhere_asks_for_its_tags(finished, bundle, copy, clips, tmp_path):
    about = read_bundle(copy)
    del about["files"]["tagger.onnx"]
    (copy / "tagger.onnx").unlink()
    edit(copy, tagger={"kind": "external", "source": "hf:some/tagger", "sha256": "0"}, files=about["files"])
    assert "the tagger of this bundle, hf:some/tagger, is not in it; give its tags" in predict(copy, clips[0], status=1)
    tags = finished.folder / "dump/tags/tiny/tau2019_test.npz"
    found, failures = answers(tmp_path, copy, *clips, bundle / "example.wav", "--tags", tags, status=3)
    assert [Path(row["recording"]).name for row in failures] == ["example.wav"]
    expected = answers(tmp_path, bundle, *clips)[0]
    assert {name: row["scene"] for name, row in found.items()} == {name: row["scene"] for name, row in expected.items()}
    predict(copy, clips[0], "--tags", tags, "--explain", tmp_path / "why")
    assert "Events for and against" in (tmp_path / "why" / f"{clips[0].stem}.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "model.onnx was changed"),
        (lambda folder: (folder / "tagasc/bundle/audio.py").write_text("x"), "audio.py was changed"),
        (lambda folder: (folder / "tagger.onnx").unlink(), "tagger.onnx is missing"),
        (lambda folder: (folder / "bundle.json").unlink(), "holds no bundle.json"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "bundle.json is damaged"),
        (lambda folder: edit(folder, format=2), "has format 2, this program reads 1"),
        (lambda folder: edit(folder, scenes="all"), "scenes must be of type array"),
        (lambda folder: edit(folder, files={"../x": ""}), "outside the bundle"),
    ],
)
def test_a_changed_bundle_is_refused_by_the_name_of_the_file(copy, clips, change, message):
    change(copy)
    assert message in run("steps/predict.py", copy, clips[0]).error


def edit(folder, **values):
    about = json.loads((folder / "bundle.json").read_text()) | values
    about.pop("checksum", None)
    (folder / "bundle.json").write_text(json.dumps(about))


def test_an_export_is_kept_and_names_what_it_cannot_do(finished, bundle, monkeypatch):
    before = (bundle / "bundle.json").stat().st_mtime_ns
    outcome = export(finished, f"{SYSTEM}/seed1")
    assert (outcome.status, (bundle / "bundle.json").stat().st_mtime_ns) == (0, before), outcome.said
    assert "up to date" in outcome.said
    for system, message in (
        ("att_h2_l1", "holds no scores of att_h2_l1 that could be exported; scored are baseline, shared_h4_l3"),
        (f"{SYSTEM}/seed2", "holds no scores of shared_h4_l3/seed2"),
    ):
        assert message in export(finished, system).error
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else name)
    assert re.search(r"needs onnx; install: \S+ -m pip install -c \S+ -r \S+", export(finished, SYSTEM).error)


def test_a_bundle_works_without_torch_and_without_the_recipe(copy, clips):
    """In a folder of its own, where importing anything but the three packages fails."""
    block = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'torchaudio', 'scipy', 'sklearn', 'lhotse', 'yaml', 'rich', 'jsonargparse'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import runpy\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", block, copy / "predict.py", clips[0], "--explain", copy / "why"]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert clips[0].name in done.stdout
    assert (copy / "why" / f"{clips[0].stem}.html").exists()


def test_a_page_says_why(bundle, clips, tmp_path):
    """Of a file with a hostile name; the page runs no script but its own and refers to nothing outside."""
    name = "<img src=x onerror=alert(1)>&amp;'\".wav"
    shutil.copy(clips[0], tmp_path / name)
    predict(bundle, tmp_path / name, "--explain", tmp_path / "why")
    (path,) = (tmp_path / "why").iterdir()
    page = path.read_text()
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in page
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"data:[a-z/]+;base64,[\w+/=]+", "", page))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    for words in (
        "Events for and against", "Without tags (all at their training mean)", "Attention", "Most similar training clips",
        "trained on synthetic sounds", 'src="data:audio/wav;base64,', "of uniform, for the mean tags",
    ):  # fmt: skip
        assert words in page, words
    (sound,) = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    (tmp_path / "player.wav").write_bytes(base64.b64decode(sound))
    played, rate = soundfile.read(tmp_path / "player.wav")
    np.testing.assert_allclose(played, soundfile.read(clips[0])[0], atol=1 / 16384)
    assert rate == RATE


def test_what_a_tag_changes_is_what_the_recipes_network_and_svm_say(finished, bundle, clips):
    """The margin with one tag at its training mean, by PyTorch and scikit-learn."""
    opened = load(bundle)
    with open_sound(clips[3]) as sound:
        ((_, (wave,)),) = opened.batches(sound)
    why = explain(opened, 0.0, wave)
    network, _ = load_scene_network(bundle / "network.safetensors")
    svm = skops.io.load(bundle / "svm.skops", trusted=[])
    mean, event = opened.training["tags"], int(np.argmax(np.abs(why.influence.changes)))
    altered = np.stack([why.tags, np.where(np.arange(len(mean)) == event, mean, why.tags), mean])
    with torch.inference_mode():
        code, _ = network(torch.from_numpy(np.stack([wave] * 3)), torch.from_numpy(altered))
    margins = against(pair_decisions(svm, code.numpy()), why.scene, 10)[:, why.rival]
    assert why.margin == pytest.approx(margins[0], abs=1e-4)
    assert why.influence.changes[event] == pytest.approx(margins[0] - margins[1], abs=1e-4)
    assert why.influence.cut_margin == pytest.approx(margins[2], abs=1e-4)
    assert svm.classes_[why.influence.cut_scene] == svm.predict(code[2:].numpy())[0]
    distances = np.linalg.norm(opened.training["codes"] - code[0].numpy(), axis=1)
    assert why.nearest[0][2] == pytest.approx(distances.min(), rel=1e-3)
    assert why.events_over_time.shape[1] == len(opened.events)


def test_the_report_links_pages_of_the_surest_wrong_answers(finished, bundle):
    about = json.loads((finished.folder / "exp/report/errors/index.json").read_text())
    with (finished.folder / f"exp/table1-tiny/svm/{SYSTEM}/seed1/predictions.csv").open() as file:
        rows = {row["clip"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    assert len(about["pages"]) == 6
    probabilities = [page["probability"] for page in about["pages"]]
    assert probabilities == sorted(probabilities, reverse=True)
    for page in about["pages"]:
        assert rows[page["clip"]]["svm"] == page["answer"] != page["true"] == rows[page["clip"]]["scene"]
        text = (finished.folder / "exp/report/errors" / page["page"]).read_text()
        assert f"(wrong: it is {page['true']})" in text
    lines = errors_section(finished.folder / "exp/report")
    assert f"- [{about['pages'][0]['clip']}](errors/1.html)" in lines
    assert errors_section(finished.folder / "exp") == []


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_the_page(bundle, clips, tmp_path):
    wave = np.concatenate([soundfile.read(path)[0] for path in clips[:8]])
    soundfile.write(tmp_path / "long.wav", wave, RATE)
    predict(bundle, clips[0], tmp_path / "long.wav", "--explain", tmp_path / "why")
    for name, height in ((clips[0].stem, 1400), ("long", 1400)):
        picture = tmp_path / f"{name}.png"
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
                   f"--user-data-dir={tmp_path / 'profile'}", f"--window-size=1160,{height}", f"--screenshot={picture}"]  # fmt: skip
        done = subprocess.run(
            [*command, (tmp_path / "why" / f"{name}.html").as_uri()],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert "CONSOLE" not in done.stderr  # neither an error of the script nor a breach of the page's policy
        pixels = matplotlib.image.imread(picture)[:, :, :3]
        assert pixels.shape == (height, 1160, 3)
        colours = np.unique((pixels[200:460] * 255).round().astype(int).reshape(-1, 3), axis=0)
        assert len(colours) > 200  # the spectrogram
        right = pixels[:, -12:].reshape(-1, 3)
        assert (right == 1).all()  # nothing runs out of the page


@pytest.mark.slow
def test_a_bundle_works_in_a_fresh_environment_with_three_packages(copy, clips, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", copy / "requirements.txt"], check=True)
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout.lower()
    assert "torch" not in listed
    assert "scikit" not in listed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, copy / "predict.py", *clips, "--json", tmp_path / "a.json"]
    subprocess.run(command, cwd="/", env=environment, check=True)
    expected = answers(tmp_path, copy, *clips)[0]
    found = {row["recording"]: row for row in json.loads((tmp_path / "a.json").read_text())["answers"]}
    assert {name: row["scene"] for name, row in found.items()} == {name: row["scene"] for name, row in expected.items()}


@pytest.mark.slow
def test_an_hour_needs_little_memory(bundle, tmp_path):
    random = np.random.default_rng(0)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 44100, 1) as file:
        for _ in range(360):
            file.write(random.normal(0, 0.1, 441000))
    code = "import runpy, sys; sys.argv = sys.argv[1:]\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    # getrusage would count the memory of the process that started this one.
    code += "finally: print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code, bundle / "predict.py", tmp_path / "hour.flac", "--csv", tmp_path / "a.csv"]
    command += ["--explain", tmp_path / "why", "--quiet"]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1_000_000  # kB
    with (tmp_path / "a.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3600
