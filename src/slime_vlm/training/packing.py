"""Packing of records: which samples share a forward pass, so that all passes of a step have about as many tokens.

A step still takes the records that it takes without packing; only their order within it changes, and by nothing but the
records themselves. So a resumed run needs to know no more than its step, and every process sees as many samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from slime_vlm.data import MixtureOrder, RecordDataset, Share
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.model.tiling import choose_grid

if TYPE_CHECKING:
    from slime_vlm.model.configuration_slime import SlimeConfig

PACKABLE = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers that can tell samples apart; one with a running state (linear attention) reads on into the next."""

CHARACTERS_PER_TOKEN = 4
"""Of ordinary English; the text is by far the smaller part of a sample with an image."""


def check_packing(config: SlimeConfig) -> None:
    """Check that a model can read packed rows.

    Raises:
        ConfigError: it cannot.
    """
    if config.keep_position_ids:
        raise ConfigError(
            "packing counts positions anew after tokens are dropped, and this model keeps them "
            "(keep_position_ids: true); leave packing out"
        )
    kinds = set(getattr(config.text_config, "layer_types", None) or []) - PACKABLE
    if kinds:
        raise ConfigError(
            f"packing: the language model has layers of {', '.join(sorted(kinds))}, which read on from one sample of a "
            "packed row into the next; leave packing out"
        )


def even_packs(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Split samples into packs of as many samples and about as many tokens.

    The longest goes first, each into the pack that has the fewest tokens by then and still has room.

    Args:
        lengths: tokens of every sample; as many as fill whole packs.
        size: samples of a pack.

    Returns:
        Places of the samples, those of a pack in their order.
    """
    packs: list[list[int]] = [[] for _ in range(len(lengths) // size)]
    sums = [0] * len(packs)
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        pack = min((n for n in range(len(packs)) if len(packs[n]) < size), key=lambda n: sums[n])
        packs[pack].append(place)
        sums[pack] += lengths[place]
    return [sorted(pack) for pack in packs]


class EvenOrder(MixtureOrder):
    """The order of a mixture, but within each step in packs of about as many tokens.

    Args:
        dataset: the records.
        shares: see `MixtureOrder`.
        seed: see `MixtureOrder`.
        tokens_of: most tokens that the record of an index can have.
        batch_size: samples of a step.
        pack_size: samples of a forward pass.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        shares: Sequence[Share],
        seed: int,
        tokens_of: Callable[[int], int],
        batch_size: int,
        pack_size: int,
    ) -> None:
        super().__init__(dataset, shares, seed)
        self.tokens_of, self.batch_size, self.pack_size = tokens_of, batch_size, pack_size
        self._step: tuple[int, list[int]] | None = None

    def __getitem__(self, position: int) -> int:
        """Index of the record at a position of the run."""
        if not 0 <= position < self.count:
            raise IndexError(position)
        step, place = divmod(position, self.batch_size)
        if self._step is None or self._step[0] != step:
            first = step * self.batch_size
            taken = [super(EvenOrder, self).__getitem__(first + n) for n in range(self.batch_size)]
            packs = even_packs([self.tokens_of(index) for index in taken], self.pack_size)
            self._step = step, [taken[n] for pack in packs for n in pack]
        return self._step[1][place]


class TokensOf:
    """Most tokens that a record can have, told without decoding its images: no token dropped, text by its letters.

    Args:
        dataset: the records.
        config: of the model in this stage.
        limit: the length that rows are cut to, None for none.
    """

    def __init__(self, dataset: RecordDataset, config: SlimeConfig, limit: int | None) -> None:
        self.dataset, self.limit = dataset, limit or math.inf
        self.layout, self.view_size, self.max_tiles = config.token_layout, config.view_size, config.max_tiles

    def __call__(self, index: int) -> int:
        """Tokens of the record; 0 for one that cannot be read, which another will replace."""
        try:
            sizes, characters = self.dataset.sizes(index)
        except DataError:
            return 0
        tokens = characters // CHARACTERS_PER_TOKEN
        for size in sizes:
            rows, cols = 1, self.max_tiles
            if size is not None:
                grid = choose_grid(*size, self.view_size, self.max_tiles)
                rows, cols = grid.rows, grid.cols
            tokens += self.layout.num_image_tokens(rows, cols)
        return int(min(tokens, self.limit))
