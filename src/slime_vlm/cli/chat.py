"""`slime chat`: hold a conversation about images, on a terminal or from a pipe."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slime_vlm.checkpoints.shipped import DEFAULT_MODEL
from slime_vlm.cli.drawings import check_target, report_missing_letters, save_drawing
from slime_vlm.cli.images import (
    AllowUrl,
    Dpi,
    Frames,
    Images,
    MaxDownload,
    MaxMemory,
    MaxPixels,
    OpenImage,
    WindowText,
    image_opener,
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
    from slime_vlm.inference.conversation import Conversation

_HELP = """/image PATH   add an image, or a page such as scan.pdf#3; the next question includes it
/look         include all images again in the next question, with local tokens selected for it
/show [FILE]  draw the local tokens that the last answer used [chat-1.png, chat-2.png, …]
/reset        forget the conversation, keep the images
/help         show this list
/quit         exit (or Ctrl-D); Ctrl-C stops an answer"""


def chat(
    images: Images,
    model: Model = DEFAULT_MODEL,
    look_again: Annotated[
        bool,
        typer.Option(
            "--look-again",
            help="Select local tokens again for every question, as `/look` does. The context fills up faster.",
        ),
    ] = False,
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
    """Hold a conversation about one or more images.

    Each image is encoded once, and follow-up questions see the earlier turns. Every input line is a question or a
    command such as `/help`. Lines may also come from a pipe.

    Example: `slime chat invoice.png`
    """
    # Check everything that a user can get wrong before loading the model.
    open_image = image_opener(max_pixels, max_memory, dpi, window, allow_url, max_download, frames)
    opened = [(Path(spec).name, open_image(spec)) for spec in images]
    with busy(f"loading {model}"):
        with collector_paused():
            from slime_vlm import load
            from slime_vlm.inference.conversation import Conversation

        quiet_transformers()
        overrides = config_changes(max_local_tokens, max_tiles)
        network, processor = load(
            model, device=device, dtype=dtype, quantization=quantization, fast=fast, packed=True, **overrides
        )
    conversation = Conversation(network, processor)
    for name, image in opened:
        with busy(f"encoding {name}"):
            conversation.add_image(image, name)
    opened.clear()
    _talk(conversation, max_new_tokens, look_again, open_image)


def _talk(conversation: Conversation, max_new_tokens: int, look_again: bool, open_image: OpenImage) -> None:
    from slime_vlm.errors import SlimeError, printable

    terminal = sys.stdin.isatty()
    if terminal:
        # Importing readline gives `input` a history and line editing.
        _import_readline()
        typer.secho("Ask about the image. /help lists the commands, /quit exits.", dim=True)
    while True:
        try:
            line = input("> " if terminal else "").strip()
        except EOFError:
            if terminal:
                typer.echo()
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            typer.secho("\nType /quit or Ctrl-D to exit.", dim=True)
            continue
        if line in ("/quit", "/exit"):
            return
        try:
            if line.startswith("/"):
                _obey(conversation, line, open_image)
            elif line:
                if look_again:
                    conversation.look_again()
                _answer(conversation, line, max_new_tokens)
        # A bad line does not end the conversation. Neither does a drawing that cannot be written.
        except (SlimeError, OSError) as error:
            typer.echo(f"slime: {printable(' '.join(str(error).split()))}", err=True)


def _answer(conversation: Conversation, question: str, max_new_tokens: int) -> None:
    with _interrupts() as interrupted:
        try:
            reply = conversation.ask(
                question, max_new_tokens=max_new_tokens, on_text=write, should_stop=lambda: bool(interrupted)
            )
        except KeyboardInterrupt:
            typer.echo("\naborted; the conversation continues without this question")
            return
    typer.echo(" …" if interrupted else "")
    if sys.stdin.isatty():
        spent = sum(reply.seconds.values())
        typer.secho(f"{reply.num_processed} new tokens, {reply.num_cached} cached, {spent:.1f} s", dim=True)


def _obey(conversation: Conversation, line: str, open_image: OpenImage) -> None:
    from slime_vlm.errors import InputError

    command, _, rest = line.partition(" ")
    rest = rest.strip().strip("\"'")
    if command == "/help":
        typer.echo(_HELP)
    elif command == "/image":
        if not rest:
            raise InputError("/image: expected a file, such as /image page.png")
        image = open_image(os.path.expanduser(rest))
        name = Path(rest).name
        with busy(f"encoding {name}"):
            seen = conversation.add_image(image, name)
        grid = seen.encoded.grid
        typer.secho(f"{shown(name)}: {grid.rows} x {grid.cols} tiles; your next question includes it", dim=True)
    elif command == "/look":
        conversation.look_again()
        typer.secho("your next question includes all images again", dim=True)
    elif command == "/reset":
        conversation.reset()
        typer.secho("conversation forgotten, images kept", dim=True)
    elif command == "/show":
        _show(conversation, Path(rest).expanduser() if rest else None)
    else:
        raise InputError(f"{command}: no such command; /help lists the commands")


def _show(conversation: Conversation, target: Path | None) -> None:
    from slime_vlm.errors import InputError

    if not conversation.replies:
        raise InputError("/show: there is no answer yet; ask something first")
    if target is None:
        target = Path(f"chat-{len(conversation.replies)}.png")
    check_target(target, "/show")
    drawings = conversation.replies[-1].draw()
    for number, drawing in enumerate(drawings, start=1):
        path = target.with_stem(f"{target.stem}-{number}") if len(drawings) > 1 else target
        save_drawing(drawing, path)
        typer.secho(shown(str(path)), dim=True)
    reply = conversation.replies[-1]
    report_missing_letters(f"{reply.question} {reply.text}")


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list while an answer is generated. The second one raises KeyboardInterrupt."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _import_readline() -> None:
    try:
        import readline  # noqa: F401
    except ImportError:
        # Windows has no readline. There, the console edits lines itself.
        return
