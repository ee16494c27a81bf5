"""Requests that schemathesis makes up from the OpenAPI document: whatever comes, the server does not fail."""

from __future__ import annotations

import os
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.serving.conftest import Running, asking, drawn

CASES = int(os.environ.get("OPENAPI_CASES", "100"))
"""Requests to make up: few in the suite, `OPENAPI_CASES=1000` for all that the server has to bear."""


@pytest.mark.slow
def test_no_request_makes_the_server_fail(tiny_server: Running) -> None:
    document = schemathesis.openapi.from_url(f"{tiny_server.url}/openapi.json")
    quiet = settings(deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    count = 0
    for found in document.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(parent=quiet, max_examples=CASES if operation.method == "post" else 20)
        def try_one(case: Any) -> None:
            nonlocal count
            count += 1
            response = case.call(session=session)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert set(response.json()["error"]) == {"message", "type", "param", "code"}

        with requests.Session() as session:
            try_one()
    assert count > CASES


def test_the_document_describes_the_request(tiny_server: Running) -> None:
    found = tiny_server.client.get("/openapi.json").json()["paths"]
    assert set(found) == {"/v1/chat/completions", "/v1/models", "/v1/models/{name}", "/health", "/ready", "/metrics"}
    request = found["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "stream", "slime", "max_completion_tokens"} <= set(request["properties"])
    assert tiny_server.post(asking("?", drawn("x")), max_tokens=1).status_code == 200
