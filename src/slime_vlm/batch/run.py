"""Answer records with the scheduler of the server. Images are opened ahead of the model, in threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from slime_vlm.batch.options import JobOptions
from slime_vlm.batch.records import Asked, open_image_of, reason_of
from slime_vlm.checkpoints.loading import load
from slime_vlm.inference.answering import encode
from slime_vlm.media import Clip, OpenedInput
from slime_vlm.processing.view_cutting import cut_views
from slime_vlm.serving.encoder_cache import CachedImage, EncoderCache
from slime_vlm.serving.jobs import Done, Event, Failed, Job, JobImage, Started, Text, Views
from slime_vlm.serving.metrics import Metrics
from slime_vlm.serving.scheduler import Scheduler

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor
    from slime_vlm.serving.settings import Settings

_THREADS = 4
# Records whose images are opened before a slot is free for them. Only their views stay in memory.
_AHEAD = 8
# While all records wait for their images, those that are opened are looked for so often.
_LOOK_SECONDS = 0.02
# The advice of the server names fields of requests.
_SHORTEN = "; shorten it, or lower"


def load_run(
    options: JobOptions,
    images: Path,
    on_answer: Callable[[int, dict[str, Any]], None],
    on_error: Callable[[int, str], None],
) -> BatchRun:
    """Load the model of a job. Image paths start from `images`; the callbacks are those of `BatchRun`."""
    model, processor = load(
        options.model,
        options.device,
        options.dtype,
        quantization=options.quantization,
        fast=options.fast,
        packed=True,
        **dict(options.overrides),
    )
    open_image = partial(open_image_of, root=images, open_image=options.open_image)
    return BatchRun(model, processor, options.limits, open_image, on_answer, on_error)


@dataclass(frozen=True)
class _Waiting:
    """A record whose images are being opened."""

    index: int
    asked: Asked
    images: list[Future[JobImage | Clip]]

    @property
    def is_ready(self) -> bool:
        return all(image.done() for image in self.images)


class BatchRun:
    """Answers records, several at once.

    Args:
        model: The model.
        processor: Its processor.
        settings: Settings of the scheduler: slots, lengths, memory for encoded images.
        open_image: Opens an image as a record holds it.
        on_answer: Called with the index of a record and the fields of its answer.
        on_error: Called with the index of a record that cannot be answered, and the reason in one line.
    """

    def __init__(
        self,
        model: SlimeForConditionalGeneration,
        processor: SlimeProcessor,
        settings: Settings,
        open_image: Callable[[Any], OpenedInput],
        on_answer: Callable[[int, dict[str, Any]], None],
        on_error: Callable[[int, str], None],
    ) -> None:
        self._model, self._processor, self._settings = model, processor, settings
        self._open_image, self._on_answer, self._on_error = open_image, on_answer, on_error
        self._cache = EncoderCache(int(settings.encoder_cache_mb * 2**20))
        self._scheduler = Scheduler(model, processor, self._cache, settings, Metrics())
        self._opening: WeakValueDictionary[str, Future[JobImage | Clip]] = WeakValueDictionary()

    def run(self, indices: Iterable[int], read: Callable[[int], Asked]) -> None:
        """Answer the records of some indices, read by `read`. Errors of records do not end the run.

        As long as records are under way, `indices` are asked for more, also after their end.
        """
        left, ahead = iter(indices), deque[_Waiting]()
        threads = ThreadPoolExecutor(_THREADS, "slime-open")
        scheduler = self._scheduler
        try:
            while True:
                while len(ahead) < _AHEAD and (index := next(left, None)) is not None:
                    try:
                        asked = read(index)
                        ahead.append(_Waiting(index, asked, [self._open(image, threads) for image in asked.images]))
                    # Records come from anywhere, and libraries raise more than they say. One must not end the job.
                    except Exception as error:
                        self._on_error(index, reason_of(error))
                if not ahead and scheduler.is_idle:
                    return
                while ahead and self._has_room and (ahead[0].is_ready or scheduler.is_idle):
                    self._submit(ahead.popleft())
                if not scheduler.is_idle:
                    scheduler.wait(_LOOK_SECONDS)
                    scheduler.step()
        finally:
            scheduler.close()
            threads.shutdown(wait=False, cancel_futures=True)

    @property
    def _has_room(self) -> bool:
        return self._scheduler.num_running + len(self._scheduler.waiting) < self._settings.slots

    def _open(self, value: Any, threads: ThreadPoolExecutor) -> Future[JobImage | Clip]:
        """Open an image in a thread, once for all records that wait for it."""
        content = value if isinstance(value, bytes) else repr(value).encode(errors="surrogatepass")
        key = blake2b(content, digest_size=16).hexdigest()
        found = self._opening.get(key)
        if found is None:
            found = self._opening[key] = threads.submit(self._load, value, key)
        return found

    def _load(self, value: Any, key: str) -> JobImage | Clip:
        """Open an image and cut it into views, unless it is encoded. The frames of a video stay whole."""
        settings = self._processor.image_processor
        cached = self._cache.get(key)
        if cached is not None:
            return JobImage(key, settings.max_tiles, False, cached=cached)
        start = time.perf_counter()
        image = self._open_image(value)
        if isinstance(image, Clip):
            return image
        grid = settings.grid(image.height, image.width)
        cut = cut_views(image, grid, settings.resample, self._model.config.views, settings.resize_backend)
        views = Views((image.height, image.width), np.stack(list(cut)), time.perf_counter() - start)
        return JobImage(key, settings.max_tiles, False, views)

    def _submit(self, record: _Waiting) -> None:
        """Hand a record to the scheduler, once its images are open."""
        try:
            images = [self._job_image(future.result()) for future in record.images]
        # As above. Decoders of images are such libraries.
        except Exception as error:
            self._on_error(record.index, reason_of(error))
            return
        answer = _Answer(record.index, self._on_answer, self._on_error)
        opening = sum(image.views.seconds for image in images if image.views is not None)
        self._scheduler.waiting.append(Job(record.asked.messages, images, answer, seconds={"open": opening}))

    def _job_image(self, opened: JobImage | Clip) -> JobImage:
        if isinstance(opened, JobImage):
            # Records may share it, and the scheduler keeps in it what it encodes.
            return JobImage(opened.key, opened.max_tiles, False, opened.views, opened.cached)
        encoded = CachedImage(encode(self._model, self._processor, opened), (opened.height, opened.width))
        # Not kept for others, so it needs no key.
        return JobImage("", 1, False, cached=encoded)


class _Answer:
    """Takes the events of one record."""

    def __init__(
        self, index: int, on_answer: Callable[[int, dict[str, Any]], None], on_error: Callable[[int, str], None]
    ) -> None:
        self._index, self._on_answer, self._on_error = index, on_answer, on_error
        self._texts: list[str] = []
        self._images: Sequence[dict[str, Any]] = ()

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._images = event.images
            case Text():
                self._texts.append(event.text)
            case Done():
                self._on_answer(self._index, self._fields(event))
            case Failed():
                self._on_error(self._index, _message(event))

    def _fields(self, done: Done) -> dict[str, Any]:
        usage = done.usage
        return {
            "answer": "".join(self._texts),
            "finish": done.reason,
            "grids": [image["grid"] for image in self._images],
            "tokens": {
                "text": usage.text,
                "global": usage.global_,
                "local": usage.local_before,
                "kept": usage.local,
                "new": usage.new,
            },
            "seconds": {step: round(value, 4) for step, value in done.seconds.items()},
        }


def _message(failed: Failed) -> str:
    message = failed.message
    if _SHORTEN in message:
        message = f"{message.split(_SHORTEN)[0]}; lower --max-local-tokens or --max-tiles, or raise --max-length"
    if failed.status == 503:
        message = "out of memory; run the same command with fewer --slots"
    return message
