"""Options in Kaldi's manner, and the file that translates them."""

import pytest

from tagasc.cluster.options import parse
from tagasc.utils.errors import UserError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(text):
    with open("slurm.conf", "w") as file:
        file.write(text)
    return ["--config", "slurm.conf"]


def test_options_become_those_of_sbatch_and_the_rest_is_the_command():
    given = (
        "--mem 16G --num-threads=8 --gpu 1 --time 1-0 --partition long --leftovers cancel train.py --mem 3 --x".split()
    )
    options = parse(given, "5.scenes")
    assert options.command == ["train.py", "--mem", "3", "--x"]
    assert options.leftovers == "cancel"
    assert options.sbatch[0] == "sbatch"
    wanted = {"--mem=16G", "--cpus-per-task=8", "--gres=gpu:1", "--time=1-0", "--partition=long"}
    assert set(options.sbatch[1:]) == wanted


def test_without_options_a_job_has_one_cpu_and_no_gpu():
    assert parse(["train.py"], "x").sbatch == ["sbatch", "--cpus-per-task=1"]


def test_a_file_of_kaldi_is_read():
    """As in Kaldi's documentation of slurm.pl: values of their own, defaults, no words."""
    given = config(
        """
        command sbatch --export=PATH -p standard # all
        option mem=0
        option mem=* --mem-per-cpu $0
        default gpu=0
        option gpu=0 -p shared
        option gpu=* -p gpu --gres=gpu:$0
        """
    )
    base = ["sbatch", "--export=PATH", "-p", "standard"]
    assert parse([*given, "--mem", "0", "a"], "x").sbatch == [*base, "-p", "shared"]
    assert parse([*given, "--mem", "4G", "--gpu", "2", "a"], "x").sbatch == [
        *base, "-p", "gpu", "--gres=gpu:2", "--mem-per-cpu", "4G",
    ]  # fmt: skip


def test_a_kind_of_step_has_more():
    given = config("option mem=* --mem=$0\noption step=svm --mem=64G")
    assert parse([*given, "--mem", "1G", "a"], "7.svm").sbatch[1:] == ["--mem=1G", "--mem=64G"]
    assert parse([*given, "--mem", "1G", "a"], "5.scenes.0").sbatch[1:] == ["--mem=1G"]


def test_the_recipes_own_file_is_used(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/slurm.conf").write_text("command own")
    assert parse(["a"], "x").sbatch == ["own"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "there is no program"),
        ("--mem", "option --mem needs a value"),
        ("--memory 3 a", "unknown option --memory; add 'option memory="),
        ("--leftovers keep a", "--leftovers must be wait or cancel, not 'keep'"),
        ("--tries 0 a", "--tries must be a number above 0"),
        ("--poll soon a", "--poll must be a number above 0"),
        ("--config none a", "none cannot be read"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message.replace("=", "=.*")):
        parse(options.split(), "x")


@pytest.mark.parametrize("line", ["options mem=*", "option mem", "default gpu", 'option mem=* "--mem'])
def test_a_line_that_is_not_understood_is_named(line):
    with pytest.raises(UserError, match=r"slurm.conf, line 2 is not understood"):
        parse([*config(f"command sbatch\n{line}\n"), "a"], "x")
