"""Write a trained page model into the package as one of its shipped models: weights in float16, config and processor.

python scripts/ship_model.py runs/nano/3/model nano
python scripts/ship_model.py runs/joined reader
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import slime_vlm
from slime_vlm.checkpoints.loading import SHIPPED


def main() -> None:
    """Load a folder in float32 and write it to the package in float16. The model card there stays."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", help="checkpoint folder")
    parser.add_argument("name", choices=sorted(SHIPPED))
    options = parser.parse_args()
    model, processor = slime_vlm.load(options.source, device="cpu", dtype=torch.float32)
    target: Path = SHIPPED[options.name]
    target.mkdir(parents=True, exist_ok=True)
    card = target / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    model.to(torch.float16).save_pretrained(target)
    processor.save_pretrained(target)
    if text is not None:
        card.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
