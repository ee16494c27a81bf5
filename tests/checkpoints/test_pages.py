"""The shipped model `pages` reads a document that a browser laid out, and says where it looked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

import slime_vlm
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.inference.answering import EncodedImage, encode
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration

INVOICE = Path(__file__).parents[2] / "examples" / "printed_invoice.png"


@pytest.fixture(scope="module")
def invoice() -> EncodedImage:
    model, processor = slime_vlm.load("pages", device="cpu")
    return encode(model, processor, Image.open(INVOICE).convert("RGB"))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the invoice number?", "HP-20417"),
        ("When is payment due?", "13 April 2025"),
        ("How much do I have to pay in total?", "£224.40"),
        ("What is the passport number?", "not on this page"),
    ],
)
def test_a_printed_invoice(invoice: EncodedImage, question: str, answer: str) -> None:
    found = replace(invoice).ask(question)
    assert found.text == answer
    assert found.num_local > 2000
    assert found.num_kept <= 128


def test_transformers_loads_the_folder() -> None:
    model = AutoModelForImageTextToText.from_pretrained(SHIPPED["pages"], dtype=torch.float32)
    assert isinstance(model, SlimeForConditionalGeneration)
    assert model.config.characters is not None
    size = (SHIPPED["pages"] / "model.safetensors").stat().st_size
    assert size < 45e6
