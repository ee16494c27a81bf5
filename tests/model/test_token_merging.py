from __future__ import annotations

import pytest
import torch

from slime_vlm.errors import InputError
from slime_vlm.model.token_merging import fill_placeholders, image_rows, merge_rows, padding_side_of


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # Token i of row b carries the number 10 * b + i, so that its way can be followed.
    ids = torch.stack([torch.arange(6), 10 + torch.arange(6)])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    kept = torch.tensor([[True, False, True, False, False, True], [True, True, False, True, True, True]])
    return ids, mask, kept


def test_right_padding_by_hand() -> None:
    ids, mask, kept = example()
    labels = torch.arange(12).reshape(2, 6)
    merged = merge_rows(ids, mask, kept, padding_side="right", labels=labels)
    assert merged.input_ids.tolist() == [[0, 2, 5], [10, 11, 13]]
    assert merged.token_index.tolist() == [[0, 2, 5], [0, 1, 3]]
    assert merged.position_ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert merged.labels is not None
    assert merged.labels.tolist() == [[0, 2, 5], [6, 7, 9]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_unequal_rows_are_padded(side: str) -> None:
    ids, mask, kept = example()
    kept[0, 0] = False
    merged = merge_rows(ids, mask, kept, padding_side=side, labels=torch.ones(2, 6, dtype=torch.long))
    row = {"left": [0, 2, 5], "right": [2, 5, 0]}[side]
    assert merged.input_ids[0].tolist() == row
    assert merged.attention_mask[0].tolist() == [int(value > 0) for value in row]
    assert merged.position_ids[0].tolist() == {"left": [0, 0, 1], "right": [0, 1, 0]}[side]
    assert merged.token_index[0].tolist() == {"left": [-1, 2, 5], "right": [2, 5, -1]}[side]
    assert merged.labels is not None
    assert merged.labels[0].tolist() == {"left": [-100, 1, 1], "right": [1, 1, -100]}[side]


def test_positions_can_be_kept() -> None:
    ids, mask, kept = example()
    merged = merge_rows(ids, mask, kept, padding_side="left", keep_position_ids=True)
    assert merged.position_ids.tolist() == [[0, 2, 5], [0, 1, 3]]
    given = torch.arange(6).expand(2, -1) * 7
    merged = merge_rows(ids, mask, kept, padding_side="left", position_ids=given)
    assert merged.position_ids.tolist() == [[0, 14, 35], [0, 7, 21]]


def test_kept_positions_count_from_the_first_real_token() -> None:
    ids, mask, _ = example()
    merged = merge_rows(
        ids, mask.flip(1), torch.ones(2, 6, dtype=torch.bool), padding_side="left", keep_position_ids=True
    )
    assert merged.position_ids.tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3]]


def test_cut_takes_the_end_of_every_row() -> None:
    ids, mask, kept = example()
    merged = merge_rows(ids, mask, kept, padding_side="right", max_length=2)
    assert merged.token_index.tolist() == [[0, 2], [0, 1]]


def test_nothing_dropped_is_the_identity() -> None:
    ids, mask, _ = example()
    everything = torch.ones(2, 6, dtype=torch.bool)
    merged = merge_rows(ids, mask, everything, padding_side="right")
    assert torch.equal(merged.input_ids, ids * mask)
    assert torch.equal(merged.attention_mask, mask)


def test_filling_keeps_order_and_gradients() -> None:
    embeddings = example()[0].float()[..., None].repeat(1, 1, 2)
    placeholders = torch.zeros(2, 6, dtype=torch.bool)
    placeholders[0, 1:3] = placeholders[1, 4] = True
    features = torch.tensor([[-1.0, -1], [-2, -2], [-3, -3]], requires_grad=True)
    filled = fill_placeholders(embeddings, placeholders, features)
    assert filled[..., 0].tolist() == [[0, -1, -2, 3, 4, 5], [10, 11, 12, 13, -3, 15]]
    filled.sum().backward()
    assert features.grad is not None
    assert features.grad.eq(1).all()


def test_rows_of_images() -> None:
    placeholders = torch.tensor([[True] * 5, [False] * 5, [True, True, False, False, False]])
    assert image_rows(placeholders, torch.tensor([3, 2, 2])).tolist() == [0, 0, 2]


def test_wrong_placeholders_are_errors() -> None:
    placeholders = torch.tensor([[True, True, False], [True, False, False]])
    with pytest.raises(InputError, match="hold 3 image placeholders, expected 4"):
        image_rows(placeholders, torch.tensor([4]))
    with pytest.raises(InputError, match="are in two rows"):
        image_rows(placeholders, torch.tensor([1, 2]))


def test_padding_side() -> None:
    assert padding_side_of(torch.tensor([[0, 1], [1, 1]])) == "left"
    assert padding_side_of(torch.tensor([[1, 0], [1, 1]])) == "right"
    assert padding_side_of(torch.tensor([[1, 1]]), default="left") == "left"
