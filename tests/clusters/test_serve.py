"""examples/ray/serve.py: two replicas, one of them killed under load, and no request lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from slime_vlm import ask, load
from tests.clusters.conftest import two_raylets, wait_until
from tests.serving.conftest import asking, drawn
from tests.tiny_reader import save_tiny_reader

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
NEW = 48


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_reader(tmp_path_factory.mktemp("serve") / "model", max_tiles=4)


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[str]:
    """The address of the example with two replicas, one on each raylet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with two_raylets() as cluster:
        options = ["--model", str(model), "--address", cluster.address, "--port", str(port), "--min-replicas", "2"]
        command = [sys.executable, str(ROOT / "examples" / "ray" / "serve.py"), *options, "--max-replicas", "2"]
        # A run in the background ignores SIGINT, and so would the example.
        with subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
            address = f"http://127.0.0.1:{port}"

            def has_two() -> bool:
                assert process.poll() is None, "the example has ended"
                return len(replicas(address)) == 2

            wait_until(has_two, 420)
            yield address
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                process.kill()


def replicas(address: str) -> set[str]:
    """The replicas that answer, by asking a few times."""
    found = set()
    for _ in range(8):
        try:
            response = httpx.get(f"{address}/v1/models", timeout=60)
        except httpx.TransportError:
            time.sleep(1)
            continue
        if response.status_code == 200:
            found.add(response.headers["slime-replica"])
    return found


def alive(replica: str) -> bool:
    return Path(f"/proc/{replica.split('/')[1]}").exists()


def children(process: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == process:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_replica_is_killed_under_load_and_no_request_is_lost(server: str, model: Path) -> None:
    network, processor = load(model, device="cpu")
    pages = [drawn(name, 60, 90) for name in "ab"]
    expected = {
        (number, page): ask(network, processor, pages[page], f"question {number}?", max_new_tokens=NEW)[0].text
        for number in range(6)
        for page in range(2)
    }
    # Without retries: what is lost, is lost.
    client = OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=300)
    seen: dict[str, int] = {}
    done, has_killed = threading.Event(), threading.Event()

    def one(worker: int) -> int:
        count = 0
        while not done.is_set():
            number, page, streams = (worker + count) % 6, count % 2, count % 3 == 0
            fields: dict[str, Any] = {"model": "model", "messages": asking(f"question {number}?", pages[page])}
            create = client.chat.completions.with_raw_response.create
            raw = create(max_tokens=NEW, stream=streams, **fields)
            if streams:
                text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
            else:
                text = raw.parse().choices[0].message.content
            assert text == expected[number, page]
            seen[raw.headers["slime-replica"]] = seen.get(raw.headers["slime-replica"], 0) + 1
            count += 1
        return count

    with ThreadPoolExecutor(6) as pool:
        try:
            running = [pool.submit(one, worker) for worker in range(6)]
            failed = lambda: any(future.done() for future in running)  # noqa: E731
            wait_until(lambda: (len(seen) == 2 and min(seen.values()) >= 5) or failed())
            victim = max(seen, key=lambda name: seen[name])
            servers = children(int(victim.split("/")[1]))
            assert servers, "the replica has no server"
            os.kill(int(victim.split("/")[1]), signal.SIGKILL)
            has_killed.set()
            before = sum(seen.values())
            # The other one takes all, and then a new one is there.
            wait_until(lambda: sum(seen.values()) >= before + 20 or failed())
            wait_until(lambda: len(seen) == 3 or failed())
        finally:
            done.set()
        # Raises what a request has raised.
        total = sum(future.result() for future in running)
    assert total == sum(seen.values())
    assert not alive(victim)
    # Ray ends its server with it.
    wait_until(lambda: not any(Path(f"/proc/{server}").exists() for server in servers), 60)


def test_errors_and_other_routes_pass_through(server: str) -> None:
    assert httpx.get(f"{server}/v1/models", timeout=60).json()["data"][0]["id"] == "model"
    refused = httpx.post(f"{server}/v1/chat/completions", json={"messages": [], "n": 2}, timeout=60)
    assert refused.status_code == 400
    assert "message" in refused.json()["error"]
