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
    return list(_origins(_names(config)))


def _names(config: Any) -> list[str]:
    parts = (config, *(getattr(config, name, None) for name in ("vision_config", "text_config")))
    return [str(getattr(part, "_name_or_path", None) or "") for part in parts]


def _origins(names: Iterable[str]) -> dict[str, str]:
    """Return the hub ids that names or folders of the hub's cache stand for, each with its revision, or without one.

    Other local paths stand for none.
    """
    found: dict[str, str] = {}
    for name in names:
        parts = Path(name).parts
        cached = [at for at, part in enumerate(parts) if _HUB_CACHE.fullmatch(part)]
        if cached:
            match = _HUB_CACHE.fullmatch(parts[cached[-1]])
            assert match is not None
            hub_id, revision = "/".join(match.groups()), "".join(parts[cached[-1] + 2 : cached[-1] + 3])
        else:
            hub_id, _, revision = name.partition("@")
            if not _HUB_ID.fullmatch(hub_id) or name.startswith(".") or Path(name).exists():
                continue
        found[hub_id] = found.get(hub_id) or revision
    return found


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
        sources: Folders or hub ids (`owner/name@revision`, too) of checkpoints that the model was made from, beside
            those in its config.
    """
    path = Path(folder) / CARD_FILE
    if path.is_file():
        if _MADE_UP not in path.read_text(encoding="utf-8"):
            return
        from huggingface_hub import ModelCard

        tags = [*tags, *(ModelCard(path.read_text(encoding="utf-8")).data.tags or ())]
    made_from = _origins([*map(str, sources), *_names(config)])
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
        *(["", "## Made from", "", *map(_line, made_from.items())] if made_from else []),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def _line(origin: tuple[str, str]) -> str:
    hub_id, revision = origin
    return f"- {hub_id}" + (f", revision {revision}" if revision else "")
