"""Code that lies in a folder or is named by a config is never executed."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import slime_vlm
from slime_vlm.checkpoints.from_pretrained_parts import assemble
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.errors import CheckpointError
from tests.checkpoints.pretrained_parts.families import write_language_model, write_tower
from tests.tiny_published import write_published

CLASSES = "AutoConfig AutoModel AutoModelForCausalLM AutoModelForImageTextToText AutoProcessor AutoImageProcessor"


def plant(folder: Path, marker: Path) -> None:
    """Put code into a folder, and name it wherever transformers looks for such names."""
    code = f"open({str(marker)!r}, 'w').close()\n"
    (folder / "evil.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    named = {**{name: "evil.Evil" for name in CLASSES.split()}, "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    for path in folder.glob("*config.json"):
        fields: dict[str, Any] = json.loads(path.read_text())
        for part in (fields, *(value for value in fields.values() if isinstance(value, dict))):
            part["auto_map"] = named
        path.write_text(json.dumps(fields))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.mark.parametrize("layout", ["published", "native"])
def test_loading_a_folder(tmp_path: Path, marker: Path, layout: str) -> None:
    folder = write_published(tmp_path / "published")
    if layout == "native":
        convert(folder, tmp_path / "native")
        folder = tmp_path / "native"
    plant(folder, marker)
    slime_vlm.load(folder, device="cpu")
    assert not marker.exists()


def test_making_a_model_of_parts(tmp_path: Path, marker: Path) -> None:
    vision, llm = write_tower(tmp_path / "clip", "clip"), write_language_model(tmp_path / "llama", "llama", "vicuna")
    for folder in (vision, llm):
        plant(folder, marker)
    assemble(str(vision), str(llm), fields={"num_local_queries": 4, "query_attention_head_dim": 8})
    assert not marker.exists()
    # A type that only the folder's code knows. transformers would ask on the terminal whether to run it.
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, "model_type": "evil"}))
    with pytest.raises(CheckpointError, match="is not a language model"):
        assemble(str(vision), str(llm))
    assert not marker.exists()


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_of_the_hub_is_refused(tmp_path: Path, field: str) -> None:
    convert(write_published(tmp_path / "published"), tmp_path / "native")
    config = json.loads((tmp_path / "native" / "config.json").read_text())
    config["text_config"][field] = "owner/kernel"
    (tmp_path / "native" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="which is code on the hub"):
        slime_vlm.load(tmp_path / "native", device="cpu")
    llm = write_language_model(tmp_path / "llama", "llama", "vicuna")
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, "_attn_implementation": "owner/kernel"}))
    with pytest.raises(CheckpointError, match="which is code on the hub"):
        assemble(str(write_tower(tmp_path / "clip", "clip")), str(llm))


def test_every_call_says_so() -> None:
    calls = [
        (f"{path.name}:{node.lineno}", {keyword.arg for keyword in node.keywords})
        for path in Path(slime_vlm.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config")
        and ast.unparse(node.func.value).startswith(("Auto", "SlimeConfig", "SlimeForConditionalGeneration"))
    ]
    assert len(calls) > 8
    assert [place for place, keywords in calls if "trust_remote_code" not in keywords] == []
