"""Encode once, ask many: equal to the plain path, and honest about what it kept and how long it took."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import decoders
from transformers.cache_utils import DynamicCache

from slime_vlm.errors import InputError
from slime_vlm.inference import answering
from slime_vlm.inference.questions import encode_question
from tests.tiny_reader import tiny_reader

QUESTION = "What is the total?"


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype=np.uint8))


def answer_by_generate(model, processor, image: Image.Image) -> str:
    """The answer by transformers' own way, pixels and all."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, add_generation_prompt=True
    )
    generated = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    return processor.tokenizer.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"local_merge": "flat"},
        {"views": "global"},
        {"views": "local"},
        {"selector": "none"},
        {"selector": "attention"},
        {"selector_text": "question", "max_local_tokens": 3},
        {"local_compression": False},
        {"keep_position_ids": True, "max_local_tokens": 3},
        {"page_positions": True},
    ],
    ids=str,
)
def test_answers_equal_those_of_generate(image, overrides):
    model, processor = tiny_reader(**overrides)
    # Every token a word, since text is certain, and passed on, where a word ends.
    processor.tokenizer.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)
    pieces: list[str] = []
    encoded = answering.encode(model, processor, image)
    answer = encoded.ask(QUESTION, max_new_tokens=12, on_text=pieces.append)
    assert answer.text == answer_by_generate(model, processor, image)
    assert "".join(pieces).strip() == answer.text
    assert len(pieces) > 1
    encoded.ask("due date", max_new_tokens=4)
    assert encoded.ask(QUESTION, max_new_tokens=12).text == answer.text


@pytest.mark.parametrize("overrides", [{}, {"keep_position_ids": True, "max_local_tokens": 3}], ids=str)
def test_what_questions_share_is_read_once(image, overrides):
    model, processor = tiny_reader(**overrides)
    read: list[torch.Tensor] = []
    model.model.language_model.register_forward_hook(
        lambda _module, _args, kwargs, output: read.append(output.last_hidden_state), with_kwargs=True
    )
    encoded = answering.encode(model, processor, image)
    for question in (QUESTION, "due date", QUESTION):
        encoded.ask(question, max_new_tokens=1)
    first, _other, again = read
    left = again.shape[1]
    # Gone are the image's global tokens, its separator and the text before them.
    assert left <= first.shape[1] - model.config.token_layout.num_global_tokens - 1
    torch.testing.assert_close(again[:, -left:], first[:, -left:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"cache_implementation": "dynamic"}, {"use_cache": False}], ids=str)
def test_questions_of_a_model_with_a_cache_of_its_own(image, settings):
    model, processor = tiny_reader()
    expected = [a.text for a in answering.ask(model, processor, image, [QUESTION, "due date"], max_new_tokens=6)]
    model.generation_config.update(**settings)
    found = [a.text for a in answering.ask(model, processor, image, [QUESTION, "due date"], max_new_tokens=6)]
    assert found == expected


def test_a_model_that_was_cast_reads_the_beginning_anew(image):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, image)
    encoded.ask(QUESTION, max_new_tokens=4)
    model.bfloat16()
    assert encoded.ask("due date", max_new_tokens=4).question == "due date"


def test_an_interrupted_question_leaves_nothing_behind(image):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, image)
    answer = encoded.ask(QUESTION, max_new_tokens=12)

    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded.ask(QUESTION, max_new_tokens=12, on_text=interrupt)
    assert encoded.ask(QUESTION, max_new_tokens=12).text == answer.text


def test_a_window_that_forgets_the_beginning_is_read_anew(image):
    model, processor = tiny_reader()
    config = model.config.text_config
    config.use_sliding_window, config.sliding_window = True, 8
    config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    cache = DynamicCache(config=config)
    encoded = answering.encode(model, processor, image)
    assert encoded._shared_prefix(torch.tensor([[processor.image_token_id]]), cache, 1) is None


def test_a_cache_cannot_hold_whole_prompts_of_several_rows(image):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, image)
    ids = encode_question(processor, QUESTION, encoded.grid)["input_ids"]
    cache = model(input_ids=ids, vision_tokens=[encoded.tokens], question_mask=torch.ones_like(ids)).past_key_values
    with pytest.raises(InputError, match="whole prompt"):
        model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            vision_tokens=[encoded.tokens],
            question_mask=torch.ones_like(ids),
            past_key_values=cache,
        )


TOGETHER = [QUESTION, "due date", "How much is the tax on this invoice, and when is it due?", "who", "due date"]


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"views": "global"},
        {"views": "local"},
        {"selector": "none"},
        {"selector_text": "question", "max_local_tokens": 3, "local_merge": "flat"},
        {"keep_position_ids": True, "selector_top_p": 0.5, "page_positions": True},
    ],
    ids=str,
)
def test_questions_together_are_answered_as_one_by_one(image, overrides):
    model, processor = tiny_reader(**overrides)
    alone = answering.ask(model, processor, image, TOGETHER, max_new_tokens=8)
    encoded = answering.encode(model, processor, image)
    together = encoded.ask_together(TOGETHER, max_new_tokens=8, at_once=3)
    assert [answer.question for answer in together] == TOGETHER
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.kept, other.kept)
        assert set(one.seconds) == set(other.seconds)
        assert (one.scores is None) == (other.scores is None)
    # What they share stays known.
    assert encoded.ask(QUESTION, max_new_tokens=8).text == alone[0].text


@pytest.mark.parametrize("settings", [{"cache_implementation": "dynamic"}, {"use_cache": False}], ids=str)
def test_a_model_with_a_cache_of_its_own_answers_one_after_the_other(image, settings):
    model, processor = tiny_reader()
    expected = [answer.text for answer in answering.ask(model, processor, image, TOGETHER, max_new_tokens=6)]
    model.generation_config.update(**settings)
    encoded = answering.encode(model, processor, image)
    assert [answer.text for answer in encoded.ask_together(TOGETHER, max_new_tokens=6)] == expected


def test_bad_questions_among_others_are_refused_first(image):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, image)
    assert encoded.ask_together([]) == []
    with pytest.raises(InputError, match="the question is empty"):
        encoded.ask_together([QUESTION, " "])
    with pytest.raises(InputError, match="at_once is 0, expected at least 1"):
        encoded.ask_together([QUESTION], at_once=0)


def test_an_answer_tells_what_was_read(image):
    model, processor = tiny_reader(max_local_tokens=5)
    answer = answering.ask(model, processor, image, QUESTION, max_new_tokens=3)[0]
    config = model.config
    assert answer.num_global == config.num_global_tokens
    assert answer.num_local == answer.grid.num_tiles * config.num_local_queries
    assert answer.num_kept == 5 == answer.kept_indices.size
    assert answer.scores is not None
    assert answer.probabilities is not None
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert answer.scores[answer.kept].min() >= answer.scores[~answer.kept].max()
    assert answer.gates is not None
    assert answer.gates.shape == (answer.num_global, 2)
    assert answer.draw(image).width >= 300


def test_scores_come_in_image_order(image):
    """With the same weights, merging tile after tile gives every place of the image the same score."""
    answers = []
    for merge in ("spatial", "flat"):
        model, processor = tiny_reader(local_merge=merge)
        answers.append(answering.ask(model, processor, image, QUESTION, max_new_tokens=1)[0])
    spatial, flat = answers
    assert spatial.grid.cols > 1
    np.testing.assert_allclose(spatial.scores, flat.scores, atol=1e-5)
    assert (spatial.kept == flat.kept).all()


def test_an_image_is_encoded_once(image, monkeypatch):
    model, processor = tiny_reader()
    calls = []
    original = type(model.model).encode_views
    monkeypatch.setattr(
        type(model.model), "encode_views", lambda self, pixels: calls.append(len(pixels)) or original(self, pixels)
    )
    answers = answering.ask(model, processor, image, [QUESTION, "due date", QUESTION], max_new_tokens=4)
    assert sum(calls) == answers[0].grid.num_views
    assert answers[0].text == answers[2].text
    assert answers[0].seconds["encode"] > 0
    assert answers[1].seconds["encode"] == 0
    assert list(answers[1].seconds) == ["preprocess", "encode", "select", "prefill", "decode"]
    assert min(answers[1].seconds.values()) >= 0


def test_images_of_other_modes():
    model, processor = tiny_reader()
    grey = Image.new("LA", (40, 70))
    assert answering.ask(model, processor, grey, QUESTION, max_new_tokens=1)[0].question == QUESTION


@pytest.mark.parametrize("question", ["", "  \n", "what is <image>?"])
def test_bad_questions_are_refused(image, question):
    model, processor = tiny_reader()
    with pytest.raises(InputError):
        answering.ask(model, processor, image, question)


@pytest.mark.parametrize("image", ["page.png", np.zeros((56, 56, 3), np.uint8)])
def test_an_image_that_is_not_opened_is_refused(image):
    with pytest.raises(InputError, match=r"expected an opened image: slime_vlm\.open_image"):
        answering.encode(*tiny_reader(), image)


def test_nothing_is_left_to_train(image):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, image)
    assert not encoded.tokens.global_tokens.requires_grad
    assert encoded.tokens.global_tokens.dtype == torch.float32
