"""The vision parts of SliME: from pixels to the tokens of images before selection (paper sections 3.1 to 3.3)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from slime_vlm.errors import InputError
from slime_vlm.model.character_naming import CharacterNames
from slime_vlm.model.collectives import most_of_all
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.global_adapters import GlobalAdapter, VisionProjector, pool_features
from slime_vlm.model.input_checks import check_pixels
from slime_vlm.model.line_queries import LineQueries
from slime_vlm.model.local_compressor import LocalCompressor, TileMap, stitch_tiles
from slime_vlm.model.named_cells import cell_probs, named_cells
from slime_vlm.model.open_vocabulary import OpenVocabulary
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.page_positions import PagePositions
from slime_vlm.model.pretrained import SlimePreTrainedModel
from slime_vlm.model.question_selector import QuestionSelector
from slime_vlm.model.vision_encoder import build_vision_encoder, encode_views
from slime_vlm.model.visual_vocabulary import VisualVocabulary


class SlimeVision(SlimePreTrainedModel):
    """The vision parts of SliME, and the selector. `SlimeSelection` uses it, `SlimeModel` adds the language model.

    A base class and not a submodule, so that weights keep their names: `vision_tower`, not `vision.vision_tower`.
    """

    def __init__(self, config: SlimeConfig) -> None:
        super().__init__(config)
        vision_dim, dim = config.vision_width, config.text_config.hidden_size
        heads = max(1, vision_dim // config.query_attention_head_dim)
        self.vision_tower = build_vision_encoder(config.vision_config)
        self.projector: nn.Module | None = None
        self.global_adapter: GlobalAdapter | None = None
        self.local_compressor: LocalCompressor | LineQueries | None = None
        self.character_names: CharacterNames | None = None
        self.open_vocabulary: OpenVocabulary | None = None
        self.selector: QuestionSelector | None = None
        self.page_positions: PagePositions | None = None
        if config.projector_type == "query_attention":
            pass
        elif config.projector_vocabulary is not None:
            self.projector = VisualVocabulary(
                vision_dim=vision_dim,
                dim=dim,
                slot_sizes=config.projector_vocabulary,
                bias=config.projector_bias,
            )
        else:
            self.projector = VisionProjector(vision_dim=vision_dim, dim=dim, bias=config.projector_bias)
        if config.projector_type != "mlp":
            self.global_adapter = GlobalAdapter(
                num_tokens=config.num_global_tokens, vision_dim=vision_dim, num_heads=heads
            )
        if config.characters is not None:
            self._build_readers(config.characters)
        elif config.local_compression:
            self.local_compressor = LocalCompressor(
                num_queries=config.num_local_queries, dim=vision_dim, num_heads=heads
            )
            self.selector = QuestionSelector(
                kind=config.selector, dim=dim, num_heads=max(1, dim // config.query_attention_head_dim)
            )
        if config.page_positions:
            self.page_positions = PagePositions(dim=dim)

    def _build_readers(self, characters: str) -> None:
        """Build what names characters, and the words of local tokens."""
        config, tower = self.config, self.config.vision_config
        down, right = tower.map_stride
        self.local_compressor = LineQueries(
            dim=tower.stage_widths[-1],
            hidden=config.place_dim,
            cell=config.cell_shape,
            margin=(config.tile_margin // down, config.tile_margin // right),
            context=config.line_context,
        )
        self.character_names = CharacterNames(hidden=config.place_dim, num_characters=len(characters) + 2)
        self.open_vocabulary = OpenVocabulary(
            characters=characters,
            dim=config.text_config.hidden_size,
            word_dim=config.word_dim,
            buckets=config.word_buckets,
        )
        self.selector = QuestionSelector(kind=config.selector, dim=config.word_dim)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation. A frozen vision encoder stays in evaluation.

        In training, batch normalisation would use the statistics of the batch, and overwrite those of the encoder.
        """
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.vision_tower.parameters()):
            self.vision_tower.eval()
        return self

    @property
    def views_at_once(self) -> int:
        """Number of views that the vision encoder processes at once: on a CPU one, elsewhere `views_per_chunk`.

        The activations of one view fit the caches of a CPU. Seven at once take CLIP-L 1.3 times as long (docs/log.md).
        Training keeps to `views_per_chunk`, by which processes count how often they run the encoder.
        """
        return 1 if self.device.type == "cpu" and not self.training else self.config.views_per_chunk

    def encode_views(self, pixel_values: Tensor) -> Tensor:
        """Encode all views of a batch in chunks of bounded size: [V, 3, H, W] -> [V, N, C] (section 3.1).

        Features [V, N, C] that a frozen encoder gave earlier (`training/features/cache.py`) are returned as they are.
        """
        stored = pixel_values.ndim == 3
        per_chunk = self.views_at_once
        chunks = 0 if stored else -(-len(pixel_values) // per_chunk)
        # Weights may be sharded over processes, which then have to run the encoder equally often.
        least_chunks = most_of_all(chunks, self.device) if self.training else chunks
        options: dict[str, Any] = {
            "layer": self.config.vision_feature_layer,
            "num_tokens": self.config.num_features,
            "views_per_chunk": per_chunk,
            "least_chunks": least_chunks,
        }
        if not stored:
            return encode_views(self.vision_tower, pixel_values, **options)
        if least_chunks:
            encode_views(self.vision_tower, self._blank_views(1), **options)
        parameter = next(self.vision_tower.parameters())
        return pixel_values.to(parameter.device, parameter.dtype)

    def project(self, features: Tensor) -> Tensor:
        """Project views or compressed tiles into the language model's space: [V, n, C] -> [V, n, D]."""
        if self.projector is not None:
            return self.projector(features)
        assert self.global_adapter is not None
        return self.global_adapter.query_attention(features)

    def adapt_global(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute tokens [V, N, D] and gates [V, N, 2] of global views from their features [V, N, C] (section 3.2).

        With `global_pooling`, there are as many fewer tokens and gates.
        """
        features = pool_features(features, self.config.global_pooling)
        if self.config.projector_type != "gated":
            return self.project(features), None
        assert self.global_adapter is not None
        return self.global_adapter(features, self.project, gate=self.config.gate, gate_noise=self.config.gate_noise)

    def compress_tiles(self, features: Tensor) -> Tensor:
        """Compute local tokens [T, Q, D] of tiles from their features [T, N, C] (section 3.3).

        In a model with characters it is the probabilities of the characters in every cell, see `cell_probs`.
        """
        if self.local_compressor is None:
            return self.adapt_global(features)[0]
        if isinstance(self.local_compressor, LineQueries):
            assert self.character_names is not None
            patch, places = self.config.vision_config.map_patch, self.config.cell_shape[1]
            return cell_probs(features, patch, self.local_compressor, self.character_names, places)
        return self.project(self.local_compressor(features))

    def _local_parts(self, stitched: Tensor, grid: tuple[int, int]) -> tuple[Tensor | None, ...]:
        """Compute what `VisionTokens` holds of local tokens from what `compress_tiles` gave, [L, ...] in image order.

        Returns:
            Tokens [L, D], characters [L, K], words [L, W], certainties [L, K] and contexts [L, W], all but the first
            None without characters, and the last without an answer finder.
        """
        if self.open_vocabulary is None:
            return stitched, None, None, None, None
        assert isinstance(self.projector, VisualVocabulary)
        side = self.config.token_layout.tile_side
        shape = (grid[0] * side, grid[1] * side)
        characters = self.open_vocabulary.characters
        places, slots = self.config.cell_shape[1], self.config.character_slots
        ids, certainties = named_cells(stitched, shape, places, slots, characters)
        tokens = self.projector.embed_ids(ids)
        if self.page_positions is not None:
            tokens = tokens + self.page_positions(*grid, side, device=ids.device).view_as(tokens)
        tokens, linked, contexts = self.open_vocabulary(tokens[None], ids[None])
        parts = tuple(part.flatten(0, 1) for part in (tokens[0], ids, linked[0], certainties))
        return (*parts, contexts[0].flatten(0, 1) if self.config.answer_finder else None)

    def encode_image(self, pixel_values: Tensor, grid: tuple[int, int]) -> VisionTokens:
        """Encode one image: its views [1 + T, 3, H, W], and the (rows, columns) of its tiles."""
        return self.encode_images(pixel_values, torch.tensor([tuple(grid)]))[0]

    def encode_stream(self, chunks: Iterable[Tensor], grid: tuple[int, int]) -> VisionTokens:
        """Encode one image whose views come in chunks. Only their tokens stay in memory.

        With chunks of `views_per_chunk` views, the tokens equal those of `encode_image` bit for bit.

        Args:
            chunks: [v, 3, H, W] each: the views that the model uses (config `views`), the global view first.
            grid: (rows, columns) of tiles.

        Raises:
            InputError: The number of views does not fit the grid.
        """
        steps = self.encode_steps(chunks, grid)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                tokens: VisionTokens = done.value
                return tokens

    def encode_steps(self, chunks: Iterable[Tensor], grid: tuple[int, int]) -> Generator[None, None, VisionTokens]:
        """Do what `encode_stream` does, and pause after every chunk. A server runs other work in between.

        Args:
            chunks: See `encode_stream`.
            grid: See `encode_stream`.

        Returns:
            The generator returns the tokens of the image.
        """
        views, (rows, cols) = self.config.views, grid
        expected = {"global": 1, "local": rows * cols, "both": 1 + rows * cols}[views]
        is_global = torch.arange(expected) < (views != "local")
        global_tokens: Tensor | None = None
        gates: Tensor | None = None
        tiles = TileMap(rows, cols, self.config.local_merge)
        for global_features, tile_features in self._encode_chunks(chunks, is_global):
            if len(global_features):
                adapted, weights = self.adapt_global(global_features)
                global_tokens, gates = adapted[0], None if weights is None else weights[0]
            if len(tile_features):
                tiles.add(self.compress_tiles(tile_features))
            yield
        if views == "global":
            return VisionTokens(grid, gates, global_tokens)
        return VisionTokens(grid, gates, global_tokens, *self._local_parts(tiles.tokens(), grid))

    def encode_frames(self, pixel_values: Tensor, grid: tuple[int, int]) -> VisionTokens:
        """Encode the frames of a video. The mean of their features is the global view, and each frame is a tile.

        Every frame goes through the encoder once, as published with SliME's results on Video-MME.

        Args:
            pixel_values: [F, 3, H, W] frames in the order of time, one view each.
            grid: (rows, columns) of their layout, see `tiling.frame_grid`.

        Raises:
            InputError: The number of frames does not fit the grid, or tiles have margins.
        """
        if self.config.tile_margin:
            raise InputError(
                f"tile_margin is {self.config.tile_margin}, and the frames of a video have no neighbours that a margin "
                "could show; ask about single frames as images"
            )
        rows, cols = grid
        if rows * cols != pixel_values.shape[0]:
            raise InputError(f"got {pixel_values.shape[0]} frames, expected {rows} x {cols}: see tiling.frame_grid")
        views = self.config.views
        features = self.encode_views(pixel_values)
        global_tokens: Tensor | None = None
        gates: Tensor | None = None
        local_tokens: Tensor | None = None
        if views != "local":
            adapted, weights = self.adapt_global(features.mean(dim=0, keepdim=True))
            global_tokens, gates = adapted[0], None if weights is None else weights[0]
        if views != "global":
            local_tokens = stitch_tiles(self.compress_tiles(features), rows, cols, self.config.local_merge)
        return VisionTokens(grid, gates, global_tokens, local_tokens)

    def _encode_chunks(self, chunks: Iterable[Tensor], is_global: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Encode chunks of views one after the other.

        Args:
            chunks: [v, 3, H, W] each.
            is_global: [V] bool, True on the global views among the views of all chunks.

        Yields:
            Features [g, N, C] of the global views and [t, N, C] of the tiles of a chunk.

        Raises:
            InputError: The number of views is not V.
        """
        num_views = 0
        for chunk in chunks:
            mask = is_global[num_views : num_views + len(chunk)]
            num_views += len(chunk)
            if len(mask) < len(chunk):
                break
            features = self.encode_views(chunk)
            mask = mask.to(features.device)
            yield features[mask], features[~mask]
        if num_views != len(is_global):
            raise InputError(
                f"got {num_views} views, expected {len(is_global)}: pass the grid that the views were cut by"
            )

    def encode_images(self, pixel_values: Tensor, image_grids: Tensor) -> list[VisionTokens]:
        """Encode all images of a batch, all of their views together.

        Args:
            pixel_values: [V, 3, H, W] views of all images, the global view of an image before its tiles. With views
                "global", the global views alone are enough.
            image_grids: [I, 2] (rows, columns) of every image.

        Returns:
            Tokens of every image before selection.

        Raises:
            InputError: The views are not the processor's, or their number does not fit the grids.
        """
        check_pixels(pixel_values, image_grids, self.config)
        grids = [(int(rows), int(cols)) for rows, cols in image_grids.tolist()]
        num_tiles = [rows * cols for rows, cols in grids]
        views = self.config.views
        if views == "global" and pixel_values.shape[0] == len(grids):
            is_global = torch.ones(len(grids), dtype=torch.bool)
        else:
            expected = len(grids) + sum(num_tiles)
            if pixel_values.shape[0] != expected:
                raise InputError(
                    f"pixel_values hold {pixel_values.shape[0]} views, expected {expected} for the grids {grids}: "
                    "pass pixel_values and image_grids of the same processor call"
                )
            is_global = torch.cat([torch.arange(1 + tiles) == 0 for tiles in num_tiles])
        if views != "both":
            used = is_global if views == "global" else ~is_global
            pixel_values, is_global = pixel_values[used.to(pixel_values.device)], is_global[used]
        # The features of a chunk are compressed before the next chunk is encoded: they are N / Q times as large as its
        # tokens. Training keeps them for the gradient anyway, and every part has to run equally often in all processes.
        adapted: list[tuple[Tensor, Tensor | None]] = []
        compressed: list[Tensor] = []
        chunks = [pixel_values] if self.training else pixel_values.split(self.config.views_per_chunk)
        for global_features, tile_features in self._encode_chunks(chunks, is_global):
            if len(global_features):
                adapted.append(self.adapt_global(global_features))
            if len(tile_features):
                compressed.append(self.compress_tiles(tile_features))

        global_tokens: Sequence[Tensor | None] = [None] * len(grids)
        gates: Sequence[Tensor | None] = [None] * len(grids)
        local: Sequence[tuple[Tensor | None, ...]] = [()] * len(grids)
        if views != "local":
            global_tokens = [tokens for chunk, _weights in adapted for tokens in chunk]
            gates = [weights for _tokens, chunk in adapted if chunk is not None for weights in chunk] or gates
        if views != "global":
            tiles = torch.cat(compressed).split(num_tiles)
            local = [
                self._local_parts(stitch_tiles(tokens, *grid, self.config.local_merge), grid)
                for tokens, grid in zip(tiles, grids, strict=True)
            ]
        parts = zip(grids, gates, global_tokens, local, strict=True)
        return [VisionTokens(grid, gate, tokens, *own) for grid, gate, tokens, own in parts]

    def _blank_views(self, count: int) -> Tensor:
        return torch.zeros(count, 3, self.config.view_size, self.config.view_size, device=self.device)
