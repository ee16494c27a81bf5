"""The web page of the server: its files, and the headers that keep it to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

_FOLDER = Path(__file__).parent / "page"

# The page runs its own scripts and talks to its own server. Images also come from memory: files that the user chose.
# OpenSeadragon sets styles through the object model, which needs no permission here.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
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


def add_web_page(app: FastAPI) -> None:
    """Serve the page at `/`, and its files below `/page/`.

    Args:
        app: The application.
    """

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        """Return the page."""
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    app.mount("/page", _Files(directory=_FOLDER), name="page")
