"""The order in which a run takes records of several sources: a function of a seed and the position in the run.

The position is the only state. So a resumed run continues with the next record, on any number of processes.
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
    """How much of a source to take: `passes` over it in every epoch, or a `weight` relative to the other sources.

    Attributes:
        passes: How often an epoch takes the whole source, 1 by default.
        weight: The share of the samples of an epoch, relative to the weights of the other sources.
    """

    passes: float | None = None
    weight: float | None = None


class MixtureOrder:
    """Indices of records, one for every sample of a run.

    An epoch takes each source as often as its `passes` say. With weights it has as many samples as there are records,
    split by weight. The samples of all sources are mixed evenly. A source is used up completely before one of its
    records comes again, each time in a new order. If an epoch ends within a source, the next epoch continues there.

    Args:
        dataset: The records.
        shares: One per source, either all with a weight or none.
        seed: Determines the order.
        count: Number of samples of the whole run, by default one epoch.

    Raises:
        ConfigError: Some sources have a weight and some have none.
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
        """Return the number of samples of the run."""
        return self.count

    def __getitem__(self, position: int) -> int:
        """Return the index of the record at a position of the run."""
        if not 0 <= position < self.count:
            raise IndexError(position)
        epoch, offset = divmod(position, self.epoch_length)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._order(epoch)
        return int(self._epoch[1][offset])

    def passes(self) -> list[float]:
        """Return how often the run goes through each source."""
        epochs = self.count / self.epoch_length
        return [epochs * count / length for count, length in zip(self.per_epoch, self.dataset.lengths, strict=True)]

    def taken(self) -> list[int]:
        """Return the indices of all records of the run, each once."""
        epochs = range(math.ceil(self.count / self.epoch_length))
        orders = [self._order(epoch)[: self.count - epoch * self.epoch_length] for epoch in epochs]
        return [int(index) for index in np.unique(np.concatenate(orders))] if orders else []

    def state(self, position: int) -> dict[str, Any]:
        """Return what a checkpoint stores: the position, and everything that the order depends on."""
        sources = [
            {"source": source.name, "records": length, "passes": share.passes, "weight": share.weight}
            for source, length, share in zip(self.dataset.sources, self.dataset.lengths, self.shares, strict=True)
        ]
        return {"position": position, "seed": self.seed, "sources": sources}

    def check(self, state: dict[str, Any]) -> None:
        """Compare this order with the state in a checkpoint.

        Raises:
            DataError: The data have changed since then, and with them the order.
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
        what = "; ".join(changed) or "its sources, weights or seed differ"
        raise DataError(
            f"the data changed since the checkpoint: {what}. Restore them, start a new run with another --out, or use "
            "--accept-data to continue with the data as they are"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the order of the current epoch, which is quickly computed again."""
        return {**self.__dict__, "_epoch": None}

    def _order(self, epoch: int) -> np.ndarray:
        numbers = np.repeat(np.arange(len(self.per_epoch)), self.per_epoch)
        np.random.default_rng([self.seed, epoch]).shuffle(numbers)
        order = np.empty(len(numbers), dtype=np.int64)
        for number, count in enumerate(self.per_epoch):
            order[numbers == number] = self.dataset.starts[number] + self._draws(number, epoch * count, count)
        return order

    def _draws(self, number: int, first: int, count: int) -> np.ndarray:
        """Return `count` indices within a source, starting at its draw number `first`."""
        length, drawn = self.dataset.lengths[number], []
        while count > 0:
            walk, offset = divmod(first, length)
            rng = np.random.default_rng([self.seed, number, walk, 1])
            part = shuffled(length, self.dataset.sources[number].blocks, rng)[offset : offset + count]
            drawn.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)


def shuffled(length: int, blocks: Sequence[int] | None, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of the records of a source.

    If records are read in blocks, the blocks are shuffled first, then the records within a few blocks at a time. So
    each block is read once.

    Args:
        length: Number of records.
        blocks: Sizes of the blocks, see `Source.blocks`.
        rng: The random numbers.
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
    """Return the number of samples of each source in an epoch."""
    weights = [share.weight for share in shares if share.weight is not None]
    if not weights:
        return [
            max(1, round(length * (1.0 if share.passes is None else share.passes)))
            for length, share in zip(lengths, shares, strict=True)
        ]
    exact = np.array(weights) / sum(weights) * sum(lengths)
    counts = np.floor(exact).astype(np.int64)
    # The samples that rounding leaves over go to the sources that lost most by it.
    left = sum(lengths) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    return [int(count) for count in counts]
