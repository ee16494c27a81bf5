"""Image, document and video files: one reader per format, chosen by the content of a file and not by its name."""

from __future__ import annotations

from slime_vlm.media.colours import Window, to_rgb
from slime_vlm.media.download import MAX_DOWNLOAD, is_address
from slime_vlm.media.opening import (
    OpenedInput,
    check_spec,
    count_pages,
    is_video,
    open_clip,
    open_image,
    open_image_bytes,
    open_input,
)
from slime_vlm.media.request import DPI, MAX_MEMORY, MAX_PIXELS
from slime_vlm.media.tiled_image import TiledImage
from slime_vlm.media.video import NUM_FRAMES, Clip

__all__ = [
    "DPI",
    "MAX_DOWNLOAD",
    "MAX_MEMORY",
    "MAX_PIXELS",
    "NUM_FRAMES",
    "Clip",
    "OpenedInput",
    "TiledImage",
    "Window",
    "check_spec",
    "count_pages",
    "is_address",
    "is_video",
    "open_clip",
    "open_image",
    "open_image_bytes",
    "open_input",
    "to_rgb",
]
