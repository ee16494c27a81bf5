"""The web page of the server: its files, and the headers that keep it to them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field, ValidationError

from slime_vlm.serving.protocol import ApiError

if TYPE_CHECKING:
    from slime_vlm.serving.app import Server

_FOLDER = Path(__file__).parent / "page"

# The page runs its own scripts and talks to its own server. Images also come from memory: files that the user chose.
# The digest is that of the one rule that OpenSeadragon adds to the page; its other styles go through the object model.
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='",
            "img-src 'self' blob: data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    ),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Files(StaticFiles):
    # A middleware could add the headers, too, but would stand between streams and the clients that leave them.
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(_HEADERS)
        return response


class _PreviewRequest(BaseModel):
    """What the page asks for: a data URI, a page of it, and the largest side in pixels."""

    url: str
    page: int | None = Field(default=None, ge=1, le=999_999_999)
    long_side: int = Field(ge=16, le=65_536)


def add_web_page(app: FastAPI, server: Server) -> None:
    """Serve the page at `/`, its files below `/page/`, and previews of images that browsers do not read.

    Args:
        app: The application.
        server: Reads requests and decodes images.
    """

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index() -> FileResponse:
        """Return the page."""
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    @app.post("/page/preview", dependencies=[Depends(server.check_key)], include_in_schema=False)
    async def preview(request: Request) -> Response:
        """Draw an image or a page of a document. A line of JSON tells about the JPEG files that follow it."""
        server.check_room()
        server.in_flight += 1
        try:
            async with asyncio.timeout(server.settings.timeout):
                body = await server.read_body(request)
                asked = await asyncio.to_thread(_PreviewRequest.model_validate_json, body)
                header, files = await server.images.preview(asked.url, asked.page, asked.long_side)
        except ValidationError as error:
            raise ApiError(400, str(error.errors()[0]["msg"])) from None
        except TimeoutError:
            raise ApiError(504, f"the preview took longer than {server.settings.timeout:g} seconds") from None
        finally:
            server.in_flight -= 1
        return Response(json.dumps(header).encode() + b"\n" + files, media_type="application/octet-stream")

    app.mount("/page", _Files(directory=_FOLDER), name="page")
