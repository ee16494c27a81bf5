"""`slime new`: build an untrained SliME model from a vision encoder and a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.cli.config_fields import parse_config_fields
from slime_vlm.cli.terminal import busy, quiet_transformers, shown


def new(
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the model to. Created if missing.")],
    vision: Annotated[
        str, typer.Option("--vision", help="Vision encoder (CLIP, SigLIP or DINOv2): a folder or a hub id.")
    ],
    llm: Annotated[str, typer.Option("--llm", help="Language model: a folder, a hub id or a GGUF file.")],
    conversation: Annotated[
        str | None,
        typer.Option(
            "--conversation",
            help="Conversation style of the prompts: `v1` (Vicuna) or `llama3`.",
            show_default="what the language model was trained with",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="Number type of the weights: `float32`, `bfloat16` or `float16`.",
            show_default="that of the language model",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random weights of the new parts.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field of the model's config, for example `view_size=336`. Repeatable.",
        ),
    ] = None,
) -> None:
    """Build a SliME model from a vision encoder and a language model.

    The parts between the two have random weights and must be trained.

    Example: `slime new --vision openai/clip-vit-large-patch14-336 --llm lmsys/vicuna-7b-v1.5 slime-vicuna`
    """
    with busy(f"making {target}"):
        from slime_vlm.checkpoints.from_pretrained_parts import new as make

        quiet_transformers()
        fields = parse_config_fields(settings or [], "view_size=336")
        report = make(vision, llm, target, conversation=conversation, dtype=dtype, seed=seed, fields=fields)
    typer.echo(shown(str(report)))
