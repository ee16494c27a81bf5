"""The images of a request: from data URIs and addresses to files, and from files to views or encoded images."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slime_vlm.errors import MediaError
from slime_vlm.media import is_address
from slime_vlm.media.download import download
from slime_vlm.serving.decoding import DecoderPool
from slime_vlm.serving.decoding_worker import DecodeOptions, PreviewOptions
from slime_vlm.serving.encoder_cache import EncoderCache
from slime_vlm.serving.jobs import JobImage, Views
from slime_vlm.serving.metrics import Metrics
from slime_vlm.serving.protocol import ApiError, ImageUrl, SlimeOptions
from slime_vlm.serving.settings import Settings

_DOWNLOADS = 8


@dataclass
class _Decoding:
    """An image that is being decoded, and how many requests wait for it."""

    task: asyncio.Future[Views]
    num_waiting: int = 0


class ImageLoader:
    """Loads the images of requests. Nothing heavy runs on the event loop.

    Args:
        processor: The model's image processor.
        views: Which views the model uses (its config).
        decoders: The processes that decode.
        cache: Encoded images.
        settings: Settings of the server.
        metrics: Counters of the server.
    """

    def __init__(
        self,
        processor: Any,
        views: str,
        decoders: DecoderPool,
        cache: EncoderCache,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._processor, self._views, self._decoders = processor, views, decoders
        self._cache, self._settings, self._metrics = cache, settings, metrics
        self._under_way: dict[str, _Decoding] = {}
        # Slow hosts keep these threads busy, and no others.
        self._downloads = ThreadPoolExecutor(_DOWNLOADS, "slime-download")

    async def load(self, image: ImageUrl, slime: SlimeOptions, param: str) -> JobImage:
        """Load an image: from the cache if it is encoded already, else decoded.

        Raises:
            ApiError: The image cannot be loaded, with `param` as its place in the request.
        """
        max_tiles = slime.max_tiles or self._processor.max_tiles
        global_only = image.detail == "low"
        if slime.max_tiles is not None and max_tiles > self._settings.max_tiles:
            raise ApiError(
                400, f"max_tiles is {max_tiles}, the server allows {self._settings.max_tiles}", param="slime.max_tiles"
            )
        if global_only and self._views == "local":
            raise ApiError(400, 'detail is "low", and this model has no global view; use "high"', param=param)
        options = DecodeOptions(
            view_size=self._processor.view_size,
            max_tiles=1 if global_only else max_tiles,
            views="global" if global_only else self._views,
            resample=int(self._processor.resample),
            resize_backend=self._processor.resize_backend,
            max_pixels=self._settings.max_pixels,
            page=slime.page,
            dpi=slime.dpi,
            window=slime.window,
            tile_margin=self._processor.tile_margin,
        )
        self._metrics.images.inc()
        try:
            threads = self._downloads if is_address(image.url) else None
            loop = asyncio.get_running_loop()
            content = await loop.run_in_executor(threads, read_source, image.url, self._settings)
            key = await asyncio.to_thread(_digest, content, options)
            found = JobImage(key, options.max_tiles, global_only, cached=self._cache.get(key))
            if found.cached is not None:
                self._metrics.hits.inc()
            else:
                found.views = await self._decode(key, content, options)
        except MediaError as error:
            raise _refusal(error, param) from None
        return found

    async def preview(self, url: str, page: int | None, long_side: int) -> tuple[dict[str, Any], bytes]:
        """Draw an image for people.

        Args:
            url: A data URI.
            page: Page or frame, counted from 1. None takes the first.
            long_side: The largest side in pixels.

        Returns:
            See `decoding_worker.preview`.

        Raises:
            ApiError: The image cannot be loaded.
        """
        try:
            content = await asyncio.to_thread(read_source, url, self._settings)
            return await self._decoders.preview(content, PreviewOptions(long_side, self._settings.max_pixels, page))
        except MediaError as error:
            raise _refusal(error, "url") from None

    async def _decode(self, key: str, content: bytes, options: DecodeOptions) -> Views:
        """Decode a file once, however many requests with it arrive at the same time."""
        found = self._under_way.get(key)
        if found is None:
            found = _Decoding(asyncio.ensure_future(self._decoders.decode(content, options)))
            self._under_way[key] = found
        found.num_waiting += 1
        try:
            # A client that goes does not take the image from the others.
            return await asyncio.shield(found.task)
        finally:
            found.num_waiting -= 1
            if not found.num_waiting:
                del self._under_way[key]
                found.task.cancel()


def _refusal(error: MediaError, param: str) -> ApiError:
    # The advice names an option of other commands.
    message = re.split(r"; raise (?:it|the limit) with --max", str(error))[0]
    return ApiError(400, message, param=param, code="invalid_image")


def read_source(url: str, settings: Settings) -> bytes:
    """Return the file behind a data URI, or behind an address where the server allows it. Never a file of the server.

    Raises:
        MediaError: It is something else, is not allowed, or cannot be read.
    """
    if url[:5].lower() == "data:":
        head, comma, text = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise MediaError("image: expected a data URI in base64, such as data:image/png;base64,iVBOR...")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise MediaError("image: the data URI is not valid base64") from None
    if not is_address(url):
        raise MediaError(f"image: {url!r:.60} is no data URI; files of the server cannot be opened")
    if not settings.allow_url:
        raise MediaError("image: this server takes no addresses; send a data URI, or start it with --allow-url")
    with tempfile.TemporaryDirectory(prefix="slime-") as folder:
        target = Path(folder) / "download"
        download(url, target, int(settings.max_download_mb * 1e6))
        return target.read_bytes()


def _digest(content: bytes, options: DecodeOptions) -> str:
    settings = json.dumps(vars(options), sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(content).digest() + settings).hexdigest()
