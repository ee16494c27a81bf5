"""Answers through the real OpenAI client: the right ones, and the same as alone."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError
from PIL import Image

from slime_vlm import ask, encode
from slime_vlm.serving.app import create_app
from tests.robustness import hostile_files
from tests.serving.conftest import Loaded, Running, asking, drawn, running

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"


def streamed(server: Running, messages: list[Any], **fields: Any) -> tuple[str, list[Any]]:
    chunks = list(
        server.openai().chat.completions.create(
            model=server.server.settings.model, messages=messages, stream=True, **fields
        )
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), chunks


def test_the_openai_client_asks_about_the_invoice(nano_server: Running) -> None:
    messages = asking("What is the total?", INVOICE.read_bytes())
    answer = nano_server.openai().chat.completions.create(
        model="nano", messages=messages, extra_body={"slime": {"explain": True}}
    )
    assert answer.choices[0].message.content == "$847.97"
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage.model_dump()
    details = usage["prompt_tokens_details"]
    assert (details["global_tokens"], details["local_tokens"], details["local_tokens_before_selection"]) == (
        256,
        124,
        384,
    )
    assert usage["prompt_tokens"] == details["text_tokens"] + 256 + 124
    (image,) = answer.model_extra["slime"]["images"]
    assert image["grid"] == [3, 2]
    assert (len(image["kept"]), len(image["scores"])) == (124, 384)
    # The kept tokens have the highest scores.
    dropped = sorted(set(range(384)) - set(image["kept"]))
    assert min(image["scores"][i] for i in image["kept"]) >= max(image["scores"][i] for i in dropped)
    assert set(answer.model_extra["slime"]["seconds"]) >= {"queue", "select", "prefill", "decode"}

    text, chunks = streamed(nano_server, messages, stream_options={"include_usage": True})
    assert text == "$847.97"
    assert len(chunks) > 4
    assert chunks[-1].usage.prompt_tokens == usage["prompt_tokens"]
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_the_example_of_the_readme(pages_server: Running) -> None:
    script = INVOICE.parent / "serving" / "ask.py"
    image = INVOICE.parent / "printed_invoice.png"
    line = 'python examples/serving/ask.py examples/printed_invoice.png "When is payment due?"'
    assert line in (INVOICE.parents[1] / "README.md").read_text()
    command = [sys.executable, str(script), str(image), "When is payment due?", f"{pages_server.url}/v1"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "13 April 2025\n"


def test_a_second_question_about_an_image_does_not_encode(nano_server: Running) -> None:
    image, client = drawn("Total 12.50", 300, 300), nano_server.openai()
    before = nano_server.counted("encoded_images")
    first = client.chat.completions.create(model="nano", messages=asking("What is the total?", image))
    assert nano_server.counted("encoded_images") == before + 1
    second = client.chat.completions.create(model="nano", messages=asking("What is the date?", image))
    assert nano_server.counted("encoded_images") == before + 1
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens > 256
    # Other settings are another image.
    client.chat.completions.create(
        model="nano", messages=asking("What is the date?", image), extra_body={"slime": {"max_tiles": 1}}
    )
    assert nano_server.counted("encoded_images") == before + 2


def test_together_as_alone_with_kept_positions(nano: Loaded) -> None:
    page = Image.open(INVOICE).convert("RGB")
    images = [page.crop((0, 0, 1694, 1300)), page.crop((0, 1200, 1694, 2429))]
    questions = [f"What is the {field}?" for field in ("salary", "due date", "amount due", "company")]
    pairs = [(image, question) for image in images for question in questions]
    alone = [answer.text for image in images for answer in ask(*nano, image, questions)]
    with running(nano, slots=5, prefill_chunk=100) as server, ThreadPoolExecutor(len(pairs)) as pool:
        together = list(pool.map(lambda pair: streamed(server, asking(pair[1], pair[0]))[0], pairs))
    assert together == alone
    assert len(set(alone)) > 4


@pytest.mark.parametrize("clients", [12, pytest.param(64, marks=pytest.mark.slow)])
def test_answers_never_mix(tiny: Loaded, clients: int) -> None:
    """As many images and questions at once, on a random Llama that counts positions after selection."""
    images = [drawn(f"page {n}", 40 + 7 * (n % 9), 60 + 5 * n) for n in range(clients)]
    pairs = [(image, f"question {n}?" + "!" * (n % 7)) for n, image in enumerate(images)]
    alone = [encode(*tiny, image).ask(question, max_new_tokens=24).text for image, question in pairs]
    with (
        running(tiny, max_tokens=24, slots=16, prefill_chunk=16, max_queue=64) as server,
        ThreadPoolExecutor(clients) as pool,
    ):
        together = list(pool.map(lambda pair: server.post(asking(pair[1], pair[0])).json(), pairs))
    assert [answer["choices"][0]["message"]["content"] for answer in together] == alone
    assert len(set(alone)) > 0.6 * clients


def test_images_of_several_turns(tiny: Loaded, tiny_server: Running) -> None:
    model, processor = tiny
    images = [drawn("one"), drawn("two", 200, 90)]
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        *asking("What is this?", images[0]),
        {"role": "assistant", "content": "A page."},
        *asking("And this <image>?", images[1]),
    ]
    plain = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": images[0]}, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "A page."},
        {
            "role": "user",
            "content": [{"type": "image", "image": images[1]}, {"type": "text", "text": "And this \\<image>?"}],
        },
    ]
    inputs = processor.apply_chat_template(plain, add_generation_prompt=True, tokenize=True, return_dict=True)
    new = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(new, skip_special_tokens=True).strip()
    answer = tiny_server.post(messages, max_completion_tokens=12).json()
    assert answer["choices"][0]["message"]["content"] == expected
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 12


def test_text_alone(tiny_server: Running) -> None:
    answer = tiny_server.post([{"role": "user", "content": "Hello?"}], max_tokens=3).json()
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["usage"]["prompt_tokens_details"]["global_tokens"] == 0


def test_a_budget_and_low_detail(tiny_server: Running) -> None:
    image = drawn("page", 200, 200)

    def details(**fields: Any) -> dict[str, int]:
        url = {"detail": fields.pop("detail")} if "detail" in fields else {}
        answer = tiny_server.post(asking("What?", image, **url), slime=fields, max_tokens=2).json()
        found: dict[str, int] = answer["usage"]["prompt_tokens_details"]
        return found

    assert details(max_local_tokens=3)["local_tokens"] == 3
    assert details(selector_top_p=1.0)["local_tokens"] == 16
    assert details(selector_top_p=0.1)["local_tokens"] < 16
    low = details(detail="low")
    assert (low["global_tokens"], low["local_tokens"]) == (16, 0)
    assert details(max_tiles=1)["local_tokens_before_selection"] == 4


def test_seeded_sampling_repeats_and_ends_at_stop_texts(tiny_server: Running) -> None:
    messages = asking("Say something", drawn("page"))

    def text(**fields: Any) -> dict[str, Any]:
        choice: dict[str, Any] = tiny_server.post(messages, max_tokens=20, **fields).json()["choices"][0]
        return choice

    drawn_once, again = (text(temperature=1.5, seed=7) for _ in range(2))
    assert drawn_once == again
    assert text(temperature=1.5, seed=8) != drawn_once
    assert text(temperature=1.5, seed=7, top_p=1e-6) == text() == text(temperature=0)
    whole = drawn_once["message"]["content"]
    stop = whole[4:6]
    cut = text(temperature=1.5, seed=7, stop=[stop, "never"])
    assert cut["message"]["content"] == whole[: whole.index(stop)].strip()
    assert cut["finish_reason"] == "stop"


def test_models_and_what_is_not_there(nano_server: Running) -> None:
    client = nano_server.openai()
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").id == "nano"
    with pytest.raises(NotFoundError, match="gpt-9"):
        client.chat.completions.create(model="gpt-9", messages=asking("?", drawn("x")))
    for field, value in {"n": 2, "logprobs": True, "tools": [{"type": "function"}], "presence_penalty": 1.0}.items():
        with pytest.raises(BadRequestError, match=f"supports no {field}"):
            client.chat.completions.create(model="nano", messages=asking("?", drawn("x")), extra_body={field: value})
    answer = client.chat.completions.create(
        model="nano", messages=asking("?", drawn("x")), n=1, user="me", max_tokens=2
    )
    assert answer.usage.completion_tokens <= 2


def test_the_application_is_made_without_a_server(nano: Loaded) -> None:
    assert create_app(*nano).openapi()["paths"]["/v1/chat/completions"]["post"]["requestBody"]["required"]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "WEBP", "PDF", "HEIF"])
def test_other_kinds_of_files(tiny_server: Running, tmp_path: Path, kind: str) -> None:
    if kind == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.register_heif_opener()
    drawn("page").save(tmp_path / "file", kind)
    answer = tiny_server.post(asking("What?", (tmp_path / "file").read_bytes()), max_tokens=2, slime={"explain": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["slime"]["images"][0]["size"] == ([120, 160] if kind != "PDF" else [334, 445])


def test_a_file_of_dicom(tiny_server: Running, tmp_path: Path) -> None:
    hostile_files.deflated_dicom(tmp_path / "file.dcm", 100)
    content = (tmp_path / "file.dcm").read_bytes()
    for window in (None, "40/400"):
        fields = {"explain": True, **({} if window is None else {"window": window})}
        answer = tiny_server.post(asking("What?", content), max_tokens=2, slime=fields)
        assert answer.status_code == 200, answer.text
        assert answer.json()["slime"]["images"][0]["size"] == [10, 10]


def test_pages_of_a_document(tiny_server: Running, tmp_path: Path) -> None:
    first, second = drawn("one"), drawn("two", 80, 160)
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    content = (tmp_path / "two.tif").read_bytes()
    sizes = [
        tiny_server.post(asking("?", content), max_tokens=1, slime={"explain": True, "page": page}).json()["slime"][
            "images"
        ][0]["size"]
        for page in (1, 2)
    ]
    assert sizes == [[120, 160], [80, 160]]
    refused = tiny_server.post(asking("?", content), slime={"page": 3})
    assert refused.status_code == 400
    assert "it has 2 pages" in refused.json()["error"]["message"]
