"""Check the files of a checkpoint before anything is built from them: sizes, types and the header of the weights.

transformers builds what a config describes, and initialises what the weights lack. A config of a billion layers would
so take all memory before an error is found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slime_vlm.checkpoints.json_files import check_folder, read_json
from slime_vlm.checkpoints.tensor_files import StoredTensor, folder_tensors
from slime_vlm.errors import CheckpointError

# Fields that say how many modules are built. Each module costs memory even without weights.
_COUNTS = re.compile(r"(num_|n_)\w*(layers|experts|blocks|stages)|depths?|layers")
# Parts that a checkpoint may lack: they are tied, computed, or not used in a stage.
_MOST_GROWTH = 2
_SMALL_MODEL = 10_000_000

# The largest number in the settings of a processor, the largest side of a view, and bytes of a chat template.
_LARGEST_SETTING = 100_000
_LARGEST_SIDE = 8192
_TEMPLATE_BYTES = 100_000

_WHOLE = "a whole number"
_NUMBER = "a number"
_SWITCH = "true or false"
_GENERATION: dict[str, str] = {
    name: kind
    for kind, names in {
        _WHOLE: "max_length max_new_tokens min_length min_new_tokens num_beams num_beam_groups top_k bos_token_id "
        "pad_token_id num_return_sequences no_repeat_ngram_size encoder_no_repeat_ngram_size",
        _NUMBER: "temperature top_p min_p typical_p repetition_penalty encoder_repetition_penalty length_penalty "
        "diversity_penalty epsilon_cutoff eta_cutoff",
        _SWITCH: "do_sample use_cache output_scores output_attentions output_hidden_states return_dict_in_generate",
    }.items()
    for name in names.split()
}
# Each beam or sequence costs the memory of an answer.
_MOST_SEQUENCES = 100


def check_native(folder: Path) -> None:
    """Check the settings of a native folder: config, processor, generation and chat template, not the weights.

    Raises:
        CheckpointError: A file is missing, damaged or too large, or a value has a wrong type or is out of range.
    """
    check_folder(folder)
    fields = read_json(folder / "config.json")
    for name in ("text_config", "vision_config"):
        part = fields.get(name)
        if not isinstance(part, dict) or not isinstance(part.get("model_type"), str):
            raise CheckpointError(
                f"{folder}: config.json has {name} {part!r:.80}, expected the fields of a model with its model_type"
            )
    check_kernels(folder, _leaves(fields))
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            _check_processor(folder, name)
    if (folder / "generation_config.json").exists():
        check_generation(folder)
    check_template(folder)


def _check_processor(folder: Path, name: str) -> None:
    fields = read_json(folder / name)
    for key, value in _leaves(fields):
        most = _LARGEST_SIDE if key in ("view_size", "height", "width", "shortest_edge") else _LARGEST_SETTING
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= most):
            raise CheckpointError(
                f"{folder}: {name} has {key} {value!r:.40}, expected at most {most:,}; fetch it again"
            )
    images = fields.get("image_processor", fields)
    for key in ("image_mean", "image_std"):
        values = images.get(key) if isinstance(images, dict) else None
        numbers = isinstance(values, list) and len(values) == 3 and all(_is_of(value, _NUMBER) for value in values)
        if values is not None and not (numbers and (key == "image_mean" or all(values))):
            raise CheckpointError(f"{folder}: {name} has {key} {values!r:.80}, expected three numbers; fetch it again")


def check_kernels(source: str | Path, fields: Iterable[tuple[str, Any]]) -> None:
    """Check that a config does not choose a kernel on the hub, whose code transformers would fetch and run.

    Args:
        source: Source of the config, for messages.
        fields: Names and values, those of parts included.

    Raises:
        CheckpointError: It does.
    """
    for key, value in fields:
        if key.endswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
            raise CheckpointError(f"{source}: config.json has {key} {value!r:.80}, which is code on the hub; remove it")


def check_generation(folder: Path) -> None:
    """Check the types and ranges in `generation_config.json`, which transformers would only miss while it answers.

    Raises:
        CheckpointError: A value has a wrong type or is out of range.
    """
    fields = read_json(folder / "generation_config.json")
    found: list[tuple[str, Any, str]] = [
        (name, value, _GENERATION[name]) for name, value in fields.items() if name in _GENERATION
    ]
    ends = fields.get("eos_token_id")
    found += [("eos_token_id", end, _WHOLE) for end in (ends if isinstance(ends, list) else [ends])]
    for name, value, kind in found:
        if value is not None and not _is_of(value, kind):
            raise CheckpointError(
                f"{folder}: generation_config.json has {name} {value!r:.80}, expected {kind}; fetch it again"
            )
    for name in ("num_beams", "num_return_sequences", "num_beam_groups"):
        if (fields.get(name) or 1) > _MOST_SEQUENCES:
            raise CheckpointError(
                f"{folder}: generation_config.json has {name} {fields[name]}, expected at most {_MOST_SEQUENCES}"
            )


def _is_of(value: Any, kind: str) -> bool:
    if kind == _SWITCH:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # A billion is beyond every vocabulary and every length.
    return math.isfinite(value) and 0 <= value <= 1e9 and (kind == _NUMBER or isinstance(value, int))


def check_template(folder: Path) -> None:
    """Check the size of the chat templates of a folder, in files of their own and in the configs of its processor.

    Raises:
        CheckpointError: A template is larger than 100 kB, or is not text.
    """
    for path in [folder / "chat_template.jinja", *sorted((folder / "additional_chat_templates").glob("*.jinja"))]:
        if not path.exists():
            continue
        if not path.is_file() or path.stat().st_size > _TEMPLATE_BYTES:
            raise CheckpointError(f"{path} is larger than {_TEMPLATE_BYTES:,} bytes, expected a chat template")
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{path} is not text, expected a chat template; fetch it again") from None
    for name in ("tokenizer_config.json", "processor_config.json", "chat_template.json"):
        if (folder / name).exists():
            check_template_text(f"{folder}: {name}", read_json(folder / name).get("chat_template"))


def check_template_text(source: str, template: Any) -> None:
    """Check the size of chat templates: a text, several by name, or a list of names and texts.

    Raises:
        CheckpointError: There is more than 100 kB of text.
    """
    size = sum(len(value) for _key, value in _leaves(template) if isinstance(value, str))
    if size > _TEMPLATE_BYTES:
        raise CheckpointError(
            f"{source} has a chat template of {size:,} characters, expected at most {_TEMPLATE_BYTES:,}"
        )


def native_weights(folder: Path) -> dict[str, StoredTensor]:
    """List the tensors of a native folder by the header of its files.

    Raises:
        CheckpointError: A file is missing or damaged, an index leads out of the folder, or the weights are pickled.
    """
    if not any((folder / f"model.safetensors{end}").exists() for end in ("", ".index.json")):
        pickled = sorted(path.name for path in folder.glob("pytorch_model*"))
        found = f"{pickled[0]}, which is pickled" if pickled else "no weights"
        raise CheckpointError(f"{folder} has {found}; expected model.safetensors, as SliME's own tools write it")
    return folder_tensors(folder)


def check_counts(src: str | Path, config: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Check that a config does not describe more modules than there are tensors, before they are built.

    Args:
        src: Source of both, for messages.
        config: Fields of the config, parts included.
        stored: The tensors in the files by name.

    Raises:
        CheckpointError: It does.
    """
    for key, value in _leaves(config):
        if _COUNTS.fullmatch(key) and isinstance(value, int | float) and value > max(len(stored), 1):
            raise CheckpointError(
                f"{src}: config.json has {key} {value}, but the weights have {len(stored)} tensors; fetch both again"
            )


def check_sizes(src: Path, model: nn.Module, stored: Mapping[str, StoredTensor]) -> list[str]:
    """Compare a model without values with the header of the weights, before memory is taken.

    Args:
        src: Source of both, for messages.
        model: The model of the config, on the meta device.
        stored: The tensors in the files by name.

    Returns:
        Names of tensors that have another shape in the model, sorted.

    Raises:
        CheckpointError: The model is far larger than the weights.
    """
    check_total(src, model, sum(tensor.num_elements for tensor in stored.values()))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return sorted(
        name for name, tensor in stored.items() if name in shapes and torch.Size(tensor.shape) != shapes[name]
    )


def check_total(src: str | Path, model: nn.Module, found: int) -> None:
    """Check that a model without values is not far larger than its weights.

    Args:
        src: Source of both, for messages.
        model: The model of the config, on the meta device.
        found: Number of elements of all stored tensors.

    Raises:
        CheckpointError: It is.
    """
    size = sum(tensor.numel() for tensor in model.parameters())
    if size > _MOST_GROWTH * found + _SMALL_MODEL:
        raise CheckpointError(
            f"{src}: config.json describes a model of {size:,} parameters, but the weights have {found:,}; fetch both "
            "again"
        )


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every plain value in nested dictionaries and lists, with the name of its field."""
    waiting = [(key, value)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(str(name), part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, part) for part in value]
        else:
            yield key, value
