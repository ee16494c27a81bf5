"""Serve a model on a Ray cluster: replicas that scale with the load, behind one address of OpenAI's API.

    pip install "slime-vlm[ray]"
    python examples/ray/serve.py --model nano --min-replicas 2 --max-replicas 8

Each replica runs a server of its own and passes requests on to it: `slime serve`, or what --command starts, such as
vLLM's server, which may be in another environment:

    python examples/ray/serve.py --command "vllm-env/bin/python -m vllm.entrypoints.openai.api_server --model /models/slime-8b --port {port}"

When a replica is lost, its requests go to another one. An answer that was streamed in part goes on where it was: its
events are made again and those that were sent are left out. So that the second answer is the first one, requests that
sample get a seed here, unless they have one.
"""  # noqa: E501

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

LOG = logging.getLogger("ray.serve")
START_SECONDS = 1800.0
# How many replicas may be lost with a request before it is refused.
TRIES = 4
# Of the connection alone, so they are not passed on.
OWN_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}

Head = tuple[int, dict[str, str]]


@serve.deployment(health_check_period_s=5)
class Replica:
    """A server in a process of its own, which Ray ends together with the replica.

    Args:
        command: Command of the server, with `{port}` where its port belongs.
    """

    async def __init__(self, command: list[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._server = subprocess.Popen([part.replace("{port}", str(port)) for part in command])
        # Requests end when the client or the server ends them.
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )
        deadline = time.monotonic() + START_SECONDS
        while not await self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start within {START_SECONDS:g} seconds")
            await asyncio.sleep(0.2)

    async def _answers(self) -> bool:
        if self._server.poll() is not None:
            raise RuntimeError(f"the server has ended with exit code {self._server.returncode}")
        try:
            async with self._session.get("/health") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def check_health(self) -> None:
        """Tell Ray whether to replace this replica."""
        if not await self._answers():
            raise RuntimeError("the server does not answer")

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> AsyncIterator[Head | bytes]:
        """Yield status and headers, and then the body: event by event if it is a stream, else as a whole."""
        async with self._session.request(method, path, headers=headers, data=body) as response:
            streams = response.content_type == "text/event-stream"
            whole = b"" if streams else await response.read()
            kept = {name: value for name, value in response.headers.items() if name.lower() not in OWN_HEADERS}
            yield response.status, {**kept, "slime-replica": f"{socket.gethostname()}/{os.getpid()}"}
            if not streams:
                yield whole
                return
            rest = b""
            async for chunk in response.content.iter_any():
                *events, rest = (rest + chunk).split(b"\n\n")
                for event in events:
                    yield event + b"\n\n"
            if rest:
                yield rest

    def __del__(self) -> None:
        self._server.terminate()


@serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
class Ingress:
    """Takes requests, and repeats those whose replica is lost.

    Args:
        replicas: The replicas.
    """

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas.options(method_name="answer", stream=True)

    async def __call__(self, request: Request) -> Response:
        """Pass a request on."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers = {name: value for name, value in request.headers.items() if name not in OWN_HEADERS}
        body = await asyncio.to_thread(with_seed, await request.body())
        parts = self._parts(request.method, path, headers, body)
        try:
            head = await anext(parts)
        except RayError as error:
            message = f"{TRIES} replicas were lost with this request ({type(error).__name__})"
            return JSONResponse({"error": {"message": message, "type": "server_error", "code": "replica_lost"}}, 502)
        assert isinstance(head, tuple)
        return StreamingResponse(parts, *head)

    async def _parts(self, *request: Any) -> AsyncIterator[Any]:
        num_sent = 0
        for number in range(1, TRIES + 1):
            left_out = num_sent
            try:
                async for part in self._replicas.remote(*request):
                    if left_out:
                        left_out -= 1
                        continue
                    num_sent += 1
                    yield part
                return
            # The replica, or the server in it.
            except RayError as error:
                if number == TRIES:
                    raise
                LOG.warning("a replica was lost with a request, which goes to another one: %s", type(error).__name__)
                await asyncio.sleep(0.1 * number)


def with_seed(body: bytes) -> bytes:
    """Return a request that has the same answer wherever it is asked."""
    try:
        fields = json.loads(body)
    except ValueError:
        return body
    if not isinstance(fields, dict) or not fields.get("temperature") or fields.get("seed") is not None:
        return body
    return json.dumps({**fields, "seed": random.getrandbits(31)}).encode()


def build_app(options: argparse.Namespace) -> serve.Application:
    """Return the application of some options."""
    command = [sys.executable, "-m", "slime_vlm", "serve", "--port", "{port}", "--model", options.model]
    scaling = {
        "min_replicas": options.min_replicas,
        "max_replicas": max(options.min_replicas, options.max_replicas),
        "target_ongoing_requests": options.target_requests,
    }
    replicas = Replica.options(
        autoscaling_config=scaling,
        max_ongoing_requests=options.max_requests,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
    )
    return Ingress.bind(replicas.bind(shlex.split(options.command) if options.command else command))


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="model of slime serve, at the same path on all machines")
    parser.add_argument("--command", help="another server, with {port} in its place; it needs the route /health")
    parser.add_argument("--address", help="Ray cluster; without it that of this machine, or a new one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--min-replicas", type=int, default=1)
    parser.add_argument("--max-replicas", type=int, default=4)
    parser.add_argument("--target-requests", type=float, default=16, help="requests of a replica before there are more")
    parser.add_argument("--max-requests", type=int, default=64, help="most requests of a replica, the others wait")
    parser.add_argument("--cpus", type=float, default=1, help="CPUs of a replica")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a replica")
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(address=options.address)
    serve.start(http_options={"host": options.host, "port": options.port})
    try:
        serve.run(build_app(options), blocking=True)
    finally:
        # On a cluster of its own Serve would go on without this process.
        serve.shutdown()


if __name__ == "__main__":
    main()
