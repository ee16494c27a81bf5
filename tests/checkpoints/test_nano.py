"""The shipped model loads as any SliME, and its vision encoder reads held-out pages about as well as its card says."""

from __future__ import annotations

import pytest

import slime_vlm
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.evaluation.pages.encoder_reading import read_pages
from slime_vlm.evaluation.pages.exact_match import answer_pages, summarise
from slime_vlm.pages import PageSettings
from slime_vlm.training.pages.labels import page_vocabulary


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
    assert model.config.projector_vocabulary == page_vocabulary(model.config.projector_vocabulary).sizes
    ids = processor.tokenizer("What is the total?", add_special_tokens=False).input_ids
    assert processor.tokenizer.decode(ids) == "What is the total?"


def test_eye_reads_held_out_pages(nano) -> None:
    """A floor well under the measured 0.95: it catches a broken checkpoint or path, not a percent."""
    model, processor = nano
    settings = PageSettings(tiles=(2, 4), text_px=(22, 34), page_scale=(0.8, 1.3), split="heldout")
    right = read_pages(model, processor, settings, count=6, first_seed=7_100_000_000_000)
    assert right["read_characters"] > 0.7
    assert right["read_blank"] > 0.9


def test_answers_held_out_pages(nano) -> None:
    """A floor well under the measured 0.69: the selector keeps the answer, the language model finds and copies it."""
    settings = PageSettings(
        kinds={"form": 1.0}, tiles=(6, 6), text_px=(22, 34), page_scale=(0.8, 1.3), split="heldout", absent=0.0
    )
    result = summarise(answer_pages(*nano, settings, 3))["all"]
    assert result["questions"] == 24
    assert result["exact_match"] > 0.4
    assert result["kept_tokens"] < 0.5 * result["local_tokens"]
