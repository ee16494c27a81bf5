"""The answer finder: probabilities that do not depend on padding, other rows or cells that are not read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slime_vlm.errors import ConfigError
from slime_vlm.model.answer_finder import NOWHERE, AnswerFinder, FinderCells
from tests.conftest import tiny_config

WIDTH = 8


@pytest.fixture
def finder() -> AnswerFinder:
    torch.manual_seed(0)
    found = AnswerFinder(word_dim=WIDTH, text_dim=12, dim=16, heads=2, page_layers=1, layers=2)
    return found.eval()


def page(rows: int, cols: int, seed: int = 0) -> tuple[FinderCells, Tensor, Tensor]:
    """Return a page's cells, and the vectors of their own and their linked words."""
    generator = torch.Generator().manual_seed(seed)
    count = rows * cols
    index = torch.arange(count)[None]
    own, linked = (
        F.normalize(torch.randn(1, count, WIDTH, generator=generator), dim=-1),
        F.normalize(torch.randn(1, count, WIDTH, generator=generator), dim=-1),
    )
    cells = FinderCells(
        contexts=torch.randn(1, count, WIDTH, generator=generator),
        rows=index // cols,
        cols=index % cols,
        image=torch.zeros_like(index),
        begins=torch.rand(1, count, generator=generator) < 0.3,
        kept=torch.rand(1, count, generator=generator) < 0.8,
    )
    return cells, own, linked


def questions(count: int, words: int = 3) -> tuple[Tensor, Tensor]:
    asked = F.normalize(torch.randn(1, count, words, WIDTH, generator=torch.Generator().manual_seed(9)), dim=-1)
    return F.normalize(asked.sum(dim=2), dim=-1), asked


def padded(parts: tuple[FinderCells, Tensor, Tensor], count: int) -> tuple[FinderCells, Tensor, Tensor]:
    """Put empty cells behind those of a page."""

    def longer(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(1, count, *values.shape[2:])], dim=1)

    cells, own, linked = parts
    return cells.map(longer), longer(own), longer(linked)


def test_probabilities(finder: AnswerFinder) -> None:
    cells, own, linked = page(3, 5)
    found, ends = finder.on_pages(cells, own, linked, *questions(4), cells.kept)
    assert found.shape == (1, 4, 16)
    assert ends.shape == (1, 4, 15)
    for part in (found, ends):
        torch.testing.assert_close(part.exp().sum(dim=-1), torch.ones(1, 4))
        assert (part[..., :15].exp() > 0).any(dim=(0, 1)).equal(cells.kept[0])


def test_where_it_ends_depends_on_where_it_begins(finder: AnswerFinder) -> None:
    cells, own, linked = page(3, 5)
    everything = torch.ones_like(cells.kept)
    asked = questions(1)
    found, ends = finder.on_pages(cells, own, linked, *asked, everything)
    begun = F.one_hot(found[..., :-1].argmax(dim=-1), 15).bool()
    told = [finder.on_pages(cells, own, linked, *asked, everything, part) for part in (begun, begun.roll(4, dims=-1))]
    torch.testing.assert_close(told[0], (found, ends))
    torch.testing.assert_close(told[1][0], found)
    assert (told[1][1] - ends).abs().max() > 0.01


def test_padding_and_other_rows_change_nothing(finder: AnswerFinder) -> None:
    first, second = page(3, 5), page(4, 6, seed=1)
    asked = questions(2)
    alone = [finder.on_pages(*one, *asked, one[0].kept) for one in (first, second)]
    longer = padded(first, 9)
    both = [torch.cat(pair) for pair in zip(longer[1:], second[1:], strict=True)]
    pairs = zip(vars(longer[0]).values(), vars(second[0]).values(), strict=True)
    cells = FinderCells(*(torch.cat(pair) for pair in pairs))
    twice = [part.expand(2, *part.shape[1:]) for part in asked]
    found, ends = finder.on_pages(cells, *both, *twice, cells.kept)
    torch.testing.assert_close(found[:1, :, :15], alone[0][0][..., :-1])
    torch.testing.assert_close(found[:1, :, -1], alone[0][0][..., -1])
    torch.testing.assert_close((found[1:], ends[1:]), alone[1])
    torch.testing.assert_close(ends[:1, :, :15], alone[0][1])


def test_cells_that_are_not_read_say_nothing(finder: AnswerFinder) -> None:
    cells, own, linked = page(4, 6)
    asked = questions(2)
    unread = ~cells.kept[..., None]
    other = replace(cells, contexts=torch.where(unread, 5.0, cells.contexts))
    found = finder.on_pages(other, own.masked_fill(unread, 1.0), linked, *asked, cells.kept)
    torch.testing.assert_close(found, finder.on_pages(cells, own, linked, *asked, cells.kept))


def test_questions_by_themselves(finder: AnswerFinder) -> None:
    cells, own, linked = page(4, 6)
    question, asked = questions(3)
    found = finder.on_pages(cells, own, linked, question, asked, cells.kept)
    for number in range(3):
        one = slice(number, number + 1)
        alone = finder.on_pages(cells, own, linked, question[:, one], asked[:, one], cells.kept)
        torch.testing.assert_close(tuple(part[:, one] for part in found), alone)


def test_a_page_without_a_cell_has_no_answer(finder: AnswerFinder) -> None:
    cells, own, linked = page(2, 3)
    found, _ = finder.on_pages(cells, own, linked, *questions(2), torch.zeros_like(cells.kept))
    torch.testing.assert_close(found[..., -1], torch.zeros(1, 2), atol=1e-4, rtol=0)


def test_images_do_not_see_each_other(finder: AnswerFinder) -> None:
    """Odds between the cells of an image do not depend on what another image shows."""
    (first, *words), question = page(3, 5), questions(2)
    first = replace(first, kept=torch.ones_like(first.kept))
    odds = []
    for seed in (1, 2):
        second, *others = page(4, 5, seed)
        both = first.followed_by(second)
        assert both.rows[0, 15:].tolist() == (second.rows[0] + 3).tolist()
        assert both.image[0].tolist() == [0] * 15 + [1] * 20
        joined = [torch.cat(pair, dim=1) for pair in zip(words, others, strict=True)]
        # How alike a cell is to the question counts beside the best of all images: the best is in the first one.
        joined[0][:, 15:] = joined[1][:, 15:] = 0.0
        odds.append(finder.on_pages(both, *joined, *question, both.kept)[0][..., :15])
    torch.testing.assert_close(odds[0] - odds[0][..., :1], odds[1] - odds[1][..., :1])


def test_what_is_told_by_hand(finder: AnswerFinder) -> None:
    with torch.no_grad():
        finder.told.weight.fill_(1.0)
        finder.trust.fill_(2.0)
    # A fifth of the odds, which are 0 where they are even, and limited.
    told = finder.tell(torch.tensor([0.5, 1.0, 1e-30]).log())
    torch.testing.assert_close(told[:, 0], torch.tensor([0.0, 0.2 * 9.21, -3.0]), atol=1e-2, rtol=0)
    torch.testing.assert_close(finder.belief(torch.tensor([-1.0, -100.0])), torch.tensor([-2.0, -30.0]))


def test_what_is_told_of_the_end_by_hand(finder: AnswerFinder) -> None:
    with torch.no_grad():
        finder.told_end.weight.fill_(1.0)
    # Even odds, a cell that was not looked at, and a character that was not copied from any.
    told = finder.tell_end(torch.tensor([math.log(0.5), NOWHERE, -math.inf]))
    torch.testing.assert_close(told[:, 0], torch.tensor([0.0, -3.0, 0.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fields", [{"characters": None, "copy_output": False}, {"copy_output": False}])
def test_it_needs_a_copy_output(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="answer_finder"):
        tiny_config(answer_finder=True, **fields)
