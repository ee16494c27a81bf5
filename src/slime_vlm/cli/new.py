"""`slime new`: an untrained SliME from a vision encoder and a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from slime_vlm.cli.terminal import busy, quiet_transformers


def new(
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; made if missing.")],
    vision: Annotated[str, typer.Option("--vision", help="Vision encoder: a folder or hub id (CLIP, SigLIP, DINOv2).")],
    llm: Annotated[str, typer.Option("--llm", help="Language model: a folder, a hub id or a GGUF file.")],
    conversation: Annotated[
        str | None,
        typer.Option("--conversation", help="v1 or llama3.", show_default="what the language model was trained with"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="float32, bfloat16, …", show_default="that of the language model"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the new parts.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A config field, such as view_size=336.")
    ] = None,
) -> None:
    """Put a vision encoder and a language model together; the parts between are new and have to be trained.

    Example: slime new --vision openai/clip-vit-large-patch14-336 --llm lmsys/vicuna-7b-v1.5 slime-vicuna
    """
    with busy(f"making {target}"):
        from slime_vlm.checkpoints.from_pretrained_parts import new as make

        quiet_transformers()
        fields = dict(_field(setting) for setting in settings or [])
        report = make(vision, llm, target, conversation=conversation, dtype=dtype, seed=seed, fields=fields)
    typer.echo(report)


def _field(setting: str) -> tuple[str, Any]:
    from slime_vlm.errors import ConfigError

    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected KEY=VALUE, such as view_size=336")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
