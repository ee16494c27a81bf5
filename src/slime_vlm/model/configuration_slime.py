"""Configuration of a SliME model: what its weights mean. How it is trained is part of a recipe instead."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_type_hints

from transformers import AutoConfig, PretrainedConfig

from slime_vlm.errors import ConfigError
from slime_vlm.model import configuration_recogniser  # noqa: F401  # transformers has to know it.
from slime_vlm.model.character_tokens import CharacterTokens
from slime_vlm.model.configuration_fields import CHOICES, SlimeFields
from slime_vlm.model.hub_mixin import HubMixin
from slime_vlm.model.hub_stub import CONFIG_AUTO_MAP, write_stub
from slime_vlm.model.selectors import SELECTORS
from slime_vlm.model.tiling import TokenLayout
from slime_vlm.model.vision_families import family_of


def _sub_config(value: dict[str, Any] | PretrainedConfig | None, default_model_type: str) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    fields = dict(value or {})
    model_type = fields.pop("model_type", default_model_type)
    # Another version of transformers may have saved null for a field that this one does not have. It would become an
    # attribute that is there and None: `layer_types`, for one, stops generation with a static cache.
    known = {field.name for field in dataclasses.fields(type(AutoConfig.for_model(model_type)))}
    return AutoConfig.for_model(model_type, **{k: v for k, v in fields.items() if v is not None or k in known})


def side_of(value: Any) -> int | None:
    """Return the side of a square that a config gives as a number or as (height, width), or None for anything else."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return value if isinstance(value, int) else None


def _own_view_size(vision_config: PretrainedConfig, patch_size: int) -> int:
    """Return the side of the views that a vision transformer was trained on, or 336 if its config does not tell."""
    side = side_of(getattr(vision_config, "image_size", None))
    if side is None:
        field = family_of(vision_config.model_type).num_patches_field
        patches = None if field is None else getattr(vision_config, field, None)
        return 336 if patches is None else math.isqrt(patches) * patch_size
    # An encoder such as SigLIP so400m (384 pixels, patches of 14) uses 27 whole patches and ignores the last 6 pixels.
    # Views of 378 give it the same 27 patches, and no pixel is lost between tiles.
    return side // patch_size * patch_size


def _refuse_misspelt(unknown: Iterable[str]) -> None:
    """Refuse fields that look like one of ours.

    transformers keeps or ignores every other unknown field, since another version of it may have saved it.

    Raises:
        ConfigError: A name is close to a field's.
    """
    unknown = set(unknown)
    if "top_p" in unknown:
        raise ConfigError("top_p is a sampling parameter, expected selector_top_p for the selector's probability mass")
    ours = [field.name for field in dataclasses.fields(SlimeFields)]
    inherited = {field.name for field in dataclasses.fields(PretrainedConfig)}
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, ours, n=1, cutoff=0.85)
        if near and name not in inherited:
            raise ConfigError(f"'{name}' is not a field of SlimeConfig, expected '{near[0]}'; correct the name")


# Beyond every vocabulary, side and number of tokens.
_LARGEST = 10**9


class SlimeConfig(HubMixin, SlimeFields, PretrainedConfig):
    """Every choice of the paper and of the published implementation, with the published default.

    The fields are documented in `configuration_fields.SlimeFields`.
    """

    model_type = "slime"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": AutoConfig, "text_config": AutoConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "past_key_values",
        "cache",
        "attention_mask",
        "position_ids",
        "labels",
        "token_index",
        "adapter_weights",
        "selection_scores",
        "selection_probs",
        "kept_local_tokens",
        "vision_tokens",
        "pointing",
        "held_characters",
        "follows",
    ]

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_misspelt(kwargs)
        if self.vision_config is None:
            self.vision_config = {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 336,
                "patch_size": 14,
                "projection_dim": 768,
            }
        self.vision_config = _sub_config(self.vision_config, "clip_vision_model")
        self.text_config = _sub_config(self.text_config, "llama")
        self.tie_word_embeddings = self.tie_word_embeddings or bool(
            getattr(self.text_config, "tie_word_embeddings", False)
        )
        # The image_size and patch_size of a hierarchical encoder describe its first stage, not the selected features.
        hierarchical = getattr(self.vision_config, "hidden_sizes", None) is not None
        if self.patch_size is None:
            if hierarchical:
                raise ConfigError(
                    f"patch_size is not set for a {self.vision_config.model_type} vision encoder, "
                    "expected the stride of the features that vision_feature_layer selects"
                )
            self.patch_size = side_of(getattr(self.vision_config, "patch_size", None)) or 14
        if self.characters is not None and self.projector_vocabulary is None:
            # Nothing, the characters, any other.
            self.projector_vocabulary = [len(self.characters) + 2] * self.character_slots
        if self.view_size is None:
            self.view_size = 336 if hierarchical else _own_view_size(self.vision_config, self.patch_size)
        self.check()
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a config from saved fields and changes of them, as every transformers config does.

        transformers sets changed fields after it has checked the saved ones, and drops those that it does not know.

        Raises:
            ConfigError: A changed field has a value that no model can be built from, or looks like a misspelt one.
        """
        return_unused = kwargs.pop("return_unused_kwargs", False)
        config, unused = super().from_dict(config_dict, return_unused_kwargs=True, **kwargs)
        _refuse_misspelt(unused)
        config.check()
        return (config, unused) if return_unused else config

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save config.json, and the stub module that its `auto_map` names."""
        self.auto_map = dict(CONFIG_AUTO_MAP)
        write_stub(save_directory)
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def check(self) -> None:
        """Check the fields against each other.

        Raises:
            ConfigError: A field has a value that no model can be built from.
        """
        self._check_types()
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        if self.view_size % self.patch_size:
            raise ConfigError(
                f"view_size {self.view_size} is not a multiple of patch_size {self.patch_size}, choose a multiple"
            )
        if self.tile_margin < 0 or 2 * self.tile_margin >= self.view_size:
            raise ConfigError(
                f"tile_margin is {self.tile_margin}, expected at least 0 and less than half of view_size "
                f"{self.view_size}"
            )
        if self.global_pooling < 1 or self.feature_side % self.global_pooling:
            raise ConfigError(
                f"global_pooling is {self.global_pooling}, expected a divisor of the {self.feature_side} features "
                "along a side of a view"
            )
        if self.global_pooling > 1 and (not self.local_compression or self.projector_type == "query_attention"):
            raise ConfigError(
                f"global_pooling is {self.global_pooling}, expected 1 without local_compression or with projector_type "
                "'query_attention': tiles would go through the same adapters"
            )
        if math.isqrt(self.num_local_queries) ** 2 != self.num_local_queries:
            raise ConfigError(
                f"num_local_queries is {self.num_local_queries}, expected a square number such as 64 or 144"
            )
        self._check_indices()
        if self.max_tiles < 1:
            raise ConfigError(f"max_tiles is {self.max_tiles}, expected at least 1")
        if not 0.0 <= self.selector_top_p <= 1.0:
            raise ConfigError(f"selector_top_p is {self.selector_top_p}, expected a probability between 0 and 1")
        if self.selector_temperature <= 0:
            raise ConfigError(f"selector_temperature is {self.selector_temperature}, expected a positive number")
        for name in ("max_local_tokens", "max_sequence_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, expected at least 1, or None for no limit")
        if self.max_local_tokens is not None and not (self.scores_tokens and self.local_compression):
            raise ConfigError(
                f"max_local_tokens is {self.max_local_tokens}, but this model has no selector to choose them; leave it "
                "out"
            )
        if self.align_outputs and self.max_sequence_length is not None:
            raise ConfigError(
                f"align_outputs is true and max_sequence_length is {self.max_sequence_length}, expected no "
                "limit: tokens that are cut have no outputs"
            )
        if self.projector_type == "query_attention" and self.vision_width != self.text_config.hidden_size:
            raise ConfigError(
                f"projector_type is 'query_attention' with widths {self.vision_width} and "
                f"{self.text_config.hidden_size}, expected equal widths of vision encoder and language model"
            )
        line = self.answer_calibration
        if line is not None and not (
            len(line) in (2, 3) and all(math.isfinite(number) for number in line) and line[0] > 0
        ):
            raise ConfigError(
                f"answer_calibration is {line}, expected a positive slope and an offset, the slope of readings if "
                "there is one, or None for no calibration"
            )
        if self.projector_vocabulary is not None and self.projector_type == "query_attention":
            raise ConfigError("projector_vocabulary needs MLP_proj, but projector_type is 'query_attention'")
        self._check_characters()

    def _check_types(self) -> None:
        """Check the type of every field that is a number or a switch."""
        for name, kind in get_type_hints(SlimeFields).items():
            kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
            value = getattr(self, name)
            if value is None and NoneType in kinds:
                continue
            if float in kinds:
                is_number = isinstance(value, float) or _is_whole(value)
                fits, expected = is_number and abs(value) <= _LARGEST, "a number"
            elif int in kinds:
                fits, expected = _is_whole(value) and abs(value) <= _LARGEST, f"a whole number up to {_LARGEST:,}"
            elif bool in kinds:
                fits, expected = isinstance(value, bool), "true or false"
            else:
                continue
            if not fits:
                raise ConfigError(f"{name} is {value!r:.40}, expected {expected}")

    def _check_indices(self) -> None:
        """Check what points into the vocabulary and into the layers of the vision encoder."""
        separator, layer = self.separator_token_id, self.vision_feature_layer
        # How large the vocabulary is may not be known yet; loading compares both.
        if separator < 0:
            raise ConfigError(f"separator_token_id is {separator}, expected a token of the vocabulary")
        layers: Any = getattr(self.vision_config, "num_hidden_layers", None)
        if _is_whole(layers) and not -layers - 1 <= layer <= layers:
            raise ConfigError(
                f"vision_feature_layer is {layer}, expected one of the encoder's hidden states, from {-layers - 1} to "
                f"{layers}"
            )

    @property
    def vision_width(self) -> int:
        """Width C of the selected vision features."""
        sizes = getattr(self.vision_config, "hidden_sizes", None)
        if sizes is None:
            return self.vision_config.hidden_size
        # Hidden states may start with the output of the stem, so stages are counted from the end.
        if not -len(sizes) <= self.vision_feature_layer < 0:
            raise ConfigError(
                f"vision_feature_layer is {self.vision_feature_layer} for an encoder of {len(sizes)} stages, "
                f"expected -{len(sizes)} to -1"
            )
        return sizes[self.vision_feature_layer]

    def _check_characters(self) -> None:
        """Check what a model with characters needs.

        Raises:
            ConfigError: A field has a value that such a model does not support.
        """
        if self.characters is None:
            for name in ("copy_output", "answer_finder"):
                if getattr(self, name):
                    raise ConfigError(f"{name} is true without characters, expected the characters to copy; set both")
            return
        count = len(self.characters)
        wrong = {
            "vision_config.model_type": (self.vision_config.model_type, "slime_recogniser"),
            "vision_config.project_patches": (getattr(self.vision_config, "project_patches", None), False),
            "vision_feature_layer": (self.vision_feature_layer, -1),
            "local_compression": (self.local_compression, True),
            "local_merge": (self.local_merge, "spatial"),
            "projector_vocabulary": (self.projector_vocabulary, [count + 2] * self.character_slots),
        }
        for name, (found, expected) in wrong.items():
            if found != expected:
                raise ConfigError(f"{name} is {found!r} in a model with characters, expected {expected!r}")
        for name, refused in (("views", "global"), ("selector", "attention"), ("projector_type", "query_attention")):
            if getattr(self, name) == refused:
                raise ConfigError(f"{name} is '{refused}' in a model with characters, choose another one")
        if len(set(self.characters)) < count:
            raise ConfigError("characters name one twice, expected each once")
        if self.text_config.vocab_size != CharacterTokens(count).vocabulary:
            raise ConfigError(
                f"the language model has a vocabulary of {self.text_config.vocab_size} for {count} characters, "
                f"expected {CharacterTokens(count).vocabulary}: build its tokenizer with build_character_tokenizer"
            )
        if self.answer_finder and not self.copy_output:
            raise ConfigError("answer_finder is true without copy_output, which it tells where to look; set both")
        if self.copy_output and not self.tie_word_embeddings:
            raise ConfigError("copy_output is true with a head of its own, expected tie_word_embeddings")
        side, tile = math.isqrt(self.num_local_queries), self.view_size - 2 * self.tile_margin
        for stride in self.vision_config.map_stride:
            if tile % (side * stride) or self.tile_margin % stride or not self.tile_margin:
                raise ConfigError(
                    f"a tile of {tile} pixels with a tile_margin of {self.tile_margin} and {side} x {side} cells does "
                    f"not fit the encoder's stride of {stride}, expected cells and a margin of whole features"
                )

    @property
    def cell_shape(self) -> tuple[int, int]:
        """(rows, columns) of the recogniser's features in a cell of a tile, for a model with characters."""
        cell = (self.view_size - 2 * self.tile_margin) // math.isqrt(self.num_local_queries)
        down, right = self.vision_config.map_stride
        return cell // down, cell // right

    @property
    def feature_side(self) -> int:
        """Side of the square map of vision features of a view."""
        return self.view_size // self.patch_size

    @property
    def num_features(self) -> int:
        """Vision tokens N of a view."""
        return self.feature_side**2

    @property
    def num_global_tokens(self) -> int:
        """Tokens of the global view: its vision tokens after pooling."""
        return (self.feature_side // self.global_pooling) ** 2

    @property
    def num_tile_tokens(self) -> int:
        """Tokens of one tile after compression and projection."""
        if self.local_compression and self.projector_type != "query_attention":
            return self.num_local_queries
        return self.num_global_tokens

    @property
    def scores_tokens(self) -> bool:
        """Whether the kind of selector scores local tokens. "none" does not."""
        return SELECTORS[self.selector].build is not None

    @property
    def selects_tokens(self) -> bool:
        """Whether the model has local tokens and a selector that chooses among them."""
        return self.scores_tokens and self.local_compression and self.views != "global"

    @property
    def token_layout(self) -> TokenLayout:
        """Numbers of tokens of the parts of an image before selection."""
        return TokenLayout(
            num_global_tokens=0 if self.views == "local" else self.num_global_tokens,
            num_tile_tokens=0 if self.views == "global" else self.num_tile_tokens,
            num_separators=int(self.views == "both" and self.local_compression),
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
