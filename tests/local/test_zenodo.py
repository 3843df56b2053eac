"""Downloads from a server on the loopback that plays Zenodo's part, and misbehaves as told."""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest

from local import zenodo
from tests.helpers import ROOT, run


class Zenodo:
    """Files of one record, and how to misbehave."""

    def __init__(self):
        self.files, self.cut_after, self.failures, self.delays, self.wrong, self.sent = {}, {}, {}, {}, {}, {}
        self.ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def record(self):
        return {
            "files": [
                {
                    "key": name,
                    "size": len(content),
                    "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                    "links": {"self": f"{self.url}/files/{name}"},
                }
                for name, content in self.files.items()
            ]
        }

    def answer(self, request):
        name = request.path.rsplit("/", 1)[1]
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            request.send_error(503)
            return
        if self.delays.pop(name, None):
            time.sleep(2)
        if request.path == "/api/records/1":
            content, start = json.dumps(self.record()).encode(), 0
        elif name in self.files:
            content = self.files[name]
            if self.wrong.get(name, 0) > 0:
                self.wrong[name] -= 1
                content = bytes(len(content))
            asked = request.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        else:
            request.send_error(404)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        end = start + self.cut_after.pop(name, len(content))
        self.sent[name] = self.sent.get(name, 0) + len(content[start:end])
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            request.wfile.write(content[start:end])


def archive(members, mode=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", mode) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


SOUNDS = {f"Corpus/audio/{n}.wav": os.urandom(300_000) for n in range(8)}


@pytest.fixture
def server():
    zenodo_server = Zenodo()
    names = list(SOUNDS)
    zenodo_server.files = {
        "Corpus.audio.1.zip": archive({name: SOUNDS[name] for name in names[:4]}),
        "Corpus.audio.2.zip": archive({name: SOUNDS[name] for name in names[4:]}),
        "Corpus.meta.zip": archive({"Corpus/meta.csv": b"filename\tscene_label\n"}),
    }
    yield zenodo_server
    zenodo_server.server.shutdown()


def fetch(server, out, *options):
    settings = ("--record", 1, "--out", out, "--name", "Corpus", "--url", server.url, "--timeout", 1, "--wait", 0.01)
    return run("local/zenodo.py", *settings, *options)


def assert_whole(out):
    for name, content in {**SOUNDS, "Corpus/meta.csv": b"filename\tscene_label\n"}.items():
        assert (out / name).read_bytes() == content
    assert sorted(path.name for path in out.iterdir()) == ["Corpus", "archives-1"]


def assert_not_whole(out):
    assert not (out / "Corpus").exists()


def test_a_record_is_fetched_checked_and_unpacked_once(server, tmp_path):
    assert fetch(server, tmp_path).status == 0
    assert_whole(tmp_path)
    assert {name: server.sent[name] for name in server.files} == {n: len(c) for n, c in server.files.items()}
    again = fetch(server, tmp_path, "--delete-archives")
    assert "already there" in again.said
    assert {name: server.sent[name] for name in server.files} == {n: len(c) for n, c in server.files.items()}
    assert not (tmp_path / "archives-1").exists()


@pytest.mark.parametrize("cut", [0, 1, 100_000, 1_199_999])
def test_a_lost_connection_is_taken_up_where_it_broke(server, tmp_path, cut):
    server.cut_after["Corpus.audio.1.zip"] = cut
    assert fetch(server, tmp_path).status == 0
    assert_whole(tmp_path)
    assert server.sent["Corpus.audio.1.zip"] == len(server.files["Corpus.audio.1.zip"])


class Breaking:
    """An answer whose connection breaks after the first piece."""

    def __init__(self, answer, error):
        self.answer, self.error, self.status, self.broken = answer, error, answer.status, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answer.close()

    def read(self, size):
        if self.error is None:
            return self.answer.read(size)
        if self.broken:
            raise self.error
        self.broken = True
        return self.answer.read(1000)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "violation of protocol"),
        (ssl.SSLError(1, "bad record"), "bad record"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
    ],
)
def test_a_connection_that_breaks_while_reading_is_taken_up(server, tmp_path, monkeypatch, error, said):
    errors = iter([None, error])  # the record, then the first archive
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: Breaking(urlopen(*a, **k), next(errors, None)))
    outcome = fetch(server, tmp_path)
    assert outcome.status == 0
    assert f"{said}; try 2 of 5 follows" in " ".join(outcome.said.split())
    assert_whole(tmp_path)


def test_a_full_disk_is_not_tried_again(server, tmp_path, monkeypatch):
    errors = iter([None, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: Breaking(urlopen(*a, **k), next(errors, None)))
    outcome = fetch(server, tmp_path)
    assert "the disk is full" in outcome.error
    assert "follows" not in outcome.said


def test_a_server_without_ranges_is_asked_anew(server, tmp_path):
    server.ranges = False
    server.cut_after["Corpus.audio.1.zip"] = 100_000
    assert fetch(server, tmp_path).status == 0
    assert_whole(tmp_path)


@pytest.mark.parametrize("name", ["1", "Corpus.audio.2.zip"])
def test_server_errors_are_waited_out_but_not_for_ever(server, tmp_path, name):
    server.failures[name] = 2
    assert fetch(server, tmp_path / "a").status == 0
    server.failures[name] = 100
    outcome = fetch(server, tmp_path / "b", "--tries", 3)
    assert outcome.status == 1
    assert "the server answered 503, 3 times; run the same command again later" in outcome.error
    assert_not_whole(tmp_path / "b")
    server.failures[name] = 0
    assert fetch(server, tmp_path / "b").status == 0
    assert_whole(tmp_path / "b")


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path):
    server.delays["Corpus.audio.2.zip"] = True
    outcome = fetch(server, tmp_path)
    assert outcome.status == 0
    assert "try 2 of 5 follows" in outcome.said
    assert_whole(tmp_path)


def test_a_wrong_checksum_is_fetched_once_more_then_refused(server, tmp_path):
    server.wrong["Corpus.audio.1.zip"] = 1
    assert fetch(server, tmp_path / "a").status == 0
    assert_whole(tmp_path / "a")
    server.wrong["Corpus.audio.1.zip"] = 2
    outcome = fetch(server, tmp_path / "b")
    assert outcome.status == 1
    assert "came twice with a checksum other than the record's" in outcome.error
    assert_not_whole(tmp_path / "b")
    assert fetch(server, tmp_path / "b").status == 0
    assert_whole(tmp_path / "b")


@pytest.mark.parametrize(
    ("option", "value"),
    [("tries", 0), ("timeout", -1), ("timeout", 0), ("timeout", ".nan"), ("wait", -1), ("wait", ".inf")],
)
def test_tries_and_times_out_of_range_are_refused(server, tmp_path, option, value):
    assert f"--{option} " in fetch(server, tmp_path / "out", f"--{option}", value).error
    assert not (tmp_path / "out").exists()


def test_a_record_that_does_not_exist(server, tmp_path):
    outcome = run("local/zenodo.py", "--record", 7, "--out", tmp_path, "--name", "Corpus", "--url", server.url)
    assert outcome.status == 1
    assert "the server answered 404; check the record's number" in outcome.error


def test_too_little_disk_is_said_before_anything_is_fetched(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(zenodo.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    outcome = fetch(server, tmp_path)
    assert outcome.status == 1
    assert "0.0 GB more and 0.0 GB are free; free some space" in outcome.error
    assert not any(name.endswith(".zip") for name in server.sent)


def test_a_disk_that_fills_up_leaves_a_state_to_go_on_from(server, tmp_path):
    """A real full disk: file sizes limited to what an archive needs at most, less than the whole."""
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000)); sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    settings = ["--record", "1", "--out", str(tmp_path), "--name", "Corpus", "--url", server.url]
    command = [sys.executable, "-c", code, str(ROOT / "local/zenodo.py"), *settings]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "free some space and run the same command again" in done.stderr
    assert_not_whole(tmp_path)
    assert fetch(server, tmp_path).status == 0
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "Corpus/../../evil", "C:evil", "./C:evil", "a\\..\\evil", "."]
)
def test_a_member_outside_the_target_is_refused(server, tmp_path, name):
    server.files["Corpus.meta.zip"] = archive({name: b"evil"})
    outcome = fetch(server, tmp_path / "deep")
    assert outcome.status == 1
    assert "outside the target" in outcome.error
    assert not list(tmp_path.rglob("*evil*"))
    assert_not_whole(tmp_path / "deep")


def test_a_link_in_an_archive_is_refused(server, tmp_path):
    link = zipfile.ZipInfo("Corpus/link")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr(link, "/etc/passwd")
    server.files["Corpus.meta.zip"] = buffer.getvalue()
    assert "which is no plain file" in fetch(server, tmp_path).error


def test_an_archive_bomb_is_refused(server, tmp_path):
    server.files["Corpus.meta.zip"] = archive({"Corpus/zeros": bytes(200_000_000)}, zipfile.ZIP_DEFLATED)
    assert "far beyond its size" in fetch(server, tmp_path).error
    assert_not_whole(tmp_path)


def test_a_file_name_of_the_record_cannot_lead_elsewhere(server, tmp_path):
    server.files["../evil.zip"] = b"x"
    assert "unsafe name" in fetch(server, tmp_path / "deep").error
    assert not (tmp_path / "deep").exists()


def test_a_member_that_is_the_target_itself_is_no_file(server, tmp_path):
    server.files["Corpus.meta.zip"] = archive({"./": b"", "Corpus/meta.csv": b"filename\tscene_label\n"})
    assert fetch(server, tmp_path).status == 0
    assert_whole(tmp_path)


@pytest.mark.parametrize("mode", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_archive_is_one_clear_line(server, tmp_path, mode):
    content = bytearray(archive({"Corpus/meta.csv": bytes(range(256)) * 100}, mode))
    content[60:64] = b"\xff" * 4
    server.files["Corpus.audio.1.zip"] = bytes(content)
    assert "cannot be unpacked" in fetch(server, tmp_path).error
    assert_not_whole(tmp_path)


@pytest.fixture
def split(server, tmp_path):
    """A record with a split archive, as the noisy set is published."""
    if shutil.which("zip") is None:
        pytest.skip("the program zip is not installed")
    folder = tmp_path / "made"
    (folder / "Corpus/audio").mkdir(parents=True)
    for name, content in SOUNDS.items():
        (folder / name).write_bytes(content)
    subprocess.run(["zip", "-q", "-0", "-r", "-s", "1m", "noisy.zip", "Corpus"], cwd=folder, check=True)
    parts = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {"noisy.z01", "noisy.z02", "noisy.zip"} <= parts.keys()
    server.files = {"Corpus.meta.zip": server.files["Corpus.meta.zip"], **parts}
    return server


def test_a_split_archive_is_joined(split, tmp_path):
    assert fetch(split, tmp_path / "out").status == 0
    assert_whole(tmp_path / "out")


def test_without_the_program_zip_one_line_says_so(split, tmp_path, monkeypatch):
    which = shutil.which
    monkeypatch.setattr(zenodo.shutil, "which", lambda name: None if name == "zip" else which(name))
    assert "the program zip is missing; install zip" in fetch(split, tmp_path / "out").error
    monkeypatch.undo()
    assert fetch(split, tmp_path / "out").status == 0
    assert_whole(tmp_path / "out")


def test_an_interrupted_unpacking_goes_on(server, tmp_path, monkeypatch):
    copy, calls = shutil.copyfileobj, []

    def broken(*arguments):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(arguments)
        return copy(*arguments)

    monkeypatch.setattr(zenodo.shutil, "copyfileobj", broken)
    assert fetch(server, tmp_path).status == 130
    assert_not_whole(tmp_path)
    counted = []
    monkeypatch.setattr(zenodo.shutil, "copyfileobj", lambda *a: counted.append(a) or copy(*a))
    assert fetch(server, tmp_path).status == 0
    assert len(counted) == len(SOUNDS) + 1 - 5
    assert_whole(tmp_path)
