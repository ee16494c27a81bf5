"""Options on how images are opened, which several commands share."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slime_vlm.media import OpenedInput

_PANEL = "Input files"

_IMAGES = "One or more images or videos, of any size. `scan.pdf#3` selects page 3 of a file with pages"

Images = Annotated[list[str], typer.Argument(metavar="IMAGE", help=f"{_IMAGES}.")]
ImagesOrInput = Annotated[
    list[str], typer.Argument(metavar="IMAGE", help=f"{_IMAGES}, `-` reads an image from standard input.")
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        help="Refuse images with more pixels than this.",
        show_default="200 million pixels",
        rich_help_panel=_PANEL,
    ),
]
MaxMemory = Annotated[
    float | None,
    typer.Option(
        "--max-memory",
        min=1,
        help="Refuse images that take more memory than this while they are opened, in MB.",
        show_default="1500",
        rich_help_panel=_PANEL,
    ),
]
Dpi = Annotated[
    float | None,
    typer.Option(
        "--dpi",
        min=1,
        max=10_000,
        help="Resolution at which PDF pages are rendered, in dots per inch.",
        show_default="200",
        rich_help_panel=_PANEL,
    ),
]
WindowText = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="CENTER/WIDTH",
        help="Range of grey values to display of images with more than 8 bits, for example `40/400`.",
        show_default="the file's own",
        rich_help_panel=_PANEL,
    ),
]
AllowUrl = Annotated[
    bool,
    typer.Option("--allow-url", help="Accept http(s) addresses of public hosts as images.", rich_help_panel=_PANEL),
]
MaxDownload = Annotated[
    float | None,
    typer.Option(
        "--max-download",
        min=0.001,
        help="Refuse downloads larger than this, in MB.",
        show_default="50",
        rich_help_panel=_PANEL,
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        min=1,
        max=64,
        help="Number of frames to sample from a video.",
        show_default="8",
        rich_help_panel=_PANEL,
    ),
]

OpenImage = Callable[[str], "OpenedInput"]

STANDARD_INPUT = "-"
"""The name of the image that is read from standard input."""


def image_opener(
    max_pixels: int | None,
    max_memory: float | None,
    dpi: float | None,
    window: str | None,
    allow_url: bool,
    max_download: float | None,
    frames: int | None,
    untrusted: bool = False,
) -> OpenImage:
    """Return `media.open_input` with a command's options bound; None stands for the default.

    Files that are `untrusted` are tried as common formats only.

    Raises:
        InputError: `window` is not of the form CENTER/WIDTH.
    """
    from slime_vlm.media import DPI, MAX_DOWNLOAD, MAX_MEMORY, MAX_PIXELS, NUM_FRAMES, Window, open_input

    return partial(
        open_input,
        num_frames=NUM_FRAMES if frames is None else frames,
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        max_memory=MAX_MEMORY if max_memory is None else int(max_memory * 1e6),
        dpi=DPI if dpi is None else dpi,
        window=None if window is None else Window.parse(window),
        allow_url=allow_url,
        untrusted=untrusted,
        max_download=MAX_DOWNLOAD if max_download is None else int(max_download * 1e6),
    )


@contextmanager
def standard_input(specs: Sequence[str]) -> Iterator[Path | None]:
    """Store what comes from standard input in a file, for as long as the block runs; None if no spec is `-`.

    Raises:
        InputError: Several specs are `-`, or standard input is a terminal or empty.
    """
    from slime_vlm.errors import InputError

    if STANDARD_INPUT not in specs:
        yield None
        return
    if specs.count(STANDARD_INPUT) > 1:
        raise InputError("- stands for standard input, which holds one image; name it once")
    if sys.stdin.isatty():
        raise InputError("- reads an image from standard input, which is a terminal; pipe one: slime ask - < photo.png")
    content = sys.stdin.buffer.read()
    if not content:
        raise InputError("standard input is empty, expected an image")
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        path = Path(folder) / "standard input"
        path.write_bytes(content)
        yield path


def opening_from(stored: Path | None, open_image: OpenImage) -> OpenImage:
    """Return `open_image` for specs of which `-` is a stored file. Its errors name standard input."""

    def opened(spec: str) -> OpenedInput:
        if stored is None or spec != STANDARD_INPUT:
            return open_image(spec)
        from slime_vlm.errors import MediaError

        try:
            return open_image(str(stored))
        except MediaError as error:
            raise MediaError(str(error).replace(str(stored), stored.name)) from error

    return opened
