"""Requests that are refused, limits, time-outs, clients that go, and the end of the server."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from slime_vlm.errors import ConfigError
from slime_vlm.media import download
from slime_vlm.serving.settings import read_settings
from tests.media.test_download import Handler
from tests.robustness import hostile_files
from tests.serving.conftest import Loaded, Running, asking, data_uri, drawn, png, running, wait_until

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert "\n" not in found["message"]
    return found


def with_url(url: str) -> list[Any]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "messages: Field required"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "?"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "?"}], "temperature": 3}, "temperature"),
        ({"messages": [{"role": "user", "content": "?"}], "stop": [""]}, "stop"),
        ({"messages": [{"role": "user", "content": "?"}], "slime": {"max_tile": 1}}, "slime.max_tile"),
        ({"messages": [{"role": "user", "content": "?"}], "slime": {"window": "x"}}, "CENTER/WIDTH"),
        ({"messages": [{"role": "user", "content": "?"}], "slime": {"max_tiles": 9999}}, None),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, None),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(tiny_server: Running, body: Any, words: str | None) -> None:
    response = tiny_server.post_raw({**body, "max_tokens": 1})
    if words is None:
        assert response.status_code in (200, 400)
    else:
        assert words in error(response, 400)["message"]


def test_what_is_no_json_and_what_is_not_there(tiny_server: Running) -> None:
    url = f"{tiny_server.url}/v1/chat/completions"
    assert "JSON" in error(httpx.post(url, content=b"{"), 400)["message"]
    assert "JSON" in error(httpx.post(url, content=b"\xff\xfe"), 400)["message"]
    error(httpx.get(url), 405)
    error(httpx.get(f"{tiny_server.url}/v1/nothing"), 404)


def test_files_of_the_server_and_addresses_are_refused(tiny_server: Running) -> None:
    for url in (str(INVOICE), f"file://{INVOICE}", "/etc/passwd", "C:\\x.png", "", "-", "ftp://example.org/x.png"):
        message = error(tiny_server.post(with_url(url)), 400)["message"]
        assert "data URI" in message
    for url in ("http://127.0.0.1/x.png", "https://example.org/x.png"):
        assert "--allow-url" in error(tiny_server.post(with_url(url)), 400)["message"]
    for url in ("data:image/png,xyz", "data:image/png;base64,***", "data:;base64,", "data:", "data:image/png;base64"):
        error(tiny_server.post(with_url(url)), 400)


def test_addresses_go_through_the_checks_of_downloads(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    real = download.public_addresses

    def resolve(host: str, port: int) -> list[str]:
        return real("10.1.2.3" if host == "inside.test" else host, port)

    monkeypatch.setattr(download, "public_addresses", resolve)
    with running(tiny, allow_url=True) as server:
        for url in (
            "http://127.0.0.1/x",
            "http://[::1]/x",
            "http://2130706433/x",
            "http://0x7f.1/x",
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:10.0.0.1]/x",
            "http://localhost:80/x",
            "http://inside.test/x",
            "https://0.0.0.0/x",
            "http://100.64.0.1/",
        ):
            message = error(server.post(with_url(url)), 400)["message"]
            assert "not public" in message or "no such host" in message, message
        assert "user name" in error(server.post(with_url("http://a:b@example.org/x")), 400)["message"]
        assert "http://" in error(server.post(with_url("file:///etc/passwd")), 400)["message"]


def test_redirects_of_an_address_go_through_the_same_checks(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    host = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=host.serve_forever, args=(0.01,), daemon=True).start()
    real = download.public_addresses
    monkeypatch.setattr(
        download, "public_addresses", lambda name, port: ["127.0.0.1"] if name == "images.test" else real(name, port)
    )
    url = f"http://images.test:{host.server_port}"
    with running(tiny, allow_url=True) as server:
        assert server.post(with_url(f"{url}/hop/1"), max_tokens=1).status_code == 200
        assert "not public" in error(server.post(with_url(f"{url}/inside")), 400)["message"]
        for path in ("file", "words", "gone", "packed", "short", "empty"):
            assert error(server.post(with_url(f"{url}/{path}")), 400)["code"] == "invalid_image"
    host.shutdown()
    host.server_close()


def test_keys(tiny: Loaded, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first\n\nsecond\n")
    with running(tiny, api_key_file=keys, api_keys=["third"]) as server:
        url = f"{server.url}/v1/models"
        for headers in (
            {},
            {"Authorization": "Bearer no"},
            {"Authorization": "Bearer é"},
        ):
            response = httpx.get(url, headers={name: value.encode("latin-1") for name, value in headers.items()})
            assert error(response, 401)["code"] == "invalid_api_key"
        error(server.post(asking("?")), 401)
        error(httpx.get(f"{server.url}/metrics"), 401)
        for key in ("first", "second", "third"):
            assert server.openai(key).models.list().data[0].id == "nano"
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
        assert httpx.get(f"{server.url}/ready").json() == {"status": "ready"}
    keys.write_text(" \n")
    with pytest.raises(ConfigError, match="no API key"):
        read_settings(api_key_file=keys).all_api_keys()
    with pytest.raises(ConfigError, match="SLIME_SERVE_SLOTS"):
        read_settings(slots=0)


def test_other_origins_are_let_in_only_where_told(tiny: Loaded, tiny_server: Running) -> None:
    headers = {"Origin": "https://page.test"}
    assert "access-control-allow-origin" not in httpx.get(f"{tiny_server.url}/health", headers=headers).headers
    with running(tiny, cors_origins=["https://page.test"]) as server:
        answer = httpx.get(f"{server.url}/health", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://page.test"


def test_large_requests(tiny: Loaded) -> None:
    bomb = png_of(50_000, 50_000)
    with running(tiny, max_body_mb=0.05, max_pixels=10_000, max_images=2, max_tiles=4) as server:
        assert "0.05 MB" in error(server.post(asking("x" * 60_000)), 413)["message"]
        # Without a length in the header, too.
        body = iter([b'{"messages": "', b"x" * 60_000])
        error(httpx.post(f"{server.url}/v1/chat/completions", content=body), 413)
        assert "the limit is 0.0 million" in error(server.post(asking("?", drawn("x", 200, 200))), 400)["message"]
        assert "2,500.0 million" in error(server.post(asking("?", bomb)), 400)["message"]
        small = drawn("x", 20, 20)
        assert "3 images" in error(server.post(asking("?", small, small, small)), 400)["message"]
        assert "allows 4" in error(server.post(asking("?", small), slime={"max_tiles": 5}), 400)["message"]


def png_of(height: int, width: int) -> bytes:
    """A PNG of few bytes that says that it is large."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 100)) + part(b"IEND", b"")


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_files_cost_one_request_each(tiny_server: Running, count: int) -> None:
    """Files cut or changed at random places; the few that still decode are answered."""
    generator, whole = random.Random(0), png(drawn("page"))
    statuses = []
    for number in range(count):
        damaged = bytearray(whole)
        if number % 2:
            del damaged[generator.randrange(8, len(damaged) - 20) :]
        else:
            for _ in range(9):
                damaged[generator.randrange(8, len(damaged) - 12)] ^= 1 << generator.randrange(8)
        statuses.append(tiny_server.post(asking("?", bytes(damaged)), max_tokens=1).status_code)
    assert set(statuses) <= {200, 400}
    assert statuses.count(400) > 0.9 * count
    assert tiny_server.post(asking("?", whole), max_tokens=1).status_code == 200


def test_a_decoder_that_dies_costs_one_image(tiny: Loaded) -> None:
    slow = png(drawn("slow", 6000, 6000))
    with running(tiny, decoders=1) as server, ThreadPoolExecutor(2) as pool:
        (pid,) = server.server.decoders.pids
        first = pool.submit(server.post, asking("?", slow), max_tokens=1)
        wait_until(lambda: bool(server.server.images._under_way))
        second = pool.submit(server.post, asking("?", drawn("x")), max_tokens=1)
        time.sleep(0.1)
        os.kill(pid, signal.SIGSEGV)
        assert "has died" in error(first.result(), 400)["message"]
        assert second.result().status_code == 200
        assert server.server.decoders.pids != [pid]
        assert server.counted("lost_decoders") == 1


def test_every_format_is_decoded_in_one_process(tiny: Loaded, tmp_path: Path) -> None:
    drawn("page").save(tmp_path / "page.tif")
    drawn("page").save(tmp_path / "page.pdf")
    with running(tiny, decoders=1) as server:
        pids = server.server.decoders.pids
        for name in ("page.tif", "page.pdf"):
            assert server.post(asking("?", (tmp_path / name).read_bytes()), max_tokens=1).status_code == 200
        assert server.server.decoders.pids == pids
        assert Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text() == ""


def test_a_codec_that_crashes_costs_one_request(tiny: Loaded, tmp_path: Path) -> None:
    # Megabytes of compressed strips, which take the codec of TIFF a while.
    drawn("slow", 6000, 6000).save(tmp_path / "slow.tif", compression="tiff_lzw")
    with running(tiny, decoders=1) as server, ThreadPoolExecutor(1) as pool:
        (pid,) = server.server.decoders.pids
        first = pool.submit(server.post, asking("?", (tmp_path / "slow.tif").read_bytes()), max_tokens=1)
        wait_until(lambda: bool(server.server.images._under_way))
        time.sleep(0.05)
        os.kill(pid, signal.SIGSEGV)
        assert "has died" in error(first.result(), 400)["message"]
        assert server.post(asking("?", drawn("x")), max_tokens=1).status_code == 200
        assert server.counted("lost_decoders") == 1


def test_a_decoder_without_memory_is_replaced_before_the_next_image(tiny: Loaded, tmp_path: Path) -> None:
    hostile_files.HOSTILE_FILES["deflated.dcm"](tmp_path / "deflated.dcm")
    with running(tiny, decoders=1, decode_memory_mb=300) as server:
        pids = server.server.decoders.pids
        message = error(server.post(asking("?", (tmp_path / "deflated.dcm").read_bytes())), 400)["message"]
        assert "memory" in message
        assert "--max" not in message
        assert server.post(asking("?", drawn("x")), max_tokens=1).status_code == 200
        assert server.server.decoders.pids != pids
        # Nothing crashed.
        assert server.counted("lost_decoders") == 0


def test_a_file_that_takes_too_long_or_too_much_memory(tiny: Loaded) -> None:
    with running(tiny, decode_timeout=0.01) as server:
        assert "0.01 seconds" in error(server.post(asking("?", drawn("x", 4000, 4000))), 400)["message"]
    with running(tiny, decode_memory_mb=256) as server:
        assert "memory" in error(server.post(asking("?", png_of(9500, 9500))), 400)["message"]
        assert server.post(asking("?", drawn("x")), max_tokens=1).status_code == 200


def test_too_many_requests_are_told_to_come_again(tiny: Loaded) -> None:
    question: Any = [{"role": "user", "content": "?"}]
    with running(tiny, slots=1, max_queue=1, max_tokens=2000, max_length=2048) as server:
        stream = server.openai().chat.completions.create(model="nano", messages=question, stream=True)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(server.post, question, max_tokens=1)
            wait_until(lambda: server.server.in_flight == 2)
            response = server.post(question)
            assert error(response, 503)["code"] == "overloaded"
            assert int(response.headers["Retry-After"]) >= 1
            stream.close()
            assert waiting.result().status_code == 200
        wait_until(lambda: server.server.in_flight == 0)


def test_a_client_that_goes_frees_its_place(tiny: Loaded) -> None:
    messages = [{"role": "user", "content": "?"}]
    with running(tiny, slots=2, max_tokens=100_000, max_length=8000) as server:
        scheduler = server.server.engine.scheduler
        stream = server.openai().chat.completions.create(model="nano", messages=messages, stream=True)
        next(iter(stream))
        assert scheduler.num_running == 1
        stream.close()
        wait_until(lambda: scheduler.num_running == 0)
        # The same without a stream: the connection is cut while the answer grows.
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/chat/completions", json={"messages": messages}, timeout=0.5)
        wait_until(lambda: scheduler.num_running == 0 and server.server.in_flight == 0)


def test_a_request_is_given_up_after_its_time(tiny: Loaded) -> None:
    messages = [{"role": "user", "content": "?"}]
    with running(tiny, max_tokens=100_000, max_length=8000, timeout=0.7) as server:
        assert error(server.post(messages), 504)["code"] == "timeout"
        response = server.post(messages, stream=True)
        assert '"code": "timeout"' in response.text
        wait_until(lambda: server.server.engine.scheduler.num_running == 0)


def test_the_end_of_the_server_finishes_streams(tiny: Loaded) -> None:
    got: list[str] = []
    with running(tiny, max_tokens=200) as server:
        stream = server.openai().chat.completions.create(
            model="nano", messages=[{"role": "user", "content": "?"}], stream=True
        )
        iterator = iter(stream)
        next(iterator)

        def read() -> None:
            got.extend(chunk.choices[0].finish_reason or "" for chunk in iterator)

        reader = threading.Thread(target=read)
        reader.start()
    reader.join(60)
    assert got[-1] == "length"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))


def test_metrics_and_the_log(tiny: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "slime_vlm.serving")
    for told in (False, True):
        with running(tiny, log_prompts=told) as server:
            server.post(asking("What is a marmot?", drawn("x")), max_tokens=2)
            server.post(asking("?", b"x"))
            text = httpx.get(f"{server.url}/metrics").text
        assert "slime_encoded_images_total 1.0" in text
        assert 'slime_errors_total{kind="invalid_image"} 1.0' in text
        assert "slime_first_token_seconds_count 1.0" in text
        logged = caplog.text
        caplog.clear()
        assert '"event": "answered"' in logged
        assert ("marmot" in logged) == told
        assert data_uri(png(drawn("x")))[40:80] not in logged


def test_one_decoding_for_all_that_send_an_image(tiny: Loaded) -> None:
    slow = asking("?", drawn("slow", 3000, 3000))
    with running(tiny, decoders=1) as server, ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(server.post, slow, max_tokens=1) for _ in range(4)]
        assert {call.result().status_code for call in calls} == {200}
        assert server.counted("encoded_images") == 1
        assert not server.server.images._under_way
        # Who goes while his image waits for a process takes it out of the queue.
        busy = pool.submit(server.post, asking("?", drawn("other", 6000, 6000)), max_tokens=1)
        wait_until(lambda: bool(server.server.images._under_way))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/chat/completions", json={"messages": asking("?", drawn("x"))}, timeout=0.05)
        assert busy.result().status_code == 200
        wait_until(lambda: server.server.in_flight == 0 and not server.server.images._under_way)
