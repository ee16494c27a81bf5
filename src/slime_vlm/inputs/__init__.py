"""Opening pictures of every kind: one file per format, chosen by what a file holds and not by its name."""

from __future__ import annotations

from slime_vlm.inputs.address import MAX_DOWNLOAD, is_address
from slime_vlm.inputs.colours import Window, to_rgb
from slime_vlm.inputs.opening import check_spec, open_image, open_image_bytes
from slime_vlm.inputs.request import DPI, MAX_PIXELS

__all__ = [
    "DPI",
    "MAX_DOWNLOAD",
    "MAX_PIXELS",
    "Window",
    "check_spec",
    "is_address",
    "open_image",
    "open_image_bytes",
    "to_rgb",
]
