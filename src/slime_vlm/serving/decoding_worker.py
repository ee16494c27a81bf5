"""The process that decodes images: it takes files that nobody vouches for, and has neither the model nor secrets.

Messages are plain bytes in both directions, so that a damaged process cannot hand objects to the server.
"""

from __future__ import annotations

import io
import json
import os
import resource
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

import numpy as np
from PIL import Image

from slime_vlm.errors import MediaError, one_line
from slime_vlm.media import DPI, Window, count_pages, open_image_bytes, worker_pool
from slime_vlm.media.decoding_worker import MOST_LEFT_OVER
from slime_vlm.media.request import MediaMemoryError
from slime_vlm.model.tiling import choose_grid
from slime_vlm.processing.view_cutting import cut_views
from slime_vlm.workers.limits import data_bytes

# Of previews, in pixels.
_TILE_SIDE = 1024


@dataclass(frozen=True)
class DecodeOptions:
    """How to read an image and cut it into views. See `media.open_image` and `cut_views`."""

    view_size: int
    max_tiles: int
    views: str
    resample: int
    resize_backend: str
    max_pixels: int
    page: int | None
    dpi: float
    window: str | None
    tile_margin: int = 0

    def to_json(self) -> bytes:
        """Return the options as bytes."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class PreviewOptions:
    """How to draw an image for people. `long_side` is the largest side in pixels."""

    long_side: int
    max_pixels: int
    page: int | None

    def to_json(self) -> bytes:
        """Return the options as bytes."""
        return json.dumps(asdict(self)).encode()


def run_worker(connection: Connection, folder: str, memory_mb: int) -> None:
    """Decode images until the connection ends.

    Args:
        connection: Gives options and a file, and takes a header, and the views (uint8) or JPEG files.
        folder: For files, which some readers need. The server removes it after this process.
        memory_mb: Limit on the memory of this process.
    """
    limit = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    tempfile.tempdir = folder
    # Libraries write about damaged files.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    # `Request.check_size` is the limit.
    Image.MAX_IMAGE_PIXELS = None
    # This process is limited and replaceable, so it decodes every format itself.
    worker_pool.run_here()
    at_start = data_bytes()
    while True:
        try:
            options, content = connection.recv_bytes(), connection.recv_bytes()
        except EOFError:
            return
        start, pixels = time.perf_counter(), b""
        header: dict[str, object]
        try:
            fields = json.loads(options)
            if "long_side" in fields:
                header, pixels = preview(content, PreviewOptions(**fields))
            else:
                size, views = decode(content, DecodeOptions(**fields))
                header = {"size": size, "shape": views.shape, "seconds": time.perf_counter() - start}
                pixels = views.tobytes()
        except MediaError as error:
            header = {"error": str(error), "retires": isinstance(error, MediaMemoryError)}
        except MemoryError:
            header = {"error": "the image needs more memory than the server gives to one image", "retires": True}
        except Exception as error:
            header = {"error": f"the image cannot be read ({one_line(error)})"}
        if data_bytes() - at_start - len(pixels) > MOST_LEFT_OVER:
            header["retires"] = True
        connection.send_bytes(json.dumps(header).encode())
        connection.send_bytes(pixels)
        if header.get("retires"):
            return
        del pixels


def decode(content: bytes, options: DecodeOptions) -> tuple[tuple[int, int], np.ndarray]:
    """Decode a file and cut it into views.

    Returns:
        (height, width) of the image, and its views, uint8 [v, P, P, 3].

    Raises:
        MediaError: See `media.open_image_bytes`.
    """
    window = None if options.window is None else Window.parse(options.window)
    image = open_image_bytes(content, "image", options.max_pixels, page=options.page, dpi=options.dpi, window=window)
    grid = choose_grid(image.height, image.width, options.view_size, options.max_tiles, options.tile_margin)
    views = cut_views(image, grid, options.resample, options.views, options.resize_backend)
    return (image.height, image.width), np.stack(list(views))


def preview(content: bytes, options: PreviewOptions) -> tuple[dict[str, object], bytes]:
    """Draw an image or page for people, as tiles of several resolutions, so that a browser decodes what is in sight.

    Returns:
        A header with `pages`, `tile_side` in pixels, and `levels` from small to large; each has its `size` (height,
        width) and the lengths of its JPEG files in `tiles`, row by row. Then these files, one after the other.

    Raises:
        MediaError: See `media.open_image_bytes`.
    """
    # A small picture of a PDF page needs no full resolution. A4 has 2339 pixels at DPI, larger pages are scaled.
    dpi = max(20.0, min(DPI, DPI * options.long_side / 2000))
    image = open_image_bytes(content, "image", options.max_pixels, page=options.page, dpi=dpi)
    image.thumbnail((options.long_side, options.long_side), reducing_gap=3.0)
    levels: list[dict[str, object]] = []
    files: list[bytes] = []
    while True:
        tiles = [
            _jpeg(image.crop((left, top, min(left + _TILE_SIDE, image.width), min(top + _TILE_SIDE, image.height))))
            for top in range(0, image.height, _TILE_SIDE)
            for left in range(0, image.width, _TILE_SIDE)
        ]
        levels.insert(0, {"size": (image.height, image.width), "tiles": [len(tile) for tile in tiles]})
        files[:0] = tiles
        if max(image.size) <= _TILE_SIDE:
            break
        image = image.reduce(2)
    header = {"pages": count_pages(content, "image"), "tile_side": _TILE_SIDE, "levels": levels}
    return header, b"".join(files)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()
