"""vLLM's own server with the plug-in gives the tokens of the transformers path. Run by `make test-vllm`."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import slime_vlm
from tests.engines.checkpoints import BUDGET, SHAPES, write_checkpoint

START_SECONDS = 1800
NEW_TOKENS = 12
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def picture(seed: int, height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(*parts: str | Image.Image) -> dict[str, Any]:
    blocks = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": "user", "content": blocks}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


WIDE, SMALL, TALL = picture(0, 90, 150), picture(1, 40, 40), picture(2, 300, 100)

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [user(WIDE, "What is the total?")],
    # The same image with another question keeps other tokens.
    "other question": [user(WIDE, "Name the colour.")],
    "smaller than the budget": [user(SMALL, "What is the total?")],
    "text": [user("hello there")],
    "three": [user(TALL, WIDE, SMALL, "compare them")],
    "turns": [user(SMALL, "one"), assistant("ok"), user("and two?"), assistant("no"), user(TALL, "and this?")],
    # Special tokens of a user are text, and the backslash makes the placeholder a word.
    "special tokens": [user(SMALL, "a </s> b <|eot_id|> c \\<image> d")],
}


def as_openai(message: dict[str, Any]) -> dict[str, Any]:
    def block(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return part
        file = io.BytesIO()
        part["image"].save(file, "PNG")
        address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": address}}

    content = message["content"]
    return {**message, "content": content if isinstance(content, str) else [block(part) for part in content]}


@dataclass
class Server:
    address: str
    folder: Path

    def post(self, messages: list[dict[str, Any]], **fields: Any) -> tuple[int, dict[str, Any]]:
        body = {
            "model": "slime",
            "messages": [as_openai(message) for message in messages],
            "temperature": 0,
            "max_tokens": NEW_TOKENS,
            "ignore_eos": True,
            "return_token_ids": True,
            **fields,
        }
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.address}/v1/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def tokens(self, messages: list[dict[str, Any]], **fields: Any) -> tuple[list[int], int]:
        """Token ids of the answer, and the length of the prompt."""
        status, answer = self.post(messages, **fields)
        assert status == 200, answer
        return answer["choices"][0]["token_ids"], answer["usage"]["prompt_tokens"]


@pytest.fixture(scope="module", params=list(SHAPES))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("vllm") / request.param
    write_checkpoint(folder, request.param)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder.parent / "log.txt"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", "slime", "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--trust-request-mm-kwargs"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **SETTINGS})
    try:
        address = f"http://127.0.0.1:{port}"
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=60):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < end, log.read_text()[-4000:]
                time.sleep(1)
        yield Server(address, folder)
    finally:
        process.terminate()
        process.wait(timeout=300)


@pytest.fixture(scope="module")
def reference(server: Server) -> Any:
    """What the transformers path gives for messages: token ids, and the length of the prompt after selection."""
    model, processor = slime_vlm.load(server.folder, device="cpu", dtype="float32")

    def answer(messages: list[dict[str, Any]], budget: int = BUDGET) -> tuple[list[int], int]:
        model.config.max_local_tokens = budget
        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)
        length = model(**inputs).logits.shape[1]
        options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
        ids = model.generate(**inputs, **options, eos_token_id=None)
        return ids[0, -NEW_TOKENS:].tolist(), length

    return answer


def test_tokens_equal_the_transformers_path_alone_and_in_a_mixed_batch(server: Server, reference: Any) -> None:
    expected = {name: reference(messages) for name, messages in CONVERSATIONS.items()}
    assert expected["one"][0] != expected["other question"][0]
    alone = {name: server.tokens(messages) for name, messages in CONVERSATIONS.items()}
    assert alone == expected
    # All together, twice: the second time from vLLM's caches.
    names = list(CONVERSATIONS) * 2
    with ThreadPoolExecutor(len(names)) as pool:
        together = list(pool.map(lambda name: server.tokens(CONVERSATIONS[name]), names))
    assert together == [expected[name] for name in names]


def test_the_budget_of_a_request_is_part_of_the_key(server: Server, reference: Any) -> None:
    messages = CONVERSATIONS["one"]
    for budget in (2, 1, BUDGET, 2):
        found = server.tokens(messages, mm_processor_kwargs={"max_local_tokens": budget})
        assert found == reference(messages, budget)
    # 16 global tokens, the separator and the budget: one more token is one more in the prompt.
    assert server.tokens(messages)[1] == reference(messages, 1)[1] + BUDGET - 1


@pytest.mark.parametrize(
    ("messages", "fields", "message"),
    [
        (CONVERSATIONS["one"], {"mm_processor_kwargs": {"max_local_tokens": 7}}, "at most 6, the budget of the server"),
        (CONVERSATIONS["one"], {"mm_processor_kwargs": {"max_tiles": 2}}, "has max_tiles, expected max_local_tokens"),
        ([user("an <image> alone")], {}, "stands for an image, and there is no image"),
        ([user(SMALL, "and another <image>")], {}, "has 2 image placeholder(s) for 1 image(s)"),
    ],
)
def test_bad_requests_get_a_400_of_one_line(
    server: Server, messages: list[dict[str, Any]], fields: dict[str, Any], message: str
) -> None:
    status, answer = server.post(messages, **fields)
    assert status == 400
    assert message in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_local_tokens": None}, "keeps local tokens by selector_top_p 0.95"),
        ({"keep_position_ids": True}, "has keep_position_ids"),
    ],
)
def test_other_models_are_refused_when_the_config_is_read(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from slime_vlm.errors import SlimeError

    folder = write_checkpoint(tmp_path / "model", "llama3", **fields)
    with pytest.raises(SlimeError, match=message) as caught:
        EngineArgs(model=str(folder)).create_model_config()
    assert "\n" not in str(caught.value)


def test_an_override_gives_the_budget(tmp_path: Path) -> None:
    from vllm.engine.arg_utils import EngineArgs

    folder = write_checkpoint(tmp_path / "model", "llama3", max_local_tokens=None)
    config = EngineArgs(model=str(folder), hf_overrides={"max_local_tokens": 3}).create_model_config()
    assert config.hf_config.max_local_tokens == 3
    assert config.tokenizer_mode == "slime"


def test_a_second_question_about_an_image_does_not_encode_it_again(tmp_path: Path) -> None:
    from slime_vlm.engines.vllm.model import ImageEncoder, SlimeForConditionalGeneration
    from slime_vlm.engines.vllm.token_cache import TokenCache

    whole, processor = slime_vlm.load(write_checkpoint(tmp_path / "model", "llama3"), device="cpu", dtype="float32")
    # The model without vLLM's language model, which would need an engine.
    model = SlimeForConditionalGeneration.__new__(SlimeForConditionalGeneration)
    torch.nn.Module.__init__(model)
    model.encoder = ImageEncoder(whole.config, whole.get_input_embeddings()).eval()
    model.encoder.load_state_dict(whole.model.state_dict(), strict=False)
    model.token_cache = TokenCache(2**20)
    runs: list[int] = []
    # The tower itself is not called: its layers beyond the selected one are left out.
    embeddings = next(m for name, m in model.encoder.vision_tower.named_modules() if name.endswith("embeddings"))
    embeddings.register_forward_hook(lambda _module, inputs, _output: runs.extend([1] * len(inputs[0])))

    def embed(images: list[Image.Image], digests: list[int], words: list[int]) -> list[torch.Tensor]:
        cut = processor.image_processor(images=images, return_tensors="pt")
        with torch.inference_mode():
            return model.embed_multimodal(
                **cut,
                selector_text=[torch.tensor([word, word + 1]) for word in words],
                budget=torch.full((len(images),), BUDGET),
                digest=torch.tensor([[digest] * 16 for digest in digests], dtype=torch.uint8),
            )

    first, other = embed([WIDE, WIDE], [1, 1], [20, 90])
    views = len(runs)
    assert views == len(processor.image_processor(images=[WIDE])["pixel_values"])
    assert first.shape == other.shape == (16 + 1 + BUDGET, 128)
    assert not torch.equal(first, other)
    (again,) = embed([WIDE], [1], [20])
    assert len(runs) == views
    assert torch.equal(again, first)
    embed([SMALL], [2], [20])
    assert len(runs) > views
