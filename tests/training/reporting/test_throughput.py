"""What is counted while a run goes on (training/reporting/throughput.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from slime_vlm.training.planning.step_flops import UNITS
from slime_vlm.training.reporting.throughput import Speedometer, measured_peak, row_lengths
from tests.conftest import pad_batch, prompt_ids, tiny_model

CPU = torch.device("cpu")
ONE = dict.fromkeys(UNITS, 1.0)


def alone(tensor: Tensor) -> Tensor:
    return tensor


def twice(tensor: Tensor) -> Tensor:
    """Two processes that did the same."""
    return torch.cat([tensor, tensor])


def test_tokens_after_selection() -> None:
    model = tiny_model(selector_top_p=0.5)
    speed = Speedometer(model, ONE, peak=1e9)
    config = model.config
    rows = [prompt_ids(config, [1, 5], (2, 2), [7, 8]), prompt_ids(config, [1, 5, 6])]
    batch = {**pad_batch(rows), "pixel_values": torch.randn(5, 3, 56, 56), "image_grids": torch.tensor([[2, 2]])}
    batch["labels"] = batch["input_ids"].masked_fill(batch["input_ids"] != 8, -100)
    for taken in speed.batches(iter([batch]), 2):
        with torch.no_grad():
            output = model(**taken)
    kept = int(output.kept_local_tokens[0].sum())
    assert kept < 16
    lengths = 4 + 16 + 1 + kept, 3
    work = {unit: int(count) for unit, count in speed._work.items()}
    assert work == {
        "views": 5,
        "adapted": 1,
        "tiles": 4,
        # The mixture projects a view twice, as it is and as the attention adapter gives it.
        "projected": 2 * 16 + 4 * 4,
        "tokens": sum(lengths),
        "pairs": sum(length**2 for length in lengths),
        "logits": 1,
    }


def test_numbers_of_a_log() -> None:
    speed = Speedometer(tiny_model(), {**dict.fromkeys(UNITS, 0.0), "logits": 10.0}, peak=100.0)

    def slow() -> Iterator[dict[str, Tensor]]:
        for _ in range(3):
            time.sleep(0.02)
            yield {"labels": torch.tensor([[-100, 3, 4]])}

    assert len(list(speed.batches(slow(), 4))) == 3
    before = speed.totals_now(twice, CPU)
    read = speed.read(twice, CPU)
    seconds = speed.totals["seconds"]
    assert read["samples_per_s"] == pytest.approx(2 * 12 / seconds, rel=1e-5)
    assert read["tokens_per_s"] == 0
    assert read["mfu"] == pytest.approx(2 * 60 / (2 * 100 * seconds), rel=1e-5)
    assert 0.9 < read["data_wait"] <= 1.0, "all of the time was waiting, on both processes"
    assert speed.totals["samples"] == before["samples"] == 24
    assert speed.totals["flops"] == 120

    # The next log is of what came after this one; sums go on.
    assert speed.read(alone, CPU)["samples_per_s"] == 0
    assert speed.totals["samples"] == 24


def test_rows() -> None:
    rows = torch.zeros(2, 4, 8)
    padded = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert row_lengths(rows, padded, None).tolist() == [3, 1]
    pairs = torch.full((2, 1, 4, 4), -1e9)
    pairs[0, 0, :3, :3], pairs[1, 0, 0, 0] = 0.0, 0.0
    assert row_lengths(rows, pairs, None).tolist() == [3, 1]
    assert row_lengths(rows, pairs == 0, None).tolist() == [3, 1]
    assert row_lengths(rows, None, None).tolist() == [4, 4]
    packed = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 3]])
    lengths = row_lengths(rows, None, packed)
    assert sorted(lengths[lengths > 0].tolist()) == [2, 2, 4]


def test_peak_is_measured() -> None:
    assert measured_peak(CPU, torch.float32) > 1e6


def test_waiting_is_counted_for_batches_without_labels() -> None:
    speed = Speedometer(tiny_model(), ONE, peak=1.0)
    batches: list[dict[str, Any]] = [{}, {}]
    assert list(speed.batches(iter(batches), 1)) == batches
    assert speed.totals_now(alone, CPU)["samples"] == 2
