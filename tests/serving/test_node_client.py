"""OpenAI's client for Node against the server. Run where `node` is, and the npm package `openai` in OPENAI_NODE."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving.conftest import Running, wait_until

INVOICE = Path(__file__).parents[2] / "examples" / "invoice.png"
PROGRAM = Path(__file__).with_name("openai_client.mjs")
# The folder in which `npm install openai` was run.
PACKAGES = Path(os.environ.get("OPENAI_NODE", "."), "node_modules")

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (PACKAGES / "openai").is_dir(),
    reason="no node, or no npm package openai in the folder OPENAI_NODE",
)


def test_the_openai_client_for_node_asks_about_the_invoice(nano_server: Running, tmp_path: Path) -> None:
    # Modules are looked for beside the program.
    (tmp_path / "node_modules").symlink_to(PACKAGES.absolute())
    program = shutil.copy(PROGRAM, tmp_path)
    command = ["node", program, f"{nano_server.url}/v1", "nano", str(INVOICE), "What is the total?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    whole = found["whole"]
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "$847.97", "refusal": None}
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["slime"]["images"][0]["grid"] == [3, 2]

    chunks = found["chunks"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == found["gathered"] == "$847.97"
    assert len(deltas) > 4
    assert chunks[-1]["choices"] == []
    usage = dict(whole["usage"])
    # The second time, the tokens of the image are in the cache.
    for tokens in (usage, chunks[-1]["usage"]):
        tokens["prompt_tokens_details"].pop("cached_tokens", None)
    assert chunks[-1]["usage"] == usage

    refused = found["refused"]
    assert (refused["type"], refused["status"], refused["code"]) == ("NotFoundError", 404, "model_not_found")
    assert "'other' does not exist" in refused["message"]
    assert found["models"] == ["nano"]
    # The request that was left in the middle frees its place.
    wait_until(lambda: nano_server.server.in_flight == 0)
