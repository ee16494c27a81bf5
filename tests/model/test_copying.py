"""Where answers copy from, by hand (model/copying.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from slime_vlm.errors import InputError
from slime_vlm.model.answer_finder import NOWHERE
from slime_vlm.model.copy_output import CopyOutput, following_places
from slime_vlm.model.copying import Copying
from slime_vlm.model.copying_run import CopyingInputs
from slime_vlm.model.outputs import VisionTokens

# Two rows of three cells: "ab", "c", nothing; nothing, "a ", "b". 9 is the space.
A, B, C, SPACE = 1, 2, 3, 9
PAGE = torch.tensor([[[A, B], [C, 0], [0, 0]], [[0, 0], [A, SPACE], [B, 0]]])
# Of two rows of the batch: text, then the cells 0, 4 and 5.
CELLS = torch.tensor([[-1, 0, 4, 5]] * 2)
# The question is the first axis. Cell 0 says it, and cell 4 belongs to it.
WORDS, OWN = torch.zeros(6, 2), torch.zeros(6, 2)
WORDS[0] = WORDS[4] = OWN[0] = torch.tensor([1.0, 0.0])
WORDS[5] = OWN[4] = OWN[5] = torch.tensor([0.0, 1.0])


def copying() -> Copying:
    page, following = PAGE.view(1, 6, 2), following_places(PAGE)[None]
    return Copying(page, following, WORDS[None], OWN[None], torch.tensor([-1])).map(
        lambda part: part.repeat(2, *[1] * (part.ndim - 1))
    )


def output() -> CopyOutput:
    """Gates alike, and the first slot three times as probable as the second."""
    found = CopyOutput(dim=2, slots=2, characters=10)
    with torch.no_grad():
        for linear in (found.gate, found.slot):
            linear.weight.zero_()
            linear.bias.zero_()
        found.slot.bias[0] = torch.tensor(3.0).log()
    return found


def looked(state: Copying, attention: list[list[float]], logits: torch.Tensor | None = None) -> Copying:
    real = torch.ones(2, dtype=torch.bool)
    logits = torch.zeros(2, 10) if logits is None else logits
    return state.pointed(output(), torch.zeros(2, 2), logits, torch.tensor(attention), real, CELLS, SPACE)


def said(state: Copying, tokens: list[int], real: tuple[bool, bool] = (True, True)) -> tuple[list[int], list[int]]:
    everywhere = torch.ones(2, dtype=torch.bool)
    state, follows = state.say(torch.tensor(tokens), everywhere, torch.tensor(real), CELLS, SPACE)
    return state.location.tolist(), follows.tolist()


def test_where_answers_end_is_known_of_the_cell_of_the_last_character() -> None:
    state = copying()
    assert state.ending().tolist() == [-float("inf")] * 2
    state = replace(state, ends=-torch.arange(12.0).view(2, 6), location=torch.tensor([9, -1]))
    # Place 9 is the second of cell 4.
    assert state.ending().tolist() == [-4.0, -float("inf")]
    longer = state.followed_by(copying())
    assert longer.ends is not None
    assert longer.ends[0].tolist() == [0.0, -1.0, -2.0, -3.0, -4.0, -5.0] + [NOWHERE] * 6


def test_each_row_knows_where_the_answer_ends_that_it_began_last() -> None:
    """The first row goes on with its answer, the second begins two, of the turns 1 and 2."""
    nothing = torch.zeros(2, 4)
    inputs = CopyingInputs(
        embeds=nothing[..., None],
        attention_mask=nothing,
        position_ids=nothing,
        ids=nothing,
        in_answer=nothing.bool(),
        is_real=nothing.bool(),
        cells=CELLS,
        questions=nothing[..., None],
        copying=copying(),
        begins=torch.tensor([[False] * 4, [True, False, True, False]]),
        turn=torch.tensor([[0] * 4, [1, 1, 2, 2]]),
        endings=-torch.arange(36.0).view(2, 3, 6),
    )
    before = torch.full((2, 6), -0.5)
    state = inputs.begun(replace(copying(), ends=before), slice(0, 4))
    assert state.ends is not None
    assert state.ends.tolist() == [[-0.5] * 6, [-30.0, -31.0, -32.0, -33.0, -34.0, -35.0]]
    state = inputs.begun(copying(), slice(0, 2))
    assert state.ends is not None
    assert state.ends.tolist() == [[NOWHERE] * 6, [-24.0, -25.0, -26.0, -27.0, -28.0, -29.0]]
    assert inputs.begun(copying(), slice(3, 4)).ends is None


def test_a_character_stands_where_it_was_pointed_at() -> None:
    state = looked(copying(), [[0.0, 0.6, 0.4, 0.0], [0.0, 0.2, 0.8, 0.0]])
    # "a" of cell 0 is followed by "b", that of cell 4 by a space.
    assert said(state, [A, A]) == ([0, 8], [B, SPACE])
    # "b" is the second of cell 0 and the first of cell 5, which nobody looks at.
    assert said(state, [B, B]) == ([1, 1], [C, C])
    # No kept token shows "c".
    assert said(state, [C, 5]) == ([-1, -1], [0, 0])


def test_what_follows_goes_before_what_is_pointed_at() -> None:
    state = looked(copying(), [[0.0, 0.9, 0.1, 0.0]] * 2)
    state, _ = state.say(torch.tensor([A, A]), *torch.ones(2, 2, dtype=torch.bool), CELLS, SPACE)
    state = looked(state, [[0.0, 0.0, 0.0, 1.0]] * 2)
    # The second row had gone on to "b" of cell 0, although cell 5 is looked at; "c" of a cell that was dropped follows.
    state, follows = state.say(torch.tensor([B, B]), *torch.ones(2, 2, dtype=torch.bool), CELLS, SPACE)
    assert (state.location.tolist(), follows.tolist()) == ([1, 1], [C, C])
    assert said(looked(state, [[0.0, 1.0, 0.0, 0.0]] * 2), [C, A]) == ([2, 0], [0, B])
    # Padding changes nothing.
    assert said(state, [C, C], (True, False)) == ([2, 1], [0, 0])


def test_a_space_that_is_rather_written_has_no_place() -> None:
    logits = torch.zeros(2, 10)
    logits[1, SPACE] = 9.0
    # Copied with 0.25 of the attention to cell 4; written with 0.1 in the first row, with nearly 1 in the second.
    state = looked(copying(), [[0.0, 0.0, 1.0, 0.0]] * 2, logits)
    assert said(state, [SPACE, SPACE]) == ([9, -1], [B, 0])


def test_cropped_states_are_not_guessed() -> None:
    state = looked(copying(), [[0.0, 0.9, 0.1, 0.0]] * 2).forgotten(torch.zeros(2, 0, dtype=torch.long))
    with pytest.raises(InputError, match="within an answer"):
        said(state, [A, A])


def test_pages_of_further_images() -> None:
    both = copying().followed_by(copying())
    assert both.page.shape == (2, 12, 2)
    assert both.following[0, 12:16].tolist() == [13, 14, -1, -1]
    assert both.held(torch.tensor([[-1, 6], [10, 11]])).tolist() == [[[0, 0], [A, B]], [[A, SPACE], [B, 0]]]


def test_a_key_is_pointed_at_less_than_its_value() -> None:
    question = torch.tensor([[[1.0, 0.0]]] * 2)
    linked, own, local = copying().likeness(question, CELLS)
    assert linked[0, 0].tolist() == [1.0, 1.0, 1.0, 0.0]  # text has no cell, and what stands there does not count
    assert own[0, 0, 1:].tolist() == [1.0, 0.0, 0.0]
    assert local[0, 0].tolist() == [False, True, True, True]
    attention = torch.tensor([[[0.4, 0.3, 0.2, 0.1]]] * 2)
    pointed = output().liken(attention, linked, own, local)[0, 0]
    weights = torch.tensor([0.3, 0.2 * torch.tensor(8.0).exp(), 0.1])
    torch.testing.assert_close(pointed, torch.cat([torch.tensor([0.4]), 0.6 * weights / weights.sum()]))


def test_the_most_similar_cell_of_a_page() -> None:
    questions = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]] * 2)
    all_known = torch.full((2, 2), 6)
    torch.testing.assert_close(copying().most_similar(questions, all_known)[0], torch.tensor([1.0, 0.8]))
    # The second question came before the last two cells, the first before any.
    known = torch.tensor([[0, 4]] * 2)
    torch.testing.assert_close(copying().most_similar(questions, known)[0], torch.tensor([-1.0, 0.6]))
    state = copying()
    empty = Copying(state.page, state.following, torch.zeros_like(state.words), state.own_words, state.location)
    assert empty.most_similar(questions, all_known).tolist() == [[-1.0, -1.0]] * 2


def test_words_that_cells_touch_are_looked_up_once_unless_they_learn() -> None:
    tokens = VisionTokens((1, 1), characters=PAGE.view(6, 2))
    with torch.no_grad():
        once = tokens.own_words(OWN.clone)
        assert tokens.own_words(OWN.clone) is once
    assert tokens.own_words(OWN.clone) is not once
    tokens.characters = PAGE.view(6, 2).clone()
    with torch.no_grad():
        assert tokens.own_words(OWN.clone) is not once
