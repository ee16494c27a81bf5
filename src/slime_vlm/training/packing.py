"""Packing of records: which samples share a forward pass, so that all passes of a step have about as many tokens.

A step has the same records as without packing. Only their order within the step changes, and it depends on these
records alone. So a resumed run needs only its step, and every process gets the same number of samples.
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
"""Types of layers that can separate samples. Linear attention carries a state from one sample into the next."""

CHARACTERS_PER_TOKEN = 4
"""Estimate for English text, which is by far the smaller part of a sample with an image."""


def check_packing(config: SlimeConfig) -> None:
    """Check that a model can process packed rows.

    Raises:
        ConfigError: It cannot.
    """
    if config.keep_position_ids:
        raise ConfigError(
            "packing recounts positions after tokens are dropped, but this model keeps them "
            "(keep_position_ids: true); leave packing out"
        )
    kinds = set(getattr(config.text_config, "layer_types", None) or []) - PACKABLE
    if kinds:
        raise ConfigError(
            f"packing: the language model has layers of {', '.join(sorted(kinds))}, which carry a state from one "
            "sample of a packed row into the next; leave packing out"
        )


def even_packs(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Split samples into packs of the same number of samples and about the same number of tokens.

    Longest first, each sample goes into the pack with the fewest tokens so far that still has room.

    Args:
        lengths: Tokens of every sample. Their number is a multiple of `size`.
        size: Samples of a pack.

    Returns:
        Indices of the samples of every pack, ascending.
    """
    packs: list[list[int]] = [[] for _ in range(len(lengths) // size)]
    sums = [0] * len(packs)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        pack = min((n for n in range(len(packs)) if len(packs[n]) < size), key=lambda n: sums[n])
        packs[pack].append(index)
        sums[pack] += lengths[index]
    return [sorted(pack) for pack in packs]


class EvenOrder(MixtureOrder):
    """The order of a mixture, rearranged within each step into packs of about the same number of tokens.

    Args:
        dataset: The records.
        shares: See `MixtureOrder`.
        seed: See `MixtureOrder`.
        tokens_of: Upper bound of the tokens of the record of an index.
        batch_size: Samples of a step.
        pack_size: Samples of a forward pass.
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
        """Return the index of the record at a position of the run."""
        if not 0 <= position < self.count:
            raise IndexError(position)
        step, index = divmod(position, self.batch_size)
        if self._step is None or self._step[0] != step:
            first = step * self.batch_size
            taken = [super(EvenOrder, self).__getitem__(first + n) for n in range(self.batch_size)]
            packs = even_packs([self.tokens_of(index) for index in taken], self.pack_size)
            self._step = step, [taken[n] for pack in packs for n in pack]
        return self._step[1][index]


class TokensOf:
    """Upper bound of the tokens of a record, without decoding images: no token dropped, text estimated by its length.

    Args:
        dataset: The records.
        config: Config of the model in this stage.
        limit: Length that rows are cut to; None for none.
    """

    def __init__(self, dataset: RecordDataset, config: SlimeConfig, limit: int | None) -> None:
        self.dataset, self.limit = dataset, limit or math.inf
        self.layout, self.config = config.token_layout, config

    def __call__(self, index: int) -> int:
        """Return the tokens of the record; 0 for an unreadable one, which will be replaced."""
        try:
            sizes, characters = self.dataset.sizes(index)
        except DataError:
            return 0
        tokens = characters // CHARACTERS_PER_TOKEN
        for size in sizes:
            rows, cols = 1, self.config.max_tiles
            if size is not None:
                grid = choose_grid(*size, self.config.view_size, self.config.max_tiles, self.config.tile_margin)
                rows, cols = grid.rows, grid.cols
            tokens += self.layout.num_image_tokens(rows, cols)
        return int(min(tokens, self.limit))
