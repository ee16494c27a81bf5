"""Native checkpoints, in transformers' layout: read a folder, build its model, write a folder atomically."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from slime_vlm import auto_classes  # noqa: F401  # A native folder names its classes, and transformers has to know them.
from slime_vlm.checkpoints.tensor_files import in_memory, some
from slime_vlm.checkpoints.validation import check_counts, check_native, check_sizes, native_weights
from slime_vlm.errors import CheckpointError, ConfigError, one_line
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.processing_slime import SlimeProcessor

CONFIG_ERRORS = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    StrictDataclassError,
)
"""Errors that transformers raises for a config that no model can be built from."""


def read_native(src: Path) -> tuple[SlimeConfig, SlimeProcessor]:
    """Read config and processor of a native folder.

    Raises:
        CheckpointError: They are missing, damaged or not of a SliME.
    """
    check_native(src)
    try:
        config = SlimeConfig.from_pretrained(src, trust_remote_code=False)
    except ConfigError as error:
        raise CheckpointError(f"{src}: {error}") from None
    except (OSError, *CONFIG_ERRORS) as error:
        raise CheckpointError(f"{src}: config.json is not of a SliME ({one_line(error)})") from None
    try:
        return config, SlimeProcessor.from_pretrained(src, trust_remote_code=False)
    # The tokenizers library raises plain Exceptions.
    except Exception as error:
        raise CheckpointError(f"{src} is damaged or incomplete ({one_line(error)}); fetch it again") from None


def build_model(
    src: str | Path, folder: Path | None, config: SlimeConfig, changed: Mapping[str, Any], **arguments: Any
) -> SlimeForConditionalGeneration:
    """Build a model and load its weights, which must fit its config exactly.

    Args:
        src: Source of the weights, for messages.
        folder: Native folder to read, or None with `state_dict` among the arguments.
        config: Config of the model.
        changed: Fields of the config that differ from the checkpoint, with their values.
        **arguments: Arguments of `from_pretrained`.

    Raises:
        CheckpointError: The weights are damaged, or do not fit the checkpoint's own config.
        ConfigError: With the changed fields no model can be built, or the weights do not fit it.
    """
    overrides = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    stored = (
        native_weights(folder)
        if folder is not None
        else {name: in_memory(tensor, name) for name, tensor in arguments["state_dict"].items()}
    )
    check_counts(Path(src), config.to_dict(), stored)
    try:
        with torch.device("meta"):
            shapes = SlimeForConditionalGeneration(config)
    except CONFIG_ERRORS as error:
        if changed:
            raise ConfigError(f"no model can be built with {overrides} ({one_line(error)}); leave it out") from None
        raise CheckpointError(
            f"{src}: config.json does not describe a model ({one_line(error)}); fetch it again"
        ) from None
    # Before memory is taken: transformers would initialise what does not fit.
    misfits = check_sizes(Path(src), shapes, stored)
    if misfits:
        _refuse(src, "of another shape", misfits, changed, overrides)
    try:
        model, info = SlimeForConditionalGeneration.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            trust_remote_code=False,
            **arguments,
        )
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{src} is damaged or incomplete ({one_line(error)}); fetch it again") from None
    wrong = {
        "missing": sorted(info["missing_keys"]),
        "of another shape": sorted(name for name, _stored, _expected in info["mismatched_keys"]),
        # After a change, parts of the checkpoint may be unused.
        "left over": [] if changed else sorted(info["unexpected_keys"]),
    }
    for kind, names in wrong.items():
        if names:
            _refuse(src, kind, names, changed, overrides)
    return model


def _refuse(src: str | Path, kind: str, names: list[str], changed: Mapping[str, Any], overrides: str) -> NoReturn:
    found = f"{len(names)} tensor(s) of {src} are {kind}: {some(names)}"
    if changed:
        raise ConfigError(f"{overrides} needs another model, {found}; leave it out")
    raise CheckpointError(f"{found}; config.json does not fit these weights, fetch both again")


@contextmanager
def written(dst: Path) -> Iterator[Path]:
    """Give a folder to write to. It appears as `dst` once it is complete, and not at all if anything fails."""
    part = dst.with_name(dst.name + ".part")
    try:
        # A killed conversion may have left it.
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if dst.exists():
            dst.rmdir()
        part.rename(dst)
    # safetensors has its own error for a full disk.
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{dst} cannot be written ({one_line(error)}); check its permissions and the free space"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
