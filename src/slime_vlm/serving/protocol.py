"""Requests and errors in OpenAI's shape. `slime` objects hold what goes beyond it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from slime_vlm.errors import MediaError
from slime_vlm.media import DPI, Window

_MAX_STOPS = 4

# Fields of OpenAI that change the answer and that the server does not have, with the values that ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
}


class ApiError(Exception):
    """A refusal with its HTTP status, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        kinds = {401: "authentication_error", 404: "not_found_error", 504: "timeout_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class TextPart(BaseModel):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """An image: a data URI, or an address where the server allows it."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(BaseModel):
    """An image of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl

    @field_validator("image_url", mode="before")
    @classmethod
    def _plain_address(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class Message(BaseModel):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]

    @property
    def parts(self) -> list[TextPart | ImagePart]:
        """The content as parts."""
        return [TextPart(type="text", text=self.content)] if isinstance(self.content, str) else self.content


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool = False


class SlimeOptions(BaseModel):
    """What SliME can do beyond OpenAI's fields, for all images of a request."""

    model_config = ConfigDict(extra="forbid")

    max_local_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_tiles: int | None = Field(default=None, ge=1, le=10_000)
    selector_top_p: float | None = Field(default=None, gt=0, le=1)
    page: int | None = Field(default=None, ge=1, le=999_999_999)
    dpi: float = Field(default=DPI, ge=10, le=1200)
    window: str | None = Field(default=None, max_length=100)
    explain: bool = False

    @field_validator("window")
    @classmethod
    def _readable_window(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                Window.parse(value)
            except MediaError as error:
                raise ValueError(str(error).replace("--window", "window")) from None
        return value


class ChatRequest(BaseModel):
    """A request to `/v1/chat/completions`. Fields of OpenAI that ask for nothing are accepted, whatever they are."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    slime: SlimeOptions = SlimeOptions()

    @model_validator(mode="after")
    def _only_what_there_is(self) -> ChatRequest:
        for name, harmless in _UNSUPPORTED.items():
            value = (self.model_extra or {}).get(name)
            if value is not None and value not in harmless:
                raise ValueError(f"{name} is {value!r:.80}, and this server supports no {name}; leave it out")
        if len(self.stops) > _MAX_STOPS or not all(self.stops):
            raise ValueError(f"stop has {len(self.stops)} texts, expected at most {_MAX_STOPS}, none of them empty")
        return self

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def max_new_tokens(self) -> int | None:
        """The longest answer that was asked for."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


def parse_request(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        ApiError: The body is not JSON, or a field is wrong; the message names it.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{where}: {message}" if where else message, param=where or None) from None
