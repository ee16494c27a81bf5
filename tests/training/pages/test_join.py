"""A joined model computes what its reader and its answerer compute, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import slime_vlm
from slime_vlm.diagnostics.cost import count_parameters
from slime_vlm.errors import ConfigError, InputError
from slime_vlm.inference.answering import ask, encode
from slime_vlm.model.cached_rows import record_of
from slime_vlm.model.character_naming import are_letters
from slime_vlm.model.configuration_recogniser import RecogniserConfig
from slime_vlm.model.copy_output import following_places
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.recogniser_encoder import RecogniserEncoder
from slime_vlm.pages.readable import PageQuestion, ReadablePage
from slime_vlm.processing.processing_slime import SlimeProcessor
from slime_vlm.training.pages.character_cells import CHARACTERS, character_ids
from slime_vlm.training.pages.join import joined
from slime_vlm.training.pages.reading import LabelledTiles, PageReader, labelled_tiles, read_page
from slime_vlm.training.pages.words.answerer import AnswererSettings, Answers, PageAnswerer
from slime_vlm.training.pages.words.batch import ASSISTANT, BEGIN, END, NOT_THERE, USER, make_batch
from slime_vlm.training.pages.words.cells import SPACE, Asked, PageCells
from slime_vlm.training.parts import PART_PREFIXES, parameters_of

VIEW, CELL, MARGIN, TILES = 64, 24, 8, 6
QUESTION = "What's the Sub-total due?"
OTHER_QUESTION = "invoice no. 7"
NEVER = [0, BEGIN, USER, ASSISTANT]


def encoder_config() -> RecogniserConfig:
    return RecogniserConfig(
        stem_width=8,
        stage_widths=(8, 16),
        stage_depths=(1, 2),
        gated_blocks=((), (1,)),
        hidden_size=16,
        image_size=VIEW,
    )


def characters_after(ids: np.ndarray) -> Tensor:
    """Return the character after each one of a page's cells: int64 [R, C, K] -> [R * C, K]."""
    flat = torch.from_numpy(ids)
    places = following_places(flat)
    return torch.where(places < 0, 0, flat.flatten()[places]).view(-1, ids.shape[2])


@cache
def parts(copies: bool = True, guided: bool = True, finds: bool = True) -> tuple[PageReader, PageAnswerer]:
    torch.manual_seed(0)
    reader = PageReader(RecogniserEncoder(encoder_config()), cell=CELL, margin=MARGIN, hidden=24, context=1).eval()
    settings = AnswererSettings(
        dim=32, layers=2, heads=4, word_dim=16, buckets=512, slots=4, copies=copies, guided=guided, finds=finds
    )
    answerer = PageAnswerer(settings).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        reader.local_compressor.fit(reader.early_map(tiles_of(page()).pixels(torch.arange(2))))
        # Peaks, so that random places show characters; letters mostly, and nothing in every other place.
        reader.local_compressor.score.weight.normal_(std=1.0)
        reader.local_compressor.context[0].contract.weight.normal_(std=0.1)
        reader.character_names.linear.weight.normal_(std=3.0)
        reader.character_names.bias[:, 0] += 33.0
        reader.character_names.bias[:, 1:95] += 6.0
        for parameter in answerer.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return reader, answerer


def page(seed: int = 0) -> ReadablePage:
    """A page with a line of text and noise, so that random weights name something else in every place."""
    text = "Sub-total due 41.50"
    drawn = Image.new("RGB", (144, 96), "white")
    ImageDraw.Draw(drawn).text((4, 18), text, "black", ImageFont.load_default(12))
    noise = np.random.default_rng(seed).integers(-40, 40, (96, 144, 3))
    pixels = (np.asarray(drawn).astype(int) + noise).clip(0, 255).astype(np.uint8)
    boxes = np.array([(4 + 7 * k, 18, 11 + 7 * k, 34) for k in range(len(text))], np.float32)
    return ReadablePage(pixels, text, boxes, np.zeros(len(text), np.int32), [], "test", "", "train", 0, 7.0)


def tiles_of(drawn: ReadablePage) -> LabelledTiles:
    return labelled_tiles(drawn, view_size=VIEW, max_tiles=TILES, cell=CELL, place=4, margin=MARGIN)


@cache
def model_of(copies: bool = True, guided: bool = True, finds: bool = True, **fields: Any) -> tuple[Any, SlimeProcessor]:
    reader, answerer = parts(copies, guided, finds)
    return joined(
        reader.state_dict(),
        answerer.state_dict(),
        encoder_config(),
        cell=CELL,
        margin=MARGIN,
        guided=guided,
        max_tiles=TILES,
        **{"selector_top_p": 1.0, **fields},
    )


def cells(drawn: ReadablePage) -> np.ndarray:
    tiles = tiles_of(drawn)
    reader, answerer = parts()
    return (
        read_page(reader, tiles, whole=True)
        .with_gaps(SPACE, are_letters(CHARACTERS))
        .told_apart(CHARACTERS)
        .cells((tiles.cells.rows, tiles.cells.cols), answerer.settings.slots)
    )


def inputs_of(processor: SlimeProcessor, *questions: str, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": image(seed + k)}, {"type": "text", "text": text}]}]
        for k, text in enumerate(questions)
    ]
    batch = processor.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=True, return_dict=True, processor_kwargs=options
    )
    return dict(batch)


def image(seed: int = 0) -> Image.Image:
    return Image.fromarray(page(seed).image)


@dataclass
class Said:
    """An answer, and where each of its characters stands: cell and slot, -1 for nowhere."""

    ids: list[int]
    at: list[tuple[int, int]]


def reference(said: Said, question: str, budget: int | None, seed: int, *which: bool) -> Answers:
    """The answerer's output for an answer that is given, its first half first; `which` are those of `parts`."""
    answerer = parts(*which)[1]
    where = np.array([*said.at, (-1, -1)]).reshape(-1, 2)
    # One more, whose place is not looked at: the last label is that of the token after the answer.
    asked = Asked(PageQuestion(question, "", "field"), np.array([*said.ids, 5]), *where.T, np.zeros(0, np.int64), False)
    return answerer(make_batch([PageCells(cells(page(seed)), [asked], [])], answerer.settings.buckets), budget)


@torch.inference_mode()
def reference_answer(
    count: int,
    question: str = QUESTION,
    budget: int | None = None,
    seed: int = 0,
    copies: bool = True,
    guided: bool = True,
    finds: bool = True,
    given: Sequence[int] = (),
) -> tuple[Said, Tensor]:
    """Answer by the answerer alone, in plain loops: the answer, and the log-probabilities of every token of it."""
    answerer = parts(copies, guided, finds)[1]
    ids = cells(page(seed))
    following = characters_after(ids)
    raster = ids.reshape(-1, ids.shape[2])
    said, found = Said([], []), []
    for step in range(count):
        answers = reference(said, question, budget, seed, copies, guided, finds)
        found.append(answers.log_probs[step].clone())
        allowed = found[-1].clone()
        allowed[NEVER] = -torch.inf
        token = given[step] if given else int(allowed.argmax())
        at = (-1, -1)
        if copies:
            last = said.at[-1] if said.at else (-1, -1)
            if min(last) >= 0 and int(following[last]) == token:
                full = last[1] + 1 == raster.shape[1] or raster[last[0], last[1] + 1] == 0
                at = (last[0] + 1, 0) if full else (last[0], last[1] + 1)
            else:
                at = pointed(answerer, answers, step, token, raster)
        said.ids.append(token)
        said.at.append(at)
        if token == END:
            break
    return said, torch.stack(found)


def pointed(answerer: PageAnswerer, answers: Answers, step: int, token: int, raster: np.ndarray) -> tuple[int, int]:
    """Where the character of a step is pointed at most, nowhere for a space that is rather written."""
    output = answerer.copy_output
    assert output is not None
    column = int((answers.packed["labels"][0] >= 0).nonzero()[step]) - 1
    hidden = answers.hidden_states[-1][0, column]
    attention = answers.attentions[-1][0, :2, column].mean(dim=0)
    kept = answers.kept[0].nonzero()[:, 0].tolist()
    image_columns = answers.packed["is_image"][0].nonzero()[:, 0].tolist()
    slot = output.slot(hidden).softmax(dim=-1)
    # What belongs to the question is pointed at more, what says it less; all local tokens together as before.
    linked, own = (cosines[0, 0].tolist() for cosines in (answers.look.cosines, answers.look.own_cosines))
    belongs, says = (10 * output.likeness).tolist()
    before = float(attention[image_columns].sum())
    for cell, at in zip(kept, image_columns, strict=True):
        attention[at] *= math.exp(belongs * linked[cell] - says * own[cell])
        if step == 0 and answerer.answer_finder is not None:
            assert answers.look.beginnings is not None
            attention[at] *= math.exp(
                float(answerer.answer_finder.trust) * max(-15.0, float(answers.look.beginnings[0, 0, cell]))
            )
    attention[image_columns] *= before / float(attention[image_columns].sum())
    best, most, total = (-1, -1), -1.0, 0.0
    for cell, at in zip(kept, image_columns, strict=True):
        for k, character in enumerate(raster[cell].tolist()):
            if character == token:
                share = float(attention[at] * slot[k])
                total += share
                best, most = ((cell, k), share) if share > most else (best, most)
    write, copy = output.gate(hidden)[:2].softmax(dim=-1)
    spelled = write * answerer.language_model.embed_tokens.weight.matmul(hidden).softmax(dim=-1)[token]
    return (-1, -1) if token == SPACE and spelled > copy * total else best


def greedy(model: Any, inputs: dict[str, Tensor], count: int = 6, **options: Any) -> list[list[int]]:
    sequences = model.generate(**inputs, max_new_tokens=count, do_sample=False, **options)
    return [row[inputs["input_ids"].shape[1] :].tolist() for row in sequences]


def test_local_tokens_name_what_the_reader_names() -> None:
    model, processor = model_of()
    inputs = inputs_of(processor, QUESTION)
    (tokens,) = model.encode_images(inputs["pixel_values"], inputs["image_grids"])
    expected = cells(page())
    assert (expected > 0).sum() > 20
    assert (expected == 0).all(axis=-1).any()
    assert tokens.characters.view(expected.shape).tolist() == expected.tolist()
    streamed = encode(model, processor, image()).tokens
    assert torch.equal(streamed.characters, tokens.characters)
    torch.testing.assert_close(streamed.local_tokens, tokens.local_tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("copies", "finds"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("budget", [None, 7])
def test_answers_are_those_of_the_parts(copies: bool, finds: bool, guided: bool, budget: int | None) -> None:
    fields = {} if budget is None else {"max_local_tokens": budget}
    model, processor = model_of(copies, guided, finds, **fields)
    assert (model.model.answer_finder is not None) == finds
    inputs = inputs_of(processor, QUESTION)
    with torch.inference_mode():
        outputs = model(**inputs)
    found = outputs.logits[0, -1]
    found = found if copies else found.log_softmax(dim=-1)
    said, expected = reference_answer(6, budget=budget, copies=copies, guided=guided, finds=finds)
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=1e-5)
    assert greedy(model, inputs) == [said.ids]
    (kept,) = outputs.kept_local_tokens
    assert int(kept.sum()) == (budget or (cells(page()).reshape(len(kept), -1) > 1).any(axis=1).sum())


def test_later_steps_have_the_distributions_of_the_parts() -> None:
    """Beyond greedy tokens: what follows on the page, what does not, spaces and what no page shows."""
    model, processor = model_of(max_local_tokens=9)
    inputs = inputs_of(processor, QUESTION)
    (kept,) = model(**inputs).kept_local_tokens
    raster = cells(page()).reshape(len(kept), -1)
    shown = [raster[cell].tolist() for cell in kept.nonzero()[:, 0].tolist()]
    first, *_, last = [row for row in shown if sum(c > 1 for c in row) > 2]
    answer = [*first, SPACE, *last, *character_ids("Q\u00fc 4"), last[0], SPACE, first[0]]
    answer = [token for token in answer if token > 0]
    said, expected = reference_answer(len(answer), budget=9, given=answer)
    places = [at for at in said.at if min(at) >= 0]
    assert len(places) > 4
    assert any(b == (a[0], a[1] + 1) for a, b in pairwise(said.at))
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
    with torch.inference_mode():
        images = {name: inputs[name] for name in ("pixel_values", "image_grids")}
        options = {"kept_local_tokens": [kept]}
        whole = model(input_ids=ids, **images, **options)
        torch.testing.assert_close(whole.logits[0, -len(answer) - 1 : -1], expected, atol=1e-5, rtol=1e-5)
        outputs = model(**inputs)
        steps, follows = [outputs.logits[0, -1]], []
        for token in answer:
            outputs = model(input_ids=torch.tensor([[token]]), past_key_values=outputs.past_key_values)
            steps.append(outputs.logits[0, -1])
            follows.append(outputs.follows[0, 0].item())
    torch.testing.assert_close(torch.stack(steps[:-1]), expected, atol=1e-5, rtol=1e-5)
    following = characters_after(cells(page()))
    assert follows == [int(following[at]) if min(at) >= 0 else 0 for at in said.at]
    assert whole.follows[0, -len(answer) :].tolist() == follows
    # A chunk of several tokens behind a cache.
    with torch.inference_mode():
        part = model(input_ids=ids[:, :-4], **images, **options)
        behind = model(input_ids=ids[:, -4:], past_key_values=part.past_key_values)
        torch.testing.assert_close(behind.logits[0, -4:], whole.logits[0, -4:], atol=1e-5, rtol=1e-5)
        part = model(input_ids=ids[:, :-4], **images, **options)
        part.past_key_values.crop(-1)
        with pytest.raises(InputError, match="within an answer"):
            model(input_ids=ids[:, -5:], past_key_values=part.past_key_values)


def test_positions_leave_out_dropped_characters_alone() -> None:
    model, processor = model_of(max_local_tokens=3)
    inputs = inputs_of(processor, QUESTION)
    with torch.inference_mode():
        outputs = model(**inputs)
    num_local = int((inputs["input_ids"] == processor.image_token_id).sum())
    # what s the subtotal due, and the beginning of the answer.
    text = [2 + num_local + k for k in range(5)]
    kept = (2 + outputs.kept_local_tokens[0].nonzero()[:, 0]).tolist()
    assert outputs.position_ids[0].tolist() == [0, 1, *kept, *text]


def test_cached_as_uncached_and_batched_as_one_by_one() -> None:
    model, processor = model_of(max_local_tokens=9)
    questions = (QUESTION, OTHER_QUESTION, "7")
    single = [greedy(model, inputs_of(processor, text, seed=k))[0] for k, text in enumerate(questions)]
    uncached = [
        greedy(model, inputs_of(processor, text, seed=k), use_cache=False)[0] for k, text in enumerate(questions)
    ]
    assert uncached == single
    for side in ("left", "right"):
        assert greedy(model, inputs_of(processor, *questions, padding_side=side)) == single
    with torch.inference_mode():
        batch = inputs_of(processor, *questions)
        together = model(**batch).logits[:, -1]
        alone = [model(**inputs_of(processor, text, seed=k)).logits[0, -1] for k, text in enumerate(questions)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-5)


def test_beams_and_several_answers_follow_their_rows() -> None:
    model, processor = model_of()
    inputs = inputs_of(processor, QUESTION, OTHER_QUESTION)
    beams = model.generate(**inputs, num_beams=3, max_new_tokens=5, do_sample=False)
    for k, text in enumerate((QUESTION, OTHER_QUESTION)):
        alone = model.generate(
            **inputs_of(processor, text, seed=k), num_beams=3, max_new_tokens=5, do_sample=False, use_cache=False
        )
        length = alone.shape[1] - inputs_of(processor, text, seed=k)["input_ids"].shape[1]
        assert beams[k, inputs["input_ids"].shape[1] :][:length].tolist() == alone[0, -length:].tolist()


@pytest.mark.parametrize("budget", [None, 1])
def test_a_second_question_behind_the_cache(budget: int | None) -> None:
    """It knows all cells of the image, also those behind the last one that is kept."""
    model, processor = model_of()
    inputs = inputs_of(processor, QUESTION)
    tokenizer = processor.tokenizer
    more = "41<eos><user>and the other one?<assistant>"
    ids = tokenizer(more, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        (kept,) = model(**inputs).kept_local_tokens
        kept = [kept & (kept.cumsum(0) <= (budget or len(kept)))]
        first = model(**inputs, kept_local_tokens=kept)
        behind = model(input_ids=ids, past_key_values=first.past_key_values).logits[0, -1]
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], ids], dim=1)}
        whole = {name: value for name, value in whole.items() if name not in ("attention_mask", "question_mask")}
        torch.testing.assert_close(behind, model(**whole, kept_local_tokens=kept).logits[0, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_whether_a_space_is_written_is_asked_of_the_head(sign: int) -> None:
    """A head that is not tied to the embeddings, and writes a space surely or never."""
    model, processor = deepcopy(model_of())
    inputs = inputs_of(processor, QUESTION)
    with torch.no_grad():
        hidden = model.model(**inputs).last_hidden_state[0, -1]
        head = torch.zeros_like(model.lm_head.weight)
        head[SPACE] = sign * 50 * hidden / hidden.square().sum()
        model.lm_head.weight = nn.Parameter(head)
        record = record_of(model(**inputs).past_key_values)
    assert record is not None
    assert record.copying is not None
    assert record.copying.wrote_space.tolist() == [sign > 0]


def test_the_loss_is_that_of_the_logits() -> None:
    model, processor = model_of()
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": "41.50"},
    ]
    batch = dict(processor.encode_conversations([chat], [[image()]]))
    with torch.inference_mode():
        outputs = model(**batch)
        only = model(**batch, loss_only=True)
        aligned = model(**batch, align_outputs=True)
    torch.testing.assert_close(only.loss, outputs.loss)
    torch.testing.assert_close(aligned.loss, outputs.loss)
    assert aligned.logits.shape[1] == batch["input_ids"].shape[1]
    assert torch.equal(aligned.logits[0, -6:], outputs.logits[0, -6:])
    labels = outputs.labels[0]
    assert labels[labels >= 0].tolist() == [*character_ids("41.50").tolist(), model.generation_config.eos_token_id]


def test_saved_as_loaded(tmp_path: Path) -> None:
    model, processor = model_of(max_local_tokens=9)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, its_processor = slime_vlm.load(tmp_path, device="cpu")
    assert its_processor.image_processor.tile_margin == MARGIN
    assert torch.equal(loaded.model.open_vocabulary.classes, model.model.open_vocabulary.classes)
    assert loaded.config.to_dict()["characters"] == CHARACTERS
    inputs = inputs_of(processor, QUESTION)
    assert {name: value.tolist() for name, value in inputs_of(its_processor, QUESTION).items()} == {
        name: value.tolist() for name, value in inputs.items()
    }
    with torch.inference_mode():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    found, again = (
        ask(m, p, image(), [QUESTION, OTHER_QUESTION], max_new_tokens=6)
        for m, p in ((loaded, its_processor), (model, processor))
    )
    assert [answer.text for answer in found] == [answer.text for answer in again]
    assert found[0].num_kept == 9


def test_a_page_that_shows_nothing_and_a_question_without_words() -> None:
    model, processor = model_of(max_local_tokens=9)
    encoded = encode(model, processor, image())
    encoded.tokens.characters = torch.zeros_like(encoded.tokens.characters)
    answer = encoded.ask("?!", max_new_tokens=3)
    assert answer.num_kept == 0
    assert answer.probabilities is not None
    assert answer.probabilities.sum() == 0


def test_a_global_view_with_pooling() -> None:
    model, processor = model_of(views="both", global_pooling=4)
    inputs = inputs_of(processor, QUESTION)
    with torch.inference_mode():
        outputs = model(**inputs)
    assert outputs.vision_tokens[0].global_tokens.shape == (4, 32)
    assert outputs.adapter_weights[0].shape == (4, 2)
    assert greedy(model, inputs) == greedy(model, inputs, use_cache=False)
    answer = ask(model, processor, image(), QUESTION, max_new_tokens=4)[0]
    assert answer.num_global == 4


def test_the_refusal_is_one_token() -> None:
    tokenizer = model_of()[1].tokenizer
    assert tokenizer.decode([NOT_THERE]) == "not on this page"
    text = "Größe: 7 \u2212 \u4e2d <user> not on this page"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ids == character_ids(text).tolist()
    assert tokenizer.decode(character_ids("a . b , c").tolist()) == "a . b , c"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"local_merge": "flat"}, "local_merge"),
        ({"views": "global"}, "views"),
        ({"selector": "attention"}, "selector"),
        ({"characters": CHARACTERS + "a"}, "characters"),
        ({"tile_margin": 4}, "tile_margin"),
        ({"vision_feature_layer": -2}, "vision_feature_layer"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        type(model_of()[0].config).from_dict({**model_of()[0].config.to_dict(), **fields})


def test_inputs_that_hide_the_words_are_refused() -> None:
    model, processor = model_of()
    inputs = inputs_of(processor, QUESTION)
    with pytest.raises(InputError, match="reads the words"):
        model(inputs_embeds=torch.zeros(1, 3, 32))
    with pytest.raises(InputError, match="pack needs"):
        model(**inputs, pack=True)
    with torch.inference_mode():
        ids = inputs["input_ids"]
        images = {name: inputs[name] for name in ("pixel_values", "image_grids")}
        outputs = model(input_ids=ids[:, :-3], **images)
        with pytest.raises(InputError, match="within a word"):
            model(input_ids=ids[:, -3:], past_key_values=outputs.past_key_values)
    tokens = model.encode_images(inputs["pixel_values"], inputs["image_grids"])
    tokens[0].characters = None
    with pytest.raises(InputError, match="characters"):
        model(input_ids=inputs["input_ids"], vision_tokens=tokens)


def test_videos_are_refused() -> None:
    model, _ = model_of()
    with pytest.raises(InputError, match="frames"):
        model.encode_frames(torch.zeros(2, 3, VIEW, VIEW), (1, 2))


def test_models_without_characters_have_none_of_it() -> None:
    from tests.conftest import tiny_model

    model: SlimeForConditionalGeneration = tiny_model()
    assert not [name for name in model.state_dict() if "vocabulary" in name or "copy" in name]


def test_an_image_that_comes_later_is_copied_from() -> None:
    """Text first, then an image behind the cache: its cells are counted behind those of the row."""
    model, processor = model_of()
    tokenizer = processor.tokenizer
    first = tokenizer("<user>hello<assistant>ab<eos>", return_tensors="pt").input_ids
    inputs = inputs_of(processor, QUESTION)
    behind = torch.cat(
        [inputs["input_ids"][:, 1:], tokenizer("41", add_special_tokens=False, return_tensors="pt").input_ids], dim=1
    )
    images = {name: inputs[name] for name in ("pixel_values", "image_grids")}
    with torch.inference_mode():
        whole = model(input_ids=torch.cat([first, behind], dim=1), **images)
        cache = model(input_ids=first).past_key_values
        later = model(input_ids=behind, past_key_values=cache, **images)
        torch.testing.assert_close(later.logits[0, -3:], whole.logits[0, -3:], atol=1e-5, rtol=1e-5)
        again = model(input_ids=behind, past_key_values=later.past_key_values, **images)
        twice = model(
            input_ids=torch.cat([first, behind, behind], dim=1),
            pixel_values=images["pixel_values"].repeat(2, 1, 1, 1),
            image_grids=images["image_grids"].repeat(2, 1),
        )
    assert later.follows[0, -2:].tolist() == whole.follows[0, -2:].tolist()
    assert again.follows[0, -2:].tolist() == twice.follows[0, -2:].tolist()
    assert again.held_characters.tolist() == twice.held_characters.tolist()


def test_in_bfloat16(tmp_path: Path) -> None:
    model, processor = model_of(max_local_tokens=9)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, _ = slime_vlm.load(tmp_path, device="cpu", dtype="bfloat16")
    tokens = encode(loaded, processor, image()).tokens
    assert tokens.to(torch.bfloat16).characters.dtype == torch.long
    (answer,) = ask(loaded, processor, image(), QUESTION, max_new_tokens=6)
    assert answer.text


def test_the_finder_looks_once_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = model_of()
    calls: list[Tensor] = []
    whole = model.model.answer_finder.on_pages
    monkeypatch.setattr(model.model.answer_finder, "on_pages", lambda *given: calls.append(given[-1]) or whole(*given))
    greedy(model, inputs_of(processor, QUESTION))
    assert len(calls) == 1
    assert calls[0].any()


def test_tokens_of_a_model_without_a_finder_are_refused() -> None:
    model, processor = model_of()
    inputs = inputs_of(processor, QUESTION)
    (tokens,) = model.encode_images(inputs.pop("pixel_values"), inputs.pop("image_grids"))
    with pytest.raises(InputError, match="have no contexts, which this model's answer finder needs"):
        model(**inputs, vision_tokens=[replace(tokens, contexts=None)])


def test_every_parameter_belongs_to_one_part() -> None:
    model, _ = model_of()
    named = [name for part in PART_PREFIXES for name in parameters_of(model, part)]
    assert set(named) == {name for name, _ in model.named_parameters()}
    assert sum(count_parameters(model).values()) == sum(p.numel() for p in model.parameters())


def test_a_finder_that_is_believed_twice_as_much() -> None:
    usual, twice = (model_of(**fields)[0].model.answer_finder.trust for fields in ({}, {"trust": 2.0}))
    torch.testing.assert_close(twice, 2 * usual)


def test_a_new_finder_starts_as_in_training(tmp_path: Path) -> None:
    model, _ = model_of(finds=False)
    model.save_pretrained(tmp_path)
    loaded = SlimeForConditionalGeneration.from_pretrained(tmp_path, answer_finder=True).model.answer_finder
    assert loaded.trust.tolist() == [1.0]
    assert not loaded.told.weight.any()
    assert loaded.own_in.weight.std().item() == pytest.approx(1.0, abs=0.1)


def test_a_text_without_a_question_in_float16() -> None:
    """The least length of a vector rounds to 0 there."""
    model, _ = model_of()
    ids = torch.tensor([[BEGIN, ASSISTANT, *character_ids("No words").tolist()]])
    with torch.inference_mode():
        assert torch.isfinite(deepcopy(model).half()(input_ids=ids).logits).all()
