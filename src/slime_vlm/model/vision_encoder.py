"""Vision features of views from any AutoModel encoder (paper section 3.1: CLIP ViT-L/14 at 336 pixels).

Vision transformers give [V, prefix + N, C] hidden states, where the prefix is the class token (CLIP, DINOv2), the class
token and registers (DINOv2 with registers) or nothing (SigLIP, SigLIP 2); convolutional and hierarchical encoders give
[V, C, h, w]. All become [V, N, C].
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model import recogniser_encoder  # noqa: F401  # transformers has to know it.
from slime_vlm.model.configuration_slime import side_of


class _LayerReached(Exception):
    """Carries the wanted hidden state out of an encoder whose further layers are not needed."""

    def __init__(self, hidden_states: Tensor) -> None:
        super().__init__("the wanted layer was reached")
        self.hidden_states = hidden_states


def build_vision_encoder(config: PretrainedConfig) -> nn.Module:
    """Build the encoder of a config; of two-tower models and their wrappers only the vision part."""
    model: nn.Module = AutoModel.from_config(config)
    return getattr(model, "vision_model", model)


def num_prefix_tokens(encoder: nn.Module) -> int:
    """Class, distillation and register tokens that a vision transformer puts before those of the patches.

    Told by the encoder's parts, not by the number of its tokens: one class token, four registers and four patches are
    nine tokens, and nine is a square.
    """
    embeddings = getattr(encoder, "embeddings", None)
    names = ("class_embedding", "cls_token", "distillation_token")
    registers: Any = getattr(encoder.config, "num_register_tokens", 0)
    return sum(getattr(embeddings, name, None) is not None for name in names) + int(registers or 0)


def _inputs_of(encoder: nn.Module, views: Tensor) -> dict[str, Any]:
    """What the encoder takes for views [V, 3, H, W]."""
    config: Any = encoder.config
    if config.model_type == "siglip2_vision_model":
        # SigLIP 2 for native sizes ("naflex") takes patches that are cut already, channels last, and their grid.
        patch = side_of(config.patch_size) or 1
        rows, cols = views.shape[2] // patch, views.shape[3] // patch
        cut = views[:, :, : rows * patch, : cols * patch].unflatten(3, (cols, patch)).unflatten(2, (rows, patch))
        grids = torch.tensor([[rows, cols]] * len(views), device=views.device)
        return {
            "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).reshape(len(views), rows * cols, -1),
            "pixel_attention_mask": torch.ones(len(views), rows * cols, dtype=torch.long, device=views.device),
            "spatial_shapes": grids,
        }
    inputs: dict[str, Any] = {"pixel_values": views}
    own = side_of(getattr(config, "image_size", None))
    if own is not None and own != views.shape[-1] and _interpolates(encoder):
        # CLIP and SigLIP stretch their position table on request only; DINOv2 does it by itself.
        inputs["interpolate_pos_encoding"] = True
    return inputs


def _interpolates(encoder: nn.Module) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(encoder.forward).parameters


def _layers_of(encoder: nn.Module) -> nn.ModuleList | None:
    body = getattr(encoder, "encoder", encoder)
    for name in ("layers", "layer"):
        layers = getattr(body, name, None)
        if isinstance(layers, nn.ModuleList):
            return layers
    return None


def _hidden_state(encoder: nn.Module, pixel_values: Tensor, layer: int) -> Tensor:
    layers = _layers_of(encoder)
    # Hidden state i is the input of layer i, so one that is not the last can be caught before the layers that are
    # not wanted run (with the published layer -2 the last one would be computed and thrown away).
    if layers is None or not -len(layers) <= layer + 1 < 0:
        outputs = encoder(**_inputs_of(encoder, pixel_values), output_hidden_states=True, return_dict=True)
        return outputs.hidden_states[layer]

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _LayerReached(args[0] if args else kwargs["hidden_states"])

    hook = layers[layer + 1].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        encoder(**_inputs_of(encoder, pixel_values), return_dict=True)
    except _LayerReached as reached:
        return reached.hidden_states
    finally:
        hook.remove()
    raise ConfigError(f"layer {layer} of the vision encoder was never reached, choose another vision_feature_layer")


def encode_views(
    encoder: nn.Module,
    pixel_values: Tensor,
    *,
    layer: int = -2,
    num_tokens: int | None = None,
    views_per_chunk: int = 32,
    least_chunks: int = 1,
) -> Tensor:
    """Encode all views of a batch in bounded chunks; class tokens and registers are dropped.

    Args:
        encoder: A vision encoder; it runs without gradient when all of it is frozen.
        pixel_values: [V, 3, H, W].
        layer: Index into the encoder's hidden states.
        num_tokens: Expected N; a mismatch is an error.
        views_per_chunk: Views that go through the encoder at once.
        least_chunks: How often the encoder runs at least: on blank views, whose features are left out, where the views
            need fewer.

    Returns:
        [V, N, C].

    Raises:
        InputError: There is no view.
        ConfigError: The encoder gives another number of tokens than configured.
    """
    if pixel_values.ndim != 4 or pixel_values.shape[0] == 0:
        raise InputError(f"pixel_values has shape {list(pixel_values.shape)}, expected [views, 3, height, width]")
    parameter = next(encoder.parameters())
    frozen = not any(p.requires_grad for p in encoder.parameters())
    views = list(pixel_values.split(views_per_chunk))
    views += [torch.zeros_like(pixel_values[:1])] * (least_chunks - len(views))
    chunks = []
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        for chunk in views:
            features = _hidden_state(encoder, chunk.to(parameter.device, parameter.dtype), layer)
            if features.ndim == 4:
                features = features.flatten(2).transpose(1, 2)
            else:
                features = features[:, num_prefix_tokens(encoder) :]
            chunks.append(features)
    # Blank views are cut off behind, so that their gradients are zeros.
    features = torch.cat(chunks)[: len(pixel_values)]
    if num_tokens is not None and features.shape[1] != num_tokens:
        raise ConfigError(
            f"the vision encoder gives {features.shape[1]} tokens a view, expected {num_tokens}: "
            "check view_size and patch_size"
        )
    return features
