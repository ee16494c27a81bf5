"""Encode once, ask many: equal to the plain path, and honest about what it kept and how long it took."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import decoders
from transformers.cache_utils import DynamicCache

from slime_vlm import answering
from slime_vlm.errors import InputError
from tests.tiny_reader import tiny_reader

QUESTION = "What is the total?"


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype=np.uint8))


def answer_by_generate(model, processor, picture: Image.Image) -> str:
    """The answer by transformers' own way, pixels and all."""
    content = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]
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
def test_answers_equal_those_of_generate(picture, overrides):
    model, processor = tiny_reader(**overrides)
    # Every token a word, since text is certain, and passed on, where a word ends.
    processor.tokenizer.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)
    pieces: list[str] = []
    encoded = answering.encode(model, processor, picture)
    answer = encoded.ask(QUESTION, max_new_tokens=12, on_text=pieces.append)
    assert answer.text == answer_by_generate(model, processor, picture)
    assert "".join(pieces).strip() == answer.text
    assert len(pieces) > 1
    encoded.ask("due date", max_new_tokens=4)
    assert encoded.ask(QUESTION, max_new_tokens=12).text == answer.text


@pytest.mark.parametrize("overrides", [{}, {"keep_position_ids": True, "max_local_tokens": 3}], ids=str)
def test_what_questions_share_is_read_once(picture, overrides):
    model, processor = tiny_reader(**overrides)
    read: list[torch.Tensor] = []
    model.model.language_model.register_forward_hook(
        lambda _module, _args, kwargs, output: read.append(output.last_hidden_state), with_kwargs=True
    )
    encoded = answering.encode(model, processor, picture)
    for question in (QUESTION, "due date", QUESTION):
        encoded.ask(question, max_new_tokens=1)
    first, _other, again = read
    left = again.shape[1]
    # Gone are the picture's global tokens, its separator and the text before them.
    assert left <= first.shape[1] - model.config.token_layout.num_global_tokens - 1
    torch.testing.assert_close(again[:, -left:], first[:, -left:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"cache_implementation": "dynamic"}, {"use_cache": False}], ids=str)
def test_questions_of_a_model_with_a_cache_of_its_own(picture, settings):
    model, processor = tiny_reader()
    expected = [a.text for a in answering.ask(model, processor, picture, [QUESTION, "due date"], max_new_tokens=6)]
    model.generation_config.update(**settings)
    found = [a.text for a in answering.ask(model, processor, picture, [QUESTION, "due date"], max_new_tokens=6)]
    assert found == expected


def test_a_model_that_was_cast_reads_the_beginning_anew(picture):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, picture)
    encoded.ask(QUESTION, max_new_tokens=4)
    model.bfloat16()
    assert encoded.ask("due date", max_new_tokens=4).question == "due date"


def test_an_interrupted_question_leaves_nothing_behind(picture):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, picture)
    answer = encoded.ask(QUESTION, max_new_tokens=12)

    def interrupt(_text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded.ask(QUESTION, max_new_tokens=12, on_text=interrupt)
    assert encoded.ask(QUESTION, max_new_tokens=12).text == answer.text


def test_a_window_that_forgets_the_beginning_is_read_anew(picture):
    model, processor = tiny_reader()
    config = model.config.text_config
    config.use_sliding_window, config.sliding_window = True, 8
    config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    cache = DynamicCache(config=config)
    encoded = answering.encode(model, processor, picture)
    assert encoded._common_beginning(torch.tensor([[processor.image_token_id]]), cache, 1) is None


def test_a_cache_that_ends_behind_local_tokens_is_refused(picture):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, picture)
    ids = answering._encode_questions(processor, [QUESTION], encoded.grid)["input_ids"]
    cache = model(input_ids=ids, vision_tokens=[encoded.tokens], question_mask=torch.ones_like(ids)).past_key_values
    with pytest.raises(InputError, match="whole prompts"):
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
@pytest.mark.parametrize("asked_before", [False, True])
def test_questions_together_are_answered_as_one_by_one(picture, overrides, asked_before):
    model, processor = tiny_reader(**overrides)
    alone = answering.ask(model, processor, picture, TOGETHER, max_new_tokens=8)
    encoded = answering.encode(model, processor, picture)
    if asked_before:
        encoded.ask("who", max_new_tokens=2)
    together = encoded.ask_together(TOGETHER, max_new_tokens=8, at_once=3)
    assert [answer.question for answer in together] == TOGETHER
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.kept, other.kept)
        assert set(one.seconds) == set(other.seconds)
        assert (one.scores is None) == (other.scores is None)
    # What they share stays known.
    assert encoded.ask(QUESTION, max_new_tokens=8).text == alone[0].text


@pytest.fixture
def read() -> list[tuple[int, int]]:
    """(rows, tokens) that go through the language model of `counted`, call by call."""
    return []


def counted(model, read: list[tuple[int, int]]) -> None:
    model.model.language_model.register_forward_hook(
        lambda _module, _args, kwargs, output: read.append(tuple(output.last_hidden_state.shape[:2])), with_kwargs=True
    )


def test_questions_together_read_what_they_share_once(picture, read):
    model, processor = tiny_reader(max_local_tokens=5)
    encoded = answering.encode(model, processor, picture)
    counted(model, read)
    encoded.ask_together(TOGETHER, max_new_tokens=1, at_once=4)
    shared = model.config.token_layout.num_global_tokens + 1
    (alone, beginning), (four, longest), (one, last) = read
    assert (alone, four, one) == (1, 4, 1)
    # What is left of the first question is what it has read so far, without what is shared, and with five local tokens.
    rest = beginning - shared - len(TOGETHER[0])
    # A letter is a token here.
    assert longest <= rest + 5 + len(TOGETHER[2])
    assert last <= rest + 5 + len(TOGETHER[4])


def test_questions_together_after_the_model_was_cast(picture, read):
    model, processor = tiny_reader(max_local_tokens=5)
    encoded = answering.encode(model, processor, picture)
    encoded.ask(QUESTION, max_new_tokens=1)
    model.bfloat16()
    counted(model, read)
    encoded.ask_together(TOGETHER, max_new_tokens=1, at_once=2)
    assert [rows for rows, _ in read] == [1, 2, 2, 1], "what they share is read anew, and once"


@pytest.mark.parametrize("settings", [{"cache_implementation": "dynamic"}, {"return_dict_in_generate": True}], ids=str)
def test_questions_together_with_settings_of_the_model(picture, settings):
    model, processor = tiny_reader()
    expected = [answer.text for answer in answering.ask(model, processor, picture, TOGETHER, max_new_tokens=6)]
    model.generation_config.update(**settings)
    encoded = answering.encode(model, processor, picture)
    assert [answer.text for answer in encoded.ask_together(TOGETHER, max_new_tokens=6)] == expected


def test_an_answer_that_ends_before_others(picture):
    """Also where the padding that follows is an ordinary token."""
    model, processor = tiny_reader()
    ids = processor.tokenizer("e", add_special_tokens=False).input_ids
    model.generation_config.pad_token_id = ids[-1]
    free = answering.encode(model, processor, picture).ask_together(TOGETHER, max_new_tokens=8)
    # What the first answer says in the middle ends one from now on.
    spoken = processor.tokenizer(free[0].text, add_special_tokens=False).input_ids
    model.generation_config.eos_token_id = [spoken[len(spoken) // 2]]
    alone = [answer.text for answer in answering.ask(model, processor, picture, TOGETHER, max_new_tokens=8)]
    together = answering.encode(model, processor, picture).ask_together(TOGETHER, max_new_tokens=8)
    assert [answer.text for answer in together] == alone
    assert alone != [answer.text for answer in free]
    assert len({len(text) for text in alone}) > 1


def test_an_interrupted_pass_leaves_what_is_shared(picture, read):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, picture)
    expected = [answer.text for answer in encoded.ask_together(TOGETHER, max_new_tokens=4)]

    def interrupt(_module: object, _args: object) -> None:
        raise KeyboardInterrupt

    hook = model.model.language_model.layers[-1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        encoded.ask_together(TOGETHER, max_new_tokens=4)
    hook.remove()
    counted(model, read)
    assert [answer.text for answer in encoded.ask_together(TOGETHER, max_new_tokens=4)] == expected
    assert read[0][0] == len(TOGETHER), "nothing had to be read alone"


def test_nothing_is_shared_before_the_picture(picture):
    """A prompt that begins with local tokens."""
    model, processor = tiny_reader(views="local")
    processor.tokenizer.chat_template = processor.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    encoded = answering.encode(model, processor, picture)
    alone = [encoded.ask(question, max_new_tokens=4).text for question in TOGETHER]
    assert not encoded._beginnings
    assert [answer.text for answer in encoded.ask_together(TOGETHER, max_new_tokens=4)] == alone


def test_bad_questions_among_others_are_refused_first(picture):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, picture)
    assert encoded.ask_together([]) == []
    assert [answer.question for answer in encoded.ask_together("who", max_new_tokens=1)] == ["who"]
    with pytest.raises(InputError, match="the question is empty"):
        encoded.ask_together([QUESTION, " "])
    with pytest.raises(InputError, match="at_once is 0, expected 1 or more"):
        encoded.ask_together([QUESTION], at_once=0)


def test_an_answer_tells_what_was_read(picture):
    model, processor = tiny_reader(max_local_tokens=5)
    answer = answering.ask(model, processor, picture, QUESTION, max_new_tokens=3)[0]
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
    assert answer.draw(picture).width >= 300


def test_scores_come_in_picture_order(picture):
    """With the same weights, merging tile after tile gives every place of the picture the same score."""
    answers = []
    for merge in ("spatial", "flat"):
        model, processor = tiny_reader(local_merge=merge)
        answers.append(answering.ask(model, processor, picture, QUESTION, max_new_tokens=1)[0])
    spatial, flat = answers
    assert spatial.grid.cols > 1
    np.testing.assert_allclose(spatial.scores, flat.scores, atol=1e-5)
    assert (spatial.kept == flat.kept).all()


def test_a_picture_is_encoded_once(picture, monkeypatch):
    model, processor = tiny_reader()
    calls = []
    original = type(model.model).encode_views
    monkeypatch.setattr(
        type(model.model), "encode_views", lambda self, pixels: calls.append(len(pixels)) or original(self, pixels)
    )
    answers = answering.ask(model, processor, picture, [QUESTION, "due date", QUESTION], max_new_tokens=4)
    assert sum(calls) == answers[0].grid.num_views
    assert answers[0].text == answers[2].text
    assert answers[0].seconds["encode"] > 0
    assert answers[1].seconds["encode"] == 0
    assert list(answers[1].seconds) == ["preprocess", "encode", "select", "prefill", "decode"]
    assert min(answers[1].seconds.values()) >= 0


def test_pictures_of_other_modes():
    model, processor = tiny_reader()
    grey = Image.new("LA", (40, 70))
    assert answering.ask(model, processor, grey, QUESTION, max_new_tokens=1)[0].question == QUESTION


@pytest.mark.parametrize("question", ["", "  \n", "what is <image>?"])
def test_bad_questions_are_refused(picture, question):
    model, processor = tiny_reader()
    with pytest.raises(InputError):
        answering.ask(model, processor, picture, question)


def test_nothing_is_left_to_train(picture):
    model, processor = tiny_reader()
    encoded = answering.encode(model, processor, picture)
    assert not encoded.tokens.global_tokens.requires_grad
    assert encoded.tokens.global_tokens.dtype == torch.float32
