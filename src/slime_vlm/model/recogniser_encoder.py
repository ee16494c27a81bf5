"""Vision encoder made of the first stages of a text recogniser (PP-LCNetV4, the backbone of PP-OCRv6).

Deviation: the paper's encoder is CLIP. A recogniser's early stages name printed characters already, in 1.2 million
parameters. `scripts/convert_recogniser.py` writes their weights in the layout of transformers.

transformers has the same backbone (`PPLCNetV4Backbone`) with batch norms and always four stages. Here the norms are
folded into the convolutions, as they are in the published file. Few views then train as well as many, and a view's
features never depend on the other views of its batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from slime_vlm.model.configuration_recogniser import RecogniserConfig


def fold_patches(feature_map: Tensor, patch: tuple[int, int]) -> Tensor:
    """Make the patches of a map one feature each: [V, C, h, w] -> [V, N, rows * columns * C], in raster order."""
    rows, cols = patch
    cut = feature_map.permute(0, 2, 3, 1).unflatten(2, (-1, cols)).unflatten(1, (-1, rows))
    return cut.transpose(2, 3).flatten(3).flatten(1, 2)


def unfold_patches(features: Tensor, patch: tuple[int, int]) -> Tensor:
    """Undo `fold_patches` for a square raster of patches: [V, N, rows * columns * C] -> [V, C, h, w]."""
    rows, cols = patch
    side = math.isqrt(features.shape[1])
    cut = features.unflatten(2, (rows, cols, -1)).unflatten(1, (side, side))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class RecogniserStem(nn.Module):
    """Two branches between two strided convolutions: [V, 3, H, W] -> [V, C, H / 4, W / 4].

    Args:
        width: Channels of the first convolution.
        out_width: Channels C that come out.
    """

    def __init__(self, *, width: int, out_width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.narrow = nn.Conv2d(width, width // 2, 2)
        self.widen = nn.Conv2d(width // 2, width, 2)
        self.second = nn.Conv2d(2 * width, width, 3, stride=2, padding=1)
        self.third = nn.Linear(width, out_width)

    def forward(self, views: Tensor) -> Tensor:
        """Encode views [V, 3, H, W]."""
        # Windows of 2 x 2 keep the size with one more row and column of zeros at the end. No feature is negative, so
        # zeros do not change the maximum.
        edge = F.pad(F.relu(self.first(views)), (0, 1, 0, 1))
        branch = F.relu(self.widen(F.pad(F.relu(self.narrow(edge)), (0, 1, 0, 1))))
        pooled = F.max_pool2d(edge, 2, stride=1)
        joined = F.relu(self.second(torch.cat([pooled, branch], dim=1)))
        return F.relu(self.third(joined.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class ChannelGate(nn.Module):
    """Squeeze and excitation: scale every channel by a number in 0..1, computed from the channels' means over the view.

    Args:
        width: Channels.
        reduction: How many times fewer channels the hidden layer has.
    """

    def __init__(self, *, width: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(width, width // reduction)
        self.excite = nn.Linear(width // reduction, width)

    def forward(self, features: Tensor) -> Tensor:
        """Gate [V, C, h, w]."""
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(features.mean(dim=(2, 3))))))
        return features * gate[:, :, None, None]


class RecogniserBlock(nn.Module):
    """A depthwise convolution mixes neighbours, then an MLP with GELU mixes channels.

    Only the MLP has a residual connection, and only where the block keeps width and size.

    Args:
        width: Channels that come in.
        out_width: Channels that come out.
        stride: (down, right).
        gate_reduction: See `ChannelGate`; None leaves the gate out.
    """

    def __init__(
        self, *, width: int, out_width: int, stride: tuple[int, int] = (1, 1), gate_reduction: int | None = None
    ) -> None:
        super().__init__()
        self.residual = width == out_width and stride == (1, 1)
        self.depthwise = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width)
        self.gate = None if gate_reduction is None else ChannelGate(width=width, reduction=gate_reduction)
        # Channels lie last in memory, where a linear layer is faster on CPUs than a convolution of 1 x 1.
        self.expand = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, out_width)

    def forward(self, features: Tensor) -> Tensor:
        """Transform [V, C, h, w]."""
        mixed = self.depthwise(features)
        if self.gate is not None:
            mixed = self.gate(mixed)
        out = self.contract(F.gelu(self.expand(mixed.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return mixed + out if self.residual else out


class RecogniserEncoder(PreTrainedModel):
    """Stem, stages, and a projection of patches of the last map that makes the features a square raster.

    The stages resolve text more finely along a line than across lines (stride 8 x 4), but SliME's views are squares of
    features. One strided convolution takes every patch of the last map (16 pixels: 2 x 4 features) to one feature. It
    is new: it is trained with the parts that follow it. Without `project_patches` the features are the patches.
    """

    config: RecogniserConfig
    config_class = RecogniserConfig
    base_model_prefix = "recogniser"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["RecogniserBlock"]  # noqa: RUF012  (the base class's attribute)

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__(config)
        width = config.stage_widths[0]
        self.stem = RecogniserStem(width=config.stem_width, out_width=width)
        self.stages = nn.ModuleList()
        for out_width, depth, stride, gated in zip(
            config.stage_widths, config.stage_depths, config.stage_strides, config.gated_blocks, strict=True
        ):
            blocks = nn.Sequential()
            for block in range(depth):
                blocks.append(
                    RecogniserBlock(
                        width=width,
                        out_width=out_width,
                        stride=(stride[0], stride[1]) if block == 0 else (1, 1),
                        gate_reduction=config.gate_reduction if block in gated else None,
                    )
                )
                width = out_width
            self.stages.append(blocks)
        self.projection: nn.Conv2d | None = None
        if config.project_patches:
            patch = config.map_patch
            self.projection = nn.Conv2d(width, config.hidden_size, patch, stride=patch)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            super()._init_weights(module)
            return
        if module is self.projection:
            # Directions at right angles keep the most of a patch.
            init.orthogonal_(module.weight)
        else:
            init.kaiming_normal_(module.weight)
        init.zeros_(module.bias)

    def project(self, last_map: Tensor) -> Tensor:
        """Make the patches of the last stage's map [V, C_i, h, w] features [V, N, C]."""
        if self.projection is None:
            return fold_patches(last_map, self.config.map_patch)
        return self.projection(last_map).flatten(2).transpose(1, 2)

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, return_dict: bool = True
    ) -> BaseModelOutput:
        """Encode views.

        Args:
            pixel_values: [V, 3, H, W] in RGB, (x / 255 - 0.5) / 0.5; H and W are multiples of the patch size.
            output_hidden_states: Whether to return the maps [V, C_i, h_i, w_i] of stem and stages, then the features.
            return_dict: For callers that pass it to every encoder; the output is the same either way.

        Returns:
            `last_hidden_state`: the features [V, N, C] in raster order.
        """
        # Channels last takes two thirds of the time on CPUs.
        maps = [self.stem(pixel_values.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        features = self.project(maps[-1])
        return BaseModelOutput(
            last_hidden_state=features, hidden_states=(*maps, features) if output_hidden_states else None
        )


# Here, not with the Auto classes of SliME: `build_vision_encoder` builds by config.
AutoModel.register(RecogniserConfig, RecogniserEncoder, exist_ok=True)
