"""Encode images chunk by chunk of views: between the steps of the scheduler, or on threads of their own beside them.

A request that is alone on the server has all cores for its image. Once there are others, several small calls side by
side use the cores of a CPU better than one call that all cores share, and answers go on meanwhile. Each call then takes
its share of the cores. A GPU, and a CPU of one core, encode between the steps only.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slime_vlm.inference.answering import EncodedImage
from slime_vlm.model.outputs import VisionTokens
from slime_vlm.model.tiling import choose_grid
from slime_vlm.serving.encoder_cache import CachedImage, EncoderCache
from slime_vlm.serving.jobs import JobImage
from slime_vlm.serving.metrics import Metrics

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

_MOST_THREADS = 4
"""Images that are encoded at the same time on a CPU. Each takes the memory of a view's features."""


@dataclass(eq=False)
class Encoding:
    """An image that is being encoded.

    Attributes:
        image: The image.
        steps: The work, for a thread or for the requests that wait: one of them goes on with it.
        in_thread: Whether a thread does it.
        future: The encoded image.
        num_waiting: Requests that wait for it. Without any, the work ends after the chunk.
        is_held: Whether a request goes on with it.
    """

    image: JobImage
    steps: Generator[None, None, CachedImage]
    in_thread: bool
    future: Future[CachedImage]
    num_waiting: int = 0
    is_held: bool = False

    @property
    def is_free(self) -> bool:
        """Whether the next request that waits has to go on with it."""
        return not (self.in_thread or self.is_held or self.future.done())

    def advance(self) -> bool:
        """Encode a chunk of views, and return whether there is more to do. Errors are the future's."""
        try:
            next(self.steps)
            return True
        except StopIteration as done:
            self.future.set_result(done.value)
        # The requests that wait for it take it from here.
        except BaseException as error:
            # Frames hold the tensors of the forward pass.
            traceback.clear_frames(error.__traceback__)
            self.future.set_exception(error)
        return False


class ImageEncoder:
    """Encodes each image once, however many requests wait for it, and keeps it in the cache.

    Args:
        model: The model.
        processor: Its processor.
        cache: Encoded images.
        metrics: Counters of the server.

    Attributes:
        cores: Cores that threads share.
        on_done: Called from another thread whenever a thread has encoded an image, or has failed to.
    """

    def __init__(
        self,
        model: SlimeForConditionalGeneration,
        processor: SlimeProcessor,
        cache: EncoderCache,
        metrics: Metrics,
    ) -> None:
        self._model, self._processor, self._cache, self._metrics = model, processor, cache, metrics
        self.cores = torch.get_num_threads() if model.device.type == "cpu" else 1
        self.on_done: Callable[[], None] = lambda: None
        self._queue: queue.SimpleQueue[Encoding | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._num_running = 0
        self._lock = threading.Lock()
        self._under_way: dict[str, Encoding] = {}
        self._is_stopped = False

    def start(self, image: JobImage, is_alone: bool) -> Encoding:
        """Begin to encode an image, or wait for it with the requests that do so already. See `leave`.

        Args:
            image: The image.
            is_alone: Whether the request is alone on the server.
        """
        with self._lock:
            found = self._under_way.get(image.key)
            if found is None:
                found = Encoding(image, self._encode(image), not is_alone and self.cores > 1, Future())
                self._under_way[image.key] = found
                if found.in_thread:
                    self._queue.put(found)
                    self._add_thread()
            found.num_waiting += 1
        return found

    def leave(self, encoding: Encoding) -> None:
        """Wait for an image no longer. To be called once for each `start`."""
        with self._lock:
            encoding.num_waiting -= 1
            if not encoding.num_waiting and self._under_way.get(encoding.image.key) is encoding:
                del self._under_way[encoding.image.key]

    def take_share(self) -> None:
        """Let the calling thread use its share of the cores from now on: that of the scheduler, or of an image."""
        share = max(1, self.cores // (self._num_running + 1))
        # Each thread has a number of its own. Threads that use torch for the first time begin with the latest one.
        if self.cores > 1 and torch.get_num_threads() != share:
            torch.set_num_threads(share)

    def stop(self) -> None:
        """Give up all images after their chunks, and let the calling thread use all cores."""
        self._is_stopped = True
        for _ in self._threads:
            self._queue.put(None)
        # A process that ends amid a call of torch is aborted.
        for thread in self._threads:
            thread.join()
        if self.cores > 1:
            torch.set_num_threads(self.cores)

    def _add_thread(self) -> None:
        if len(self._threads) < min(self.cores, _MOST_THREADS):
            # Daemons: a process that ends without `stop` does not wait for them.
            self._threads.append(threading.Thread(target=self._work, name="slime-encoder", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while (encoding := self._queue.get()) is not None:
            with self._lock:
                self._num_running += 1
            with torch.inference_mode():
                has_more = True
                while has_more and encoding.num_waiting and not self._is_stopped:
                    # Others begin and end.
                    self.take_share()
                    has_more = encoding.advance()
            with self._lock:
                self._num_running -= 1
            self.on_done()

    def _encode(self, image: JobImage) -> Generator[None, None, CachedImage]:
        """Encode an image, and pause after every chunk of views."""
        assert image.views is not None
        model, processor = self._model, self._processor.image_processor
        views_at_once = model.model.views_at_once
        pixels, size = image.views.pixels, image.views.size
        chunks = (
            processor.pixel_values(list(pixels[start : start + views_at_once])).to(model.device, model.dtype)
            for start in range(0, len(pixels), views_at_once)
        )
        grid = choose_grid(*size, processor.view_size, image.max_tiles, processor.tile_margin)
        if image.global_only:
            tokens = self._global_tokens(next(chunks))
        else:
            tokens = yield from model.model.encode_steps(chunks, (grid.rows, grid.cols))
        found = CachedImage(EncodedImage(model, self._processor, grid, tokens, {}), size)
        self._cache.put(image.key, found)
        self._metrics.encoded.inc()
        return found

    def _global_tokens(self, pixels: Tensor) -> VisionTokens:
        """Return the tokens of a global view, with one tile of which no token will be kept."""
        adapted, gates = self._model.model.adapt_global(self._model.model.encode_views(pixels))
        num_local = self._model.config.token_layout.num_local_tokens(1, 1)
        local = adapted.new_zeros(num_local, adapted.shape[-1]) if num_local else None
        return VisionTokens((1, 1), None if gates is None else gates[0], adapted[0], local)
