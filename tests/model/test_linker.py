"""The linker passes words on, wherever a page's text stands and whatever stands beside it in a batch."""

import pytest
import torch

from slime_vlm.errors import ConfigError
from slime_vlm.model.linker import Linker, PageAttention, ShownCells
from slime_vlm.model.run_relations import APART
from slime_vlm.model.word_embedding import QuestionVector, WordEmbedding


@pytest.fixture
def linker() -> Linker:
    torch.manual_seed(0)
    return Linker(dim=16, word_dim=8, head_dim=4)


def page(rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    shown = torch.rand(1, rows, cols) < 0.7
    words = torch.randn(1, rows, cols, 8) * shown[..., None]
    return torch.randn(1, rows, cols, 16), words, shown, torch.rand(1, rows, cols) < 0.2


def test_empty_margins_change_nothing(linker: Linker) -> None:
    hidden, words, shown, begins = page(4, 6)
    moved = [torch.nn.functional.pad(part, (0, 0, 2, 1, 3, 2)) for part in (hidden, words)]
    masks = [torch.nn.functional.pad(part, (2, 1, 3, 2)) for part in (shown, begins)]
    linked = linker(*moved, *masks)[0][:, 3:7, 2:8]
    torch.testing.assert_close(linked[shown], linker(hidden, words, shown, begins)[0][shown])


def test_batched_as_one_by_one(linker: Linker) -> None:
    pages = [page(4, 6), page(4, 6)]
    together = linker(*(torch.cat(parts) for parts in zip(*pages, strict=True)))[0]
    for expected, one in zip(together, pages, strict=True):
        torch.testing.assert_close(linker(*one)[0][0], expected)


def test_padding_is_finite_in_float16() -> None:
    """The third cell is padding and sees neither of the others; every score is -64."""
    attention = PageAttention(dim=1, heads=1, head_dim=1).half()
    with torch.no_grad():
        attention.projection.weight.copy_(torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]))
    at = torch.tensor([[True, True, False]])
    rows, cols = torch.tensor([[9, 9, 0]]), torch.tensor([[8, 9, 0]])
    apart = torch.full((1, 1, 1), APART)
    cells = ShownCells(at, rows, cols, beside=apart, stacked=apart, run=torch.zeros(1, 3, dtype=torch.long))
    found = attention(torch.full((1, 1, 3, 1), 8.0).half(), torch.ones(1, 1, 3, 1).half(), cells)[:, 0]
    assert torch.isfinite(found).all()
    assert (found[0, :2] == 1).all()


def test_a_full_page_in_blocks(linker: Linker, monkeypatch: pytest.MonkeyPatch) -> None:
    one = page(6, 8)
    whole = linker(*one)[0]
    monkeypatch.setattr("slime_vlm.model.linker._MOST_SCORES", 1000)
    torch.testing.assert_close(linker(*one)[0], whole)


def test_words_are_passed_on_linearly(linker: Linker) -> None:
    hidden, words, shown, begins = page(3, 4)
    larger = linker(hidden, 3.0 * words, shown, begins)[0]
    torch.testing.assert_close(larger, 3.0 * linker(hidden, words, shown, begins)[0])


def test_neighbours_as_a_convolution(linker: Linker) -> None:
    features = torch.randn(4, 6, 8)
    shown = torch.rand(1, 4, 6) < 0.7
    raster = (features * shown[0, ..., None]).movedim(-1, 0)[None]
    expected = linker.around(raster)[0].movedim(0, -1)[shown[0]]
    torch.testing.assert_close(linker._around(features[shown[0]], shown), expected)


def test_by_hand(linker: Linker) -> None:
    # No content: every gate is softplus(0.5), and the heads see the only other cell of their row and column.
    hidden, shown = torch.zeros(1, 1, 2, 16), torch.ones(1, 1, 2, dtype=torch.bool)
    words = torch.zeros(1, 1, 2, 8)
    words[0, 0, 0, 0] = words[0, 0, 1, 1] = 1.0
    with torch.no_grad():
        for part in (linker.around, linker.mix, linker.gates, linker.context_out[0], linker.context_out[2]):
            part.weight.zero_()
            part.bias.zero_()
        linker.attention.row_bias.zero_()
        linker.attention.column_bias.zero_()
    gate = torch.tensor(2.0).log()
    # Two heads along rows and two along columns: each finds half of either word, the cell's own word comes on top.
    expected = torch.tensor([3.0, 2.0]) * gate
    torch.testing.assert_close(linker(hidden, words, shown, torch.zeros_like(shown))[0][0, 0, 0, :2], expected)


def test_question_vector_by_hand() -> None:
    vector = QuestionVector(dim=2)
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]], [[5.0, 5.0]] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    half = 0.5**0.5
    torch.testing.assert_close(vector(words, mask), torch.tensor([[half, half], [0.0, 0.0]]))


def test_buckets_are_a_power_of_two() -> None:
    with pytest.raises(ConfigError, match="power of two"):
        WordEmbedding(buckets=1000, dim=8)
