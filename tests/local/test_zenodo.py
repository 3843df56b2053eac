"""Downloads from a local server that stands in for Zenodo and shows faults on request."""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest

from local import zenodo
from tagasc.utils.errors import UserError
from tests.helpers import ROOT, run


class Zenodo:
    """The files of one record, and the faults to show: by file name, how often, or after how many bytes."""

    def __init__(self):
        self.files, self.ranges, self.sent = {}, True, Counter()
        self.cut_after, self.failures, self.delays, self.wrong = {}, Counter(), {}, Counter()
        handler = type(
            "Handler",
            (BaseHTTPRequestHandler,),
            {"do_GET": lambda request: self.respond(request), "log_message": lambda *_: None},
        )
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def record(self):
        checksum = lambda content: f"md5:{hashlib.md5(content).hexdigest()}"
        link = lambda name: {"self": f"{self.url}/files/{name}"}
        return {
            "files": [
                {"key": name, "size": len(content), "checksum": checksum(content), "links": link(name)}
                for name, content in self.files.items()
            ]
        }

    def content(self, name):
        if self.wrong[name]:
            self.wrong[name] -= 1
            return bytes(len(self.files[name]))
        return json.dumps(self.record()).encode() if name == "1" else self.files.get(name)

    def respond(self, request):
        name = request.path.rsplit("/", 1)[1]
        if self.failures[name]:
            self.failures[name] -= 1
            return request.send_error(503)
        time.sleep(self.delays.pop(name, 0))
        content = self.content(name)
        if content is None:
            return request.send_error(404)
        span = request.headers.get("Range") if self.ranges else None
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        piece = content[start : start + self.cut_after.pop(name, len(content))]
        self.sent[name] += len(piece)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            request.wfile.write(piece)


def archive(members, mode=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", mode) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


SOUNDS = {f"Corpus/audio/{n}.wav": os.urandom(300_000) for n in range(8)}
META = {"Corpus/meta.csv": b"filename\tscene_label\n"}


@pytest.fixture
def server():
    zenodo_server = Zenodo()
    names = list(SOUNDS)
    zenodo_server.files = {
        "Corpus.audio.1.zip": archive({name: SOUNDS[name] for name in names[:4]}),
        "Corpus.audio.2.zip": archive({name: SOUNDS[name] for name in names[4:]}),
        "Corpus.meta.zip": archive(META),
    }
    yield zenodo_server
    zenodo_server.server.shutdown()
    socket.setdefaulttimeout(None)


def fetch(server, out, options=""):
    settings = f"--record 1 --name Corpus --url {server.url} --timeout 0.5 --wait 0.01 {options}".split()
    return run("local/zenodo.py", "--out", out, *settings)


def refused(server, out, options=""):
    """The error of a fetch that fails and leaves no corpus."""
    outcome = fetch(server, out, options)
    assert outcome.status == 1
    assert not (out / "Corpus").exists()
    return outcome.error


def assert_complete(out):
    for name, content in (SOUNDS | META).items():
        assert (out / name).read_bytes() == content
    assert sorted(path.name for path in out.iterdir()) == ["Corpus", "archives-1"]


def test_a_record_is_downloaded_checked_and_unpacked_once(server, tmp_path):
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)
    again = fetch(server, tmp_path, "--delete-archives")
    assert "not downloaded again" in again.said
    assert {name: server.sent[name] for name in server.files} == {n: len(c) for n, c in server.files.items()}
    assert not (tmp_path / "archives-1").exists()


@pytest.mark.parametrize("cut", [0, 1, 100_000, 1_199_999])
def test_a_lost_connection_is_resumed(server, tmp_path, cut):
    server.cut_after["Corpus.audio.1.zip"] = cut
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)
    assert server.sent["Corpus.audio.1.zip"] == len(server.files["Corpus.audio.1.zip"])


class Breaking:
    """A response whose connection breaks after the first piece."""

    def __init__(self, response, error):
        self.response, self.error, self.headers, self.broken = response, error, response.headers, False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.response.close()

    def read(self, size):
        if self.error and self.broken:
            raise self.error
        self.broken = True
        return self.response.read(size)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "violation of protocol"),
        (ssl.SSLError(1, "bad record"), "bad record"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), None),
    ],
)
def test_network_errors_are_retried_and_a_full_disk_is_not(server, tmp_path, monkeypatch, error, message):
    errors = iter([None, error])  # the record, then the first archive
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: Breaking(urlopen(*a, **k), next(errors, None)))
    outcome = fetch(server, tmp_path)
    if message is None:
        assert "the disk is full" in outcome.error
        assert "follows" not in outcome.said
    else:
        assert f"{message}; try 2 of 5 follows" in " ".join(outcome.said.split())
        assert_complete(tmp_path)


def test_a_server_without_ranges_sends_the_file_again(server, tmp_path):
    server.ranges = False
    server.cut_after["Corpus.audio.1.zip"] = 100_000
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


@pytest.mark.parametrize("name", ["1", "Corpus.audio.2.zip"])
def test_server_errors_are_retried_a_limited_number_of_times(server, tmp_path, name):
    server.failures[name] = 4
    message = refused(server, tmp_path, "--tries 3")
    assert "the server answered 503, 3 times; run the same command again later" in message
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


def test_a_silent_server_is_tried_again(server, tmp_path):
    server.delays["Corpus.audio.2.zip"] = 1
    assert "try 2 of 5 follows" in fetch(server, tmp_path).said
    assert_complete(tmp_path)


def test_a_wrong_checksum_is_refused_after_a_second_download(server, tmp_path):
    server.wrong["Corpus.audio.1.zip"] = 3
    assert "wrong checksum after two downloads" in refused(server, tmp_path)
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


@pytest.mark.parametrize("option", ["tries 0", "timeout -1", "timeout 0", "timeout .nan", "wait -1", "wait .inf"])
def test_tries_and_times_out_of_range_are_refused(server, tmp_path, option):
    assert f"--{option.split()[0]} " in refused(server, tmp_path / "out", f"--{option}")
    assert not (tmp_path / "out").exists()


def test_unknown_records_and_unsafe_names_are_refused(server, tmp_path):
    assert "the server answered 404; check --record" in refused(server, tmp_path, "--record 7")
    assert "check --url" in refused(server, tmp_path, "--url file:///tmp")
    server.files["../evil.zip"] = b"x"
    assert "unsafe name" in refused(server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_disk_space_is_checked_before_the_download(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(zenodo.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    assert "0.0 GB more, 0.0 GB are free; free disk space" in refused(server, tmp_path)
    assert not any(name.endswith(".zip") for name in server.sent)


def test_a_download_resumes_after_the_disk_was_full(server, tmp_path):
    """A limit on the file size stands in for a full disk."""
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000)); sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    settings = f"--record 1 --name Corpus --url {server.url} --out".split()
    command = [sys.executable, "-c", code, str(ROOT / "local/zenodo.py"), *settings, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "free some space and run the same command again" in result.stderr
    assert not (tmp_path / "Corpus").exists()
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)
    assert server.sent["Corpus.audio.1.zip"] < 2 * len(server.files["Corpus.audio.1.zip"])


LINK = zipfile.ZipInfo("Corpus/link")
LINK.external_attr = 0o120777 << 16
OUTSIDE = ("../evil", "/tmp/evil", "Corpus/../../evil", "C:evil", "./C:evil", "a\\..\\evil", ".")


@pytest.mark.parametrize(
    ("members", "mode", "message"),
    [
        *(({name: b"evil"}, zipfile.ZIP_STORED, "outside the target folder") for name in OUTSIDE),
        ({LINK: b"/etc/passwd"}, zipfile.ZIP_STORED, "which is not a regular file"),
        ({"Corpus/zeros": bytes(20_000_000)}, zipfile.ZIP_DEFLATED, "over 100 times its size"),
    ],
    ids=[*OUTSIDE, "link", "bomb"],
)
def test_unsafe_archives_are_refused(tmp_path, members, mode, message):
    (tmp_path / "x.zip").write_bytes(archive(members, mode))
    with pytest.raises(UserError, match=message):
        zenodo._unpack([tmp_path / "x.zip"], tmp_path / "staging", tmp_path / "Corpus")
    assert [path.name for path in tmp_path.rglob("*")] == ["x.zip"]


def test_a_member_that_is_the_target_folder_is_skipped(server, tmp_path):
    server.files["Corpus.meta.zip"] = archive({"./": b"", **META})
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


@pytest.mark.parametrize("mode", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_archive_is_refused(server, tmp_path, mode):
    content = bytearray(archive({"Corpus/meta.csv": bytes(range(256)) * 100}, mode))
    content[60:64] = b"\xff" * 4
    server.files["Corpus.audio.1.zip"] = bytes(content)
    assert "cannot be unpacked" in refused(server, tmp_path)


@pytest.mark.skipif(shutil.which("zip") is None, reason="the program zip is not installed")
def test_a_split_archive_is_joined_by_zip(server, tmp_path, monkeypatch):
    folder = tmp_path / "source"
    (folder / "Corpus/audio").mkdir(parents=True)
    for name, content in SOUNDS.items():
        (folder / name).write_bytes(content)
    subprocess.run(["zip", "-q", "-0", "-r", "-s", "1m", "noisy.zip", "Corpus"], cwd=folder, check=True)
    parts = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {"noisy.z01", "noisy.z02", "noisy.zip"} <= parts.keys()
    server.files = {"Corpus.meta.zip": archive(META), **parts}
    with monkeypatch.context() as patch:
        patch.setattr(zenodo.shutil, "which", lambda _: None)
        assert "the program zip is missing; install zip" in refused(server, tmp_path / "out")
    assert fetch(server, tmp_path / "out").status == 0
    assert_complete(tmp_path / "out")


def test_an_interrupted_unpacking_is_resumed(server, tmp_path, monkeypatch):
    copy, calls = shutil.copyfileobj, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt
        copy(*arguments)

    monkeypatch.setattr(zenodo.shutil, "copyfileobj", interrupted)
    assert fetch(server, tmp_path).status == 130
    assert not (tmp_path / "Corpus").exists()
    assert fetch(server, tmp_path).status == 0
    assert len(calls) == 6 + len(SOUNDS) + 1 - 5
    assert_complete(tmp_path)
