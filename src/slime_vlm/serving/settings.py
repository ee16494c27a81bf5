"""Settings of the server, from options of the command line and from the environment (`SLIME_SERVE_...`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from slime_vlm.checkpoints.shipped import DEFAULT_MODEL
from slime_vlm.errors import ConfigError

_PREFIX = "SLIME_SERVE_"


class Settings(BaseSettings):
    """Settings of the server. Each can be set in the environment, as `SLIME_SERVE_MAX_QUEUE=16`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", protected_namespaces=())

    model: str = DEFAULT_MODEL
    """Name under which requests and `/v1/models` know the model."""
    api_keys: list[str] = []
    """Keys that requests may carry, as JSON in the environment. Empty lets everyone in."""
    api_key_file: Path | None = None
    """File with further keys, one a line."""
    cors_origins: list[str] = []
    """Web pages of these origins may call the server."""
    allow_url: bool = False
    """Whether images may be given as http(s) addresses."""
    max_download_mb: float = Field(default=50, gt=0)
    """Largest download of an image."""
    log_prompts: bool = False
    """Whether the log holds the texts of requests and answers."""

    max_body_mb: float = Field(default=64, gt=0)
    """Largest body of a request."""
    max_images: int = Field(default=16, ge=1)
    """Most images of a request."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Largest height times width of an image."""
    max_tiles: int = Field(default=64, ge=1)
    """Most tiles that a request may ask for. The default of an image is the model's."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer, and its default."""
    max_length: int = Field(default=4096, ge=16)
    """Longest row of prompt and answer, after selection. A shorter limit of the model goes first."""
    timeout: float = Field(default=300, gt=0)
    """Seconds after which a request is given up."""

    slots: int = Field(default=16, ge=1)
    """How many requests decode together."""
    max_queue: int = Field(default=128, ge=0)
    """How many more requests may wait."""
    prefill_chunk: int = Field(default=512, ge=1)
    """How many tokens of a prompt are processed between two decoding steps."""
    encoder_cache_mb: float = Field(default=512, ge=0)
    """Memory for encoded images."""

    decoders: int = Field(default=2, ge=1)
    """Processes that decode images."""
    decode_timeout: float = Field(default=30, gt=0)
    """Seconds that the decoding of an image may take."""
    decode_memory_mb: int = Field(default=3000, ge=256)
    """Memory of a decoding process."""

    def all_api_keys(self) -> list[str]:
        """Return all API keys.

        Raises:
            ConfigError: The file of keys cannot be read, or has none.
        """
        if self.api_key_file is None:
            return self.api_keys
        try:
            lines = self.api_key_file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.api_key_file}: the API keys cannot be read ({error})") from None
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise ConfigError(f"{self.api_key_file}: it has no API key, expected one a line")
        return [*self.api_keys, *found]


def read_settings(**options: Any) -> Settings:
    """Return the settings. Options that are None come from the environment, or are the defaults.

    Raises:
        ConfigError: A value has a wrong type or is out of range.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the server's setting {name} ({_PREFIX}{name.upper()}): {first['msg']}") from None
