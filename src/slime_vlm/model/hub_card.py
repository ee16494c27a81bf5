"""The model card of a saved folder: its README.md, where there is none yet.

Source of the metadata: https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

CARD_FILE = "README.md"
TAGS = ("slime", "vision-language-model", "high-resolution")

# Of the card that transformers makes up when a model is pushed without one.
_MADE_UP = "This model card has been automatically generated."
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


def front_matter(base_models: Iterable[str], tags: Sequence[str] = ()) -> list[str]:
    """Return the lines of a card's metadata, with the marks around them.

    Args:
        base_models: Hub ids of the models that this one was made from.
        tags: Tags beside our own.
    """
    bases = [f"- {name}" for name in dict.fromkeys(base_models)]
    return [
        "---",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "# Fill in the licence of these weights; it depends on what they were made from and on the data.",
        "license: unknown",
        "tags:",
        *(f"- {tag}" for tag in dict.fromkeys([*TAGS, *tags])),
        *(["base_model:", *bases] if bases else []),
        "---",
    ]


def usage(name: str) -> list[str]:
    """Return the lines of a card on how to use a model, which is called `name`."""
    return [
        "## Use",
        "",
        "```bash",
        "pip install slime-vlm",
        f'slime ask image.png -q "What does it say?" --model {name}',
        "```",
        "",
        "```python",
        "import slime_vlm",
        "",
        f'model, processor = slime_vlm.load("{name}")',
        "```",
        "",
        "The Auto classes of transformers load it, too, after `import slime_vlm` or with `trust_remote_code=True`.",
    ]


def base_models(config: Any) -> list[str]:
    """Return the hub ids of the checkpoint, the vision encoder and the language model that a config was read from."""
    parts = (config, *(getattr(config, name, None) for name in ("vision_config", "text_config")))
    names = (str(getattr(part, "_name_or_path", None) or "") for part in parts)
    return [found for found in map(_hub_id, names) if found is not None]


def _hub_id(name: str) -> str | None:
    """Return the hub id that a name or a folder of the hub's cache stands for. Other local paths stand for none."""
    cached = [match for match in map(_HUB_CACHE.fullmatch, Path(name).parts) if match]
    if cached:
        return "/".join(cached[-1].groups())
    return name if _HUB_ID.fullmatch(name) and not name.startswith(".") and not Path(name).exists() else None


def write_card(
    folder: Any,
    config: Any = None,
    name: str = "FOLDER",
    *,
    tags: Sequence[str] = (),
    sources: Iterable[str | Path] = (),
) -> None:
    """Write a card into a folder that has none, or only the one that transformers makes up.

    Args:
        folder: Folder of the model.
        config: Config of the model, if it is known.
        name: How the model is called in the examples: the folder, or the hub id it is pushed to.
        tags: Tags beside our own.
        sources: Folders or hub ids of checkpoints that the model was made from, beside those in its config.
    """
    path = Path(folder) / CARD_FILE
    if path.is_file():
        if _MADE_UP not in path.read_text(encoding="utf-8"):
            return
        from huggingface_hub import ModelCard

        tags = [*tags, *(ModelCard(path.read_text(encoding="utf-8")).data.tags or ())]
    known = [found for found in (_hub_id(str(source)) for source in sources) if found is not None]
    made_from = list(dict.fromkeys([*known, *base_models(config)]))
    lines = [
        *front_matter(made_from, tags),
        "",
        f"# {name}" if name != "FOLDER" else "# A SliME",
        "",
        "A [SliME](https://arxiv.org/abs/2406.08487) vision-language model for high-resolution images.",
        "",
        "**Licence:** to be filled in by whoever publishes this model.",
        "",
        *usage(name),
        *(["", "## Made from", "", *(f"- {base}" for base in made_from)] if made_from else []),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
