"""A tokenizer of single bytes, and a processor around it, for tests of text."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.processing_slime import SlimeProcessor

SPECIAL_TOKENS = ("<pad>", "<bos>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def byte_tokenizer(bos: bool = True, padding_side: str = "left") -> PreTrainedTokenizerFast:
    """One token a byte; ids of special tokens come first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=padding_side,
    )


def tiny_processor(style: str | None = "llama3", **fields: object) -> SlimeProcessor:
    """Views of 28 pixels, 4 global tokens and 1 token a tile, so that sequences can be read by eye."""
    arguments: dict[str, object] = {
        "conversation_style": style,
        "num_global_tokens": 4,
        "num_tile_tokens": 1,
        "num_separators": 1,
        **fields,
    }
    return SlimeProcessor(SlimeImageProcessor(view_size=28), byte_tokenizer(), **arguments)
