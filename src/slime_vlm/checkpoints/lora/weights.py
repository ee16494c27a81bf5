"""Low-rank weights in peft's files, published or our own. They are merged into the base while its weights are read.

The merged weight is W + scale * B A, computed in float32 and cast back to the type of W. The scale is alpha / r, or
alpha / sqrt(r) with rank stabilisation; alpha and r may differ by layer. DoRA (arXiv 2402.09353) then gives every row
of the sum the length that it has learnt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.tensor_files import StoredTensor, file_tensors, some
from slime_vlm.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
"""Prefix that peft puts before every name."""

_NAME = re.compile(
    r"(?:base_model\.model\.)?(.+)\.lora_(?:(A|B)(?:\.default)?\.weight|(magnitude_vector)(?:\.default)?(?:\.weight)?)"
)
# With other values of these settings, the formula above is not what was trained.
_UNKNOWN_SETTINGS = {
    "fan_in_fan_out": False,
    "bias": "none",
    "lora_bias": False,
    "use_qalora": False,
    "use_bdlora": None,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "kasa_config": None,
    "monteclora_config": None,
    "layer_replication": None,
    "target_parameters": None,
    "trainable_token_indices": None,
}
# The other ways to start (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take the first product off the weights of the base, so
# that the adapter does not belong to the base as it is stored.
_STARTS_ON_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LowRank:
    """The change of one weight.

    Attributes:
        a: A [r, in].
        b: B [out, r].
        scale: Factor of the product.
        magnitude: Lengths [out] of the rows of the changed weight (DoRA), None for plain LoRA.
    """

    a: StoredTensor
    b: StoredTensor
    scale: float
    magnitude: StoredTensor | None = None


@dataclass(frozen=True)
class LoraWeights:
    """Low-rank weights of a folder.

    Attributes:
        folder: The folder.
        base: Recorded name of the model that they were trained on, None if there is no record.
        pairs: The change of every tensor that has one, by native name.
        whole: Tensors that were trained whole, by native name. They replace those of the base.
    """

    folder: Path
    base: str | None
    pairs: Mapping[str, LowRank]
    whole: Mapping[str, StoredTensor] = field(default_factory=dict)

    def merged_into(
        self, tensors: Mapping[str, StoredTensor], dtype: torch.dtype | None = None
    ) -> dict[str, StoredTensor]:
        """Merge the low-rank weights into the tensors of the base, which have native names.

        Args:
            tensors: Tensors of the base.
            dtype: Type of the sums, and of the tensors that were trained whole. None takes the types of the base.

        Raises:
            CheckpointError: A tensor is not in the base, or has another shape there.
        """
        found = self.replaced_in(tensors, dtype)
        return {**found, **{name: self._sum(name, found[name], dtype) for name in self.pairs}}

    def replaced_in(
        self, tensors: Mapping[str, StoredTensor], dtype: torch.dtype | None = None
    ) -> dict[str, StoredTensor]:
        """Replace the tensors of the base that were trained whole. Merge nothing.

        Args:
            tensors: Tensors of the base.
            dtype: Type of the new ones. None takes the types of the base.

        Raises:
            CheckpointError: A tensor is not in the base, or has another shape there.
        """
        absent = [name for name in (*self.pairs, *self.whole) if name not in tensors]
        if absent:
            raise CheckpointError(
                f"{self.folder} changes {len(absent)} tensor(s) that the base does not have: {some(absent)}; "
                "pass the base that it was trained on"
            )
        return {**tensors, **{name: self._replacement(name, tensors[name], dtype) for name in self.whole}}

    def _replacement(self, name: str, base: StoredTensor, dtype: torch.dtype | None) -> StoredTensor:
        own = self.whole[name]
        if base.shape != own.shape:
            raise CheckpointError(
                f"{self.folder} has {name} as {list(own.shape)}, but the base has it as {list(base.shape)}; pass the "
                "base that it was trained on"
            )
        found = dtype or base.dtype
        return StoredTensor(own.shape, found, own.origin, lambda: own.load(found))

    def _sum(self, name: str, base: StoredTensor, dtype: torch.dtype | None) -> StoredTensor:
        change = self.pairs[name]
        a, b = change.a, change.b
        if base.shape != (b.shape[0], a.shape[1]):
            raise CheckpointError(
                f"{self.folder} changes {name} as [{b.shape[0]}, {a.shape[1]}], but the base has it as "
                f"{list(base.shape)}; pass the base that it was trained on"
            )

        def read() -> Tensor:
            if change.magnitude is None:
                return merged_weight(base.load(dtype), a.load(), b.load(), change.scale)
            return dora_weight(base.load(dtype), a.load(), b.load(), change.scale, change.magnitude.load())

        return StoredTensor(base.shape, dtype or base.dtype, base.origin, read)


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Add the low-rank product to a weight.

    Args:
        weight: [out, in].
        a: A [r, in].
        b: B [out, r].
        scale: Factor of the product.

    Returns:
        The sum, computed in float32, in the type of `weight`.
    """
    return torch.addmm(weight.float(), b.float(), a.float(), alpha=scale).to(weight)


def dora_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor) -> Tensor:
    """Add the low-rank product to a weight, and give every row its learnt length (DoRA).

    Args:
        weight: [out, in].
        a: A [r, in].
        b: B [out, r].
        scale: Factor of the product.
        magnitude: [out] lengths of the rows.

    Returns:
        The changed weight, computed in float32, in the type of `weight`.
    """
    changed = merged_weight(weight.float(), a, b, scale)
    return (changed * (magnitude.float() / changed.norm(dim=1))[:, None]).to(weight)


def read_lora(folder: Path, native_names: Callable[[str], list[str]] | None = None) -> LoraWeights:
    """Read the low-rank weights of a folder with `adapter_config.json`.

    Args:
        folder: The folder.
        native_names: Maps a published name to names of this package. None: the names are those of this package, and
            there may be `modules_to_save`.

    Raises:
        CheckpointError: They are damaged, or were trained with settings that are not supported.
    """
    path = folder / ADAPTER_CONFIG
    settings = read_json(path)
    if settings.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(f"{path} is of type {settings['peft_type']!r}, expected LORA")
    for name, plain in _UNKNOWN_SETTINGS.items():
        if settings.get(name) not in (plain, None):
            raise CheckpointError(f"{path} has {name} {settings[name]!r}, expected {plain!r}; merge it with peft first")
    saved = settings.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved) or (saved and native_names):
        raise CheckpointError(f"{path} has modules_to_save {saved!r}, expected none; merge it with peft first")
    if settings.get("init_lora_weights") not in _STARTS_ON_THE_BASE:
        raise CheckpointError(
            f"{path} has init_lora_weights {settings['init_lora_weights']!r}, which changes the base before training; "
            "merge it with peft first"
        )
    pairs, whole = _weights(folder, settings, tuple(saved), native_names)
    base = settings.get("base_model_name_or_path")
    return LoraWeights(folder=folder, base=base if isinstance(base, str) and base else None, pairs=pairs, whole=whole)


def _rank_and_scale(settings: Mapping[str, Any], module: str, path: Path) -> tuple[float, float]:
    """Return the rank of a module, as it was named in training, and the factor of its product."""
    rank = _positive(_by_pattern(settings, "rank_pattern", module, "r", path), path)
    alpha = _positive(_by_pattern(settings, "alpha_pattern", module, "lora_alpha", path), path)
    return rank, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _by_pattern(settings: Mapping[str, Any], patterns: str, module: str, name: str, path: Path) -> tuple[str, Any]:
    """Return a setting of a module: that of the first pattern that is the end of its name, else the common one."""
    found = settings.get(patterns) or {}
    try:
        for pattern, value in found.items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return patterns, value
    except (AttributeError, re.error) as error:
        raise CheckpointError(f"{path} has {patterns} {found!r:.80}, expected values by pattern of names") from error
    return name, settings.get(name)


def _positive(setting: tuple[str, Any], path: Path) -> float:
    name, value = setting
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise CheckpointError(f"{path} has {name} {value!r}, expected a positive number")
    return value


def _weights(
    folder: Path,
    settings: Mapping[str, Any],
    saved: tuple[str, ...],
    native_names: Callable[[str], list[str]] | None,
) -> tuple[dict[str, LowRank], dict[str, StoredTensor]]:
    """Return the low-rank weights, and the weights that were trained whole: those of modules in `saved`.

    peft takes the ends of module names for names: `projector` stands for `model.projector`.
    """
    path = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise CheckpointError(f"{folder} has {ADAPTER_CONFIG} but neither {' nor '.join(_WEIGHTS)}; fetch it again")
    config = folder / ADAPTER_CONFIG
    # Refused also where patterns give every layer its own.
    _rank_and_scale(settings, "", config)
    parts: dict[str, dict[str, StoredTensor]] = {}
    scales: dict[str, float] = {}
    whole: dict[str, StoredTensor] = {}
    unknown = []
    for name, tensor in file_tensors(path).items():
        match = _NAME.fullmatch(name)
        if match is None and any(f".{module}." in f".{name}" for module in saved):
            whole[name.removeprefix(PREFIX)] = tensor
            continue
        target = f"{match[1]}.weight" if match else ""
        targets = native_names(target) if native_names else [target]
        if match is None or len(targets) != 1:
            unknown.append(name)
            continue
        rank, scales[targets[0]] = _rank_and_scale(settings, match[1], config)
        kind = match[2] or match[3]
        if kind == "magnitude_vector":
            _check_shape(tensor, len(tensor.shape) == 1, "one length for each row")
        else:
            side = 0 if kind == "A" else 1
            _check_shape(tensor, len(tensor.shape) == 2 and tensor.shape[side] == rank, f"the rank {rank} in it")
        parts.setdefault(targets[0], {})[kind] = tensor
    if unknown:
        raise CheckpointError(
            f"{path} has {len(unknown)} tensor(s) that are not low-rank weights: {some(unknown)}; merge "
            "it with peft first"
        )
    incomplete = [name for name, found in parts.items() if not {"A", "B"} <= set(found)]
    if incomplete:
        raise CheckpointError(f"{path} lacks one of A and B for {some(incomplete)}; fetch it again")
    uses_dora = bool(settings.get("use_dora"))
    unlike = [name for name, found in parts.items() if ("magnitude_vector" in found) != uses_dora]
    if unlike:
        raise CheckpointError(
            f"{path} {'lacks' if uses_dora else 'has'} the lengths of rows (DoRA) for {some(unlike)}, and its "
            f"{ADAPTER_CONFIG} has use_dora {uses_dora}; fetch both again"
        )
    pairs = {
        name: LowRank(found["A"], found["B"], scales[name], found.get("magnitude_vector"))
        for name, found in parts.items()
    }
    for change in pairs.values():
        if change.magnitude is not None:
            _check_shape(change.magnitude, change.magnitude.shape[0] == change.b.shape[0], f"{change.b.shape[0]} rows")
    return pairs, whole


def _check_shape(tensor: StoredTensor, fits: bool, expected: str) -> None:
    if not fits:
        raise CheckpointError(f"{tensor.origin} has the shape {list(tensor.shape)}, expected {expected}")
