"""`slime serve`: answer questions over HTTP, as OpenAI's API does."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from slime_vlm.checkpoints.shipped import DEFAULT_MODEL
from slime_vlm.cli.model_options import (
    Device,
    Dtype,
    Fast,
    MaxLocalTokens,
    MaxTiles,
    Model,
    Quantization,
    config_changes,
)
from slime_vlm.cli.terminal import busy, collector_paused, quiet_transformers

_SERVER = "Server"
_LIMITS = "Limits"


def serve(
    model: Model = DEFAULT_MODEL,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_SERVER)] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.", rich_help_panel=_SERVER)] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="Key that requests must carry. Repeat for several.", rich_help_panel=_SERVER),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File with API keys, one a line.", rich_help_panel=_SERVER)
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin", help="Let web pages of this origin call the server. Repeatable.", rich_help_panel=_SERVER
        ),
    ] = None,
    allow_url: Annotated[
        bool, typer.Option("--allow-url", help="Accept images as http(s) addresses.", rich_help_panel=_SERVER)
    ] = False,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Log the texts of requests and answers.", rich_help_panel=_SERVER)
    ] = False,
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Requests that decode together.", show_default="16", rich_help_panel=_LIMITS),
    ] = None,
    max_queue: Annotated[
        int | None,
        typer.Option(min=0, help="Requests that may wait.", show_default="128", rich_help_panel=_LIMITS),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=16, help="Longest prompt with its answer, in tokens.", show_default="4096", rich_help_panel=_LIMITS
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds until a request is given up.", show_default="300", rich_help_panel=_LIMITS),
    ] = None,
    max_local_tokens: MaxLocalTokens = None,
    max_tiles: MaxTiles = None,
    device: Device = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    fast: Fast = False,
) -> None:
    """Serve a model over HTTP, for the clients of OpenAI's API.

    All limits can also be set in the environment, as SLIME_SERVE_MAX_QUEUE=16; docs/serving.md lists them.

    Example: `slime serve --port 8000`
    """
    import uvicorn

    from slime_vlm.serving.settings import read_settings

    settings = read_settings(
        model=Path(model).name or model,
        api_keys=api_key or None,
        api_key_file=api_key_file,
        cors_origins=cors_origin or None,
        allow_url=allow_url or None,
        log_prompts=log_prompts or None,
        slots=slots,
        max_queue=max_queue,
        max_length=max_length,
        timeout=timeout,
    )
    # The processes that decode images inherit the environment.
    os.environ.pop("SLIME_SERVE_API_KEYS", None)
    with busy(f"loading {model}"):
        with collector_paused():
            from slime_vlm import load
            from slime_vlm.serving.app import create_app

        quiet_transformers()
        overrides = config_changes(max_local_tokens, max_tiles)
        network, processor = load(
            model, device=device, dtype=dtype, quantization=quantization, fast=fast, packed=True, **overrides
        )
        app = create_app(network, processor, settings)
    # The thread of the model holds the interpreter between its kernels. A millisecond later the event loop has it.
    sys.setswitchinterval(0.001)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    uvicorn.run(app, host=host, port=port, access_log=False)
