"""The shipped model: loads as any SliME, answers, and reads held-out pages as well as its card says, within a margin."""

from __future__ import annotations

import pytest

import slime_vlm
from slime_vlm.evaluation.pages import answer_pages, summarise
from slime_vlm.loading import SHIPPED
from slime_vlm.pages import PageSettings
from slime_vlm.training.models import page_vocabulary


@pytest.fixture(scope="module")
def nano():
    return slime_vlm.load("nano", "cpu")


def test_fits_the_package() -> None:
    size = sum(path.stat().st_size for path in SHIPPED["nano"].iterdir())
    assert size < 30e6
    assert (SHIPPED["nano"] / "README.md").is_file(), "nano has lost its model card"


def test_is_an_ordinary_slime(nano) -> None:
    model, processor = nano
    assert type(model).__name__ == "SlimeForConditionalGeneration"
    assert model.config.selector == "cosine"
    assert model.config.views == "both"
    # A change of the renderer's words or characters would silently change what nano's slots mean.
    assert model.config.projector_vocabulary == page_vocabulary().sizes
    assert processor.tokenizer.decode(processor.tokenizer("What is the total?").input_ids[1:]) == "What is the total?"


def test_reads_held_out_pages(nano) -> None:
    """A floor well under the measured value: it catches a broken checkpoint or path, not a percent."""
    model, processor = nano
    settings = PageSettings(
        tiles=(2, 2),
        text_px=(20, 30),
        page_scale=(0.8, 1.3),
        kinds={"form": 1.0},
        split="heldout",
        questions=4,
        absent=0.0,
    )
    seen = summarise(list(answer_pages(model, processor, settings, count=8)))
    blind = summarise(list(answer_pages(model, processor, settings, count=8, blind=True)))
    assert seen["key-value"]["exact_match"] >= FLOOR
    assert blind["key-value"]["exact_match"] <= 0.05
