"""The routes of the server."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from slime_vlm import __version__
from slime_vlm.serving.completions import Answered, chunk, completion, new_id
from slime_vlm.serving.decoding import DecoderPool
from slime_vlm.serving.encoder_cache import EncoderCache
from slime_vlm.serving.engine import Engine, Events
from slime_vlm.serving.images import ImageLoader
from slime_vlm.serving.jobs import Done, Failed, Job, Sampling, Started, Text
from slime_vlm.serving.metrics import Metrics
from slime_vlm.serving.protocol import ApiError, ChatRequest, ImagePart, ImageUrl, parse_request
from slime_vlm.serving.scheduler import Scheduler
from slime_vlm.serving.settings import Settings
from slime_vlm.serving.web_page import add_web_page

if TYPE_CHECKING:
    from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
    from slime_vlm.processing.processing_slime import SlimeProcessor

_LOG = logging.getLogger("slime_vlm.serving")
_T = TypeVar("_T")


class Server:
    """The parts of a server, and how a request passes through them.

    Args:
        model: The model.
        processor: Its processor.
        settings: Settings of the server.
    """

    def __init__(self, model: SlimeForConditionalGeneration, processor: SlimeProcessor, settings: Settings) -> None:
        self.settings, self.processor, self.metrics = settings, processor, Metrics()
        self.keys = [key.encode() for key in settings.all_api_keys()]
        self.cache = EncoderCache(int(settings.encoder_cache_mb * 2**20))
        self.engine = Engine(Scheduler(model, processor, self.cache, settings, self.metrics))
        self.decoders = DecoderPool(settings.decoders, settings.decode_memory_mb, settings.decode_timeout, self.metrics)
        self.images = ImageLoader(
            processor.image_processor, model.config.views, self.decoders, self.cache, settings, self.metrics
        )
        self.created = int(time.time())
        self.in_flight = 0

    async def check_key(self, request: Request) -> None:
        """Refuse a request without one of the API keys.

        Raises:
            ApiError: The key is missing or wrong.
        """
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip().encode()
        # Every key is compared, so that the time tells nothing about them.
        if self.keys and not any([hmac.compare_digest(given, key) for key in self.keys]):
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")

    def check_room(self) -> None:
        """Refuse a request when there are too many.

        Raises:
            ApiError: The server has as many as it takes.
        """
        limit = self.settings.slots + self.settings.max_queue
        if self.in_flight >= limit:
            raise ApiError(
                503, f"the server has {limit} requests already; try again later", code="overloaded", retry_after=1
            )

    async def read_body(self, request: Request) -> bytes:
        """Read the body of a request.

        Raises:
            ApiError: It is too large.
        """
        limit = int(self.settings.max_body_mb * 1e6)
        parts, size = [], int(request.headers.get("content-length") or 0)
        too_large = ApiError(413, f"the request is larger than {self.settings.max_body_mb:g} MB", code="too_large")
        if size > limit:
            raise too_large
        size = 0
        try:
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise too_large
        except ClientDisconnect:
            raise _ClientGone from None
        return b"".join(parts)

    async def load(self, request: ChatRequest) -> Job:
        """Decode the images of a request, and make it a job.

        Raises:
            ApiError: The model is another one, or an image cannot be loaded.
        """
        if request.model not in ("", self.settings.model):
            raise ApiError(
                404,
                f"the model {request.model!r:.80} does not exist; this server has {self.settings.model!r}",
                param="model",
                code="model_not_found",
            )
        start = time.perf_counter()
        token, messages = self.processor.image_token, []
        sources: list[tuple[ImageUrl, str]] = []
        for number, message in enumerate(request.messages):
            content: list[dict[str, Any]] = []
            for index, part in enumerate(message.parts):
                if isinstance(part, ImagePart):
                    content.append({"type": "image"})
                    sources.append((part.image_url, f"messages.{number}.content.{index}"))
                else:
                    # The word for an image is a word here. Images come as parts of their own.
                    content.append({"type": "text", "text": part.text.replace(token, "\\" + token)})
            role = "system" if message.role == "developer" else message.role
            if role != "user" and not all(part["type"] == "text" for part in content):
                raise ApiError(400, "only messages of the user can have images", param=f"messages.{number}")
            plain = "".join(part["text"] for part in content) if role != "user" else content
            messages.append({"role": role, "content": plain})
        if len(sources) > self.settings.max_images:
            raise ApiError(400, f"the request has {len(sources)} images, the server allows {self.settings.max_images}")
        images = await _all([self.images.load(source, request.slime, param) for source, param in sources])
        decoding = sum(image.views.seconds for image in images if image.views is not None)
        return Job(
            messages,
            images,
            emit=lambda event: None,
            max_new_tokens=request.max_new_tokens,
            stops=request.stops,
            sampling=Sampling(request.temperature or 0.0, request.top_p or 1.0, request.seed),
            max_local_tokens=request.slime.max_local_tokens,
            selector_top_p=request.slime.selector_top_p,
            seconds={"load": time.perf_counter() - start, "decode_images": decoding},
        )

    async def answer(self, request: Request) -> Response:
        """Answer a request to `/v1/chat/completions`.

        Raises:
            ApiError: It cannot be answered.
        """
        self.check_room()
        self.in_flight += 1
        deadline = time.monotonic() + self.settings.timeout
        job: Job | None = None
        streams = False
        try:
            async with asyncio.timeout(self.settings.timeout):
                chat = await asyncio.to_thread(parse_request, await self.read_body(request))
                job = await _unless_gone(request, self.load(chat))
            job.deadline = deadline
            events = self.engine.submit(job)
            first = await _unless_gone(request, anext(aiter(events)))
            if isinstance(first, Failed):
                raise ApiError(first.status, first.message, code=first.code)
            assert isinstance(first, Started)
            answered = Answered(new_id(), self.settings.model, chat, first)
            if chat.stream:
                streams = True
                return _Stream(self._stream(events, answered), on_end=partial(self._end, job))
            return JSONResponse(await _unless_gone(request, self._collect(events, answered)))
        except TimeoutError:
            raise ApiError(
                504, f"the request took longer than {self.settings.timeout:g} seconds", code="timeout"
            ) from None
        finally:
            if not streams:
                self._end(job)

    def _end(self, job: Job | None) -> None:
        self.in_flight -= 1
        if job is not None:
            # Frees its slot, if it still has one.
            job.cancelled = True

    async def _collect(self, events: Events, answered: Answered) -> dict[str, Any]:
        text = ""
        async for event in events:
            if isinstance(event, Text):
                text += event.text
            elif isinstance(event, Failed):
                raise ApiError(event.status, event.message, code=event.code)
            elif isinstance(event, Done):
                self._log(answered, text, event)
                return completion(answered, text, event)
        raise AssertionError("events end with Done or Failed")

    async def _stream(self, events: Events, answered: Answered) -> AsyncIterator[str]:
        text = ""
        yield _event(chunk(answered, {"role": "assistant", "content": ""}, started=True))
        async for event in events:
            if isinstance(event, Text):
                text += event.text
                yield _event(chunk(answered, {"content": event.text}))
            elif isinstance(event, Failed):
                yield _event(ApiError(event.status, event.message, code=event.code).body)
                return
            elif isinstance(event, Done):
                self._log(answered, text, event)
                yield _event(chunk(answered, {}, done=event))
                if answered.request.stream_options and answered.request.stream_options.include_usage:
                    yield _event(chunk(answered, None, done=event))
        yield "data: [DONE]\n\n"

    def _log(self, answered: Answered, text: str, done: Done) -> None:
        fields: dict[str, Any] = {
            "event": "answered",
            "id": answered.id,
            "images": len(answered.started.images),
            "reason": done.reason,
            "tokens": {"prompt": done.usage.prompt, "new": done.usage.new},
            "seconds": {step: round(value, 4) for step, value in done.seconds.items()},
        }
        if self.settings.log_prompts:
            fields["prompt"] = [part.text for m in answered.request.messages for part in m.parts if part.type == "text"]
            fields["answer"] = text
        _LOG.info(json.dumps(fields, ensure_ascii=False))


def create_app(
    model: SlimeForConditionalGeneration, processor: SlimeProcessor, settings: Settings | None = None
) -> FastAPI:
    """Make the application. Its `state.server` is the `Server`.

    Args:
        model: The model. From now on it belongs to the server.
        processor: Its processor.
        settings: Settings of the server.
    """
    settings = settings or Settings()
    server = Server(model, processor, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await server.decoders.start()
        server.engine.start()
        yield
        await asyncio.to_thread(server.engine.stop)
        await server.decoders.stop()

    app = FastAPI(title="slime serve", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    _answer_errors_in_openais_shape(app, server)
    guarded = [Depends(server.check_key)]

    @app.post("/v1/chat/completions", dependencies=guarded, openapi_extra=_request_body())
    async def chat_completions(request: Request) -> Response:
        """Answer the last message of a conversation."""
        response = await server.answer(request)
        server.metrics.requests.labels("200").inc()
        return response

    @app.get("/v1/models", dependencies=guarded)
    async def models() -> dict[str, Any]:
        """List the one model."""
        return {"object": "list", "data": [server_model()]}

    @app.get("/v1/models/{name:path}", dependencies=guarded)
    async def one_model(name: str) -> dict[str, Any]:
        """Describe the model."""
        if name != settings.model:
            raise ApiError(404, f"the model {name!r:.80} does not exist", param="model", code="model_not_found")
        return server_model()

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Tell whether the server answers questions."""
        if not server.engine.is_alive:
            raise ApiError(503, "the model is not running", code="not_ready")
        return {"status": "ready"}

    @app.get("/metrics", dependencies=guarded)
    async def metrics() -> Response:
        """Return counters for Prometheus."""
        server.metrics.cache_bytes.set(server.cache.num_bytes)
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def server_model() -> dict[str, Any]:
        return {"id": settings.model, "object": "model", "created": server.created, "owned_by": "slime-vlm"}

    add_web_page(app, server)
    return app


def _answer_errors_in_openais_shape(app: FastAPI, server: Server) -> None:
    def refusal(error: ApiError) -> JSONResponse:
        server.metrics.requests.labels(str(error.status)).inc()
        server.metrics.errors.labels(error.code or str(error.status)).inc()
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(ApiError)
    async def of_ours(_: Request, error: ApiError) -> JSONResponse:
        return refusal(error)

    @app.exception_handler(HTTPException)
    async def of_routes(_: Request, error: HTTPException) -> JSONResponse:
        response = refusal(ApiError(error.status_code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def of_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        return refusal(ApiError(400, str(error.errors()[0]["msg"])))

    @app.exception_handler(Exception)
    async def of_defects(_: Request, error: Exception) -> JSONResponse:
        return refusal(ApiError(500, "the server failed; its log has more"))


class _Stream(StreamingResponse):
    """Server-sent events. `on_end` is called when they end, also where the client goes before the first one."""

    def __init__(self, events: AsyncIterator[str], on_end: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


class _ClientGone(ApiError):
    """The client has closed the connection. Nobody sees this answer."""

    def __init__(self) -> None:
        super().__init__(499, "the client has closed the connection", code="client_gone")


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _T] | Awaitable[_T]) -> _T:
    """Wait for some work, or for the client to go, which cancels it."""
    task: asyncio.Future[_T] = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    both: set[asyncio.Future[Any]] = {task, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _ClientGone
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _all(work: list[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Run coroutines together. The first error ends all of them."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in work]
    except* ApiError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _event(fields: dict[str, Any]) -> str:
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n"


def _request_body() -> dict[str, Any]:
    """Describe the body in the OpenAPI document. It is read by hand, off the event loop."""
    # FastAPI collects the schemas of models that it validates itself. References to these stay within this one.
    place = "#/paths/~1v1~1chat~1completions/post/requestBody/content/application~1json/schema/$defs/{model}"
    schema = ChatRequest.model_json_schema(ref_template=place)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
