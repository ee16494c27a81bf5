"""The copy output mixes three distributions."""

import pytest
import torch

from slime_vlm.model.copy_output import CopyOutput, following_places


@pytest.fixture
def output() -> CopyOutput:
    """Gates and places alike."""
    output = CopyOutput(dim=2, slots=2, characters=4)
    with torch.no_grad():
        for linear in (output.gate, output.slot):
            linear.weight.zero_()
            linear.bias.zero_()
    return output


HIDDEN, LOGITS = torch.zeros(1, 2), torch.zeros(1, 4)
ATTENTION, IDS = torch.tensor([[0.8, 0.2]]), torch.tensor([[[1, 2], [2, 0]]])


def test_two_ways_by_hand(output: CopyOutput) -> None:
    """Nothing follows. Half is written, evenly over 4 tokens; half copied, each slot alike. Token 0 is nothing."""
    found = output(HIDDEN, LOGITS, ATTENTION, IDS, torch.tensor([0])).exp()
    expected = torch.tensor([[0.125, 0.125 + 0.2, 0.125 + 0.2 + 0.05, 0.125]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_three_ways_by_hand(output: CopyOutput) -> None:
    found = output(HIDDEN, LOGITS, ATTENTION, IDS, torch.tensor([3])).exp()
    expected = torch.tensor([[0.25, 0.25 + 0.4, 0.25 + 0.4 + 0.1, 0.25 + 1.0]]) / 3
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_where_a_character_was_copied_from(output: CopyOutput) -> None:
    """2 stands in both tokens: the first has more attention, and there it is the second character."""
    column, place = output.pointed(HIDDEN, ATTENTION, IDS, torch.tensor([2]))
    assert (column.item(), place.item()) == (0, 1)
    column, place = output.pointed(HIDDEN, ATTENTION.flip(1), IDS, torch.tensor([2]))
    assert (column.item(), place.item()) == (1, 0)


def test_what_follows_each_character_by_hand() -> None:
    """Two rows of three cells: "ab", "c", nothing; nothing, "d", "ef"."""
    ids = torch.tensor([[[1, 2], [3, 0], [0, 0]], [[0, 0], [4, 0], [5, 6]]])
    following = torch.tensor([[[2, 3], [0, 0], [0, 0]], [[0, 0], [5, 0], [6, 0]]])
    places = following_places(ids)
    held = torch.where(places < 0, 0, ids.flatten()[places])
    assert torch.equal(held.view_as(following), following)
    # The end of "ab" goes on with "c", which stands in the first place of the next cell.
    assert places[:4].tolist() == [1, 2, -1, -1]


def test_only_what_follows_tells_something(output: CopyOutput) -> None:
    told = output.told(torch.tensor([0, 3]))
    assert not told[0].any()
    assert torch.equal(told[1], output.following.weight[3])
