"""How run.sh is called: options, help, dry runs. A wrong call is one clear line."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import venv
from itertools import pairwise

import pytest

from tests.helpers import ROOT, Recipe, run


def call(recipe, *options, **environment):
    """Run run.sh with a changed environment; return its status, standard output and standard error."""
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable, **environment}
    done = subprocess.run(recipe.command(*options), capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr


def copied(recipe, folder, more=""):
    """A copy of the recipe before anything ran, with ``more`` at the end of its recipe.sh."""
    copy = Recipe(folder)
    shutil.copytree(recipe.folder / "conf", copy.folder / "conf")
    (copy.folder / "recipe.sh").write_text((recipe.folder / "recipe.sh").read_text() + more)
    return copy


def test_a_relative_path_to_python_starts_where_run_sh_was_called(recipe):
    status, _, error = call(recipe, "--systems", "table9", TAGASC_PYTHON=os.path.relpath(sys.executable))
    assert status != 0
    assert "table9" in error


@pytest.mark.parametrize("source", ["hf:someone/model", "onnx:/data/model", "py:/data/model", "clap:model", "tags.npz"])
def test_tags_from_elsewhere_need_no_tagging_corpus(source, recipe):
    status, commands = recipe.run("--dry-run", "--tags-from", source)
    assert status == 0
    assert not [word for word in ("fsdkaggle2019.py", "data/fsdkaggle2019", "train_tagger") if word in commands]
    folder = "tags" if source == "tags.npz" else "model"
    assert f"--out dump/tags/{folder} " in commands
    assert f"exp/table1-{folder}" in commands
    assert "exp/table1-mine" in recipe.run("--dry-run", "--tags-from", source, "--tagger", "mine")[1]


def test_a_dry_run_prints_the_commands_and_runs_nothing(recipe, tmp_path):
    fresh = copied(recipe, tmp_path / "fresh")
    status, commands = fresh.run("--dry-run", "--seeds", "1 2 3")
    assert status == 0, commands
    programs = [line.split()[0] for line in commands.splitlines()]
    assert (
        programs
        == """compose.py tau2019.py fsdkaggle2019.py pack_audio.py pack_audio.py train_tagger.py
        make_pseudo_labels.py train_tagger_semi.py score_tagger.py extract_tags.py train_scene.py extract_codes.py
        score_svm.py report.py""".split()
    )
    assert "--seeds 1\\ 2\\ 3" in commands
    assert sorted(path.name for path in fresh.folder.iterdir()) == ["conf", "recipe.sh"]


def commands(recipe, *options):
    """The commands of a dry run: (program, its options by name)."""
    status, output, error = call(recipe, "--dry-run", *options)
    assert status == 0, error
    lines = [shlex.split(line) for line in output.splitlines() if not line.startswith("#")]
    return [(words[0], dict(pair for pair in pairwise(words) if pair[0].startswith("--"))) for words in lines]


def test_several_taggers_share_the_first_stages_and_the_baseline(recipe):
    what = ("--taggers", "tiny ced=onnx:/data/ced", "--systems", "baseline codecat codecat@shuffled")
    listed = commands(recipe, *what)
    programs = [program for program, _ in listed]
    assert programs.count("compose.py") == programs.count("tau2019.py") == programs.count("report.py") == 1
    assert [options["--tags-from"] for program, options in listed if program == "extract_tags.py"] == [
        "exp/tagger/tiny",
        "onnx:/data/ced",
    ]
    for program in ("train_scene.py", "extract_codes.py", "score_svm.py"):
        systems = {o["--out"]: o["--systems"] for name, o in listed if name == program}
        assert systems == {
            "exp/table1-tiny": "baseline codecat codecat@shuffled",
            "exp/table1-ced": "codecat codecat@shuffled",
        }
    assert programs[-1] == "report.py"
    assert listed[-1][1]["--experiment"] == "exp/table1-tiny"


def test_several_scales_are_experiments_of_their_own(recipe):
    listed = commands(recipe, "--stage", 3, "--tag-scale", "probability log", "--systems", "baseline codecat")
    trained = [o for program, o in listed if program == "train_scene.py"]
    assert [(o["--training.tag_scale"], o["--out"], o["--systems"]) for o in trained] == [
        ("probability", "exp/table1-tiny-probability", "baseline codecat"),
        ("log", "exp/table1-tiny-log", "codecat"),
    ]
    assert [program for program, _ in listed].count("extract_tags.py") == 1
    alone = commands(recipe, "--stage", 4, "--stop-stage", 5, "--tag-scale", "logit log", "--tags-from", "hf:a/b")
    assert {o["--tags-from"] for program, o in alone if program == "extract_tags.py"} == {"hf:a/b"}
    assert {o["--out"] for program, o in alone if program == "train_scene.py"} == {
        "exp/table1-b-logit",
        "exp/table1-b-log",
    }


def test_stages_of_several_taggers_stop_where_they_are_told(recipe):
    programs = lambda *options: [name for name, _ in commands(recipe, "--taggers", "tiny b=hf:b", *options)]
    assert programs("--stage", 4, "--stop-stage", 4) == ["extract_tags.py", "extract_tags.py"]
    assert programs("--stage", 8) == ["report.py"]
    assert programs("--stage", 9) == ["export.py"]
    assert "extract_tags.py" not in programs("--stop-stage", 2)


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_of_several_taggers(recipe, tmp_path, sent, status):
    """Their run.sh is held by a program that waits; it must end with it."""
    slow = copied(recipe, tmp_path / "slow", "download() { touch started; run wait sleep 600; }\n")
    process = subprocess.Popen(
        slow.command("--taggers", "tiny b=hf:b"), stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TAGASC_PYTHON": sys.executable},
    )  # fmt: skip
    while not (slow.folder / "started").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate()
    assert process.returncode == status
    assert "interrupted in stage 0 (download). To resume:" in said
    assert said.endswith("To resume with all taggers, type the same command again\n")
    assert subprocess.run(["flock", "--nonblock", str(slow.folder / ".lock"), "true"], check=False).returncode == 0


def test_a_tagger_that_fails_does_not_stop_the_next(recipe, tmp_path):
    other = copied(recipe, tmp_path / "other")
    status, _, error = call(other, "--taggers", "b=/no.npz c=/none.npz", "--stage", 4, "--stop-stage", 4)
    assert status == 1
    assert "--tags-from /no.npz does not exist" in error
    assert "--tags-from /none.npz does not exist" in error
    assert error.splitlines()[-1] == "error: failed, see above: b c; the same command resumes"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sytems all", "unknown option --sytems for the recipe"),
        ("--stop_stage 2", "options have dashes"),
        ("--stage", "--stage needs a value"),
        ("--stage 10", "stages are 0 to 9"),
        ("--stage 010", "stages are 0 to 9"),
        ("--stage 5 --stop-stage 4", "stages are 0 to 9"),
        ("--seeds=1 --nj two", "--nj must be a whole number, not 'two'"),
        ("--nj 0", "--nj must be at least 1"),
        ("--stage auto", "--stage must be a whole number"),
        ("--force=maybe", "--force must be true or false, not 'maybe'"),
        ("mini", "mini is not an option"),
        (
            "--recipe nowhere",
            "there is no recipe 'nowhere'; use one of: cochlscene dcase2019 dcase2020 dcase2022 mini template",
        ),
        ("--activation softmx", "--activation must be one of auto | sigmoid | softmax, not 'softmx'"),
        ("--sample-format int8", "--sample-format must be one of int16 | float32"),
        ("--protocol theirs", "--protocol must be one of ours | paper | both"),
        ("--scale large", "--scale must be one of mini | published"),
        ("--tags-from /no/tags.npz", "--tags-from /no/tags.npz does not exist"),
        ("--tagger tags.npz", "use --tags-from tags.npz"),
        ("--tagger hf:model", "use --tags-from hf:model"),
        ("--taggers hf:model", "--taggers: 'hf:model' must be NAME or NAME=SOURCE"),
        ("--seeds 1,two", "--seeds must be a number, not '1,two'"),
        ("--data-on gpu", "option --data-on is now --audio-cache"),
        ("--scene-source /data", "option --scene-source is now --scene-dir"),
    ],
)
def test_a_wrong_option_is_one_clear_line(recipe, options, message):
    status, output, error = call(recipe, *options.split())
    assert status == 2
    assert output == ""
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--systems", " "), "--systems is empty; use all, table2"),
        (("--systems", "att_h3"), "there is no system 'att_h3'"),
        (("--systems", "all att_h3@shuffled"), "there is no system 'att_h3'"),
        (("--systems", "baseline@shuffled"), "baseline uses no tags"),
        (("--systems", "shared_h4_l3@other"), "there is no control 'other'"),
        (("--controls", "shuffled"), "must be among @shuffled, @constant, @within, @oracle, not shuffled"),
        (("--seeds", "x"), "whole numbers"),
        (("--tag-scale", "lag"), "--tag-scale must be among probability, log, logit, not lag"),
        (("--trunk", "tabel1"), "--trunk must be one of"),
        (("--training", "scenes"), "has no scenes.yaml"),
        (("--tagger", "mine", "--conf", ROOT / "egs"), "has no tagger_mine.yaml or tagger.yaml"),
    ],
)
def test_a_wrong_name_is_found_before_stage_0(options, message):
    defaults = {"--conf": ROOT / "egs/mini/conf", "--systems": "baseline"}
    options = defaults | dict(zip(options[::2], options[1::2], strict=True))
    assert message in run("steps/check_names.py", *(word for option in options.items() for word in option)).error


def test_the_check_counts_the_networks_to_train():
    options = (
        "--conf",
        ROOT / "egs/mini/conf",
        "--systems",
        "table2",
        "--controls",
        "@shuffled @oracle",
        "--seeds",
        "1 2",
    )
    assert run("steps/check_names.py", *options).said == "20\n"


def test_the_check_needs_no_torch():
    code = "import sys; import steps.check_names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_wrong_name_ends_run_sh_before_stage_0(recipe, tmp_path):
    fresh = copied(recipe, tmp_path / "fresh")
    status, _, error = call(fresh, "--systems", "att_h3")
    assert status == 1
    assert "there is no system 'att_h3'" in error
    assert not (fresh.folder / "corpora").exists()


def test_a_number_may_have_leading_zeros(recipe):
    status, commands = recipe.run("--dry-run", "--stage", "08", "--nj", "08")
    assert status == 0, commands
    assert commands.startswith("report.py")


def test_variables_of_the_environment_are_not_options(recipe):
    environment = {"tagger": "other", "seeds": "4 5", "group": "x", "scene_rate": "1", "training": "none"}
    status, commands, error = call(recipe, "--dry-run", "--tagger", "mine", **environment)
    assert status == 0, error
    assert "exp/tagger/mine" in commands
    assert "--seeds 1 " in commands
    assert "--training conf/scene.yaml" in commands
    status, text, _ = call(recipe, "--help", **environment)
    assert len(re.findall("--tagger ", text)) == len(re.findall("--seeds ", text)) == 1


def test_the_environment_of_a_kaldi_user_changes_nothing(recipe):
    names = "dir here name n now position given workers IFS GREP_OPTIONS POSIXLY_CORRECT TAGASC_CONSOLE_FD root".split()
    functions = {f"BASH_FUNC_{name}%%": "() { echo mine; return 1; }" for name in ("cd", "sed", "grep", "realpath")}
    expected = call(recipe, "--dry-run", "--nj", 2, "--seeds", "1 2")
    assert call(recipe, "--dry-run", "--nj", 2, "--seeds", "1 2", **dict.fromkeys(names, "/x"), **functions) == expected
    assert expected[0] == 0


def test_an_exported_cdpath_changes_nothing():
    command, environment = ["egs/mini/run.sh", "--stage", "8", "--dry-run"], {**os.environ, "CDPATH": ".:/usr"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("report.py")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--clips-for-all", "names[$(touch ran)]"),  # the recipe multiplies it
        ("--corpus-seed", "x[$(touch ran)0]"),
        ("--nj", "`touch ran`"),
        ("--names[$(touch ran)0]", "1"),
        ("--scene-rate", "*"),
    ],
)
def test_nothing_in_an_option_is_executed_or_replaced_by_names_of_files(recipe, tmp_path, name, value):
    fresh = copied(recipe, tmp_path / "fresh", "clips_for_all=7\ndownload() { run x x.py $((10 * clips_for_all)); }\n")
    status, output, error = call(fresh, "--dry-run", "--estimate", name, value)
    assert (status, output) == (2, "")
    assert re.fullmatch("error: (option --[a-z-]+ must be a (whole )?number|unknown option --names).*\n", error)
    assert not (fresh.folder / "ran").exists()


def test_a_name_with_an_asterisk_stays_one_word(recipe):
    _, commands = recipe.run("--dry-run", "--stop-stage", 2, "--scene-corpus", "c*", "--tagging-corpus", "conf *")
    assert re.findall(r"--manifests data/(.+?) --out", commands) == ["c\\*", "conf\\ \\*"]


@pytest.mark.parametrize("name", ["recipe.sh", "base/recipe.sh"])
def test_windows_line_ends_are_named(recipe, tmp_path, name):
    fresh = copied(recipe, tmp_path / "fresh")
    (fresh.folder / "base").mkdir()
    shutil.copy(fresh.folder / "recipe.sh", fresh.folder / "base")
    (fresh.folder / "recipe.sh").write_text(f'. "{fresh.folder}/base/recipe.sh"\n')
    file = fresh.folder / name
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    status, output, error = call(fresh, "--dry-run", "--stage", 8)
    assert (status, output, error.count("\n")) == (2, "", 1)
    assert "recipe.sh has Windows line ends" in error
    subprocess.run(["bash", "-c", error.partition("convert it: ")[2]], check=True)
    assert call(fresh, "--dry-run", "--stage", 8)[::2] == (0, "")


def test_paths_are_relative_to_where_they_are_typed(recipe, tmp_path):
    command = recipe.command("--dry-run", "--stage", 1, "--scene-dir", "my scenes/", "--tags-from", "hf:some/model")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert f"tau2019.py {tmp_path}/my\\ scenes data/tau2019" in done.stdout, done.stderr
    assert "--tags-from hf:some/model" in done.stdout


def test_a_taggers_path_is_relative_to_where_it_is_typed_and_its_options_reach_the_program(recipe, tmp_path):
    (tmp_path / "clap").mkdir()
    sources = {
        "onnx:my ced": "onnx:{}/my\\ ced",
        "py:mine.py:Tagger": "py:{}/mine.py:Tagger",
        "clap:clap": "clap:{}/clap",
    }
    for source, expected in sources.items():
        options = ("--tags-from", source, "--tag-options", "--take embedding --short pad", "--activation", "sigmoid")
        command = recipe.command("--dry-run", "--stage", 4, "--stop-stage", 4, *options)
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert f"extract_tags.py --tags-from {expected.format(tmp_path)} --activation sigmoid" in done.stdout, (
            done.stderr
        )
        assert " --take embedding --short pad" in done.stdout


def test_a_recipe_without_scene_networks_ends_before_them(recipe, tmp_path):
    bare = copied(recipe, tmp_path / "bare")
    (bare.folder / "conf/trunk_table1.yaml").unlink()
    assert "use --stop-stage 4" in call(bare, "--stage", 8)[2]


def test_determinism_is_asked_of_every_program_that_may_use_a_gpu(recipe):
    _, commands = recipe.run("--dry-run", "--deterministic")
    asked = {line.split()[0] for line in commands.splitlines() if "--deterministic true" in line}
    assert {"train_tagger.py", "train_tagger_semi.py", "extract_tags.py", "train_scene.py", "extract_codes.py"} <= asked


def test_an_estimate_is_of_what_will_run(recipe):
    status, command = recipe.run("--estimate", "--dry-run", "--nj", 4, "--protocol", "paper", "--final-fit", "all")
    assert status == 0, command
    assert command.count("\n") == 1
    for words in (
        "benchmark.py all",
        "at_once 4",
        "--scene-threads 1",
        "protocol paper --work.final_fit all",
        "own_tagger true",
    ):
        assert words in command
    status, command = recipe.run("--estimate", "--dry-run", "--ngpu", 4, "--tags-from", "hf:a")
    assert "--work.gpus 4 --work.at_once 4" in command
    assert "own_tagger false" in command


@pytest.mark.parametrize(("options", "devices"), [("--ngpu 0", {"cpu"}), ("--ngpu 2", {"cuda"})])
def test_the_device_is_never_guessed(recipe, options, devices):
    _, commands = recipe.run("--dry-run", *options.split())
    assert set(re.findall(r"--device (\S+)", commands)) == devices


def test_a_gpu_that_is_there_is_used(recipe, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: one that torch may not know'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    _, commands, error = call(recipe, "--ngpu", "auto", "--stage", 5, "--dry-run", PATH=path)
    assert "--device cuda " in commands, error


def test_help_lists_stages_and_options_with_their_values(recipe):
    status, text = recipe.run("--help")
    assert status == 0
    text = " ".join(text.split())
    for words in (
        "0 download -> corpora/",
        "5 scenes dump/audio/, dump/tags/ -> exp/<trunk>-<tagger>/scene/<system>/seed<k>/",
        "8 report everything",
        "9 bundle exp/<trunk>-<tagger>/ -> exp/bundle/<system>/",
        "--stop-stage last stage to run; 9 exports the best system [8]",
        "--dry-run print the commands, run nothing [false]",
        "--scene-train training clips of each scene [6]",  # the comment of the recipe that it sources, its own value
    ):
        assert words in text


def test_help_into_a_closed_pipe_runs_nothing(recipe, tmp_path):
    fresh = copied(recipe, tmp_path / "fresh")
    command = f"{shlex.join(fresh.command('--help'))} | head -n 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout.count("\n"), done.stderr) == (2, "")
    assert not (fresh.folder / "exp").exists()


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("egs/*/recipe.sh")))
def test_help_of_every_recipe_has_short_lines_and_explains_each_option(name):
    done = subprocess.run([ROOT / "run.sh", "--recipe", name, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert not re.search(r"(?m)^  --[a-z-]+( +\[.*)?$", done.stdout)


def source_path(python, **environment):
    environment = {**os.environ, "TAGASC_PYTHON": str(python), **environment}
    command = ["bash", "-c", f". '{ROOT}/path.sh'"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stderr.splitlines()


def test_your_own_python_needs_every_package_in_its_least_version(tmp_path):
    assert source_path(sys.executable) == (0, [])
    for package in ("scipy-1.9.3", "matplotlib-3.9", "torch-2.11.0a0+git"):
        (tmp_path / f"{package}.dist-info").mkdir()
        name, version = package.split("-")
        (tmp_path / f"{package}.dist-info/METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    status, (message,) = source_path(sys.executable, PYTHONPATH=str(tmp_path))
    assert status == 1
    assert "lacks scipy 1.15 or newer (found 1.9.3), matplotlib 3.10 or newer (found 3.9); install" in message
    venv.create(tmp_path / "bare")
    status, (message,) = source_path(tmp_path / "bare/bin/python", PYTHONPATH="")
    assert status == 1
    wanted = [re.split(r"\W", line)[0] for line in (ROOT / "requirements.txt").read_text().split()]
    assert [name for name in wanted if name not in message] == []


def test_without_a_gpu_no_step_asks_for_one(recipe, tmp_path):
    fresh = copied(recipe, tmp_path / "fresh", 'cpu_cmd="on_cpu --mem 1G" gpu_cmd="on_gpu --gpu 1"\n')
    prefixes = {ngpu: {} for ngpu in (0, 1)}
    for ngpu, programs in prefixes.items():
        status, commands = fresh.run("--dry-run", "--ngpu", ngpu)
        assert status == 0, commands
        for line in commands.splitlines():
            words = shlex.split(line)
            programs[next(word for word in words if word.endswith(".py"))] = words[0]
    assert set(prefixes[0].values()) == {"on_cpu"}
    assert (prefixes[1]["train_scene.py"], prefixes[1]["score_svm.py"]) == ("on_gpu", "on_cpu")
