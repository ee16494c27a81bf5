"""Measure `slime serve`: requests a second, time to the first token and tokens a second, and how long it ever stalls.

    python benchmarks/serve.py --out serve.json                     # 1, 4, 16 and 64 clients
    python benchmarks/serve.py --clients 4 --requests 8             # a quick look
    python benchmarks/serve.py --stalls                             # 32 images of 12 megapixels come in at once
    python benchmarks/serve.py --soak 10 --clients 64               # ten minutes; every answer is checked
    python benchmarks/serve.py --vllm .venv-vllm/bin/python         # vLLM's server with the plug-in, too

Every client asks, waits for the whole answer and asks again, until all have asked `--requests` questions together.
`cpu seconds a request` is the time of all processes of an engine: it also means something on a machine that is busy
with other work.

Questions are about one image or about images that all differ. The comparison is a loop in one process that opens,
encodes and answers one request after the other. A second loop keeps the encoded image, where there is only one.

With `--vllm`, all engines serve a copy of the model that keeps `--budget` local tokens on consecutive positions, as
vLLM does not serve nano as it is. What the copy answers means nothing; answers are cut at `--tokens`. The path is the
Python of vLLM's environment (`make test-vllm` makes one).

With `--stalls`, `/health` is asked every 20 milliseconds, and a client that streams answers about another image watches
the pauses between tokens.

With `--soak`, every client has an image and a question of its own and asks it again and again. Each answer has to be
the one that the model gives alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from machine import machine
from PIL import Image, ImageDraw

from slime_vlm import encode, load
from slime_vlm.media import open_image_bytes

INVOICE = Path(__file__).parent.parent / "examples" / "invoice.png"
VLLM_SETTINGS = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
FIELDS = ("total", "salary", "due date", "amount due", "tip", "cash", "bonus", "deposit")


def page(number: int, height: int = 1214, width: int = 847) -> bytes:
    """An invoice that no other request has."""
    image = Image.open(INVOICE).convert("RGB").resize((width, height))
    ImageDraw.Draw(image).text((width // 2, height // 9), f"No. {number}", "black", font_size=height // 40)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


def question(number: int) -> str:
    """One of several questions."""
    return f"What is the {FIELDS[number % len(FIELDS)]}?"


def body(image: bytes, asked: str, tokens: int | None = None) -> dict[str, Any]:
    """A request for an answer of at most so many tokens."""
    url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": asked}]
    request = {
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return request if tokens is None else {**request, "max_tokens": tokens}


@contextmanager
def running(
    command: list[str], ready: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server in a process of its own until the block ends, and give its address and the process.

    Args:
        command: The server, without its port.
        ready: Path that answers 200 once it can be asked.
        environment: What is added to the environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*command, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        url = f"http://127.0.0.1:{port}"
        try:
            while True:
                if process.poll() is not None:
                    log.seek(0)
                    last = log.read().decode(errors="replace").strip()[-2000:]
                    raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{last}")
                try:
                    httpx.get(f"{url}{ready}").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def serving(model: str, *options: str) -> AbstractContextManager[tuple[str, psutil.Process]]:
    """Run `slime serve`."""
    return running([sys.executable, "-m", "slime_vlm", "serve", "--model", model, *options], "/ready")


def serving_with_vllm(python: Path, model: str) -> AbstractContextManager[tuple[str, psutil.Process]]:
    """Run vLLM's server with the plug-in, in float32 as the other engines."""
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--dtype", "float32", "--max-model-len", "2048"]
    return running(command, "/health", VLLM_SETTINGS)


def with_budget(model: str, budget: int, folder: Path) -> None:
    """Save a copy of a model that keeps a fixed number of local tokens, on consecutive positions."""
    network, processor = load(model)
    network.config.update({"keep_position_ids": False, "max_local_tokens": budget})
    network.save_pretrained(folder)
    processor.save_pretrained(folder)


async def ask(client: httpx.AsyncClient, url: str, request: dict[str, Any]) -> dict[str, Any]:
    """Stream an answer. Return its text, its tokens, and the times of its pieces from the start of the request."""
    start, times, text, tokens = time.perf_counter(), [], "", 0
    async with client.stream("POST", f"{url}/v1/chat/completions", json=request) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            tokens = event["usage"]["completion_tokens"] if event.get("usage") else tokens
            for choice in event["choices"]:
                if choice["delta"].get("content"):
                    times.append(time.perf_counter() - start)
                    text += choice["delta"]["content"]
    return {"text": text, "tokens": tokens, "times": times or [time.perf_counter() - start]}


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process and of all that it has started and that still run."""
    times = [part.cpu_times() for part in (process, *process.children(recursive=True))]
    return sum(part.user + part.system for part in times)


async def load_of_clients(url: str, clients: int, requests: list[dict[str, Any]]) -> dict[str, Any]:
    """Let clients ask all questions."""
    waiting = list(reversed(requests))
    found: list[dict[str, Any]] = []
    limits = httpx.Limits(max_connections=clients)

    async def one(client: httpx.AsyncClient) -> None:
        while waiting:
            found.append(await ask(client, url, waiting.pop()))

    start = time.perf_counter()
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        await asyncio.gather(*(one(client) for _ in range(clients)))
    seconds = time.perf_counter() - start
    first = sorted(answer["times"][0] for answer in found)
    return {
        "requests/s": len(found) / seconds,
        "first token p50": statistics.median(first),
        "first token p95": first[min(len(first) - 1, int(0.95 * len(first)))],
        "tokens/s": sum(answer["tokens"] for answer in found) / seconds,
    }


def loop(model: str, images: list[bytes], keep: bool, new_tokens: int) -> dict[str, Any]:
    """Answer one request after the other in this process. `keep` encodes the one image once."""
    network, processor = load(model, packed=True)
    encoded, tokens, first = None, 0, []
    start, cpu = time.perf_counter(), cpu_seconds(psutil.Process())
    for number, content in enumerate(images):
        begin, came = time.perf_counter(), []
        if encoded is None or not keep:
            encoded = encode(network, processor, open_image_bytes(content, "image"))
        answer = encoded.ask(
            question(number), max_new_tokens=new_tokens, on_text=lambda _, came=came: came.append(time.perf_counter())
        )
        first.append(came[0] - begin)
        tokens += len(processor.tokenizer(answer.text)["input_ids"]) + 1
    seconds = time.perf_counter() - start
    return {
        "requests/s": len(images) / seconds,
        "first token p50": statistics.median(first),
        "tokens/s": tokens / seconds,
        "cpu seconds a request": (cpu_seconds(psutil.Process()) - cpu) / len(images),
    }


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the loops, then the servers with every number of clients."""
    if arguments.vllm is None:
        return compare_engines(arguments, arguments.model, 256)
    with tempfile.TemporaryDirectory() as folder:
        with_budget(arguments.model, arguments.budget, Path(folder))
        return compare_engines(arguments, folder, arguments.tokens)


def compare_engines(arguments: argparse.Namespace, model: str, tokens: int) -> list[dict[str, Any]]:
    """Measure all engines with one checkpoint, and answers of at most so many tokens."""
    rows: list[dict[str, Any]] = []
    print(machine())

    def add(**row: Any) -> None:
        rows.append(row)
        cells = (f"{key} {value:.3f}" if isinstance(value, float) else str(value) for key, value in row.items())
        print(" | ".join(cells), flush=True)

    same, different = [page(0)] * arguments.loop, [page(number) for number in range(arguments.loop)]
    add(images="one", engine="loop", clients=1, **loop(model, same, False, tokens))
    add(images="one", engine="loop that keeps the image", clients=1, **loop(model, same, True, tokens))
    add(images="different", engine="loop", clients=1, **loop(model, different, False, tokens))
    number = 10_000
    engines = {"slime serve": lambda: serving(model, "--slots", str(arguments.slots))}
    if arguments.vllm is not None:
        engines["vLLM"] = lambda: serving_with_vllm(arguments.vllm, model)
    for clients, (name, engine) in itertools.product(arguments.clients, engines.items()):
        count = max(arguments.requests, clients)
        with engine() as (url, process):
            # Not measured: the first request of a process.
            asyncio.run(load_of_clients(url, 1, [body(page(number), question(0), tokens)]))
            for kind in ("one", "different"):
                images = [page(number + 1 + (index if kind == "different" else 0)) for index in range(count)]
                number += count + 1
                requests = [body(image, question(index), tokens) for index, image in enumerate(images)]
                cpu = cpu_seconds(process)
                row = asyncio.run(load_of_clients(url, clients, requests))
                row["cpu seconds a request"] = (cpu_seconds(process) - cpu) / count
                add(images=kind, engine=name, clients=clients, **row)
    return rows


def send_all(url: str, count: int, ready: Any) -> None:
    """Send many large images at once, from a process of its own."""
    requests = [body(page(number, 4000, 3000), question(number)) for number in range(count)]
    ready.set()

    async def together() -> None:
        async with httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=count)) as client:
            await asyncio.gather(*(ask(client, url, request) for request in requests))

    asyncio.run(together())


def probe(url: str, goes_on: Callable[[], bool]) -> list[float]:
    """Ask `/health` every 20 milliseconds, and return how long each answer took."""
    found: list[float] = []
    with httpx.Client() as client:
        while goes_on():
            start = time.perf_counter()
            client.get(f"{url}/health").raise_for_status()
            found.append(time.perf_counter() - start)
            time.sleep(0.02)
    return found


def stalls(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure how long `/health` and a stream wait while large images come in."""
    with serving(arguments.model) as (url, _):
        small = body(page(1, 500, 350), question(0))
        asyncio.run(load_of_clients(url, 1, [small] * 3))
        end = time.perf_counter() + 10
        calm = probe(url, lambda: time.perf_counter() < end)
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        sender = context.Process(target=send_all, args=(url, arguments.images, ready))
        sender.start()
        ready.wait()
        pauses: list[float] = []

        def watch() -> None:
            async def answers() -> None:
                async with httpx.AsyncClient(timeout=None) as client:
                    while sender.is_alive():
                        times = (await ask(client, url, small))["times"]
                        pauses.extend(later - earlier for earlier, later in itertools.pairwise(times))

            asyncio.run(answers())

        watcher = threading.Thread(target=watch)
        watcher.start()
        probes = probe(url, sender.is_alive)
        watcher.join()
    rows = []
    for name, values in (("/health, nothing comes in", calm), ("/health", probes), ("pause of a stream", pauses)):
        values.sort()
        row = {"what": name, "count": len(values), "p50": statistics.median(values)}
        rows.append({**row, "p99": values[int(0.99 * len(values))], "max": values[-1]})
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in rows[-1].items()})
    return rows


async def keep_asking(url: str, requests: list[dict[str, Any]], expected: list[str], end: float) -> Counter[str]:
    """Let every client ask its own question until the time is over, and count what comes back."""
    counts: Counter[str] = Counter(right=0, wrong=0)

    async def one(client: httpx.AsyncClient, request: dict[str, Any], right: str) -> None:
        while time.perf_counter() < end:
            try:
                answer = await ask(client, url, request)
            except SystemExit as refused:
                counts[f"status {str(refused)[:3]}"] += 1
                await asyncio.sleep(1.0)
                continue
            counts["right" if answer["text"].strip() == right else "wrong"] += 1

    limits = httpx.Limits(max_connections=len(requests))
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        await asyncio.gather(*(one(client, *pair) for pair in zip(requests, expected, strict=True)))
    return counts


def memory(process: psutil.Process) -> int:
    """Return the bytes that a process and all that it has started hold for themselves."""
    return sum(part.memory_full_info().uss for part in (process, *process.children(recursive=True)))


def soak(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Ask for minutes, check every answer, and watch the memory."""
    clients = arguments.clients[-1]
    images = [page(number) for number in range(clients)]
    network, processor = load(arguments.model)
    expected = [
        encode(network, processor, open_image_bytes(image, "image")).ask(question(number)).text
        for number, image in enumerate(images)
    ]
    del network, processor
    requests = [body(image, question(number)) for number, image in enumerate(images)]
    held: list[int] = []
    with serving(arguments.model, "--slots", str(arguments.slots)) as (url, process):
        begin = time.perf_counter()
        end = begin + 60 * arguments.soak
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1.0):
                held.append(memory(process))

        watcher = threading.Thread(target=watch)
        watcher.start()
        counts = asyncio.run(keep_asking(url, requests, expected, end))
        seconds = time.perf_counter() - begin
        done.set()
        watcher.join()
    # The first third warms up: caches fill, and the allocator finds its size.
    third = max(1, len(held) // 3)
    warm, last = statistics.mean(held[third : 2 * third]), statistics.mean(held[-third:])
    row: dict[str, Any] = {"clients": clients, "minutes": seconds / 60, **counts}
    row["requests/s"] = (counts["right"] + counts["wrong"]) / seconds
    row |= {"MB in the second third": warm / 1e6, "MB in the last third": last / 1e6, "growth": last / warm - 1}
    print(machine())
    print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    return [row]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--requests", type=int, default=64, help="questions of all clients together")
    parser.add_argument("--loop", type=int, default=16, help="requests of the loops")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument(
        "--vllm", type=Path, help="Python of an environment with vLLM and this package: measure it, too"
    )
    parser.add_argument("--budget", type=int, default=128, help="local tokens that are kept, with --vllm")
    parser.add_argument("--tokens", type=int, default=16, help="maximum of an answer, with --vllm")
    parser.add_argument("--stalls", action="store_true", help="measure stalls instead")
    parser.add_argument("--soak", type=float, help="minutes to ask for; every answer is checked")
    parser.add_argument("--images", type=int, default=32, help="large images that come in at once")
    parser.add_argument("--out", type=Path, help="write the rows to this file as JSON")
    arguments = parser.parse_args()
    run = stalls if arguments.stalls else compare if arguments.soak is None else soak
    rows = run(arguments)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
