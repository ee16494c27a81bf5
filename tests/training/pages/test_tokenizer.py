from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from slime_vlm.pages import characters, words
from slime_vlm.training.pages.tokenizer import SPECIAL_TOKENS, build_page_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_page_tokenizer(characters(), words())


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)


def test_words_are_tokens_only_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokens(tokenizer, "account") == ["▁account"]
    assert tokens(tokenizer, "Account?") == ["▁Account", "?"]
    assert tokens(tokenizer, "the account") == [*tokens(tokenizer, "the"), "▁account"]
    # Within a longer word or value it is letters: a random value never becomes a word.
    assert tokens(tokenizer, "accounts") == ["▁", *"accounts"]
    assert tokens(tokenizer, "account7") == ["▁", *"account7"]
    assert tokens(tokenizer, "X account-7") == ["▁", "X", "▁account", "-", "7"]
    assert tokens(tokenizer, "xaccount") == ["▁", *"xaccount"]
    assert tokens(tokenizer, "ACCOUNT") == ["▁", *"ACCOUNT"]


def test_round_trip(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = ["What is the account?", "47.20 $", "A-7/b #3 (x) & 50%", "account", "may account 12", characters().strip()]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer("account").input_ids[0] == tokenizer.bos_token_id
    assert tokenizer(tokenizer.eos_token, add_special_tokens=False).input_ids == [tokenizer.eos_token_id]


def test_template_writes_what_training_packs(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "account?"}, {"type": "image"}]},
        {"role": "assistant", "content": "47"},
        {"role": "user", "content": "age"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<bos><user><image>account?<assistant>47<eos><user>age<assistant>"
