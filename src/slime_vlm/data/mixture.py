"""The order in which records of several sources are taken: a function of a seed and of the place in the run.

Nothing has to be remembered but the place, so a resumed run sees the very next record, on any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slime_vlm.data.dataset import RecordDataset
from slime_vlm.data.sources.parquet import GROUPS_AT_HAND
from slime_vlm.errors import ConfigError, DataError


@dataclass(frozen=True)
class Share:
    """How much of a source is taken: `passes` over it in every epoch, or a `weight` against the other sources."""

    passes: float | None = None
    weight: float | None = None


class MixtureOrder:
    """Indices of records, one for every sample of a run.

    An epoch takes every source as often as its `passes` say (one by default), or as many samples as there are records,
    split by weight. Samples of all sources are mixed evenly. Each source is walked through whole, in a new order every
    time, before any of its records comes again; what an epoch leaves over is where the next one goes on.

    Args:
        dataset: the records.
        shares: one for every source; all by weight, or none.
        seed: another seed is another order.
        count: samples of the whole run.

    Raises:
        ConfigError: some sources have a weight and some have not.
    """

    def __init__(self, dataset: RecordDataset, shares: Sequence[Share], seed: int, count: int | None = None) -> None:
        weighted = [share.weight is not None for share in shares]
        if any(weighted) and not all(weighted):
            raise ConfigError("some sources of the mixture have a weight and some have none; give all of them one")
        self.dataset, self.shares, self.seed = dataset, shares, seed
        self.per_epoch = _epoch_counts(dataset.lengths, shares)
        self.epoch_length = sum(self.per_epoch)
        self.count = self.epoch_length if count is None else count
        self._epoch: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Samples of the run."""
        return self.count

    def __getitem__(self, position: int) -> int:
        """Index of the record at a position of the run."""
        if not 0 <= position < self.count:
            raise IndexError(position)
        epoch, place = divmod(position, self.epoch_length)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return int(self._epoch[1][place])

    def passes(self) -> list[float]:
        """How often the run goes through every source."""
        epochs = self.count / self.epoch_length
        return [epochs * count / length for count, length in zip(self.per_epoch, self.dataset.lengths, strict=True)]

    def taken(self) -> list[int]:
        """Indices of all records of the run, each once."""
        epochs = range(math.ceil(self.count / self.epoch_length))
        orders = [self._order(epoch)[: self.count - epoch * self.epoch_length] for epoch in epochs]
        return [int(index) for index in np.unique(np.concatenate(orders))] if orders else []

    def state(self, position: int) -> dict[str, Any]:
        """What a checkpoint keeps: the position, and what the order depends on."""
        sources = [
            {"source": source.name, "records": length, "passes": share.passes, "weight": share.weight}
            for source, length, share in zip(self.dataset.sources, self.dataset.lengths, self.shares, strict=True)
        ]
        return {"position": position, "seed": self.seed, "sources": sources}

    def check(self, state: dict[str, Any]) -> None:
        """Compare with the state of a checkpoint.

        Raises:
            DataError: the data are others by now, so that the order would be, too.
        """
        now = self.state(state["position"])
        if now == state:
            return
        before = {source["source"]: source["records"] for source in state["sources"]}
        changed = [
            f"{source['source']} has {source['records']} records and had {before[source['source']]}"
            for source in now["sources"]
            if before.get(source["source"], source["records"]) != source["records"]
        ]
        what = "; ".join(changed) or "its sources, weights or seed are others"
        raise DataError(f"the data changed since the checkpoint: {what}. Restore them, or start anew in another --out")

    def __getstate__(self) -> dict[str, Any]:
        """Without the order at hand, which is quickly made anew."""
        return {**self.__dict__, "_epoch": None}

    def _order(self, epoch: int) -> np.ndarray:
        numbers = np.repeat(np.arange(len(self.per_epoch)), self.per_epoch)
        np.random.default_rng([self.seed, epoch]).shuffle(numbers)
        order = np.empty(len(numbers), dtype=np.int64)
        for number, count in enumerate(self.per_epoch):
            order[numbers == number] = self.dataset.starts[number] + self._draws(number, epoch * count, count)
        return order

    def _draws(self, number: int, first: int, count: int) -> np.ndarray:
        """Places in a source, from its draw number `first` on."""
        length, drawn = self.dataset.lengths[number], []
        while count > 0:
            walk, place = divmod(first, length)
            rng = np.random.default_rng([self.seed, number, walk, 1])
            part = shuffled(length, self.dataset.sources[number].blocks, rng)[place : place + count]
            drawn.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)


def shuffled(length: int, blocks: Sequence[int] | None, rng: np.random.Generator) -> np.ndarray:
    """A random order of a source.

    Where records lie in blocks that are read together, blocks are shuffled, and then the records of a few blocks at a
    time, so that each block is read once.
    """
    if blocks is None:
        return rng.permutation(length)
    starts = np.concatenate([[0], np.cumsum(blocks, dtype=np.int64)])
    order = rng.permutation(len(blocks))
    windows = [order[first : first + GROUPS_AT_HAND] for first in range(0, len(order), GROUPS_AT_HAND)]
    return np.concatenate(
        [rng.permutation(np.concatenate([np.arange(starts[b], starts[b + 1]) for b in window])) for window in windows]
    )


def _epoch_counts(lengths: Sequence[int], shares: Sequence[Share]) -> list[int]:
    """Samples of every source in an epoch."""
    weights = [share.weight for share in shares if share.weight is not None]
    if not weights:
        return [
            max(1, round(length * (1.0 if share.passes is None else share.passes)))
            for length, share in zip(lengths, shares, strict=True)
        ]
    exact = np.array(weights) / sum(weights) * sum(lengths)
    counts = np.floor(exact).astype(np.int64)
    # The samples that rounding left over go to those it took most from.
    left = sum(lengths) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    return [int(count) for count in counts]
