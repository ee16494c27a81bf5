from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.tiling import choose_grid
from slime_vlm.model.visual_vocabulary import VisualVocabulary
from slime_vlm.pages import Page, PageSettings, make_page, render
from slime_vlm.training.models import start_model
from slime_vlm.training.pages.data import AnswerCollator, PageShape, SymbolicTokensCollator
from slime_vlm.training.pages.labels import page_vocabulary, tile_token_labels
from slime_vlm.training.pages.losses import (
    CopyingHead,
    ReadingHeads,
    cell_loss,
    pointing_loss,
    selector_loss,
    slot_accuracy,
    slot_loss,
)
from slime_vlm.training.pages.objectives import (
    AnswerObjective,
    ReadObjective,
    SymbolicTokensObjective,
    answer_loss,
    question_scores,
)
from slime_vlm.training.pages.packed_questions import PackedImage, merge_packed
from slime_vlm.training.recipe import SymbolicTokensSettings, load_recipe
from tests.conftest import tiny_model
from tests.training.mini import PAGES, mini_recipe, write_recipe


def test_slot_loss_by_hand() -> None:
    # One token that holds something, one blank; two slots of 2 and 3 entries.
    labels = torch.tensor([[[1, 2], [0, 0]]])
    logits = [torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)]
    logits[1][0, 1, 0] = math.log(2)  # of the blank's second slot: 2, 1, 1 parts
    something, blank = math.log(2) + math.log(3), math.log(2) + math.log(2)
    expected = (something + 0.2 * blank) / 1.2
    assert slot_loss(logits, labels).item() == pytest.approx(expected)
    assert slot_loss(logits, labels, blank_weight=1.0).item() == pytest.approx((something + blank) / 2)
    # A drawing: no character, but a role. It counts four times as much as the text beside it.
    labels[0, 1] = torch.tensor([0, 1])
    drawing = math.log(2) + math.log(4)
    assert slot_loss(logits, labels).item() == pytest.approx((something + 4 * drawing) / 5)


def test_cell_loss_by_hand() -> None:
    labels = torch.tensor([[0, 2]])
    logits = torch.zeros(1, 2, 3)
    logits[0, 1, 2] = math.log(2)
    loss, right = cell_loss(logits, labels)
    assert loss.item() == pytest.approx((0.1 * math.log(3) + math.log(2)) / 1.1)
    assert right == 1.0


def test_slot_accuracy_counts_tokens_with_text() -> None:
    sizes = [3, 3, 4, 3, 3, 2]  # two characters, offset, two words, role
    labels = torch.tensor([[1, 2, 1, 1, 0, 1], [1, 0, 2, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    said = labels.clone()
    said[1, 1], said[0, 3] = 2, 2
    logits = [F.one_hot(said[:, k], size).float() for k, size in enumerate(sizes)]
    assert slot_accuracy(logits, labels) == {
        "read_characters": 0.5,
        "read_offset": 1.0,
        "read_words": 0.5,
        "read_blank": 1.0,
    }


def test_selector_loss_by_hand() -> None:
    scores = torch.tensor([[[0.0, 5.0], [0.0, 5.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    relevant = torch.zeros(1, 3, 2, dtype=torch.bool)
    relevant[0, 0, 0] = True
    # Question 0 has half of the probability on its token; question 1 is about nothing and padding counts nowhere.
    assert selector_loss(scores, relevant, mask).item() == pytest.approx(math.log(2))
    relevant[0, :2, 1] = True
    assert selector_loss(scores, relevant, mask).item() == pytest.approx(math.log(2) / 2)
    # All of the mass on the key while the value gets nothing is no success.
    key_alone = torch.tensor([[[20.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    relevant[0, :2, 0] = True
    assert selector_loss(key_alone, relevant, mask).item() > 4
    none = scores.clone().requires_grad_()
    loss = selector_loss(none, torch.zeros_like(relevant), mask)
    loss.backward()
    assert loss.item() == 0.0


def test_question_scores_are_sums_of_cosines() -> None:
    model = tiny_model(selector_temperature=0.5)
    local, text = torch.randn(1, 3, 24), torch.randn(1, 4, 24)
    batch = {
        "question_of": torch.tensor([[0, 1, 1, 2]]),
        "question_mask": torch.ones(1, 4, dtype=torch.bool),
        "relevant": torch.zeros(1, 3, 2, dtype=torch.bool),
    }
    scores = question_scores(model, local, text, batch)
    for token in range(3):
        one = sum(F.cosine_similarity(local[0, token], text[0, t], dim=0) for t in (1, 2))
        two = F.cosine_similarity(local[0, token], text[0, 3], dim=0)
        torch.testing.assert_close(scores[0, token], torch.stack([one, two]) / 0.5)


def test_answer_loss_is_the_shifted_cross_entropy() -> None:
    model = tiny_model()
    hidden, labels = torch.randn(2, 5, 24), torch.randint(0, 64, (2, 5))
    labels[:, :3] = -100
    loss, logs = answer_loss(model, hidden, labels)
    logits = model.lm_head(hidden)[:, :-1].flatten(0, 1)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels[:, 1:].flatten()))
    assert set(logs) == {"answer_tokens_right"}


def test_reading_heads_name_cells_in_raster_order() -> None:
    heads = ReadingHeads((3, 5), characters=2)
    with torch.no_grad():
        heads.coarse.weight.zero_()
        # The quarter of a patch that a cell lies in, written into its first logit.
        heads.coarse.bias.copy_(torch.arange(4.0).repeat_interleave(3))
        heads.fine.weight.zero_()
        heads.fine.weight[0, 0] = 1.0
        heads.fine.bias.zero_()
    fine = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(1, 3, 1, 1)
    by_fine, by_coarse = heads(fine, torch.zeros(1, 5, 2, 2))
    assert by_fine[0, :, 0].tolist() == list(range(16))
    assert by_coarse[0, :, 0].tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3]


def test_heads_are_thrown_away(tmp_path: Path) -> None:
    model, _ = start_model(load_recipe(write_recipe(tmp_path, mini_recipe())), {})
    names = set(model.state_dict())
    objective = ReadObjective(model, 70, ["vision_tower"])
    assert set(model.state_dict()) > names
    objective.finish(model)
    assert set(model.state_dict()) == names
    fixed = ReadObjective(model, 70, ["global_adapter"])
    assert set(model.state_dict()) == names
    fixed.finish(model)


def test_symbolic_tokens_without_doubt_are_exact() -> None:
    projector = VisualVocabulary(vision_dim=4, dim=8, slot_sizes=[80, 80, 41, 10, 10, 8])
    ids = torch.randint(0, 8, (2, 5, 6))
    certain = SymbolicTokensObjective(tiny_model(), 10, 0.0, 0.0, 0.0, word_dropout=0.0, corruption=0.0)
    torch.testing.assert_close(certain._tokens(projector, ids, ids), projector.embed_ids(ids))
    # A token in doubt lies between what it holds and what it would hold a little aside.
    doubted = ids.clone()
    doubted[0, 0, 0] += 1
    between = certain._tokens(projector, ids, doubted)
    torch.testing.assert_close(between.flatten(0, 1)[1:], projector.embed_ids(ids).flatten(0, 1)[1:])
    share = (between - projector.embed_ids(ids))[0, 0] / (projector.embed_ids(doubted) - projector.embed_ids(ids))[0, 0]
    torch.testing.assert_close(share, share[:1].expand(8))
    assert 0 < share[0] < 1
    # Doubt never reaches offsets, words or roles; dropped words become the unknown word.
    careless = SymbolicTokensObjective(tiny_model(), 10, 0.0, 0.0, 0.0, word_dropout=1.0, corruption=0.0)
    dropped = careless._tokens(projector, ids, ids)
    unknown = ids.clone()
    unknown[..., -3:-1] = (ids[..., -3:-1] > 0).long()
    torch.testing.assert_close(dropped, projector.embed_ids(unknown))


def test_pointing_loss_by_hand() -> None:
    # Three layers of two heads; the first head of the last two counts.
    attention = torch.zeros(1, 2, 3, 3)
    attention[0, 0, 1] = torch.tensor([0.25, 0.75, 0.0])
    other = torch.full((1, 2, 3, 3), torch.nan)
    columns = torch.tensor([[-1, -1, 0]])
    loss, share = pointing_loss((other, attention, attention), columns)
    assert loss.item() == pytest.approx(math.log(4))
    assert share == pytest.approx(0.25)
    nothing, share = pointing_loss((other, attention, attention), torch.full((1, 3), -1))
    assert (nothing.item(), share) == (0.0, 0.0)


def test_copying_head_by_hand() -> None:
    # Two slots for characters, one for the offset. Column 1 is read twice, then column 2 once.
    head = CopyingHead(2, [4, 4, 5])
    assert head.sizes == [4, 4, 5, 3]
    columns = torch.tensor([[-1, -1, -1, 1, 1, 2]])
    ids = torch.zeros(1, 6, 6, dtype=torch.long)
    ids[0, 1, :3], ids[0, 2, :3] = torch.tensor([1, 2, 3]), torch.tensor([3, 0, 4])
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.zero_()
    hidden = torch.randn(1, 6, 2)
    loss, right = head(hidden, columns, ids)
    # Nothing known: a guess among as many as each slot has entries.
    assert loss.item() == pytest.approx((2 * math.log(4) + math.log(5) + math.log(3)) / 4)
    assert right == 0.0
    # Say what column 1 holds and that its first character is next: right for the first of the three places.
    with torch.no_grad():
        for begin, entry in zip((0, 4, 8, 13), (1, 2, 3, 0), strict=True):
            head.linear.bias[begin + entry] = 20.0
    assert head(hidden, columns, ids)[1] == pytest.approx(1 / 3)
    nothing, right = head(hidden, torch.full((1, 6), -1), ids)
    assert (nothing.item(), right) == (0.0, 0.0)


def page_model(tmp_path: Path, views: str) -> tuple[Any, Any]:
    model, processor = start_model(load_recipe(write_recipe(tmp_path, mini_recipe())), {"views": views})
    with torch.no_grad():
        model.model.page_positions.linear.weight.normal_(std=0.1)
    return model.eval(), processor


def asked_alone(model: Any, processor: Any, page: Page, kept: list[Tensor], **seen: Any) -> Tensor:
    """Mean loss over all answer tokens, by the model's own forward, one question a row."""
    losses, counts = [], []
    for question, mask in zip(page.questions, kept, strict=True):
        user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]}
        turns = [user, {"role": "assistant", "content": question.answer}]
        inputs = processor.encode_conversations([turns], images=[[render(page)]])
        inputs.pop("pixel_values")
        losses.append(model(**inputs, **seen, kept_local_tokens=[mask]).loss)
        counts.append((inputs["labels"] != -100).sum())
    return (torch.stack(losses) * torch.stack(counts)).sum() / torch.stack(counts).sum()


def test_symbolic_rows_are_what_the_model_makes_of_them(tmp_path: Path) -> None:
    """Several questions behind one image have the loss of the model's own merging, one question at a time."""
    model, processor = page_model(tmp_path, "local")
    vocabulary, shape = page_vocabulary(), PageShape(view_size=256, max_tiles=7, local_side=8, patch_side=16)
    page = make_page(7, PageSettings.from_dict({**PAGES, "questions": 3}))
    assert len(page.questions) == 3
    settings = SymbolicTokensSettings(distractors=[0.3, 0.3], blanks=[0.1, 0.1], unknown=0.0)
    batch = SymbolicTokensCollator(processor, shape, vocabulary, [3], settings, seed=1)([page])
    loss, _ = SymbolicTokensObjective(model, 10, 0.0, 0.0, 0.0, word_dropout=0.0, corruption=0.0)(model, batch)

    grid = choose_grid(page.height, page.width, 256, 7)
    labels = tile_token_labels(page, grid, vocabulary, side=8, view_size=256)
    kept = torch.zeros(labels.run.size, dtype=torch.bool)
    kept[batch["token_indices"][0][batch["kept"][0]]] = True
    assert 0 < int(kept.sum()) < kept.numel()
    tokens = model.model.projector.embed_ids(torch.from_numpy(labels.ids).flatten(0, 1))
    seen = [VisionTokens(grid=(grid.rows, grid.cols), local_tokens=tokens)]
    alone = asked_alone(model, processor, page, 3 * [kept], vision_tokens=seen)
    torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("views", ["local", "both"])
def test_answer_rows_are_what_the_model_makes_of_them(tmp_path: Path, views: str) -> None:
    model, processor = page_model(tmp_path, views)
    model.config.selector_top_p = 0.5
    shape = PageShape(view_size=256, max_tiles=7, local_side=8, patch_side=16)
    page = make_page(7, PageSettings.from_dict({**PAGES, "questions": 1}))
    batch = AnswerCollator(processor, shape, page_vocabulary(), [1], seed=1)([page])
    loss, logs = AnswerObjective(model, 0.0, 0.0, 0.0)(model, batch)
    with torch.no_grad():
        seen = model.model.encode_images(batch["pixel_values"], batch["image_grids"])
        user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": page.questions[0].text}]}
        inputs = processor.encode_conversations([[user]], images=[[render(page)]])
        selection = model.model.select(seen, inputs["input_ids"], question_mask=inputs["question_mask"])
    kept = selection.kept[0] | batch["relevant"][0, :, 0]
    assert logs["kept"] == pytest.approx(kept.float().mean().item())
    assert not kept.all()
    alone = asked_alone(model, processor, page, [kept], vision_tokens=seen)
    torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)


def test_answers_from_the_global_view_alone(tmp_path: Path) -> None:
    """Nothing is selected, and the reading loss is that of the adapters that the gate lets through."""
    model, processor = page_model(tmp_path, "global")
    shape = PageShape(view_size=256, max_tiles=7, local_side=8, patch_side=16)
    page = make_page(7, PageSettings.from_dict({**PAGES, "questions": 1}))
    batch = AnswerCollator(processor, shape, page_vocabulary(), [1], seed=1, label_global=True)([page])
    loss, logs = AnswerObjective(model, 0.2, 0.4, 0.0, global_reading_weight=0.0)(model, batch)
    with torch.no_grad():
        seen = model.model.encode_images(batch["pixel_values"][:1], batch["image_grids"])
    alone = asked_alone(model, processor, page, [torch.zeros(0, dtype=torch.bool)], vision_tokens=seen)
    assert set(logs) == {"answer_tokens_right"}
    torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-5)

    read = {}
    for gate in ("mlp", "attention", "mixture"):
        model.config.gate = gate
        _, logs = AnswerObjective(model, 0.0, 0.0, 0.0, global_reading_weight=0.5)(model, batch)
        read[gate] = logs["global_reading_loss"]
    assert read["mixture"] == pytest.approx((read["mlp"] + read["attention"]) / 2)
    features = model.model.encode_views(batch["pixel_values"][:1])
    assert batch["global_labels"].shape[:2] == features.shape[:2]
    by_hand = slot_loss(model.model.projector.slot_logits(features), batch["global_labels"])
    assert read["mlp"] == pytest.approx(by_hand.item())


def test_answers_are_read_where_their_characters_stand(tmp_path: Path) -> None:
    """Following `answer_columns` through the merged rows leads to tokens that hold the answer's characters."""
    _, processor = page_model(tmp_path, "both")
    vocabulary, shape = page_vocabulary(), PageShape(view_size=256, max_tiles=7, local_side=8, patch_side=16)
    page = make_page(7, PageSettings.from_dict({**PAGES, "questions": 4, "absent": 0.0}))
    batch = AnswerCollator(processor, shape, vocabulary, [4], seed=1)([page])
    grid = choose_grid(page.height, page.width, 256, 7)
    labels = tile_token_labels(page, grid, vocabulary, side=8, view_size=256)
    num_local, num_global = labels.run.size, 5
    places = torch.arange(num_global + num_local)
    kept = torch.ones(len(places), dtype=torch.bool)
    kept[num_global:][~batch["relevant"][0].any(1)] = False
    places = places[kept]
    image = PackedImage(torch.zeros(len(places), 24), places, len(kept), num_local, torch.ones(len(places), 4).bool())
    text = torch.zeros(*batch["input_ids"].shape, 24)
    packed = merge_packed(text, batch, [image])
    flat = labels.ids.reshape(num_local, -1)
    followed = 0
    for label, column in zip(packed["labels"][0].tolist(), packed["answer_columns"][0].tolist(), strict=True):
        if column < 0 or label < 0:
            continue
        held = [vocabulary.characters[i - 1] for i in flat[places[column - 2] - num_global, :5] if i]
        token = processor.tokenizer.convert_ids_to_tokens(label)
        if token not in ("<eos>", "\u2581"):
            followed += 1
            assert token in held
    assert followed > 8


def test_questions_of_a_packed_row_see_their_own_tokens() -> None:
    batch = {
        "question_of": torch.tensor([[0, 0, 1, 2, 2]]),
        "text_positions": torch.tensor([[0, 1, 0, 0, 1]]),
        "labels": torch.tensor([[-100, -100, 5, 6, 7]]),
        "answer_tokens": torch.tensor([[0, 0, 1, 2, 0]]),
    }
    seen = torch.tensor([[True, False], [True, True]])
    image = PackedImage(torch.ones(2, 4), torch.tensor([0, 1]), 3, 3, seen)
    packed = merge_packed(torch.zeros(1, 5, 4), batch, [image])
    assert packed["position_ids"].tolist() == [[0, 1, 2, 3, 5, 5, 6]]
    assert packed["labels"].tolist() == [[-100, -100, -100, -100, 5, 6, 7]]
    assert packed["answer_columns"].tolist() == [[-1, -1, -1, -1, 2, 3, -1]]
    visible = (packed["attention_mask"][0, 0] == 0).int().tolist()
    assert visible == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0, 1, 0],
        [1, 1, 0, 1, 0, 1, 1],
    ]
