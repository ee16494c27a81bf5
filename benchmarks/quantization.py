"""Measure the cost of int8 and 4-bit weights: agreement of the logits with float32, and memory.

    python benchmarks/quantization.py [--nano-only]

Two models get the same image and question: a random one with a 12-layer language model, and the shipped nano with
trained weights. All local tokens are kept, so that all sequences are the same. The script prints the mean divergence
KL(float32 || quantised) over all positions in nats, the share of positions with the same most probable token, and the
bytes of the language model. If torchao is installed, it is measured as well as bitsandbytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig
from transformers.utils import logging

import slime_vlm
from slime_vlm.checkpoints.shipped import SHIPPED
from slime_vlm.media import open_image

IMAGE = Path(__file__).parent.parent / "examples" / "invoice.png"
QUESTION = "What is the total?"


def save_random_model(folder: Path) -> None:
    """Save a model with random weights of a usual scale and nano's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED["nano"])
    config = slime_vlm.SlimeConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, image_size=112
        ),
        text_config=LlamaConfig(
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=8,
            vocab_size=len(tokenizer),
        ),
        patch_size=14,
        num_local_queries=16,
        separator_token_id=tokenizer.convert_tokens_to_ids(","),
    )
    config.vision_config.patch_size = 14
    processor = slime_vlm.SlimeProcessor.from_config(config, tokenizer, "llama3")
    torch.manual_seed(0)
    model = slime_vlm.SlimeForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                # Preserves the scale of activations, so that every layer matters and the logits have a spread.
                parameter.normal_(std=parameter.shape[1] ** -0.5)
        model.get_input_embeddings().weight.normal_()
        model.lm_head.weight.mul_(3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def log_probabilities(model: Any, processor: Any) -> torch.Tensor:
    """Return the log probabilities [S, V] for the fixed image and question."""
    message = [{"type": "image", "image": open_image(IMAGE)}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=True, return_dict=True, add_generation_prompt=True
    )
    with torch.no_grad():
        return model(**inputs).logits[0].float().log_softmax(-1)


def num_bytes(model: Any) -> int:
    """Return the bytes of the language model's weights, including the scales of quantised ones."""
    total = 0
    for parameter in model.model.language_model.parameters():
        tensors = [parameter]
        # Tensor subclasses hold values and scales as attributes. bitsandbytes attaches scales to the parameter.
        if hasattr(parameter, "__tensor_flatten__"):
            tensors = [getattr(parameter, name) for name in parameter.__tensor_flatten__()[0]]
        state = getattr(parameter, "quant_state", None)
        tensors += [] if state is None else [state.absmax]
        total += sum(tensor.nbytes for tensor in tensors)
    return total


def measure(name: str, model_name: str) -> None:
    """Measure one model and print its table."""
    keep_all: dict[str, Any] = {"selector_top_p": 1.0, "max_local_tokens": None}
    kinds: dict[str, dict[str, str]] = {
        "float32": {},
        "bfloat16": {"dtype": "bfloat16"},
        "int8 (bitsandbytes)": {"quantization": "int8"},
        "4bit (bitsandbytes)": {"quantization": "4bit"},
    }
    if importlib.util.find_spec("torchao") is not None:
        kinds["int8 (torchao)"] = {"quantization": "torchao-int8"}
    print(f"\n{name}\n| weights | KL, nats | same top token | language model, MB |\n| --- | --- | --- | --- |")
    reference = None
    for kind, options in kinds.items():
        model, processor = slime_vlm.load(model_name, device="cpu", **keep_all, **options)
        logits = log_probabilities(model, processor)
        reference = logits if reference is None else reference
        divergence = float((reference.exp() * (reference - logits)).sum(-1).mean())
        same = float((reference.argmax(-1) == logits.argmax(-1)).float().mean())
        print(f"| {kind} | {divergence:.4f} | {same:.1%} | {num_bytes(model) / 1e6:.1f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nano-only", action="store_true", help="leave out the random model")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {platform.machine()}")
    if not arguments.nano_only:
        with tempfile.TemporaryDirectory() as folder:
            save_random_model(Path(folder))
            measure("random, 12 layers of width 512", folder)
    measure("nano (trained)", "nano")


if __name__ == "__main__":
    main()
