"""The language side of a page model: batches, losses, budgets, and that it learns."""

import numpy as np
import pytest
import torch

from slime_vlm.pages.text_sheets import SheetSettings, TextSheets
from slime_vlm.pages.word_lists import read_words
from slime_vlm.training.pages.words.answerer import AnswererSettings, PageAnswerer
from slime_vlm.training.pages.words.batch import ASSISTANT, END, NOT_THERE, make_batch
from slime_vlm.training.pages.words.cells import CellSettings, PageCells, cells_of
from slime_vlm.training.pages.words.losses import LossWeights, contrast_loss, finding_loss, word_losses
from slime_vlm.training.pages.words.measuring import measure

SMALL = AnswererSettings(dim=32, layers=2, heads=4, word_dim=16, buckets=1024)


def pages_of(count: int, settings: SheetSettings | None = None) -> list[PageCells]:
    sheets = TextSheets(read_words(None), settings or SheetSettings(lines=(2, 9), absent=0.3))
    return [cells_of(sheets.page(seed), CellSettings(), np.random.default_rng(0)) for seed in range(count)]


@pytest.fixture(params=[True, False], ids=["copies", "plain"])
def model(request: pytest.FixtureRequest) -> PageAnswerer:
    torch.manual_seed(0)
    return PageAnswerer(AnswererSettings(**{**vars(SMALL), "copies": request.param}))


def test_rows() -> None:
    (page,) = pages_of(1)
    batch = make_batch([page], SMALL.buckets)
    ids, labels = batch.rows["input_ids"][0], batch.rows["labels"][0]
    assert int((ids == ASSISTANT).sum()) == int((ids == END).sum()) == len(page.asked)
    assert int((labels == NOT_THERE).sum()) == sum(asked.absent for asked in page.asked)
    # Every word of every question stands in its row once.
    assert sorted(batch.rows["word_at"][0][batch.rows["word_at"][0] > 0].tolist()) == list(
        range(1, 1 + len(batch.question_words))
    )


def test_batched_as_one_by_one(model: PageAnswerer) -> None:
    pages = pages_of(3)
    with torch.inference_mode():
        together = model(make_batch(pages, SMALL.buckets)).log_probs
        single = [model(make_batch([page], SMALL.buckets)).log_probs for page in pages]
    torch.testing.assert_close(torch.cat(single), together, atol=1e-4, rtol=1e-4)


def test_a_budget_of_all_tokens_changes_nothing_and_a_small_one_does(model: PageAnswerer) -> None:
    batch = make_batch(pages_of(2), SMALL.buckets)
    with torch.inference_mode():
        whole = model(batch).log_probs
        torch.testing.assert_close(model(batch, budget=10_000).log_probs, whole)
        assert not torch.allclose(model(batch, budget=3).log_probs, whole)


def test_where_answers_begin_and_end_in_a_padded_raster() -> None:
    pages = pages_of(3)
    batch = make_batch(pages, SMALL.buckets)
    cells = batch.ids.shape[1] * batch.ids.shape[2]
    for row, page in enumerate(pages):
        wide = page.ids.shape[1]

        def there(cell: int, wide: int = wide) -> int:
            return cell // wide * batch.ids.shape[2] + cell % wide

        ends = batch.ends[row].tolist()
        for begins, end, asked in zip(batch.begins[row].tolist(), ends, page.asked, strict=False):
            first = -1 if asked.absent else int(asked.cells[0])
            assert begins == (cells if asked.absent else there(first) if first >= 0 else -1)
            assert end == (there(int(asked.cells[-1])) if first >= 0 else -1)
        for known in (batch.begins, batch.ends):
            assert (known[row, len(page.asked) :] == -1).all()


def test_finding_by_hand() -> None:
    beginnings = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]]).log()
    loss, logs = finding_loss(beginnings, torch.tensor([[0, 2, -1]]))
    assert loss.item() == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
    assert logs == {"found": 1.0, "none": 1.0}
    nothing, logs = finding_loss(beginnings, torch.tensor([[-1, -1, -1]]))
    assert nothing.item() == 0
    assert logs == {}


def test_thinning_keeps_what_is_asked() -> None:
    pages = pages_of(2)
    batch = make_batch(pages, SMALL.buckets, [0.0, 0.0], np.random.default_rng(0))
    needed = (batch.key | batch.value).any(dim=1)
    assert torch.equal(batch.kept.flatten(1), needed)


def test_every_parameter_learns(model: PageAnswerer) -> None:
    # At the start all words weigh the same, and the mean does not depend on how much: the bias would have no gradient.
    torch.nn.init.normal_(model.open_vocabulary.question_vector.weight.weight, std=0.1)
    batch = make_batch(pages_of(4), SMALL.buckets)
    loss, logs = word_losses(model, batch, model(batch), LossWeights())
    loss.backward()
    assert logs["loss"] > logs["answer"] > 0
    # The first two layers of the projector read features, which named characters stand in for.
    untrained = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name for name in untrained if not name.startswith("projector.linear")} == set()


def test_contrast_by_hand() -> None:
    keys = torch.eye(2)
    loss, right = contrast_loss(torch.tensor([[1.0, 0.0]]), keys, torch.tensor([0]))
    torch.testing.assert_close(loss, torch.log1p(torch.tensor(-15.0).exp()))
    assert right == 1.0
    # A key that two facts share counts for either.
    loss, right = contrast_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]] * 2), torch.tensor([1]))
    torch.testing.assert_close(loss, torch.tensor(0.0))
    assert right == 1.0
    # A key without a word has no direction, and no infinite loss.
    assert torch.isfinite(contrast_loss(torch.tensor([[1.0, 0.0]]), torch.zeros(2, 2), torch.tensor([1]))[0])


@pytest.mark.slow
def test_it_learns_a_few_questions_by_heart(model: PageAnswerer) -> None:
    pages = pages_of(2, SheetSettings(lines=(2, 2), layouts=(("beside", 1.0),), absent=0.0))
    batch = make_batch(pages, SMALL.buckets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss, _ = word_losses(model, batch, model(batch), LossWeights())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, logs = word_losses(model, batch, model(batch), LossWeights())
    found = measure(model, pages)
    assert logs["right"] == found["selected"] == 1.0
    # Known by heart, a first character may be written without a look at where it stands.
    assert found["exact"] >= 0.5
    assert found["present_refused"] == 0.0
