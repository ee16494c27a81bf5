"""Native checkpoints: folders in transformers' layout, read, built into models and written whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from slime_vlm import auto_classes  # noqa: F401  # A native folder names its classes, and transformers has to know them.
from slime_vlm.checkpoints.tensor_files import some
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
"""What transformers raises for a config that no model can be built from."""


def read_native(src: Path) -> tuple[SlimeConfig, SlimeProcessor]:
    """Read config and processor of a native folder.

    Raises:
        CheckpointError: They are missing, damaged or of no SliME.
    """
    try:
        config = SlimeConfig.from_pretrained(src)
    except ConfigError as error:
        raise CheckpointError(f"{src}: {error}") from None
    except (OSError, *CONFIG_ERRORS) as error:
        raise CheckpointError(f"{src}: config.json is of no SliME ({one_line(error)})") from None
    try:
        return config, SlimeProcessor.from_pretrained(src)
    # The tokenizers library raises plain Exceptions.
    except Exception as error:
        raise CheckpointError(f"{src} is damaged or incomplete ({one_line(error)}); fetch it again") from None


def build_model(
    src: str | Path, folder: Path | None, config: SlimeConfig, changed: Mapping[str, Any], **arguments: Any
) -> SlimeForConditionalGeneration:
    """Build a model and put weights into it that have to be those of its config.

    Args:
        src: Where the weights come from, for messages.
        folder: Native folder to read, or None with `state_dict` among the arguments.
        config: Config of the model.
        changed: Fields of the config that are other than in the checkpoint, with their values.
        **arguments: Those of `from_pretrained`.

    Raises:
        CheckpointError: The weights are damaged, or not those of the checkpoint's own config.
        ConfigError: With what was changed, no model can be built, or one that the weights are not of.
    """
    overrides = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    if changed:
        try:
            with torch.device("meta"):
                SlimeForConditionalGeneration(config)
        except CONFIG_ERRORS as error:
            raise ConfigError(f"no model can be built with {overrides} ({one_line(error)}); leave it out") from None
    try:
        model, info = SlimeForConditionalGeneration.from_pretrained(
            folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
        )
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{src} is damaged or incomplete ({one_line(error)}); fetch it again") from None
    wrong = {
        "missing": sorted(info["missing_keys"]),
        "of another shape": sorted(name for name, _stored, _expected in info["mismatched_keys"]),
        # A change may leave parts of a checkpoint without use.
        "left over": [] if changed else sorted(info["unexpected_keys"]),
    }
    for kind, names in wrong.items():
        found = f"{len(names)} tensor(s) of {src} are {kind}: {some(names)}"
        if names and changed:
            raise ConfigError(f"{overrides} asks for another model, {found}; leave it out")
        if names:
            raise CheckpointError(f"{found}; config.json does not fit these weights, fetch both again")
    return model


@contextmanager
def written(dst: Path) -> Iterator[Path]:
    """A folder that appears as `dst` only when it is whole, and not at all if anything fails."""
    part = dst.with_name(dst.name + ".part")
    try:
        # What a killed conversion left.
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if dst.exists():
            dst.rmdir()
        part.rename(dst)
    # safetensors has its own error for a disk that takes no more.
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{dst} cannot be written ({one_line(error)}); check its permissions and the free space"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
