"""What every folder of a model holds, so that transformers' Auto classes load it wherever slime-vlm is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from slime_vlm.model.hub_stub import CONFIG_AUTO_MAP, IMAGE_PROCESSOR_AUTO_MAP, PROCESSOR_AUTO_MAP, STUB, STUB_FILE


def assert_auto_classes_find_it(folder: Path, processor: bool = True) -> None:
    """Check the stub, and the `auto_map` of every JSON file that has one."""
    assert (folder / STUB_FILE).read_text(encoding="utf-8") == STUB
    assert [path.name for path in folder.glob("*.py")] == [STUB_FILE]
    expected: dict[str, Any] = {"config.json": CONFIG_AUTO_MAP}
    if processor:
        expected |= {"processor_config.json": PROCESSOR_AUTO_MAP, "tokenizer_config.json": PROCESSOR_AUTO_MAP}
    for name, auto_map in expected.items():
        assert json.loads((folder / name).read_text(encoding="utf-8"))["auto_map"] == auto_map, name
    if processor:
        fields = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
        assert fields["image_processor"]["auto_map"] == IMAGE_PROCESSOR_AUTO_MAP


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """Metadata and text of the folder's model card."""
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body
