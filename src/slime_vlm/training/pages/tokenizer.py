"""A tokenizer for rendered pages: whole words for questions, single characters for values.

Copying a value character by character needs one token per character. Finding its key needs one token per word. A word
is a token only where it stands alone, so that no part of a random value becomes a word by accident.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>", "<image>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<assistant>{% else %}<user>{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def build_page_tokenizer(characters: str, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build the tokenizer.

    Args:
        characters: Every character that is a token of its own.
        words: Lower-case words. Each is a token in lower case and capitalised, after a space or at the start.
    """
    space = "▁"
    spelled = sorted({w.lower() for w in words} | {w.capitalize() for w in words}, key=lambda w: (-len(w), w))
    spelled = [w for w in spelled if len(w) > 1]
    pieces = [*SPECIAL_TOKENS, space, *[c for c in dict.fromkeys(characters) if c not in (" ", space)]]
    pieces += [space + w for w in sorted(spelled)]
    tokenizer = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
    whole_word = f"{space}(?:{'|'.join(re.escape(w) for w in spelled)})(?![A-Za-z0-9])|[\\s\\S]"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=space, prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(whole_word), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=space, prepend_scheme="always", split=False)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", pieces.index("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=8192,
        extra_special_tokens={"image_token": "<image>"},
        chat_template=CHAT_TEMPLATE,
    )
