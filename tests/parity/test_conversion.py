"""Whole checkpoints through `convert`: what is loaded afterwards gives the recorded numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.processing.chat_styles import Segment, build_prompt, get_style, read_turns
from slime_vlm.processing.tokenization import encode_conversation, encode_segments
from tests.parity.reference import ParityRoot

CHECKPOINTS = ("tiny-llama3", "tiny-vicuna")


def released_case(root: ParityRoot, checkpoint: str) -> tuple[str, dict[str, Any]]:
    """The shortest single-image case with the settings of the checkpoint's own config."""
    found = {
        name: case
        for name, case in root.cases.items()
        if case["checkpoint"] == checkpoint
        and case["kind"] == "inference"
        and len(case.get("images") or ()) == 1
        and not case["config_overrides"]
        and not case.get("weight_overlay")
        and not case.get("single_view_4d_input")
        and case["generated_min_margin"] > 2e-3
    }
    if not found:
        pytest.skip(f"these parity data have no case of {checkpoint} as released")
    name = min(found, key=lambda name: found[name]["length"])
    return name, found[name]


@pytest.fixture(scope="module", params=CHECKPOINTS)
def converted(request: pytest.FixtureRequest, root: ParityRoot, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint, its folder and the folder that it was converted to."""
    source = root.path / "checkpoints" / request.param
    if not (source / "model.safetensors").is_file():
        pytest.skip(f"{request.param} is not part of these parity data")
    target: Path = tmp_path_factory.mktemp("converted") / request.param
    report = convert(source, target)
    assert report.num_tensors > 50
    assert report.conversation_style == root.json("text/tokenization_and_labels.json")[request.param]["template"]
    assert sorted(report.unused) == [f"model.mm_projector.{name}" for name in ("mean", "std", "w_noise")]
    return request.param, source, target


@pytest.mark.parametrize("kind", ["on_disk", "in_memory"])
def test_converted_checkpoint_gives_the_recorded_numbers(converted: Any, root: ParityRoot, kind: str) -> None:
    checkpoint, source, target = converted
    name, case = released_case(root, checkpoint)
    model, processor = load(target if kind == "on_disk" else source, device="cpu", dtype="float32")
    recorded = root.tensors(name)
    inputs = processor(text=case["prompt"], images=root.image(case["images"][0]))
    with torch.no_grad():
        outputs = model(**inputs)
        generated = model.generate(**inputs, max_new_tokens=16, do_sample=False, eos_token_id=None)
    assert outputs.logits.shape[1] == case["length"]
    assert torch.equal(outputs.kept_local_tokens[0].nonzero()[:, 0], recorded["selected_index"].long())
    rows = outputs.logits[0, recorded["logits_rows_index"].long()]
    assert (rows - recorded["logits_rows"]).abs().max() < 1e-3
    assert (outputs.logits[0].logsumexp(dim=-1) - recorded["logits_logsumexp"]).abs().max() < 1e-3
    assert generated[0, inputs["input_ids"].shape[1] :].tolist() == recorded["generated"].tolist()


def test_there_and_back_is_bit_equal(converted: Any, tmp_path: Path) -> None:
    _, source, target = converted
    assert convert(target, tmp_path / "again").layout == "published"
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert Path("model.safetensors") in files
    assert files == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()}
    for file in files - {Path("config.json")}:
        assert (source / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    assert json.loads((source / "config.json").read_text()) == json.loads(
        (tmp_path / "again" / "config.json").read_text()
    )


def test_converted_tokenizer_gives_the_recorded_ids(converted: Any, root: ParityRoot) -> None:
    checkpoint, _, target = converted
    _, processor = load(target)
    tokenizer, image = processor.tokenizer, processor.image_token_id
    items = root.json("text/tokenization_and_labels.json")[checkpoint]

    def placed(ids: list[int]) -> list[int]:
        return [image if token == -200 else token for token in ids]

    for item in items["prompts"]:
        if not item.get("tokenizer_backend_dependent"):
            encoded = encode_segments(tokenizer, [Segment(item["prompt"], "question")], image)
            assert encoded.input_ids == placed(item["input_ids"]), item["prompt"]
    for item in items["conversations"]:
        turns, style = read_turns(item["turns"]), get_style(item["conversation_template"])
        encoded = encode_conversation(tokenizer, turns, style, image, label_rule="published", max_length=2048)
        assert encoded.input_ids == placed(item["input_ids"]), item["name"]
        assert encoded.labels == item["labels"], item["name"]


def test_prompts_of_the_cases(root: ParityRoot) -> None:
    """Question and history give the recorded prompt, by the published template with its defects."""
    checked = 0
    for case in root.cases.values():
        if not case.get("prompt"):
            continue
        turns = [text for pair in case.get("history") or () for text in pair]
        question = case["question"] if turns or not case.get("images") else f"<image>\n{case['question']}"
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate([*turns, question])]
        style = get_style(case["conversation"])
        assert build_prompt(read_turns(messages), style, published=True) == case["prompt"]
        sane = build_prompt(read_turns(messages), style)
        assert sane == case["prompt"].replace("<|eot_conversation|>", "")
        checked += 1
    assert checked
