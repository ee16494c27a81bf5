"""Downloads from a local test server: what is accepted, and everything that is refused."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import download, open_image
from tests.media.failing import failure

LOCAL = "127.0.0.1"


def make_image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (10, 20, 30)).save(file, "PNG")
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        seen: list = self.server.seen  # type: ignore[attr-defined]
        seen.append((self.path, self.headers["Host"]))
        path = self.path.split("?")[0]
        if path.startswith("/hop/"):
            left = int(path.removeprefix("/hop/"))
            self.answer(302, {"Location": f"/hop/{left - 1}" if left else "/image"})
        elif path == "/inside":
            self.answer(301, {"Location": "http://169.254.169.254/latest"})
        elif path == "/file":
            self.answer(307, {"Location": "file:///etc/hostname"})
        elif path == "/words":
            self.answer(200, {"Content-Type": "image/png"}, b"<html>words</html>" * 9)
        elif path == "/gone":
            self.answer(404, {})
        elif path == "/packed":
            self.answer(200, {"Content-Encoding": "gzip"}, b"x")
        elif path == "/short":
            self.answer(200, {"Content-Length": "999"}, b"x")
        elif path == "/endless":
            self.answer(200, {}, b"x" * 200_000)
        elif path == "/empty":
            self.answer(200, {"Content-Length": "0"})
        elif path == "/silent":
            threading.Event().wait(1)
        else:
            self.answer(200, {"Content-Type": "text/plain", "Content-Length": str(len(make_image()))}, make_image())

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return  # the client has closed the connection

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """Start a server that only the name images.test resolves to."""
    running = ThreadingHTTPServer((LOCAL, 0), Handler)
    running.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    real = download.public_addresses
    monkeypatch.setattr(
        download, "public_addresses", lambda host, port: [LOCAL] if host == "images.test" else real(host, port)
    )
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def url(server) -> str:
    return f"http://images.test:{server.server_port}"


def refused(spec: str, **options) -> str:
    return failure(spec, allow_url=True, **options)


def test_the_connection_goes_to_the_checked_address(server, url):
    # Only the patched resolver knows the name, so a second resolution would fail.
    opened = open_image(f"{url}/a b/ü.png?q=1%20&r=[2]#1", allow_url=True)
    assert (opened.size, opened.getpixel((0, 0))) == ((6, 4), (10, 20, 30))
    path, host = server.seen[0]
    assert path == "/a%20b/%C3%BC.png?q=1%20&r=%5B2%5D"
    assert host == f"images.test:{server.server_port}"


def test_nothing_is_downloaded_without_the_flag(server, url):
    line = failure(f"{url}/image")
    assert line == f"{url}/image: this is an address; nothing is downloaded without --allow-url"
    assert server.seen == []


def test_at_most_five_redirects(server, url):
    assert open_image(f"{url}/hop/4", allow_url=True).size == (6, 4)
    assert "more than 5 redirects" in refused(f"{url}/hop/5")


def test_redirects_are_checked_too(server, url):
    assert "169.254.169.254 is not public" in refused(f"{url}/inside")
    assert "expected http:// or https://" in refused(f"{url}/file")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("words", "not an image"),
        ("gone", "answers 404"),
        ("packed", "compresses it with gzip"),
        ("short", "the download stopped after 1 of 999 bytes"),
        ("empty", "the download is empty"),
    ],
)
def test_bad_responses_are_refused(server, url, path, words):
    line = refused(f"{url}/{path}")
    assert line.startswith(f"{url}/{path}: ")
    assert words in line


def test_size_limit_with_and_without_content_length(server, url):
    assert "the server offers 0.0 MB, the limit is 2e-05 MB; raise it with --max-download" in refused(
        f"{url}/image", max_download=20
    )
    assert "the server offers more, the limit is 0.1 MB" in refused(f"{url}/endless", max_download=100_000)


def test_silent_and_slow_servers(server, url, monkeypatch):
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.2)
    assert "sent nothing for 0.2 seconds" in refused(f"{url}/silent")
    monkeypatch.setattr(download, "TOTAL_SECONDS", -1.0)
    assert "took longer" in refused(f"{url}/endless")


# What a server sends at once, and what it then sends again and again. Each byte ends a silence.
ENDLESS = {
    "status line": (b"HTTP/1.1 2", b"0"),
    "header": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
    "chunk size": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x", b"y"),
    "trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"A: b\r\n"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: ", b"a"),
    "handshake": (b"\x16\x03\x03\x40\x00", b"\x00"),
}


@pytest.mark.parametrize("part", ENDLESS)
def test_a_server_that_never_ends(part, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "TOTAL_SECONDS", 0.3)
    first, again = ENDLESS[part]
    done = threading.Event()
    with socket.create_server((LOCAL, 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    connection.sendall(first)
                    while not done.wait(0.02):
                        connection.sendall(again)
                except OSError:
                    return  # the client has ended the connection

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        scheme = "https" if part == "handshake" else "http"
        address = f"{scheme}://images.test:{listening.getsockname()[1]}/"
        try:
            with pytest.raises(MediaError, match=r"it took longer than 0\.3 seconds"):
                download.download(address, tmp_path / "a", resolve=lambda *_: [LOCAL])
        finally:
            done.set()
            thread.join(5)


def test_https_needs_a_valid_certificate(server, url):
    assert "cannot be downloaded" in refused(f"{url}/image".replace("http://", "https://"))


def test_closed_port(tmp_path):
    with socket.socket() as free:
        free.bind((LOCAL, 0))
        port = free.getsockname()[1]
    with pytest.raises(MediaError, match="cannot be downloaded"):
        download.download(f"http://images.test:{port}/", tmp_path / "a", resolve=lambda *_: [LOCAL])


@pytest.mark.parametrize(
    "spec",
    ["ftp://images.test/a.png", "file:///etc/hostname", "http://", "http://a:b/", "http:///a.png", "http://[::1/"],
)
def test_malformed_addresses_are_refused(spec):
    assert "expected http:// or https:// and a host" in refused(spec)


def test_user_names_are_refused_and_passwords_not_shown():
    line = refused("http://me:secret@images.test/a.png")
    assert "holds a user name" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::1]",
        "2130706433",
    ],
)
def test_internal_hosts_are_refused(host):
    assert "is not public" in refused(f"http://{host}/a.png")


INTERNAL_V4 = "127.0.0.1 10.0.0.1 100.64.0.1 169.254.1.1 192.0.2.1 224.0.0.1 240.0.0.1 255.255.255.255 0.0.0.0"
INTERNAL_V6 = ":: ::1 fe80::1 fc00::1 fec0::1 ff02::1 2001:db8::1"
HOSTS_OF_CLOUDS = "168.63.129.16 192.0.0.192 192.88.99.1 3fff::1 5f00::1"
V4_EMBEDDED_IN_V6 = "::ffff:8.8.8.8 ::ffff:10.0.0.1 ::8.8.8.8 64:ff9b::a00:1 64:ff9b:1::1 2002:a00:1::1 2001:0:1::1"


@pytest.mark.parametrize("found", f"{INTERNAL_V4} {INTERNAL_V6} {HOSTS_OF_CLOUDS} {V4_EMBEDDED_IN_V6}".split())
def test_internal_addresses_are_not_public(found):
    assert not download.is_public(found)


@pytest.mark.parametrize("found", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_internet_addresses_are_public(found):
    assert download.is_public(found)


def test_one_internal_address_refuses_the_host(monkeypatch):
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, 80)) for found in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    assert "10.0.0.1 is not public" in refused("http://images.test/a.png")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers[:1] * 2)
    assert download.public_addresses("images.test", 80) == ["8.8.8.8"]


def test_unknown_host(monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert refused("http://nowhere.test/a.png") == "nowhere.test: no such host; check the address"
