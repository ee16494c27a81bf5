"""`slime ask`: questions about images, answered as they come."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slime_vlm.cli.images import (
    AllowUrl,
    Dpi,
    Frames,
    Images,
    MaxDownload,
    MaxPixels,
    MaxTiles,
    WindowText,
    image_opener,
)
from slime_vlm.cli.terminal import busy, quiet_transformers

if TYPE_CHECKING:
    from PIL import Image

    from slime_vlm.inference.answering import Answer


def ask(
    images: Images,
    questions: Annotated[
        list[str], typer.Option("--question", "-q", help="A question; several are asked of every encoded.")
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="nano (shipped), a folder, or a hub id; native or published layout.")
    ] = "nano",
    show: Annotated[
        Path | None,
        typer.Option("--show", help="Draw where the model looked; with several answers the files are numbered."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each answer.")] = False,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer in tokens.")] = 256,
    max_local_tokens: Annotated[
        int | None, typer.Option("--max-local-tokens", min=1, help="Keep exactly the best so many local tokens.")
    ] = None,
    max_tiles: MaxTiles = None,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu, cuda, …", show_default="cuda if there is one")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="float32, bfloat16, …", show_default="float32 on CPU, bfloat16 on GPU"),
    ] = None,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help="int8, 4bit or torchao-int8: weights of the language model.")
    ] = None,
    max_pixels: MaxPixels = None,
    dpi: Dpi = None,
    window: WindowText = None,
    allow_url: AllowUrl = False,
    max_download: MaxDownload = None,
    frames: Frames = None,
) -> None:
    """Ask questions about one or more images or videos; each is encoded once.

    Example: slime ask invoice.png -q "What is the total?" -q "due date" --show overlay.png
    """
    # Images, questions and targets are checked before the model is loaded, which may take minutes.
    from slime_vlm.errors import InputError
    from slime_vlm.media import Clip, check_spec, is_address
    from slime_vlm.processing.chat_styles import IMAGE_PLACEHOLDER

    for question in questions:
        if not question.strip():
            raise InputError('a question is empty, expected some text; ask like -q "What is the total?"')
        if IMAGE_PLACEHOLDER in question:
            raise InputError(f"the question {question!r} has the text {IMAGE_PLACEHOLDER}, which stands for an image")
    for spec in images:
        check_spec(spec, allow_url)
    if show is not None:
        check_target(show, "--show")
    open_image = image_opener(max_pixels, dpi, window, allow_url, max_download, frames)
    for spec in images[1:]:
        # Opened again in its turn: all at once may not fit the memory. Addresses are fetched only once.
        if not is_address(spec):
            open_image(spec)
    start = time.perf_counter()
    image = open_image(images[0])
    opening = time.perf_counter() - start

    with busy(f"loading {model}"):
        start = time.perf_counter()
        from slime_vlm import load
        from slime_vlm.inference.answering import encode
        from slime_vlm.inference.heat_map import drawing_copy

        quiet_transformers()
        limits = {"max_local_tokens": max_local_tokens, "max_tiles": max_tiles}
        overrides = {name: value for name, value in limits.items() if value is not None}
        network, processor = load(model, device=device, dtype=dtype, quantization=quantization, **overrides)
        loading = time.perf_counter() - start

    several = len(images) * len(questions) > 1
    for number, spec in enumerate(images):
        if number:
            start = time.perf_counter()
            image = open_image(spec)
            opening = time.perf_counter() - start
        with busy(f"looking at {Path(spec).name}"):
            encoded = encode(network, processor, image)
        # Once for all questions: an image that is decoded by regions would be decoded anew for each.
        canvas = None if show is None else drawing_copy(image, encoded.grid)
        for index, question in enumerate(questions):
            place = number * len(questions) + index + 1
            if several and not as_json:
                name = f"{Path(spec).name}: " if len(images) > 1 else ""
                typer.secho(f"{name}{question.strip()}", dim=True)
            answer = encoded.ask(question, max_new_tokens=max_new_tokens, on_text=None if as_json else write)
            if as_json:
                record = _record(spec, answer, loading, opening)
                if isinstance(image, Clip):
                    record["frames"] = image.seconds
                typer.echo(json.dumps(record, ensure_ascii=False))
            else:
                typer.echo()
            if show is not None and canvas is not None:
                save(answer.draw(canvas), show.with_stem(f"{show.stem}-{place}") if several else show)
            # What is reused costs no time again.
            loading = opening = 0.0


def _record(spec: str, answer: Answer, loading: float, opening: float) -> dict[str, Any]:
    seconds = {"load": loading, "open": opening, **answer.seconds}
    return {
        "image": spec,
        "question": answer.question,
        "answer": answer.text,
        "grid": [answer.grid.rows, answer.grid.cols],
        "tokens": {"global": answer.num_global, "local": answer.num_local, "kept": answer.num_kept},
        "seconds": {step: round(value, 4) for step, value in seconds.items()},
    }


def write(piece: str) -> None:
    """Writes a piece of an answer."""
    typer.echo(piece, nl=False)


def check_target(path: Path, option: str) -> None:
    """Checks that a drawing can be written to a file.

    Args:
        path: the file.
        option: what the user named it with, for the message.

    Raises:
        MediaError: it is a folder, of no image format, or lies where nothing can be written.
    """
    from PIL import Image

    from slime_vlm.errors import MediaError

    if path.is_dir():
        raise MediaError(f"{option} {path}: this is a folder, a file name is expected")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        ending = path.suffix or "a name without ending"
        raise MediaError(f"{option} {path}: {ending} is no image format; end the name in .png or .jpg")
    # Missing folders are made when the image is written, inside the nearest one that is there.
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(path if path.exists() else nearest, os.W_OK):
        raise MediaError(f"{option} {path}: nothing can be written to {nearest}; choose another place")


def save(image: Image.Image, path: Path) -> None:
    """Writes a drawing, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
