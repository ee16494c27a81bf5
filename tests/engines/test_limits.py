"""What the vLLM plug-in refuses. Without vLLM."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

import slime_vlm
from slime_vlm.engines.vllm.limits import budget_of_request, check_servable
from slime_vlm.errors import ConfigError, InputError
from slime_vlm.model.tiling import TokenLayout
from tests.conftest import tiny_config, tiny_model


def test_the_package_imports_without_vllm() -> None:
    program = (
        "import sys; sys.modules['vllm'] = None\n"
        "import slime_vlm, slime_vlm.auto_classes, slime_vlm.engines.vllm, slime_vlm.engines.vllm.limits\n"
        "assert slime_vlm.engines.vllm.ARCHITECTURE == 'SlimeForConditionalGeneration'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_architecture_is_that_of_saved_models() -> None:
    from slime_vlm.engines.vllm import ARCHITECTURE

    assert type(tiny_model()).__name__ == ARCHITECTURE


@pytest.mark.parametrize(
    "fields",
    [
        {"max_local_tokens": 8},
        {"selector_top_p": 1.0},
        {"selector": "none"},
        {"views": "global"},
        {"local_compression": False},
    ],
)
def test_models_with_a_known_number_of_tokens_are_served(fields: dict[str, Any]) -> None:
    check_servable(tiny_config(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "keeps local tokens by selector_top_p 0.95.*--hf-overrides '{\"max_local_tokens\": 256}'"),
        ({"max_local_tokens": 8, "max_sequence_length": 99}, "max_sequence_length 99, .* set vLLM's --max-model-len"),
        ({"max_local_tokens": 8, "keep_position_ids": True}, "has keep_position_ids .*use `slime serve`"),
    ],
)
def test_other_models_are_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_servable(tiny_config(**fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "field"), [("nano", "keep_position_ids"), ("pages", "characters, copy_output")])
def test_shipped_models_are_refused(name: str, field: str) -> None:
    model, _ = slime_vlm.load(name, device="cpu")
    model.config.max_local_tokens = 8
    with pytest.raises(ConfigError, match=f"has .*{re.escape(field)}"):
        check_servable(model.config)


def test_a_budget_beyond_the_servers_is_refused() -> None:
    config = tiny_config(max_local_tokens=8)
    assert [budget_of_request(config, asked) for asked in (None, 1, 8)] == [8, 1, 8]
    for asked, message in ((9, "at most 8"), (0, "at least 1"), ("4", "whole number"), (True, "whole number")):
        with pytest.raises(InputError, match=message):
            budget_of_request(config, asked)
    # Without a budget of the server, all local tokens are kept.
    assert budget_of_request(tiny_config(selector_top_p=1.0), None) is None
    assert budget_of_request(tiny_config(selector_top_p=1.0), 500) == 500
    with pytest.raises(InputError, match="no selector"):
        budget_of_request(tiny_config(selector="none"), 4)


def test_tokens_after_selection_are_counted() -> None:
    layout = TokenLayout(num_global_tokens=16, num_tile_tokens=4, num_separators=1)
    # 16 global tokens, the separator, and of 2 x 3 tiles 24 local tokens.
    assert [layout.num_kept_tokens(2, 3, budget) for budget in (None, 6, 24, 100)] == [41, 23, 41, 41]
