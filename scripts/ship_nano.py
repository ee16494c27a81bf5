"""Write a trained page model into the package as `nano`: weights in float16, config, tokenizer, processor.

python scripts/ship_nano.py runs/nano/3/model
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import slime_vlm
from slime_vlm.checkpoints.loading import SHIPPED


def main(source: str) -> None:
    """Load the folder `source` in float32 and write it to the package in float16."""
    model, processor = slime_vlm.load(source, device="cpu", dtype=torch.float32)
    target: Path = SHIPPED["nano"]
    target.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(target)
    processor.save_pretrained(target)


if __name__ == "__main__":
    main(sys.argv[1])
