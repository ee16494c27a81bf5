"""Vision features of views from any AutoModel encoder (paper section 3.1: CLIP ViT-L/14 at 336 pixels).

Vision transformers give hidden states [V, prefix + N, C]. The prefix is the class token (CLIP, DINOv2), the class token
and registers (DINOv2 with registers) or nothing (SigLIP, SigLIP 2). Convolutional and hierarchical encoders give
[V, C, h, w]. All become [V, N, C]. To add a family of encoders, see `vision_families`.
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
from slime_vlm.model.vision_families import family_of

_SUPPORT = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
"""Attribute of a model class that says whether it has an implementation of attention."""


class _LayerReached(Exception):
    """Carries a hidden state out of an encoder, so that the layers after it do not run."""

    def __init__(self, hidden_states: Tensor) -> None:
        super().__init__("the requested layer was reached")
        self.hidden_states = hidden_states


def build_vision_encoder(config: PretrainedConfig) -> nn.Module:
    """Build the vision encoder of a config. Of a model with two towers, or a wrapper, take the vision part alone."""
    # A composite model passes its implementation of attention on to all parts. An encoder without attention, or with
    # its own alone, knows only "eager".
    architecture = AutoModel._model_mapping.get(type(config), None)
    wanted = str(getattr(config, "_attn_implementation", None))
    if architecture is not None and not getattr(architecture, _SUPPORT.get(wanted, ""), True):
        config._attn_implementation = "eager"
    model: nn.Module = AutoModel.from_config(config, trust_remote_code=False)
    return getattr(model, "vision_model", model)


def num_prefix_tokens(encoder: nn.Module) -> int:
    """Count the class, distillation and register tokens that a vision transformer puts before the patches.

    The encoder's parts are counted, not its tokens. One class token, four registers and four patches are nine tokens,
    and nine is a square as well.
    """
    config: Any = encoder.config
    family = family_of(config.model_type)
    embeddings = getattr(encoder, "embeddings", None)
    found = sum(getattr(embeddings, name, None) is not None for name in family.prefix_parameters)
    registers = 0 if family.register_field is None else getattr(config, family.register_field, 0)
    return found + int(registers or 0)


def _inputs_of(encoder: nn.Module, views: Tensor) -> dict[str, Any]:
    """Return the arguments of the encoder's forward pass for views [V, 3, H, W]."""
    config: Any = encoder.config
    if family_of(config.model_type).takes_patches:
        return _flattened_patches(views, side_of(config.patch_size) or 1)
    inputs: dict[str, Any] = {"pixel_values": views}
    own = side_of(getattr(config, "image_size", None))
    if own is not None and own != views.shape[-1] and _interpolates(encoder):
        # CLIP and SigLIP interpolate their position table only if asked to. DINOv2 always does.
        inputs["interpolate_pos_encoding"] = True
    return inputs


def _flattened_patches(views: Tensor, patch: int) -> dict[str, Any]:
    """Cut views [V, 3, H, W] into flattened patches [V, N, patch * patch * 3], channels last, with mask and grids."""
    rows, cols = views.shape[2] // patch, views.shape[3] // patch
    cut = views[:, :, : rows * patch, : cols * patch].unflatten(3, (cols, patch)).unflatten(2, (rows, patch))
    return {
        "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).reshape(len(views), rows * cols, -1),
        "pixel_attention_mask": torch.ones(len(views), rows * cols, dtype=torch.long, device=views.device),
        "spatial_shapes": torch.tensor([[rows, cols]] * len(views), device=views.device),
    }


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
    # Hidden state i is the input of layer i, so the forward pass can stop there. With the published layer -2, the last
    # layer would otherwise be computed and discarded.
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
    raise ConfigError(f"the vision encoder never reached its layer {layer}, choose another vision_feature_layer")


def encode_views(
    encoder: nn.Module,
    pixel_values: Tensor,
    *,
    layer: int = -2,
    num_tokens: int | None = None,
    views_per_chunk: int = 32,
    least_chunks: int = 1,
) -> Tensor:
    """Encode all views of a batch in chunks of bounded size, and drop class tokens and registers.

    Args:
        encoder: A vision encoder. It runs without gradient if all of it is frozen.
        pixel_values: [V, 3, H, W].
        layer: Index into the encoder's hidden states.
        num_tokens: Expected N. Any other number is an error.
        views_per_chunk: Number of views that the encoder processes at once.
        least_chunks: Minimum number of runs of the encoder. Missing runs process a blank view, and its features are
            dropped. Processes that share sharded weights need equal numbers of runs.

    Returns:
        [V, N, C].

    Raises:
        InputError: There is no view.
        ConfigError: The encoder gives another number of tokens than configured.
    """
    if pixel_values.ndim != 4 or pixel_values.shape[0] == 0:
        raise InputError(f"pixel_values has shape {list(pixel_values.shape)}, expected [views, 3, height, width]")
    parameter = next(encoder.parameters())
    # Offloaded weights are on the meta device. accelerate's hooks then move the inputs to where it computes.
    device = pixel_values.device if parameter.is_meta else parameter.device
    frozen = not any(p.requires_grad for p in encoder.parameters())
    views = list(pixel_values.split(views_per_chunk))
    views += [torch.zeros_like(pixel_values[:1])] * (least_chunks - len(views))
    chunks = []
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        for chunk in views:
            features = _hidden_state(encoder, chunk.to(device, parameter.dtype), layer)
            if features.ndim == 4:
                features = features.flatten(2).transpose(1, 2)
            else:
                features = features[:, num_prefix_tokens(encoder) :]
            chunks.append(features)
    # Dropped after the concatenation, so that blank views get zero gradients rather than none.
    features = torch.cat(chunks)[: len(pixel_values)]
    if num_tokens is not None and features.shape[1] != num_tokens:
        raise ConfigError(
            f"the vision encoder gives {features.shape[1]} tokens a view, expected {num_tokens}: "
            "check view_size and patch_size"
        )
    return features
