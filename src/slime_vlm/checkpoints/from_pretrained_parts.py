"""Make an untrained SliME from two pretrained parts, a vision encoder and a language model. Stage 1a starts from it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import GenerationConfig, set_seed
from transformers.utils import logging

from slime_vlm.checkpoints.hub import at_commit
from slime_vlm.checkpoints.loading import check_overrides
from slime_vlm.checkpoints.pretrained_parts import (
    image_statistics,
    read_language_model,
    read_tokenizer,
    separator_id,
    text_config_of,
    vision_config_of,
    vision_weights,
)
from slime_vlm.checkpoints.validation import check_template_text
from slime_vlm.errors import CheckpointError, ConfigError, one_line
from slime_vlm.model.configuration_slime import SlimeConfig
from slime_vlm.model.hub_card import write_card
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.model.query_attention import QueryAttention
from slime_vlm.processing.chat_markers import mark_messages, parse_marks
from slime_vlm.processing.chat_styles import STYLES, get_style
from slime_vlm.processing.chat_template import accept_images
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.processing_slime import SlimeProcessor

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DRAWN = ("model.projector.", "model.global_adapter.", "model.local_compressor.", "model.selector.", "model.page_pos")


def assemble(
    vision: str,
    llm: str,
    *,
    conversation: str | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
) -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    """Combine a vision encoder and a language model. The parts between are initialised as in the published code.

    Args:
        vision: Folder or hub id of the vision encoder, also at a revision: `owner/name@revision`.
        llm: Folder or hub id of the language model, a GGUF file, or a folder with one.
        conversation: Conversation style. None takes the published one of Llama-3, else the language model's own chat
            template, else the published one of Vicuna.
        dtype: Type of the weights. None takes the language model's (bfloat16 for GGUF).
        seed: Seed of the new parts.
        fields: `SlimeConfig` fields. `vision_config` and `text_config` replace those of the parts.

    Raises:
        CheckpointError: A part is missing, damaged or of another kind.
        ConfigError: The parts do not fit together, or do not fit `fields`.
    """
    fields = dict(fields or {})
    vision, llm = at_commit(vision), at_commit(llm)
    # Configs and tokenizer first, so that mistakes are found before gigabytes are downloaded or read.
    fields.setdefault("vision_config", vision_config_of(vision))
    fields.setdefault("text_config", text_config_of(llm))
    tokenizer = read_tokenizer(llm)
    fields.setdefault("separator_token_id", separator_id(tokenizer))
    config = SlimeConfig(**fields)
    style, template = conversation_of(tokenizer) if conversation is None else (conversation, None)
    image_processor = SlimeImageProcessor(**image_statistics(vision))
    processor = SlimeProcessor.from_config(config, tokenizer, style, image_processor, template)
    ends = [
        *_as_list(getattr(config.text_config, "eos_token_id", None)),
        tokenizer.eos_token_id,
        _end_of_turn(processor),
    ]

    state = {f"model.vision_tower.{key}": value for key, value in vision_weights(vision).items()}
    language = read_language_model(llm, dtype)
    ends = [*_as_list(language.generation_config.eos_token_id), *ends]
    text, expected = _sample(tokenizer, language)
    state |= {f"model.language_model.{key}": value for key, value in language.get_decoder().state_dict().items()}
    if not config.tie_word_embeddings:
        state |= {f"lm_head.{key}": value for key, value in language.get_output_embeddings().state_dict().items()}
    dtype = dtype or language.dtype
    del language
    set_seed(seed)
    model = _build(config, state, dtype, f"{vision} and {llm}")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=list(dict.fromkeys(end for end in ends if end is not None)),
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.inference_mode():
        found = model(input_ids=text).logits[0, -1].float()
    if not torch.allclose(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max())):
        raise ConfigError(
            f"{llm} computes its logits in a way that SliME does not support (model type "
            f"'{config.text_config.model_type}'), expected a model type that docs/models.md lists"
        )
    return model, processor


@dataclass(frozen=True)
class Assembled:
    """The model that `new` wrote.

    Attributes:
        target: The folder.
        vision: Model type of the vision encoder.
        llm: Model type of the language model.
        view_size: Side of a view in pixels.
        num_global_tokens: Number of vision tokens of a view.
        conversation: Name of the conversation style, or "the language model's chat template".
        num_parameters: Number of parameters.
        num_drawn: Number of parameters of the new, untrained parts.
    """

    target: str
    vision: str
    llm: str
    view_size: int
    num_global_tokens: int
    conversation: str
    num_parameters: int
    num_drawn: int

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.vision} (views of {self.view_size} pixels, {self.num_global_tokens} tokens) and "
            f"{self.llm}, {self.num_parameters / 1e6:,.1f} million parameters, {self.num_drawn / 1e6:,.1f} million of "
            f"them new and untrained; conversation: {self.conversation}; train it with "
            f"'model: {{path: {self.target}}}' in a recipe"
        )


def new(
    vision: str,
    llm: str,
    target: str | Path,
    *,
    conversation: str | None = None,
    dtype: str | None = None,
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
) -> Assembled:
    """Write an untrained SliME to a folder, see `assemble`. If it fails, nothing is left there.

    Args:
        vision: See `assemble`.
        llm: See `assemble`.
        target: Folder to write. It must not exist, or be empty.
        conversation: See `assemble`.
        dtype: float32, bfloat16 or float16. None takes the language model's.
        seed: See `assemble`.
        fields: `SlimeConfig` fields by name.

    Raises:
        CheckpointError: As in `assemble`, or `target` is not empty or cannot be written.
        ConfigError: As in `assemble`, or a field or the type is unknown.
    """
    target, vision, llm = Path(target), at_commit(vision), at_commit(llm)
    check_overrides(dict(fields or {}))
    if dtype is not None and dtype not in _DTYPES:
        raise ConfigError(f"dtype '{dtype}' is unknown, expected one of {', '.join(_DTYPES)}")
    if conversation is not None:
        get_style(conversation)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists already, expected a new or empty folder; choose another one")
    # The folder gets its name only when it is complete. Created first, to fail before minutes of reading.
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        model, processor = assemble(
            vision, llm, conversation=conversation, dtype=_DTYPES[dtype] if dtype else None, seed=seed, fields=fields
        )
        try:
            write_card(part, model.config, sources=[vision, llm])
            model.save_pretrained(part)
            processor.save_pretrained(part)
        except SafetensorError as error:
            raise CheckpointError(f"{target} cannot be written ({one_line(error)}); is the disk full?") from None
        if target.exists():
            target.rmdir()
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    config = model.config
    return Assembled(
        target=str(target),
        vision=config.vision_config.model_type,
        llm=config.text_config.model_type,
        view_size=config.view_size,
        num_global_tokens=config.num_global_tokens,
        conversation=processor.style.name if processor.style else "the language model's chat template",
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_drawn=sum(value.numel() for name, value in model.named_parameters() if name.startswith(_DRAWN)),
    )


# Conversation --------------------------------------------------------------------------------------------------------


def conversation_of(tokenizer: Any) -> tuple[str | dict[str, Any] | None, str | None]:
    """Find the conversation that a language model was trained with, by its tokenizer.

    Returns:
        A conversation style and None, or None and a chat template that takes images.
    """
    if {"<|start_header_id|>", "<|eot_id|>"} <= set(tokenizer.get_vocab()):
        return "llama3", None
    if tokenizer.chat_template:
        check_template_text("the tokenizer", tokenizer.chat_template)
        return None, accept_images(tokenizer.get_chat_template())
    if tokenizer.eos_token in (None, STYLES["v1"].assistant_close):
        return "v1", None
    # A base model gets Vicuna's texts, with the end token of its tokenizer.
    return {**asdict(STYLES["v1"]), "name": "v1-own-end", "assistant_close": tokenizer.eos_token}, None


def _end_of_turn(processor: SlimeProcessor) -> int | None:
    """Return the token that ends an answer, or None if the end of the style is not a single token.

    Raises:
        ConfigError: The chat template does not end an answer with a known token, so the model could not learn to stop.
    """
    vocabulary = processor.tokenizer.get_vocab()
    if processor.style is not None:
        return vocabulary.get(processor.style.assistant_close)
    turns = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Yes"}]
    text = processor.apply_chat_template(mark_messages(turns, answers=True))
    segments = parse_marks(text, processor.tokenizer) or []
    answer = "".join(part.text for part in segments if part.kind == "answer")
    end = answer.strip().removeprefix("Yes").strip()
    if not end:
        raise ConfigError(
            "the language model's chat template does not end an answer with its end-of-text token or a known end of "
            f"turn, expected one; pass a conversation style ({', '.join(STYLES)})"
        )
    return vocabulary.get(end)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# Building ------------------------------------------------------------------------------------------------------------


def _sample(tokenizer: Any, language: Any) -> tuple[Tensor, Tensor]:
    """Return a few tokens [1, S], and the language model's logits [vocabulary] of the next one."""
    text = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        return text, language(input_ids=text).logits[0, -1].float()


def _build(config: SlimeConfig, state: dict[str, Tensor], dtype: torch.dtype, name: str) -> Any:
    # transformers would warn about all new parts, which are not in `state`.
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        model, info = SlimeForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    except RuntimeError as error:
        raise ConfigError(f"{name}: weights do not fit the config: {one_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(_DRAWN))
    wrong = missing + sorted(map(str, [*info["unexpected_keys"], *info["mismatched_keys"]]))
    if wrong:
        raise ConfigError(f"{name}: {len(wrong)} tensor(s) do not fit the config, {wrong[0]} among them")
    _draw_adapters(model)
    return model.eval()


def _draw_adapters(model: SlimeForConditionalGeneration) -> None:
    """Initialise the new parts as in the published code.

    MLP_proj is initialised as torch's linear layers. In the resamplers, the output projection and the queries are drawn
    from a truncated normal distribution. Query, key and value projections are one fused matrix in the published code,
    so Xavier's rule is applied to its size. The gate is 0 and the norms are 1 already.
    """
    if model.model.projector is not None:
        for module in model.model.projector.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
    for module in model.model.modules():
        if isinstance(module, QueryAttention):
            dim = module.query.shape[1]
            nn.init.trunc_normal_(module.query, std=0.02)
            for projection in (module.q_proj, module.k_proj, module.v_proj):
                bound = math.sqrt(6 / (dim + 3 * dim))
                nn.init.uniform_(projection.weight, -bound, bound)
                nn.init.zeros_(projection.bias)
            nn.init.trunc_normal_(module.out_proj.weight, std=0.02)
            nn.init.zeros_(module.out_proj.bias)
