"""Measure the peak memory of `slime convert` on a scaled-down checkpoint with the shards and tensors of a 13B model.

    python benchmarks/convert_memory.py [--width 1024]

The checkpoint has the 40 + 24 layers, the names and the three shards of a SliME on Vicuna-13B (width 5120). All widths
and the size of output shards are scaled down in proportion. It is converted from safetensors, from pickles, as a LoRA,
and back. The script prints the peak on top of what the imports take.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import peak_memory
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig
from transformers.utils import logging

import slime_vlm
from slime_vlm.checkpoints import tensor_files as weight_files
from slime_vlm.checkpoints.published.config import published_fields
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.checkpoints.published.weight_names import published_names
from slime_vlm.checkpoints.shipped import SHIPPED

REAL_WIDTH, SHARDS, RANK = 5120, 3, 128
KINDS = ("safetensors", "bin", "lora", "back")


def write_checkpoint(folder: Path, width: int) -> None:
    """Write the checkpoint in all its forms to `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED["nano"])
    vision = CLIPVisionConfig(
        hidden_size=width // 4, intermediate_size=width, num_hidden_layers=24, num_attention_heads=4, image_size=336
    )
    vision.patch_size = 14
    text = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 27 // 10,
        num_hidden_layers=40,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=len(tokenizer),
    )
    config = slime_vlm.SlimeConfig(vision_config=vision, text_config=text, dtype="bfloat16", patch_size=14)
    config.separator_token_id = tokenizer.convert_tokens_to_ids(",")
    with torch.device("meta"):
        native = slime_vlm.SlimeForConditionalGeneration(config).state_dict()
    shapes = {
        name: (sum(native[part].shape[0] for part in parts), *native[parts[0]].shape[1:])
        for name, parts in published_names(native, "gated").items()
    }
    fields = published_fields(config) | {"model_type": "llava_llama", "mm_vision_tower": "vision_tower"}
    names = list(shapes)
    for kind in ("safetensors", "bin"):
        form = folder / kind
        vision.save_pretrained(form / "vision_tower")
        tokenizer.save_pretrained(form)
        (form / "config.json").write_text(json.dumps(fields))
        stem = "model" if kind == "safetensors" else "pytorch_model"
        weight_map = {}
        for index in range(SHARDS):
            part = {name: torch.full(shapes[name], 0.01, dtype=torch.bfloat16) for name in names[index::SHARDS]}
            file = f"{stem}-{index + 1:05d}-of-{SHARDS:05d}.{kind}"
            if kind == "bin":
                torch.save(part, form / file)
            else:
                save_file(part, form / file)
            weight_map |= dict.fromkeys(part, file)
        (form / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    lora = folder / "lora"
    lora.mkdir()
    vision.save_pretrained(lora / "vision_tower")
    shutil.copy(folder / "bin" / "config.json", lora)
    adapter = {"r": RANK, "lora_alpha": 2 * RANK, "base_model_name_or_path": str(folder / "bin")}
    (lora / "adapter_config.json").write_text(json.dumps(adapter))
    low_rank = {}
    for name, shape in shapes.items():
        if "layers." in name and "vision" not in name and len(shape) == 2:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            low_rank[f"{stem}.lora_A.weight"] = torch.zeros(RANK, shape[1], dtype=torch.bfloat16)
            low_rank[f"{stem}.lora_B.weight"] = torch.zeros(shape[0], RANK, dtype=torch.bfloat16)
    save_file(low_rank, lora / "adapter_model.safetensors")


def run(folder: Path, kind: str, shard_bytes: int) -> None:
    """Convert one form and print its line. Run this in a process of its own, whose peak is that of the conversion."""
    logging.set_verbosity_error()
    weight_files.SHARD_BYTES = shard_bytes
    source = folder / ("native" if kind == "back" else kind)
    target = folder / ("native" if kind == "safetensors" else "target")
    before = peak_memory()
    start = time.perf_counter()
    report = convert(source, target)
    seconds = time.perf_counter() - start
    peak = peak_memory() - before
    files = list(target.glob("*.safetensors"))
    total = sum(path.stat().st_size for path in files)
    largest = 0
    for path in files:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            largest = max(largest, *(2 * torch.Size(file.get_slice(name).get_shape()).numel() for name in names))
    print(
        f"| {kind} | {report.num_tensors} | {total / 1e6:.0f} | {len(files)} | {largest / 1e6:.1f} | "
        f"{before:.0f} | {peak:.0f} | {seconds:.1f} |",
        flush=True,
    )
    if kind != "safetensors":
        shutil.rmtree(target)


def main() -> None:
    """Write the checkpoint, then convert each form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--step", nargs=2, metavar=("FOLDER", "KIND"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shard_bytes = int(weight_files.SHARD_BYTES * (arguments.width / REAL_WIDTH) ** 2)
    if arguments.step:
        folder, kind = Path(arguments.step[0]), arguments.step[1]
        write_checkpoint(folder, arguments.width) if kind == "write" else run(folder, kind, shard_bytes)
        return
    print(f"width {arguments.width}, output shards of at most {shard_bytes / 1e6:.0f} MB; all numbers in MB")
    print("| from | tensors | weights | shards | largest tensor | imports | peak above | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for step in ("write", *KINDS):
            command = [sys.executable, __file__, "--width", str(arguments.width), "--step", folder, step]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
