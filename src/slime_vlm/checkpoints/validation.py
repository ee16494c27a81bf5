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
_POSITIVE = "a number above 0"
_SHARE = "a number from 0 to 1"
_SWITCH = "true or false"
_TOKEN = "a token of the vocabulary"
_TOKENS = "tokens of the vocabulary"
_TEXTS = "a list of texts, as lists of tokens of the vocabulary"
_BIASES = "pairs of a list of tokens of the vocabulary and a number"
_GENERATION: dict[str, str] = {
    name: kind
    for kind, names in {
        _WHOLE: "max_length max_new_tokens min_length min_new_tokens num_beams num_beam_groups top_k "
        "num_return_sequences no_repeat_ngram_size encoder_no_repeat_ngram_size prompt_lookup_num_tokens "
        "max_matching_ngram_size",
        _NUMBER: "temperature length_penalty max_time",
        _POSITIVE: "repetition_penalty encoder_repetition_penalty",
        _SHARE: "top_p min_p typical_p epsilon_cutoff eta_cutoff",
        _SWITCH: "do_sample use_cache output_scores output_attentions output_hidden_states output_logits "
        "return_dict_in_generate renormalize_logits remove_invalid_values",
        _TOKEN: "bos_token_id pad_token_id forced_bos_token_id",
        _TOKENS: "eos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens",
        _TEXTS: "bad_words_ids",
        _BIASES: "sequence_bias",
    }.items()
    for name in names.split()
}
# What needs more than the model, or code of the hub.
_NOT_USED = {
    "stop_strings",
    "token_healing",
    "guidance_scale",
    "watermarking_config",
    "exponential_decay_length_penalty",
    "diversity_penalty",
    "penalty_alpha",
    "dola_layers",
    "constraints",
    "force_words_ids",
    "compile_config",
    "cache_config",
    "continuous_batching_config",
}
# Each beam costs the memory of an answer. There is one answer.
_MOST = {"num_beams": 100, "num_return_sequences": 1, "num_beam_groups": 1}
# Beyond every vocabulary and every length.
_LARGEST = 10**9


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
        check_dtype(f"{folder}: config.json", part)
        check_outputs(f"{folder}: config.json", part)
    check_dtype(f"{folder}: config.json", fields)
    check_outputs(f"{folder}: config.json", fields)
    check_separator(f"{folder}: config.json", fields.get("separator_token_id", 0), fields["text_config"])
    check_kernels(folder, _leaves(fields))
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            _check_processor(folder, name)
    if (folder / "generation_config.json").exists():
        vocabulary = fields["text_config"].get("vocab_size")
        check_generation(folder, vocabulary if _is_of(vocabulary, _WHOLE) else _LARGEST)
    check_template(folder)
    check_tokenizer(folder)


def _check_processor(folder: Path, name: str) -> None:
    fields = read_json(folder / name)
    for key, value in _leaves(fields):
        most = _LARGEST_SIDE if key in ("view_size", "height", "width", "shortest_edge") else _LARGEST_SETTING
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= most):
            raise CheckpointError(
                f"{folder}: {name} has {key} {value!r:.40}, expected at most {most:,}; fetch it again"
            )
    images = fields.get("image_processor", fields)
    images = images if isinstance(images, dict) else {}
    if images.get("do_normalize", True):
        check_statistics(f"{folder}: {name}", images)
    factor = images.get("rescale_factor", 1.0)
    if images.get("do_rescale", True) and not _is_of(factor, _POSITIVE):
        raise CheckpointError(
            f"{folder}: {name} has rescale_factor {factor!r:.80}, expected {_POSITIVE}; fetch it again"
        )


def check_statistics(source: str, fields: Mapping[str, Any]) -> None:
    """Check the mean and standard deviation of colours in the settings of an image processor, where they are given.

    Raises:
        CheckpointError: They are not three numbers each, or a deviation is 0.
    """
    for key in ("image_mean", "image_std"):
        if key not in fields:
            continue
        values = fields[key]
        numbers = isinstance(values, list) and len(values) == 3 and all(_is_of(value, _NUMBER) for value in values)
        if not (numbers and (key == "image_mean" or all(values))):
            raise CheckpointError(f"{source} has {key} {values!r:.80}, expected three numbers; fetch it again")


def check_dtype(source: str, fields: Mapping[str, Any]) -> None:
    """Check the type of weights that a config names, if it does.

    Raises:
        CheckpointError: It is none of torch's types of floating point numbers.
    """
    for key in ("dtype", "torch_dtype"):
        value = fields.get(key)
        kind = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else None
        if value is not None and not (isinstance(kind, torch.dtype) and kind.is_floating_point):
            raise CheckpointError(f"{source} has {key} {value!r:.80}, expected such as 'bfloat16'; fetch it again")


def check_outputs(source: str, fields: Mapping[str, Any]) -> None:
    """Check the heads of a part and the form of its outputs, which its classes would only miss while they run.

    Raises:
        CheckpointError: A value has a wrong type, or the part returns tuples.
    """
    for key in ("output_hidden_states", "output_attentions"):
        if not isinstance(fields.get(key, False), bool | None):
            raise CheckpointError(f"{source} has {key} {fields[key]!r:.80}, expected {_SWITCH}; remove it")
    if not fields.get("return_dict", True):
        raise CheckpointError(f"{source} has return_dict {fields['return_dict']!r:.80}, expected true; remove it")
    heads = fields.get("num_attention_heads", 1)
    if _is_number(heads) and heads < 1:
        raise CheckpointError(f"{source} has num_attention_heads {heads!r:.80}, expected {_POSITIVE}; fetch it again")


def check_separator(source: str, separator: Any, text_config: Mapping[str, Any]) -> None:
    """Check that the separator is a token of the language model.

    Raises:
        CheckpointError: It is not.
    """
    vocabulary = text_config.get("vocab_size")
    most = vocabulary if isinstance(vocabulary, int) else _LARGEST
    if not _is_of(separator, _TOKEN, most):
        raise CheckpointError(f"{source} has the separator {separator!r:.80}, expected a token of the vocabulary")


def check_tokenizer(folder: Path) -> None:
    """Check the length in `tokenizer_config.json`, which tokenizers compare with every text.

    Raises:
        CheckpointError: It is no positive number.
    """
    name = "tokenizer_config.json"
    if (folder / name).exists():
        length = read_json(folder / name).get("model_max_length")
        if length is not None and not (_is_number(length) and length > 0):
            raise CheckpointError(
                f"{folder}: {name} has model_max_length {length!r:.80}, expected a positive number; fetch it again"
            )


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


def check_generation(folder: Path, vocabulary: int = _LARGEST) -> None:
    """Check the types and ranges in `generation_config.json`, which transformers would only miss while it answers.

    Args:
        folder: A native folder.
        vocabulary: Number of tokens of the language model.

    Raises:
        CheckpointError: A value has a wrong type, is out of range, or cannot be used.
    """
    for name, value in read_json(folder / "generation_config.json").items():
        kind = _GENERATION.get(name)
        if kind is not None and value is not None and not _is_of(value, kind, vocabulary):
            raise CheckpointError(
                f"{folder}: generation_config.json has {name} {value!r:.80}, expected {kind}; fetch it again"
            )
        if name in _MOST and (value or 0) > _MOST[name]:
            raise CheckpointError(
                f"{folder}: generation_config.json has {name} {value}, expected at most {_MOST[name]}; fetch it again"
            )
        # Many files name settings that are off.
        if name in _NOT_USED and value and not (name == "guidance_scale" and value == 1):
            raise CheckpointError(
                f"{folder}: generation_config.json has {name} {value!r:.80}, which SliME cannot use; remove it"
            )


def _is_of(value: Any, kind: str, vocabulary: int = _LARGEST) -> bool:
    if kind == _SWITCH:
        return isinstance(value, bool)
    if kind == _TOKENS and not isinstance(value, list):
        kind = _TOKEN
    if kind == _TOKENS:
        return all(_is_of(item, _TOKEN, vocabulary) for item in value)
    if kind in (_TEXTS, _BIASES):
        return bool(value) and isinstance(value, list) and all(_is_item(item, kind, vocabulary) for item in value)
    if not _is_number(value) or not 0 <= value <= _LARGEST:
        return False
    if kind in (_WHOLE, _TOKEN):
        return isinstance(value, int) and (kind == _WHOLE or value < vocabulary)
    return value > 0 if kind == _POSITIVE else kind == _NUMBER or value <= 1


def _is_item(item: Any, kind: str, vocabulary: int) -> bool:
    if kind == _BIASES:
        if not (isinstance(item, list) and len(item) == 2 and _is_number(item[1])):
            return False
        item = item[0]
    return bool(item) and isinstance(item, list) and _is_of(item, _TOKENS, vocabulary)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
