"""`slime chat`: a conversation about images, at the terminal or from a pipe."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slime_vlm.cli.ask import check_target, save, write
from slime_vlm.cli.images import (
    AllowUrl,
    Dpi,
    Frames,
    Images,
    MaxDownload,
    MaxPixels,
    MaxTiles,
    OpenImage,
    WindowText,
    image_opener,
)
from slime_vlm.cli.terminal import busy, quiet_transformers

if TYPE_CHECKING:
    from slime_vlm.inference.conversation import Conversation

_HELP = """/image PATH   add an image, or a page such as scan.pdf#3; it enters with the next question
/look         let all images enter again with the next question, selected for it
/show [FILE]  draw where the model looked for the last answer [chat-1.png, chat-2.png, …]
/reset        forget what was said, keep the images
/help         this list
/quit         leave (or Ctrl-D); Ctrl-C stops an answer"""


def chat(
    images: Images,
    model: Annotated[
        str, typer.Option("--model", "-m", help="nano (shipped), a folder, or a hub id; native or published layout.")
    ] = "nano",
    look_again: Annotated[
        bool,
        typer.Option("--look-again", help="Select anew for every question, as /look does; rows grow faster."),
    ] = False,
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
    """Talk about images: each is encoded once, and follow-up questions know what was said before.

    A line is a question, or a command such as /help. Lines may also come from a pipe.

    Example: slime chat invoice.png
    """
    # Everything a user can get wrong is found before the model is loaded.
    open_image = image_opener(max_pixels, dpi, window, allow_url, max_download, frames)
    opened = [(Path(spec).name, open_image(spec)) for spec in images]
    with busy(f"loading {model}"):
        from slime_vlm import load
        from slime_vlm.inference.conversation import Conversation

        quiet_transformers()
        limits = {"max_local_tokens": max_local_tokens, "max_tiles": max_tiles}
        overrides: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
        network, processor = load(model, device=device, dtype=dtype, quantization=quantization, **overrides)
    conversation = Conversation(network, processor)
    for name, image in opened:
        with busy(f"looking at {name}"):
            conversation.add_image(image, name)
    opened.clear()
    _talk(conversation, max_new_tokens, look_again, open_image)


def _talk(conversation: Conversation, max_new_tokens: int, look_again: bool, open_image: OpenImage) -> None:
    from slime_vlm.errors import SlimeError

    terminal = sys.stdin.isatty()
    if terminal:
        # Importing it gives `input` a history and line editing.
        _import_readline()
        typer.secho("Ask about the image; /help lists commands, /quit leaves.", dim=True)
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
            typer.secho("\n/quit or Ctrl-D leaves", dim=True)
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
        # One bad line ends no conversation. An image that cannot be written is the line's fault as well.
        except (SlimeError, OSError) as error:
            typer.echo(f"slime: {' '.join(str(error).split())}", err=True)


def _answer(conversation: Conversation, question: str, max_new_tokens: int) -> None:
    with _interrupts() as interrupted:
        try:
            reply = conversation.ask(
                question, max_new_tokens=max_new_tokens, on_text=write, should_stop=lambda: bool(interrupted)
            )
        except KeyboardInterrupt:
            typer.echo("\nbroken off; this question counts as not asked")
            return
    typer.echo(" …" if interrupted else "")
    if sys.stdin.isatty():
        spent = sum(reply.seconds.values())
        typer.secho(f"{reply.num_read} tokens read, {reply.num_cached} known before, {spent:.1f} s", dim=True)


def _obey(conversation: Conversation, line: str, open_image: OpenImage) -> None:
    from slime_vlm.errors import InputError

    command, _, rest = line.partition(" ")
    rest = rest.strip().strip("\"'")
    if command == "/help":
        typer.echo(_HELP)
    elif command == "/image":
        if not rest:
            raise InputError("/image: no file is named; write /image page.png")
        image = open_image(os.path.expanduser(rest))
        name = Path(rest).name
        with busy(f"looking at {name}"):
            seen = conversation.add_image(image, name)
        grid = seen.encoded.grid
        typer.secho(f"{name}: {grid.rows} x {grid.cols} tiles; it enters with your next question", dim=True)
    elif command == "/look":
        conversation.look_again()
        typer.secho("all images enter again with your next question", dim=True)
    elif command == "/reset":
        conversation.reset()
        typer.secho("forgot what was said, kept the images", dim=True)
    elif command == "/show":
        _show(conversation, Path(rest).expanduser() if rest else None)
    else:
        raise InputError(f"{command}: no such command; /help lists them")


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
        save(drawing, path)
        typer.secho(str(path), dim=True)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects Ctrl-C in a list while an answer is written; a second one breaks off at once."""
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
        # Windows has none; there the console edits lines itself.
        return
