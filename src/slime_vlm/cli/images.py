"""Options on how images are opened, which several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slime_vlm.media import OpenedInput

Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...", help="Images of any size, or videos; scan.pdf#3 is page 3 of a file with pages."
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", min=1, help="Largest image to open.", show_default="200 million pixels"),
]
Dpi = Annotated[
    float | None, typer.Option("--dpi", min=1, max=10_000, help="Resolution of PDF pages.", show_default="200")
]
WindowText = Annotated[
    str | None,
    typer.Option(
        "--window", metavar="CENTER/WIDTH", help="Deep grey values to show, as 40/400.", show_default="the file's own"
    ),
]
AllowUrl = Annotated[bool, typer.Option("--allow-url", help="Let images be http(s) addresses of public hosts.")]
MaxDownload = Annotated[
    float | None, typer.Option("--max-download", min=0.001, help="Largest download in MB.", show_default="50")
]

MaxTiles = Annotated[
    int | None,
    typer.Option(
        "--max-tiles", min=1, max=10_000, help="Cut images into more tiles, as 900.", show_default="the model's, 7"
    ),
]
Frames = Annotated[
    int | None, typer.Option("--frames", min=1, max=64, help="Frames to take of a video.", show_default="8")
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
    """Gives `inputs.open_input` with a command's options; None stands for the default.

    Raises:
        InputError: `window` is none.
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
