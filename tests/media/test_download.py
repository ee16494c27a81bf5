"""Downloads from a server of our own: what is let through, and everything that is refused."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.media import download as address
from slime_vlm.media import open_image
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
        place = self.path.split("?")[0]
        if place.startswith("/hop/"):
            left = int(place.removeprefix("/hop/"))
            self.answer(302, {"Location": f"/hop/{left - 1}" if left else "/image"})
        elif place == "/inside":
            self.answer(301, {"Location": "http://169.254.169.254/latest"})
        elif place == "/file":
            self.answer(307, {"Location": "file:///etc/hostname"})
        elif place == "/words":
            self.answer(200, {"Content-Type": "image/png"}, b"<html>words</html>" * 9)
        elif place == "/gone":
            self.answer(404, {})
        elif place == "/packed":
            self.answer(200, {"Content-Encoding": "gzip"}, b"x")
        elif place == "/short":
            self.answer(200, {"Content-Length": "999"}, b"x")
        elif place == "/endless":
            self.answer(200, {}, b"x" * 200_000)
        elif place == "/empty":
            self.answer(200, {"Content-Length": "0"})
        elif place == "/silent":
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
            return  # the other side has heard enough

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """A server that the name images.test leads to, and no other name."""
    running = ThreadingHTTPServer((LOCAL, 0), Handler)
    running.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    real = address.public_addresses
    monkeypatch.setattr(
        address, "public_addresses", lambda host, port: [LOCAL] if host == "images.test" else real(host, port)
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


def test_an_image_comes_by_the_checked_address(server, url):
    # Only the resolver knows the name, so a second look at it would fail.
    opened = open_image(f"{url}/a b/ü.png?q=1%20&r=[2]#1", allow_url=True)
    assert (opened.size, opened.getpixel((0, 0))) == ((6, 4), (10, 20, 30))
    path, host = server.seen[0]
    assert path == "/a%20b/%C3%BC.png?q=1%20&r=%5B2%5D"
    assert host == f"images.test:{server.server_port}"


def test_nothing_is_downloaded_without_the_flag(server, url):
    line = failure(f"{url}/image")
    assert line == f"{url}/image: an address; nothing is downloaded without --allow-url"
    assert server.seen == []


def test_five_redirects_and_no_sixth(server, url):
    assert open_image(f"{url}/hop/4", allow_url=True).size == (6, 4)
    assert "more than 5 redirects" in refused(f"{url}/hop/5")


def test_redirects_are_checked_again(server, url):
    assert "169.254.169.254 is not a public one" in refused(f"{url}/inside")
    assert "expected http:// or https://" in refused(f"{url}/file")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("words", "not an image"),
        ("gone", "answers 404"),
        ("packed", "encoded as gzip"),
        ("short", "broke off after 1 of 999 bytes"),
        ("empty", "nothing came"),
    ],
)
def test_bad_answers(server, url, place, words):
    line = refused(f"{url}/{place}")
    assert line.startswith(f"{url}/{place}: ")
    assert words in line


def test_the_size_limit_with_and_without_a_length(server, url):
    assert "and 0.0 MB are on offer; raise it with --max-download" in refused(f"{url}/image", max_download=20)
    assert "and more is on offer" in refused(f"{url}/endless", max_download=100_000)


def test_a_silent_server_and_a_slow_one(server, url, monkeypatch):
    monkeypatch.setattr(address, "SILENCE_SECONDS", 0.2)
    assert "said nothing for 0.2 seconds" in refused(f"{url}/silent")
    monkeypatch.setattr(address, "TOTAL_SECONDS", -1.0)
    assert "took longer" in refused(f"{url}/endless")


def test_https_wants_a_certificate_of_the_name(server, url):
    assert "cannot be downloaded" in refused(f"{url}/image".replace("http://", "https://"))


def test_a_closed_port(tmp_path):
    with socket.socket() as free:
        free.bind((LOCAL, 0))
        port = free.getsockname()[1]
    with pytest.raises(MediaError, match="cannot be downloaded"):
        address.download(f"http://images.test:{port}/", tmp_path / "a", resolve=lambda *_: [LOCAL])


@pytest.mark.parametrize(
    "spec",
    ["ftp://images.test/a.png", "file:///etc/hostname", "http://", "http://a:b/", "http:///a.png", "http://[::1/"],
)
def test_what_is_no_address_to_download_from(spec):
    assert "expected http:// or https:// and a host" in refused(spec)


def test_user_names_are_refused_and_not_repeated():
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
def test_hosts_inside_are_refused(host):
    assert "is not a public one" in refused(f"http://{host}/a.png")


INSIDE_V4 = "127.0.0.1 10.0.0.1 100.64.0.1 169.254.1.1 192.0.2.1 224.0.0.1 240.0.0.1 255.255.255.255 0.0.0.0"
INSIDE_V6 = ":: ::1 fe80::1 fc00::1 fec0::1 ff02::1 2001:db8::1"
V4_WITHIN_V6 = "::ffff:8.8.8.8 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::1 2001:0:1::1"


@pytest.mark.parametrize("found", f"{INSIDE_V4} {INSIDE_V6} {V4_WITHIN_V6}".split())
def test_addresses_that_are_not_public(found):
    assert not address.is_public(found)


@pytest.mark.parametrize("found", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_addresses_that_are(found):
    assert address.is_public(found)


def test_one_address_inside_refuses_the_host(monkeypatch):
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, 80)) for found in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    assert "10.0.0.1 is not a public one" in refused("http://images.test/a.png")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers[:1] * 2)
    assert address.public_addresses("images.test", 80) == ["8.8.8.8"]


def test_an_unknown_host(monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert refused("http://nowhere.test/a.png") == "nowhere.test: no such host; check the address"
