"""The order of records: shares are exact, no record is forgotten, and a run can resume at any position."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slime_vlm.data import MixtureOrder, RecordDataset, Share, Source, open_source
from slime_vlm.data.mixture import shuffled
from slime_vlm.errors import ConfigError, DataError
from tests.data.writing import turns, write_lines


class Numbers(Source):
    """A source whose records are only numbers."""

    def __init__(self, name: str, count: int, blocks: Sequence[int] | None = None) -> None:
        super().__init__(name, Path())
        self.count, self.rows = count, blocks

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Any:
        return {"id": f"{self.name}{index}", "conversations": turns("?", "!")}

    @property
    def blocks(self) -> Sequence[int] | None:
        return self.rows


def order_of(*sources: Source, shares: Sequence[Share], seed: int = 3, count: int | None = None) -> MixtureOrder:
    return MixtureOrder(RecordDataset(*sources), shares, seed, count)


def ids(order: MixtureOrder, start: int = 0) -> list[str]:
    return [order.dataset.name_of(order[position]) for position in range(start, len(order))]


def test_passes_are_exact() -> None:
    shares = [Share(), Share(passes=2.0), Share(passes=0.5)]
    order = order_of(Numbers("a", 10), Numbers("b", 3), Numbers("c", 8), shares=shares, count=2 * 20)
    assert order.per_epoch == [10, 6, 4]
    assert order.passes() == [2.0, 4.0, 1.0]
    counts = Counter(order[position] for position in range(40))
    # Two epochs: a twice, b four times, c once.
    assert counts == {
        **dict.fromkeys(range(10), 2),
        **dict.fromkeys(range(10, 13), 4),
        **dict.fromkeys(range(13, 21), 1),
    }
    first = [order[position] for position in range(20)]
    assert sorted(index for index in first if index < 10) == list(range(10))
    assert first != [order[position] for position in range(20, 40)]


def test_weights_are_exact() -> None:
    shares = [Share(weight=3), Share(weight=1)]
    order = order_of(Numbers("a", 100), Numbers("b", 300), shares=shares, count=800)
    assert order.per_epoch == [300, 100]
    counts = Counter(order[position] for position in range(800))
    assert {counts[index] for index in range(100)} == {6}
    # 200 of 300, none of them twice.
    assert {counts[index] for index in range(100, 400)} == {0, 1}
    # Mixed evenly: any 40 samples in a row hold about 30 of the first.
    shares_of_first = [sum(order[p] < 100 for p in range(start, start + 40)) for start in range(0, 800, 40)]
    assert min(shares_of_first) > 18
    # Rounding gives nothing away: 10 samples by thirds.
    thirds = order_of(Numbers("a", 4), Numbers("b", 3), Numbers("c", 3), shares=[Share(weight=1)] * 3)
    assert sorted(thirds.per_epoch) == [3, 3, 4]


def test_weights_must_be_given_for_all_or_none() -> None:
    with pytest.raises(ConfigError, match="some have none"):
        order_of(Numbers("a", 1), Numbers("b", 1), shares=[Share(weight=1), Share()])


def test_the_seed_determines_the_order() -> None:
    orders = [order_of(Numbers("a", 50), shares=[Share()], seed=seed) for seed in (1, 1, 2)]
    assert ids(orders[0]) == ids(orders[1]) != ids(orders[2])
    assert sorted(ids(orders[0])) == sorted(ids(orders[2]))


@pytest.mark.parametrize("stop", [0, 1, 37, 99, 250])
def test_resumes_at_the_exact_record(stop: int) -> None:
    sources = (Numbers("a", 60), Numbers("b", 30, [10, 10, 10]), Numbers("c", 7))
    shares = [Share(), Share(), Share(passes=3.0)]
    unbroken = order_of(*sources, shares=shares, count=300)
    expected = ids(unbroken)
    kept = json.loads(json.dumps(unbroken.state(stop)))
    assert len(json.dumps(kept)) < 400
    resumed = pickle.loads(pickle.dumps(order_of(*sources, shares=shares, count=300)))
    resumed.check(kept)
    assert ids(resumed, kept["position"]) == expected[stop:]


def test_changed_data_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"id": i, "conversations": turns("?", "!")} for i in range(5)])
    kept = order_of(open_source(path), shares=[Share()]).state(3)
    write_lines(path, [{"id": i, "conversations": turns("?", "!")} for i in range(6)])
    with pytest.raises(DataError, match=r"a\.jsonl has 6 records and had 5\. Restore them"):
        order_of(open_source(path), shares=[Share()]).check(kept)
    with pytest.raises(DataError, match="its sources, weights or seed differ"):
        order_of(Numbers("a", 5), shares=[Share()]).check(kept)


def test_blocks_are_read_once() -> None:
    blocks = [5, 3, 5, 5, 2, 5, 5, 5, 5]
    order = shuffled(40, blocks, np.random.default_rng(0))
    assert sorted(order) == list(range(40))
    numbers = np.searchsorted(np.cumsum(blocks), order, side="right")
    positions = {number: np.flatnonzero(numbers == number) for number in range(9)}
    # With four blocks in memory at a time, no block is read twice: blocks come in windows of at most 20 records.
    assert all(where[-1] - where[0] < 20 for where in positions.values())
    assert list(order) != sorted(order)


def test_next_record_of_a_source_and_limits() -> None:
    dataset = RecordDataset(Numbers("a", 3), Numbers("b", 250), Numbers("c", 1))
    assert dataset.next_of_source(2, 1) == 0
    assert dataset.next_of_source(252, 1) == 3
    assert dataset.next_of_source(253, 5) == 253
    assert dataset.limits(0.01) == [0, 2, 0]
    assert dataset.limits(1.0) == [2, 249, 0]
    with pytest.raises(IndexError):
        dataset.locate(254)
