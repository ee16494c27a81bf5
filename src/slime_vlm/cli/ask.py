"""`slime ask`: answer questions about images and videos."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slime_vlm.checkpoints.shipped import DEFAULT_MODEL
from slime_vlm.cli.drawings import check_target, report_missing_letters, save_drawing
from slime_vlm.cli.images import (
    STANDARD_INPUT,
    AllowUrl,
    Dpi,
    Frames,
    ImagesOrInput,
    MaxDownload,
    MaxMemory,
    MaxPixels,
    WindowText,
    image_opener,
    opening_from,
    standard_input,
)
from slime_vlm.cli.model_options import (
    Device,
    Dtype,
    Fast,
    MaxLocalTokens,
    MaxNewTokens,
    MaxTiles,
    Model,
    Quantization,
    config_changes,
)
from slime_vlm.cli.terminal import busy, collector_paused, quiet_transformers, shown, write

if TYPE_CHECKING:
    from slime_vlm.inference.answer import Answer


def ask(
    context: typer.Context,
    images: ImagesOrInput,
    questions: Annotated[
        list[str],
        typer.Option("--question", "-q", help="Question to ask. Repeat the option to ask several about every image."),
    ],
    model: Model = DEFAULT_MODEL,
    show: Annotated[
        Path | None,
        typer.Option(
            "--show",
            help="Draw the tiles and the kept local tokens over the image, and write the drawing to this file. "
            "With several answers the files are numbered.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per answer, one per line.")] = False,
    max_new_tokens: MaxNewTokens = 256,
    max_local_tokens: MaxLocalTokens = None,
    max_tiles: MaxTiles = None,
    device: Device = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    fast: Fast = False,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    dpi: Dpi = None,
    window: WindowText = None,
    allow_url: AllowUrl = False,
    max_download: MaxDownload = None,
    frames: Frames = None,
) -> None:
    """Ask questions about one or more images or videos.

    Each image is encoded once, however many questions are asked about it. Answers are printed as they are generated.

    Example: `slime ask invoice.png -q "What is the total?" -q "due date" --show overlay.png`
    """
    # Check images, questions and targets before loading the model, which may take minutes.
    from slime_vlm.errors import InputError
    from slime_vlm.media import Clip, check_spec, is_address
    from slime_vlm.processing.chat_styles import ESCAPED_PLACEHOLDER, IMAGE_PLACEHOLDER, PLACEHOLDERS

    for question in questions:
        if not question.strip():
            raise InputError('a question is empty, expected some text; ask like -q "What is the total?"')
        if PLACEHOLDERS.search(question):
            raise InputError(
                f"the question {question!r} has the text {IMAGE_PLACEHOLDER}, which stands for an image; write "
                f"{ESCAPED_PLACEHOLDER} for the word itself"
            )
    for spec in images:
        if spec != STANDARD_INPUT:
            check_spec(spec, allow_url)
    if show is not None:
        check_target(show, "--show")
    stored = context.with_resource(standard_input(images))
    open_image = opening_from(
        stored, image_opener(max_pixels, max_memory, dpi, window, allow_url, max_download, frames)
    )
    for spec in images[1:]:
        # Opened again later: all images at once may not fit in memory. Addresses are downloaded only once.
        if not is_address(spec):
            open_image(spec)
    start = time.perf_counter()
    image = open_image(images[0])
    opening = time.perf_counter() - start

    with busy(f"loading {model}"):
        start = time.perf_counter()
        with collector_paused():
            from slime_vlm import load
            from slime_vlm.inference.answering import encode
            from slime_vlm.inference.heat_map import drawing_copy

        quiet_transformers()
        overrides = config_changes(max_local_tokens, max_tiles)
        network, processor = load(
            model, device=device, dtype=dtype, quantization=quantization, fast=fast, packed=True, **overrides
        )
        loading = time.perf_counter() - start

    several = len(images) * len(questions) > 1
    for number, spec in enumerate(images):
        if number:
            start = time.perf_counter()
            image = open_image(spec)
            opening = time.perf_counter() - start
        with busy(f"encoding {Path(spec).name}"):
            encoded = encode(network, processor, image)
        # Made once for all questions: an image decoded by regions would be decoded again for each.
        canvas = None if show is None else drawing_copy(image, encoded.grid)
        for index, question in enumerate(questions):
            if several and not as_json:
                name = f"{Path(spec).name}: " if len(images) > 1 else ""
                typer.secho(shown(f"{name}{question.strip()}"), dim=True)
            answer = encoded.ask(question, max_new_tokens=max_new_tokens, on_text=None if as_json else write)
            if as_json:
                record = _record(spec, answer, loading, opening)
                if isinstance(image, Clip):
                    record["frames"] = image.seconds
                typer.echo(json.dumps(record, ensure_ascii=False))
            else:
                typer.echo()
            if show is not None and canvas is not None:
                answer_number = number * len(questions) + index + 1
                target = show.with_stem(f"{show.stem}-{answer_number}") if several else show
                save_drawing(answer.draw(canvas), target)
                report_missing_letters(f"{question} {answer.text}")
            # The next answer reuses the model and the opened image.
            loading = opening = 0.0


def _record(spec: str, answer: Answer, loading: float, opening: float) -> dict[str, Any]:
    seconds = {"load": loading, "open": opening, **answer.seconds}
    return {
        "image": spec,
        "question": answer.question,
        "answer": answer.text,
        "confidence": round(answer.confidence, 4),
        **({} if answer.reading is None else {"reading": round(answer.reading, 4)}),
        "grid": [answer.grid.rows, answer.grid.cols],
        "tokens": {"global": answer.num_global, "local": answer.num_local, "kept": answer.num_kept},
        "seconds": {step: round(value, 4) for step, value in seconds.items()},
    }
