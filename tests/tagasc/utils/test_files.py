import errno
import os
import subprocess
import zipfile

import numpy as np
import pytest
import torch

from tagasc.report.figures import plt, save_figure
from tagasc.training.weights import save_weights
from tagasc.utils import temporary
from tagasc.utils.errors import UserError
from tagasc.utils.files import atomic_folder, delete_own, digest, read_json, read_npz, write_json, write_npz
from tagasc.utils.limits import describe_limit
from tagasc.utils.temporary import temporary_path
from tagasc.utils.yaml_files import read_yaml
from tests.helpers import run


def test_a_folder_is_replaced_if_it_holds_only_what_its_program_writes(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("old.npz", ".123.temporary.npz", "provenance.json"):
        (tmp_path / "out" / name).touch()
    with atomic_folder(tmp_path / "out", "*.npz", "provenance.json") as folder:
        (folder / "new.npz").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new.npz"]


def test_a_folder_with_other_files_is_neither_replaced_nor_deleted(tmp_path):
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(UserError, match=r"holds thesis\.tex, which this program did not write"):
        delete_own(tmp_path, "*.npz")
    with (
        pytest.raises(UserError, match="move it away, or choose another folder"),
        atomic_folder(tmp_path, "*.npz") as folder,
    ):
        (folder / "new.npz").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "out").write_text("text")
    with pytest.raises(UserError, match="is a file, and a folder is needed"), atomic_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "text"


@pytest.mark.parametrize("shape", ["(100000000000,)", "(9, 99999999999)", "(0,)"])
def test_an_npz_whose_header_does_not_fit_its_size_is_damaged(tmp_path, shape):
    """A header of 10^11 rows must not be believed, since memory is reserved for them."""
    path = tmp_path / "tags.npz"
    np.savez(path, values=np.zeros(3, np.float32))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("values.npy")
    header = content[:128].replace(b"(3,)", shape.encode(), 1).rstrip()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("values.npy", header.ljust(127) + b"\n" + content[128:])
    with pytest.raises(
        UserError, match=r"tags\.npz is damaged or not an \.npz file .*does not fit its size.*; run stage 4"
    ):
        read_npz(path, ("values",), "stage 4 (tags)")
    with pytest.raises(UserError, match="is damaged"):
        digest(path)


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(temporary, "to_disk", lambda path: flushed.append((path, (tmp_path / "x.json").exists())))
    write_json(tmp_path / "x.json", {"a": 1})
    (file, renamed), last = flushed
    assert (file.parent, renamed) == (tmp_path, False)
    assert last == (tmp_path, True)
    assert not file.exists()


def test_temporary_names_differ_between_computers_processes_and_calls(tmp_path, monkeypatch):
    names = {temporary_path(tmp_path / "x.npz").name for _ in range(3)}
    monkeypatch.setattr(temporary, "_HOST", "node2")
    names.add(temporary_path(tmp_path / "x.npz").name)
    assert len(names) == 4
    assert all(name.startswith(".tmp.") and name.endswith(".x.npz") and str(os.getpid()) in name for name in names)


def test_leftovers_of_a_killed_attempt_at_a_folder_are_deleted(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = tmp_path / f".tmp.{os.uname().nodename[:24]}.{ended.pid}.0a1b2c3d.out"
    (left / "deep").mkdir(parents=True)
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("write", ["json", "npz", "weights", "figure"])
def test_a_full_disk_is_named_whoever_writes(tmp_path, monkeypatch, write, number):
    """Nothing is left behind, and the file that was there stays."""
    path = tmp_path / {"json": "x.json", "npz": "x.npz", "weights": "x.safetensors", "figure": "x.png"}[write]
    path.write_text("before")
    writers = {
        "json": lambda: write_json(path, {"a": 1}),
        "npz": lambda: write_npz(path, {}, a=np.zeros(9)),
        "weights": lambda: save_weights(path, {"a": torch.zeros(9)}, {}),
        "figure": lambda: save_figure(plt.figure(), path),
    }

    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(temporary, "to_disk", full)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        writers[write]()
    message = describe_limit(error.value)
    assert message.startswith(f"{path}: ")
    assert "free some space and run the same command again" in message
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "before")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/x"), "/x: too many files are open; raise the limit (ulimit -n)"),
        (MemoryError(), "the memory is full"),
        (np.exceptions.DTypePromotionError("no"), None),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "the memory is full"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "the memory is full"),
        (RuntimeError("can't start new thread"), "the limit of processes is reached"),
        (FileExistsError(errno.EEXIST, "File exists", "corpora"), "corpora: something else has this name, perhaps a link"),
        (ValueError("cannot allocate memory"), None),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_named(error, said):
    message = describe_limit(error)
    assert message is None if said is None else message.startswith(said)


def test_json_that_changed_is_damaged(tmp_path):
    write_json(tmp_path / "x.json", {"accuracy": 0.75, "name": "forêt", "rows": [1, 2.5, None]})
    assert read_json(tmp_path / "x.json", "") == {"accuracy": 0.75, "name": "forêt", "rows": [1, 2.5, None]}
    text = (tmp_path / "x.json").read_text()
    for changed in (text.replace("0.75", "0.76"), text.replace("forêt", "foret"), text[:-20], "[" * 100_000, ""):
        (tmp_path / "x.json").write_text(changed)
        with pytest.raises(UserError, match=r"x\.json is damaged \(.*\); run stage 9 again"):
            read_json(tmp_path / "x.json", "stage 9")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 12)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize("text", [BOMB, "[" * 100_000, "# " + "x" * 2**21, "a: " + "{b: " * 60 + "1" + "}" * 60])
def test_yaml_beyond_the_limits_is_refused_by_every_reader(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=r"x\.yaml is not valid YAML: (it has|while)"):
        read_yaml(tmp_path / "x.yaml", "")
    outcome = run("steps/train_scene.py", "--audio", tmp_path, "--out", tmp_path, "--training", tmp_path / "x.yaml")
    assert outcome.status == 2
    assert "it has" in outcome.error
