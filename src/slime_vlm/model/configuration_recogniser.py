"""Configuration of the text-recogniser encoder, see `recogniser_encoder`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from slime_vlm.errors import ConfigError

STEM_STRIDE = 4


class RecogniserConfig(PretrainedConfig):
    """Shape of a `RecogniserEncoder`; the defaults are the first two stages of PP-OCRv6's small recogniser.

    Attributes:
        stem_width: Channels of the first convolution.
        stage_widths: Channels of every stage.
        stage_depths: Blocks of every stage.
        stage_strides: (down, right) stride of the first block of every stage. The stem divides both sides by 4 before.
        gated_blocks: For every stage the indices of the blocks with a squeeze-and-excitation gate.
        gate_reduction: How many times fewer channels the hidden layer of a gate has.
        hidden_size: Width C of the features that come out.
        patch_size: Pixels per feature along both sides. The last map is cut into patches of so many pixels, and one
            linear projection takes each of them to `hidden_size` channels.
        project_patches: Whether that projection is there. Without it the features are the patches themselves, so that a
            reader of lines gets the last map back (`recogniser_encoder.unfold_patches`).
        image_size: Side of the views that SliME cuts for this encoder. The encoder itself takes any size.
    """

    model_type = "slime_recogniser"

    stem_width: int = 48
    stage_widths: Sequence[int] = (96, 192)
    stage_depths: Sequence[int] = (3, 7)
    stage_strides: Sequence[Sequence[int]] = ((1, 1), (2, 1))
    gated_blocks: Sequence[Sequence[int]] = ((0,), (1, 3, 5))
    gate_reduction: int = 4
    hidden_size: int = 384
    patch_size: int = 16
    project_patches: bool = True
    image_size: int = 256

    def __post_init__(self, **kwargs: Any) -> None:
        # Lists, as they come back from JSON.
        self.stage_widths, self.stage_depths = list(self.stage_widths), list(self.stage_depths)
        self.stage_strides = [list(stride) for stride in self.stage_strides]
        self.gated_blocks = [list(blocks) for blocks in self.gated_blocks]
        names = ("stage_widths", "stage_depths", "stage_strides", "gated_blocks")
        lengths = [len(getattr(self, name)) for name in names]
        if len(set(lengths)) > 1:
            raise ConfigError(f"{', '.join(names)} have {lengths} entries, expected one for every stage")
        rows, cols = self.map_stride
        if self.patch_size % rows or self.patch_size % cols:
            raise ConfigError(
                f"patch_size is {self.patch_size}, expected a multiple of the last map's strides {rows} and {cols}"
            )
        down, right = self.map_patch
        if not self.project_patches and self.hidden_size != down * right * self.stage_widths[-1]:
            raise ConfigError(
                f"hidden_size is {self.hidden_size} without project_patches, expected the {self.stage_widths[-1]} "
                f"channels of patches of {down} x {right}: {down * right * self.stage_widths[-1]}"
            )
        super().__post_init__(**kwargs)

    @property
    def map_stride(self) -> tuple[int, int]:
        """Pixels (down, right) per feature of the last stage's map."""
        rows = cols = STEM_STRIDE
        for down, right in self.stage_strides:
            rows, cols = rows * down, cols * right
        return rows, cols

    @property
    def map_patch(self) -> tuple[int, int]:
        """(rows, columns) of the last stage's map in a patch."""
        rows, cols = self.map_stride
        return self.patch_size // rows, self.patch_size // cols


# Here, not with the Auto classes of SliME: `SlimeConfig` builds its vision config by model type.
AutoConfig.register(RecogniserConfig.model_type, RecogniserConfig, exist_ok=True)
