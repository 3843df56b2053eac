"""Downloads from a local server that stands in for Zenodo and shows faults on request."""

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
import warnings
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest

from local import archives, zenodo
from tagasc.utils.errors import UserError
from tests.helpers import ROOT, run


class Zenodo:
    """The files of one record, and the faults to show: by file name, how often, or after how many bytes.

    ``failures`` come first, with the status ``code``; then a ``page`` answers once in place of the file.
    """

    def __init__(self):
        self.files, self.ranges, self.sent, self.code, self.headers = {}, True, Counter(), 503, {}
        self.pages, self.asked = {}, []
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
        self.asked.append((name, request.headers.get("Range")))
        if self.failures[name]:
            self.failures[name] -= 1
            request.send_response(self.code)
            for header in self.headers.items():
                request.send_header(*header)
            return request.end_headers()
        time.sleep(self.delays.pop(name, 0))
        content = self.content(name)
        if content is None:
            return request.send_error(404)
        span = request.headers.get("Range") if self.ranges else None
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        if start and name in self.pages:
            kind, content, start = *self.pages.pop(name), 0
            request.send_response(200)
            request.send_header("Content-Type", kind)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            return request.wfile.write(content)
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


def fetch(server, out, options=""):
    settings = f"--record 1 --name Corpus --url {server.url} --timeout 0.5 --wait 0.01 {options}".split()
    return run("local/zenodo.py", "--folder", out / "Corpus", "--holds", "meta.csv audio", *settings)


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
    assert "exists, not downloaded" in again.said
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
        self.response, self.error, self.broken = response, error, False
        self.headers, self.status = response.headers, response.status

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


@pytest.mark.parametrize(
    ("kind", "page"),
    [
        ("text/html", b"<html>down for maintenance</html>" * 20),
        ("text/html; charset=utf-8", bytes(1_200_986)),  # as long as the file
        ("application/octet-stream", b'{"status": 503}'),
        ("application/zip", bytes(2_000_000)),
    ],
)
def test_a_page_in_place_of_the_file_leaves_what_was_received(server, tmp_path, kind, page):
    name = "Corpus.audio.1.zip"
    server.cut_after[name], server.pages[name] = 900_000, (kind, page)
    assert " in place of the file" in " ".join(fetch(server, tmp_path).said.split())
    assert_complete(tmp_path)
    assert [span for asked, span in server.asked if asked == name] == [None, "bytes=900000-", "bytes=900000-"]
    assert server.sent[name] == len(server.files[name])


def test_a_part_is_kept_until_its_successor_is_whole(server, tmp_path):
    """The server cannot resume, and its second answer breaks off too, earlier than the first."""
    name = "Corpus.audio.2.zip"
    server.ranges, server.cut_after[name] = False, 900_000
    assert "received 900000 of" in refused(server, tmp_path, "--tries 1")
    server.cut_after[name] = 100_000
    assert "received 100000 of" in refused(server, tmp_path, "--tries 1")
    assert (tmp_path / f"archives-1/{name}.part").read_bytes() == server.files[name][:900_000]
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


def test_a_part_that_is_longer_than_the_file_is_not_used(server, tmp_path):
    (tmp_path / "archives-1").mkdir()
    (tmp_path / "archives-1/Corpus.meta.zip.part").write_bytes(bytes(5000))
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


@pytest.mark.parametrize(("code", "reason"), [(403, "refused, often for a while"), (429, "too many requests")])
@pytest.mark.parametrize("name", ["1", "Corpus.meta.zip"])
def test_a_busy_server_is_asked_again_and_named_in_the_end(server, tmp_path, code, reason, name):
    server.code, server.failures[name] = code, 4
    message = refused(server, tmp_path, "--tries 2")
    assert f"the server answered {code} ({reason}" in message
    assert "2 times; run the same command again later" in message
    assert "--record" not in message
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


@pytest.mark.parametrize(("asked", "pause"), [("7", 7), ("99999", 600), ("soon", 0.01)])
def test_a_pause_that_the_server_asks_for_is_made(server, tmp_path, monkeypatch, asked, pause):
    pauses, sleep = [], time.sleep
    monkeypatch.setattr(zenodo.time, "sleep", lambda seconds: pauses.append(seconds) or sleep(0))
    server.code, server.headers = 429, {"Retry-After": asked}
    server.failures["1"] = 1
    assert fetch(server, tmp_path).status == 0
    assert [seconds for seconds in pauses if seconds] == [pause]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": ""}, "unsafe name ''"),
        ({"key": "x" * 300 + ".zip"}, "unsafe name 'xxx"),
        ({"key": "a\x1b[2Jb.zip"}, "unsafe name 'a\\x1b[2Jb.zip'"),
        ({"key": ".zip"}, "unsafe name '.zip'"),
        ({"key": None}, "does not describe a Zenodo record"),
        ({"size": -5}, "does not describe a Zenodo record"),
        ({"size": float("inf")}, "does not describe a Zenodo record"),
        ({"size": "12"}, "does not describe a Zenodo record"),
        ({"checksum": None}, "does not describe a Zenodo record"),
        ({"links": {"self": "file:///etc/passwd"}}, "is not a web address"),
        ({"links": {"self": 5}}, "does not describe a Zenodo record"),
        ({"key": "Corpus.audio.2.zip"}, "two files of one name"),
    ],
)
def test_a_record_that_is_not_one_is_refused(server, tmp_path, change, message):
    record = server.record()
    record["files"][0] |= change
    server.record = lambda: record
    assert message in refused(server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_disk_space_is_checked_before_the_download(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=1_234_567))
    assert " needs 2.4 MB more, 1.2 MB are free; free disk space" in refused(server, tmp_path)
    assert not any(name.endswith(".zip") for name in server.sent)


def test_a_download_resumes_after_the_disk_was_full(server, tmp_path):
    """A limit on the file size stands in for a full disk."""
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000)); sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    settings = f"--record 1 --name Corpus --url {server.url} --folder {tmp_path}/Corpus --holds".split()
    command = [sys.executable, "-c", code, str(ROOT / "local/zenodo.py"), *settings, "meta.csv"]
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
        archives.unpack([tmp_path / "x.zip"], tmp_path / "staging", tmp_path / "Corpus", ["a"])
    assert [path.name for path in tmp_path.rglob("*")] == ["x.zip"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "holds no files; delete it"),
        ([("Corpus/", b"")], "holds no files; delete it"),
        ([("__MACOSX/._meta.csv", b"x"), ("Corpus/.DS_Store", b"x")], "holds no files; delete it"),
        ([("meta.csv", b"one"), ("meta.csv", b"two")], "a second, different 'meta.csv'"),
        ([("meta.csv", b"one"), ("./meta.csv", b"more")], "a second, different './meta.csv'"),
        ([("audio", b"x"), ("audio/1.wav", b"y")], "'audio' is both a file and a folder"),
        ([("a/b/c.wav", b"x"), ("a", b"y")], "'a' is both a file and a folder"),
        ([("audio/" + "x" * 300, b"x")], "of over 200 bytes"),
        ([("ä" * 120 + "/1.wav", b"x")], "of over 200 bytes"),
        ([("other.csv", b"x")], "hold no folder with meta.csv and audio"),
        ([("one/meta.csv", b"x"), ("two/audio/1.wav", b"y")], "hold no folder with meta.csv and audio"),
    ],
)
def test_an_archive_that_is_not_the_corpus_is_refused(server, tmp_path, members, message):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle, warnings.catch_warnings(action="ignore"):
        for name, content in members:
            bundle.writestr(name, content)
    server.files = {"Corpus.zip": buffer.getvalue()}
    assert message in refused(server, tmp_path)


def test_archives_of_one_corpus_may_not_contradict_each_other(server, tmp_path):
    readme = {"Corpus/README.md": b"the same in both"}
    server.files["Corpus.meta.zip"] = archive(META | readme)
    server.files["Corpus.doc.zip"] = archive(readme)
    assert fetch(server, tmp_path / "same").status == 0
    assert (tmp_path / "same/Corpus/README.md").read_bytes() == readme["Corpus/README.md"]
    server.files["Corpus.doc.zip"] = archive({"Corpus/README.md": b"another content!"})  # as long
    assert "a second, different 'Corpus/README.md'" in refused(server, tmp_path / "other")


@pytest.mark.parametrize("top", ["", "Corpus/", "corpus-v2/", "data/Corpus/"])
def test_the_corpus_is_found_by_what_it_holds(server, tmp_path, top):
    """Whatever else an archive has at its top: what a desktop left there is dropped, a licence is kept."""
    inner = {f"{top}{name.removeprefix('Corpus/')}": content for name, content in (SOUNDS | META).items()}
    litter = {"__MACOSX/Corpus/._meta.csv": b"\0", ".DS_Store": b"\0", f"{top}audio/Thumbs.db": b"\0"}
    server.files = {"Corpus.zip": archive(litter | inner | {"LICENSE.txt": b"free"})}
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)
    assert sorted(path.name for path in (tmp_path / "Corpus").iterdir()) == ["LICENSE.txt", "audio", "meta.csv"]
    assert len(list((tmp_path / "Corpus/audio").iterdir())) == len(SOUNDS)


def test_a_folder_that_is_there_is_never_downloaded_to(server, tmp_path):
    (tmp_path / "Corpus").mkdir()
    assert "exists, not downloaded; it has no meta.csv and no audio" in fetch(server, tmp_path).said
    (tmp_path / "Corpus").rmdir()
    (tmp_path / "Corpus").write_text("x")
    assert "Corpus is a file; give the corpus's folder" in fetch(server, tmp_path).error
    assert "or a folder called Other to download to" in fetch(server, tmp_path / "new", "--name Other").error
    assert not server.asked


def test_the_scripts_of_the_corpora_download_to_the_folder_that_stage_1_reads(server, tmp_path):
    name = "TAU-urban-acoustic-scenes-2019-development"
    members = {"meta.csv": b"x", "audio/1.wav": b"x", "evaluation_setup/fold1_train.csv": b"x"}
    server.files = {"x.zip": archive({f"{name}/{key}": content for key, content in members.items()})}
    environment = {**os.environ, "TAGASC_PYTHON": sys.executable}
    command = [ROOT / "local/download_tau2019.sh", tmp_path / name, "--delete-archives", "--url", server.url]
    content, server.content = server.content, lambda name: content("1" if name == "2589280" else name)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "meta.csv").exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_member_that_is_the_target_folder_is_skipped(server, tmp_path):
    server.files["Corpus.meta.zip"] = archive({"./": b"", **META})
    assert fetch(server, tmp_path).status == 0
    assert_complete(tmp_path)


@pytest.mark.parametrize("mode", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_archive_is_refused(server, tmp_path, mode):
    content = bytearray(archive({"Corpus/other.csv": bytes(range(256)) * 100}, mode))
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
        patch.setattr(archives.shutil, "which", lambda _: None)
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

    monkeypatch.setattr(archives.shutil, "copyfileobj", interrupted)
    assert fetch(server, tmp_path).status == 130
    assert not (tmp_path / "Corpus").exists()
    assert fetch(server, tmp_path).status == 0
    assert len(calls) == 6 + len(SOUNDS) + 1 - 5
    assert_complete(tmp_path)
