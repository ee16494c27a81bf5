"""A server on this machine that answers huggingface_hub's client as the hub does, from folders."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


class Hub(ThreadingHTTPServer):
    """Repositories of models by id, each a folder at one commit and one tag.

    Attributes:
        repositories: The folders by id.
        announced: Sizes that are announced for other ones than the files have, by path in any repository.
        fetched: The paths of the files that were fetched.
    """

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = dict(repositories)
        self.announced: dict[str, int] = {}
        self.fetched: list[str] = []

    def commit(self, repository: str) -> str:
        return hashlib.sha1(repository.encode(), usedforsecurity=False).hexdigest()

    def size(self, repository: str, path: str) -> int:
        return self.announced.get(path, (self.repositories[repository] / path).stat().st_size)


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        listing = parts[:2] == ["api", "models"]
        repository, action, revision, path = (
            "/".join(parts[2:4] if listing else parts[:2]),
            *(parts[4:6] if listing else parts[2:4]),
            "/".join(parts[6:] if listing else parts[4:]),
        )
        folder = self.server.repositories.get(repository)
        if folder is None:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", "v1", self.server.commit(repository)):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif action == "revision":
            self._answer(200, json.dumps({"id": repository, "sha": self.server.commit(repository)}).encode())
        elif action == "tree":
            files = sorted(found.relative_to(folder).as_posix() for found in folder.rglob("*") if found.is_file())
            entries = [
                {"type": "file", "path": name, "size": self.server.size(repository, name), "oid": name}
                for name in files
            ]
            self._answer(200, json.dumps(entries).encode())
        elif (folder / path).is_file():
            if self.command == "GET":
                self.server.fetched.append(path)
            size = self.server.size(repository, path)
            headers = {"ETag": f'"{path}"', "X-Repo-Commit": self.server.commit(repository)}
            self._answer(200, (folder / path).read_bytes(), headers, size)
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] = {}, size: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(repositories: Mapping[str, Path], cache: Path) -> Iterator[Hub]:
    """Serve repositories to the hub's client in this process, which keeps them in a cache of its own."""
    hub = Hub(repositories)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{hub.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        constants = "huggingface_hub.constants"
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setattr(f"{constants}.ENDPOINT", address)
        patch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
        patch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
        try:
            yield hub
        finally:
            hub.shutdown()
            hub.server_close()
            thread.join()
