"""The architecture of a recipe: its SlimeConfig, without any weights."""

from __future__ import annotations

from typing import Any

from slime_vlm.checkpoints.hub import resolve
from slime_vlm.checkpoints.json_files import read_json
from slime_vlm.checkpoints.layouts import is_published
from slime_vlm.checkpoints.pretrained_parts import text_config_of, vision_config_of
from slime_vlm.checkpoints.published.config import read_published
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.training.pages.labels import page_vocabulary
from slime_vlm.training.pages.tokenizer import build_page_tokenizer
from slime_vlm.training.recipe import Recipe


def recipe_config(recipe: Recipe, overrides: dict[str, Any]) -> SlimeConfig:
    """Return the config of a recipe's model.

    The configs of hub ids are downloaded only if the recipe does not contain them.

    Args:
        recipe: The recipe.
        overrides: SlimeConfig values of a stage.
    """
    source = recipe.model
    fields = {**source.config, **overrides}
    if source.path is not None:
        folder = resolve(source.path)
        published = is_published(read_json(folder / "config.json"))
        config = (
            read_published(folder)[0] if published else SlimeConfig.from_pretrained(folder, trust_remote_code=False)
        )
        for key, value in fields.items():
            setattr(config, key, value)
        config.check()
        return config
    if source.tokenizer == "pages":
        vocabulary = page_vocabulary()
        if fields.get("projector_vocabulary") == "pages":
            fields["projector_vocabulary"] = vocabulary.sizes
        tokenizer: Any = build_page_tokenizer(vocabulary.characters, vocabulary.words)
        ids = tokenizer.convert_tokens_to_ids
        special = {f"{name}_token_id": ids(f"<{name}>") for name in ("bos", "eos", "pad")}
        fields["text_config"] = {**fields["text_config"], "vocab_size": len(tokenizer), **special}
        fields |= {"image_token_id": ids("<image>"), "separator_token_id": ids(","), **special}
        return SlimeConfig(**fields)
    if "vision_config" not in fields and source.vision:
        fields["vision_config"] = vision_config_of(source.vision)
    if "text_config" not in fields and source.llm:
        fields["text_config"] = text_config_of(source.llm)
    return SlimeConfig(**fields)
