"""A tokenizer whose tokens are single characters, for models that name characters (`SlimeConfig.characters`)."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from slime_vlm.model.character_tokens import CharacterTokens
from slime_vlm.pages.page import ABSENT
from slime_vlm.training.pages.character_cells import LOOK_ALIKES

_OTHER = "\N{REPLACEMENT CHARACTER}"


def build_character_tokenizer(characters: str) -> PreTrainedTokenizerFast:
    """Build the tokenizer. Ids are those of `CharacterTokens`, the texts of turns those of the style "pages".

    Nothing that a user writes becomes the token for what is not on the page. It decodes to `ABSENT`.

    Args:
        characters: Characters of the ids 1, 2 and so on, each once.
    """
    tokens = CharacterTokens(len(characters))
    special = {"<pad>": 0, "<bos>": tokens.begin, "<user>": tokens.user, "<assistant>": tokens.assistant}
    special |= {"<eos>": tokens.end, "<image>": tokens.vocabulary}
    pieces = {character: index for index, character in enumerate(characters, start=1)}
    pieces |= {_OTHER: tokens.other, ABSENT: tokens.not_there, **special}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token=_OTHER))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(alike, to) for alike, to in LOOK_ALIKES.items()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokens.begin)]
    )
    # The token for other characters is not named here: as a special one it would be left out of questions and answers.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=16384,
        extra_special_tokens={"image_token": "<image>"},
    )
