"""How certain the characters of an answer were read."""

from __future__ import annotations

import torch
from PIL import Image

import slime_vlm
from slime_vlm.inference.answering import encode
from slime_vlm.inference.reading import reading_certainty
from slime_vlm.model.configuration_slime import SlimeConfig

SPACE, A, B, C = 1, 2, 3, 4


def test_certainty_by_hand() -> None:
    """Two rows: "ab c" and, less certain, "ab"."""
    ids = torch.tensor([[[A, B], [SPACE, C]], [[A, B], [0, 0]]])
    sure = torch.tensor([[[0.9, 0.8], [1.0, 0.6]], [[0.5, 0.95], [0.0, 0.0]]])
    # The more certain of both places.
    assert reading_certainty(ids, sure, [A, B], SPACE) == torch.tensor(0.8)
    # It goes on over the edge of a cell.
    assert reading_certainty(ids, sure, [A, B, SPACE, C], SPACE) == torch.tensor(0.6)
    # From one line to another.
    assert reading_certainty(ids, sure, [C, SPACE, A, B], SPACE) == torch.tensor(0.6)
    # Not on the page, or not in this order: nothing was read.
    assert reading_certainty(ids, sure, [B, A], SPACE) == 1.0
    assert reading_certainty(ids, sure, [], SPACE) == 1.0
    assert reading_certainty(torch.zeros_like(ids), sure, [A], SPACE) == 1.0


def test_a_model_that_reads_tells_how_certain_it_was() -> None:
    model, processor = slime_vlm.load("pages", device="cpu", dtype=torch.float32)
    assert isinstance(model.config, SlimeConfig)
    with Image.open("examples/printed_invoice.png") as image:
        encoded = encode(model, processor, image)
    held = encoded.tokens.certainties
    assert held is not None
    assert held.shape == encoded.tokens.characters.shape
    assert bool(((held > 0) == (encoded.tokens.characters > 0)).all())
    answer = encoded.ask("What is the invoice number?")
    assert answer.reading is not None
    assert 0.0 < answer.reading <= 1.0
    # What a page says with less certainty is less sure to be right.
    model.config.answer_calibration = [1.0, 0.0, 0.5]
    sure = encoded.ask("What is the invoice number?").confidence
    encoded.tokens.certainties = 0.3 * held
    assert encoded.ask("What is the invoice number?").confidence < sure
