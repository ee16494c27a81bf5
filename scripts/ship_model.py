"""Write a trained model into the package under a name of `SHIPPED`: weights in float16, config, tokenizer, processor.

python scripts/ship_model.py runs/nano/3/model nano
python scripts/ship_model.py runs/joined pages
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import slime_vlm
from slime_vlm.checkpoints.shipped import SHIPPED


def main(source: str, name: str) -> None:
    """Load the folder `source` in float32 and write it to the package in float16."""
    model, processor = slime_vlm.load(source, device="cpu", dtype=torch.float32)
    target: Path = SHIPPED[name]
    target.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(target)
    processor.save_pretrained(target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", help="checkpoint folder")
    parser.add_argument("name", choices=tuple(SHIPPED))
    main(**vars(parser.parse_args()))
