"""Cuts the committed subset out of a whole folder of parity data.

    python tests/parity/make_subset.py PARITY_ROOT

The subset has the same format. To stay below 6 MB it holds the weights of one checkpoint, without the last layer of its
vision encoder: the published layer -2 of three is layer -1 of the two that are left, so every recorded number stays
valid. Of the other checkpoint only the tokenizer is there, with its conversations but the two longest: they repeat, for
another arrangement of turns, that long samples are cut.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

CHECKPOINT = "tiny-llama3"
TEXT_CHECKPOINT = "tiny-vicuna"
TEXT_FILES = ("config.json", "special_tokens_map.json", "tokenizer.model", "tokenizer_config.json")
TEXT_LEFT_OUT = ("text_second_turn_longer_than_max_length", "image_longer_than_max_length")
CASES = (
    "llama3_small",
    "variant_llama3_local_only_small",
    "variant_llama3_max_length_900_vga",
    "batch_with_text_only_row_llama3",
    "text_only_llama3",
    "train_stage2_llama3",
    "train_stage3_llama3_noise",
)
EVERY_GRID = 9


def write_json(path: Path, content: object) -> None:
    """Write JSON without needless space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_text(source: Path, target: Path) -> None:
    """Write the conversations of both checkpoints, and the tokenizer of the second."""
    name = "text/tokenization_and_labels.json"
    text = json.loads((source / name).read_text())
    other = text[TEXT_CHECKPOINT]
    other["conversations"] = [item for item in other["conversations"] if item["name"] not in TEXT_LEFT_OUT]
    write_json(target / name, {CHECKPOINT: text[CHECKPOINT], TEXT_CHECKPOINT: other})
    folder = Path("checkpoints") / TEXT_CHECKPOINT
    (target / folder).mkdir(parents=True)
    for file in TEXT_FILES:
        shutil.copyfile(source / folder / file, target / folder / file)


def main(source: Path, target: Path) -> None:
    """Write the subset of `source` into `target`."""
    shutil.rmtree(target, ignore_errors=True)
    checkpoint = Path("checkpoints") / CHECKPOINT
    shutil.copytree(source / checkpoint, target / checkpoint, copy_function=shutil.copyfile)
    last = "vision_tower.vision_model.encoder.layers.2."
    weights = load_file(source / checkpoint / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if last not in name}
    assert len(kept) < len(weights)
    save_file(kept, target / checkpoint / "model.safetensors", metadata={"format": "pt"})
    (target / checkpoint / "model.safetensors").chmod(0o644)
    # The source may be read-only, folders included, and their modes are copied.
    for folder in (target / checkpoint, target / checkpoint / "vision_tower"):
        folder.chmod(0o755)
    vision = json.loads((source / checkpoint / "vision_tower" / "config.json").read_text())
    write_json(target / checkpoint / "vision_tower" / "config.json", vision | {"num_hidden_layers": 2})
    config = json.loads((source / checkpoint / "config.json").read_text())
    write_json(target / checkpoint / "config.json", config | {"mm_vision_select_layer": -1})

    index = json.loads((source / "cases.json").read_text())
    write_json(target / "cases.json", {name: index[name] for name in CASES})
    images: set[str] = set()
    for name in CASES:
        case = index[name]
        (target / "cases").mkdir(exist_ok=True)
        shutil.copyfile(source / case["file"], target / case["file"])
        images |= set(case.get("images", ())) | {row["image"] for row in case.get("rows", ()) if row["image"]}
    (target / "images").mkdir()
    for image in sorted(images):
        shutil.copyfile(source / "images" / f"{image}.png", target / "images" / f"{image}.png")
    shutil.copyfile(source / "known_limits.json", target / "known_limits.json")
    name = "training/trainable_as_flagged.json"
    write_json(target / name, {CHECKPOINT: json.loads((source / name).read_text())[CHECKPOINT]})
    write_text(source, target)
    (target / "grid").mkdir()
    with (source / "grid" / "grid_choices.csv").open() as file:
        rows = list(csv.reader(file))
    with (target / "grid" / "grid_choices.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([rows[0], *rows[1::EVERY_GRID]])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "data")
