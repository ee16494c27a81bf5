"""Model cards: of saved folders, and of what is pushed to the hub."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers.utils.hub
from huggingface_hub import ModelCard
from huggingface_hub.errors import EntryNotFoundError

from slime_vlm.model.hub_card import base_models, write_card
from slime_vlm.model.hub_stub import STUB_FILE
from tests.saved_folder import assert_auto_classes_find_it, card_of
from tests.tiny_reader import tiny_reader

TAGS = ["slime", "vision-language-model", "high-resolution"]


class Hub:
    """A hub that takes every commit, and has `card` as the README.md of every repository, or none."""

    def __init__(self, card: str | None = None) -> None:
        self.card = card
        self.files: dict[str, str] = {}

    def create_repo(self, repo_id: str, **kwargs: Any) -> Any:
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(self, operations: list[Any], **kwargs: Any) -> None:
        for operation in operations:
            content = Path(operation.path_or_fileobj).read_bytes()
            self.files[operation.path_in_repo] = content.decode(errors="replace")

    def load_card(self, repo_id: str, **kwargs: Any) -> ModelCard:
        if self.card is None:
            raise EntryNotFoundError("no README.md")
        return ModelCard(self.card)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers.") and "hf_api" in vars(module):
            monkeypatch.setattr(module, "hf_api", lambda: hub)
    monkeypatch.setattr(transformers.utils.hub.ModelCard, "load", hub.load_card)
    return hub


def unpacked(hub: Hub, folder: Path) -> Path:
    folder.mkdir()
    for name, text in hub.files.items():
        (folder / name).write_text(text)
    return folder


def test_a_saved_model_has_a_card(tmp_path: Path) -> None:
    model, processor = tiny_reader()
    model.config.text_config._name_or_path = "owner/words"
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    fields, body = card_of(tmp_path)
    assert fields == {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": "unknown",
        "tags": TAGS,
        "base_model": ["owner/words"],
    }
    assert 'slime_vlm.load("FOLDER")' in body
    assert "- owner/words" in body
    assert_auto_classes_find_it(tmp_path)


def test_a_card_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Mine.")
    tiny_reader()[0].save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "Mine."


def test_only_the_main_process_writes_a_card(tmp_path: Path) -> None:
    tiny_reader()[0].save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("way", ["push_to_hub", "save_pretrained"])
def test_a_pushed_model_has_our_card(hub: Hub, way: str, tmp_path: Path) -> None:
    model, processor = tiny_reader()
    model.add_model_tags(["documents"])
    if way == "push_to_hub":
        model.push_to_hub("me/mine")
    else:
        model.save_pretrained(str(tmp_path / "mine"), push_to_hub=True, repo_id="me/mine")
    fields, body = card_of(unpacked(hub, tmp_path / "pushed"))
    assert (fields["pipeline_tag"], fields["tags"]) == ("image-text-to-text", [*TAGS, "documents"])
    assert body.startswith("\n# me/mine\n")
    assert "--model me/mine\n" in body
    assert {"config.json", "model.safetensors", STUB_FILE} <= set(hub.files)
    # The processor follows, and leaves the card alone. transformers itself drops comments in its metadata.
    hub.card = hub.files.pop("README.md")
    processor.push_to_hub("me/mine")
    assert card_of(unpacked(hub, tmp_path / "both")) == (fields, body)
    assert_auto_classes_find_it(tmp_path / "both")


def test_a_card_of_the_repository_stays(hub: Hub) -> None:
    hub.card = "---\nlicense: mit\n---\n\nWritten by hand.\n"
    tiny_reader()[0].push_to_hub("me/mine")
    assert hub.files["README.md"] == hub.card


def test_a_processor_that_is_pushed_first(hub: Hub, tmp_path: Path) -> None:
    tiny_reader()[1].push_to_hub("me/mine")
    fields, _ = card_of(unpacked(hub, tmp_path / "pushed"))
    assert fields["pipeline_tag"] == "image-text-to-text"
    assert "base_model" not in fields


@pytest.mark.parametrize("part", ["processor", "image processor", "config"])
def test_parts_that_are_saved_to_the_hub_have_no_card(hub: Hub, part: str, tmp_path: Path) -> None:
    model, processor = tiny_reader()
    saved: Any = {"processor": processor, "image processor": processor.image_processor, "config": model.config}[part]
    # The repository may have a card, and transformers does not look for it here.
    saved.save_pretrained(str(tmp_path / "mine"), push_to_hub=True, repo_id="me/mine")
    assert STUB_FILE in hub.files
    assert "README.md" not in hub.files


def test_base_models_are_hub_ids(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    cached = "/home/me/.cache/huggingface/hub/models--owner--some-words/snapshots/0123"

    def found(*names: str | None) -> list[str]:
        own, vision, text = (SimpleNamespace(_name_or_path=name) for name in names)
        return base_models(SimpleNamespace(**vars(own), vision_config=vision, text_config=text))

    assert found("owner/model", "", cached) == ["owner/model", "owner/some-words"]
    assert found(str(tmp_path / "model"), None, "./model") == []
    assert found("runs", "../a", "a/b/c") == []
    assert base_models(SimpleNamespace()) == []


def test_checkpoints_that_a_model_was_made_from(tmp_path: Path) -> None:
    config = SimpleNamespace(_name_or_path="owner/model")
    write_card(tmp_path, config, sources=["/hub/models--me--eye/snapshots/1", tmp_path, "owner/model", "owner/words"])
    fields, body = card_of(tmp_path)
    assert fields["base_model"] == ["me/eye", "owner/model", "owner/words"]
    assert body.endswith("## Made from\n\n- me/eye, revision 1\n- owner/model\n- owner/words\n")


def test_a_card_without_a_config(tmp_path: Path) -> None:
    write_card(tmp_path)
    fields, body = card_of(tmp_path)
    assert "base_model" not in fields
    assert "## Made from" not in body
