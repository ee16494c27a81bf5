"""Servers for the tests: the real application on a free port, in a thread of the test process."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from openai import OpenAI
from PIL import Image, ImageDraw

from slime_vlm import load
from slime_vlm.checkpoints.shipped import DEFAULT_MODEL
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor
from slime_vlm.serving.app import Server, create_app
from slime_vlm.serving.settings import Settings
from tests.tiny_checkpoints import save_native

Loaded = tuple[SlimeForConditionalGeneration, SlimeProcessor]


@dataclass
class Running:
    """A server that listens."""

    app: FastAPI
    url: str
    client: httpx.Client

    @property
    def server(self) -> Server:
        found: Server = self.app.state.server
        return found

    def openai(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def post(self, messages: list[Any], **fields: Any) -> httpx.Response:
        return self.post_raw({"messages": messages, **fields})

    def post_raw(self, body: Any, **options: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=body, **options)

    def counted(self, name: str) -> float:
        """The value of a counter of Prometheus."""
        return self.server.metrics.registry.get_sample_value(f"slime_{name}_total") or 0.0


@contextmanager
def running(loaded: Loaded, port: int = 0, **settings: Any) -> Iterator[Running]:
    """Serve a model while the block runs."""
    app = create_app(*loaded, Settings(**{"decoders": 1, "model": "nano", **settings}))
    # As on a larger machine: tests have one thread.
    app.state.server.engine.scheduler.encoder.cores = 4
    listener = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(listener.serve()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not listener.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    bound = listener.servers[0].sockets[0].getsockname()[1]
    try:
        url = f"http://127.0.0.1:{bound}"
        with httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=200)) as client:
            yield Running(app, url, client)
    finally:
        listener.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def nano() -> Loaded:
    return load("nano", device="cpu")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A random Llama whose answers depend on every token."""
    model, processor = save_native(tmp_path_factory.mktemp("tiny"), max_tiles=4)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    # Its answers would end anywhere; so they have the length that a test asks for.
    model.generation_config.eos_token_id = None
    return model, processor


@pytest.fixture(scope="session")
def nano_server(nano: Loaded) -> Iterator[Running]:
    with running(nano) as server:
        yield server


@pytest.fixture(scope="session")
def pages_server() -> Iterator[Running]:
    """The model that `slime serve` has if nobody names one."""
    with running(load(DEFAULT_MODEL, device="cpu"), model=DEFAULT_MODEL) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_server(tiny: Loaded) -> Iterator[Running]:
    with running(tiny, max_tokens=24) as server:
        yield server


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another thread brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def drawn(text: str, height: int = 120, width: int = 160) -> Image.Image:
    """A page with a word."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).text((8, 8), text, "black", font_size=min(height, width) // 5)
    return image


def asking(question: str, *images: Image.Image | bytes, **url: Any) -> list[dict[str, Any]]:
    """Messages with a question about images."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_uri(i if isinstance(i, bytes) else png(i)), **url}}
        for i in images
    ]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
