"""Options on how images are opened, which several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slime_vlm.media import OpenedInput

_PANEL = "Input files"

Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE",
        help="One or more images or videos, of any size. `scan.pdf#3` selects page 3 of a file with pages.",
    ),
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


def image_opener(
    max_pixels: int | None,
    dpi: float | None,
    window: str | None,
    allow_url: bool,
    max_download: float | None,
    frames: int | None,
) -> OpenImage:
    """Return `media.open_input` with a command's options bound; None stands for the default.

    Raises:
        InputError: `window` is not of the form CENTER/WIDTH.
    """
    from slime_vlm.media import DPI, MAX_DOWNLOAD, MAX_PIXELS, NUM_FRAMES, Window, open_input

    return partial(
        open_input,
        num_frames=NUM_FRAMES if frames is None else frames,
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        dpi=DPI if dpi is None else dpi,
        window=None if window is None else Window.parse(window),
        allow_url=allow_url,
        max_download=MAX_DOWNLOAD if max_download is None else int(max_download * 1e6),
    )
