from __future__ import annotations

import pytest

from slime_vlm.errors import ConfigError, DataError, InputError
from slime_vlm.processing.chat_styles import (
    STYLES,
    ConversationStyle,
    Segment,
    Turn,
    build_prompt,
    build_segments,
    find_segments,
    get_style,
    read_turns,
    turns_from_messages,
    turns_from_record,
    write_chat_template,
)
from slime_vlm.processing.tokenization import EncodedText, encode_conversation, encode_segments
from tests.tiny_text import byte_tokenizer, tiny_processor

IMAGE = 900


def record(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": value} for index, value in enumerate(values)]


def supervised(tokenizer, encoded: EncodedText) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != -100])


def asked(tokenizer, encoded: EncodedText) -> str:
    pairs = zip(encoded.input_ids, encoded.question_mask, strict=True)
    return tokenizer.decode([token for token, marked in pairs if marked])


def test_llama3_prompt_by_hand():
    turns = [Turn("user", "What?", images=1)]
    assert build_prompt(turns, STYLES["llama3"]) == (
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_v1_prompt_by_hand():
    turns = [Turn("user", "Hi."), Turn("assistant", "Yes?"), Turn("user", "Go.")]
    prompt = build_prompt(turns, STYLES["v1"])
    assert prompt.endswith("polite answers to the user's questions. USER: Hi. ASSISTANT: Yes?</s>USER: Go. ASSISTANT:")


def test_plain_keeps_only_image_and_caption():
    turns = turns_from_record(record("Describe it.\n<image>", "a cat"))
    segments = build_segments(turns, STYLES["plain"])
    assert [(s.text, s.kind) for s in segments] == [
        ("<image>", "template"),
        ("a cat", "answer"),
        ("\n", "answer"),
    ]


def test_published_defects_are_off_by_default_and_reachable():
    turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
    assert "<|eot_conversation|>" not in build_prompt(turns, STYLES["llama3"])
    assert build_prompt(turns, STYLES["llama3"], published=True).count("<|eot_conversation|>") == 1
    silent = [Turn("user", "a"), Turn("assistant", "")]
    assert build_prompt(silent, STYLES["v1"], add_generation_prompt=False).endswith(" ASSISTANT:</s>")
    assert build_prompt(silent, STYLES["v1"], add_generation_prompt=False, published=True).endswith(" ASSISTANT:")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<image>\nWhat?", Turn("user", "What?", 1)),
        ("What?\n<image>", Turn("user", "What?", 1)),
        ("Look at <image> and say.", Turn("user", "Look at  and say.", 1)),
        ("<image> and <image>\nCompare.", Turn("user", "and \nCompare.", 1)),
        ("  no image  ", Turn("user", "  no image  ", 0)),
    ],
)
def test_placeholder_moves_to_the_front(value: str, expected: Turn):
    assert turns_from_record(record(value))[0] == expected


def test_several_images_stay_when_the_record_has_them():
    turns = turns_from_record(record("<image><image>\nCompare."), num_images=2)
    assert turns[0].images == 2
    assert build_prompt(turns, STYLES["v1"]).count("<image>\n<image>\nCompare.") == 1


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([{"from": "cat", "value": "miaow"}], "turn 0 .* expected 'from'"),
        ([{"from": "human"}], "expected 'from'"),
        ([{"from": "gpt", "value": "only me"}], "no question"),
        ([{"from": "human", "value": "a"}, {"from": "human", "value": "b"}], "user and assistant in turn"),
    ],
)
def test_bad_records_are_one_line(conversation, message: str):
    with pytest.raises(DataError, match=message) as caught:
        turns_from_record(conversation)
    assert "\n" not in str(caught.value)


def test_record_without_the_images_it_promises():
    with pytest.raises(DataError, match=r"1 image placeholder\(s\) for 3 image\(s\)"):
        turns_from_record(record("<image>\nWhat?"), num_images=3)


def test_unknown_style_and_field():
    with pytest.raises(ConfigError, match="'lama3' is unknown, expected one of llama3"):
        get_style("lama3")
    with pytest.raises(ConfigError, match="wrong field"):
        get_style({"name": "x", "colour": "red"})


def test_read_turns_takes_every_form():
    expected = [Turn("user", "What?", 1), Turn("assistant", "A cat.")]
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat."},
    ]
    assert read_turns(expected) == read_turns(messages) == read_turns(record("<image>\nWhat?", "A cat.")) == expected
    with pytest.raises(DataError, match="type"):
        read_turns([{"role": "user", "content": [{"type": "video"}]}])


MESSAGES = [
    [{"role": "user", "content": "Hello."}],
    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "Two"}, {"type": "image"}, {"type": "image"}]}],
    [{"role": "user", "content": [{"type": "image"}]}],
    [{"role": "user", "content": "a <image>\nb"}, {"role": "assistant", "content": "c \n"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "b"}],
    [{"role": "system", "content": "Be 'brief' \"\\n\"."}, {"role": "user", "content": "été 漢字"}],
]


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("generate", [False, True])
@pytest.mark.parametrize("name", list(STYLES))
def test_chat_template_renders_as_build_prompt(name: str, generate: bool, published: bool):
    style = STYLES[name]
    processor = tiny_processor(name)
    assert processor.chat_template == write_chat_template(style)
    for messages in MESSAGES:
        rendered = processor.apply_chat_template(messages, add_generation_prompt=generate, published=published)
        turns = turns_from_messages(messages)
        assert rendered == build_prompt(turns, style, add_generation_prompt=generate, published=published)


@pytest.mark.parametrize("name", ["llama3", "v1", "pages"])
def test_find_segments_recovers_what_build_segments_wrote(name: str):
    turns = [Turn("user", "Who's there?"), Turn("assistant", "Me."), Turn("user", "USER: why?", images=1)]
    segments = build_segments(turns, STYLES[name], add_generation_prompt=True)
    found = find_segments("".join(segment.text for segment in segments), STYLES[name])
    answers = ["".join(s.text for s in some if s.kind == "answer").strip() for some in (found, segments)]
    assert answers[0] == answers[1]
    questions = [s.text.replace("<image>", "").strip() for s in found if s.kind == "question"]
    assert questions == ["Who's there?", "USER: why?"]


def test_find_segments_takes_free_text_as_one_question():
    assert find_segments("What?", STYLES["v1"]) == [Segment("What?", "question")]
    assert find_segments("What?", STYLES["plain"]) == [Segment("What?", "question")]


@pytest.mark.parametrize("name", ["llama3", "v1", "pages"])
def test_masks_hold_the_question_and_the_answer_and_nothing_else(name: str):
    tokenizer = byte_tokenizer()
    turns = turns_from_record(record("<image>\nWhat colour?", "Red.", "Sure?", "USER: yes, ASSISTANT: yes"))
    encoded = encode_conversation(tokenizer, turns, STYLES[name], IMAGE)
    end, lead = STYLES[name].assistant_close, STYLES[name].answer_lead
    assert asked(tokenizer, encoded) == "What colour?Sure?"
    assert supervised(tokenizer, encoded) == f"{lead}Red.{end}{lead}USER: yes, ASSISTANT: yes{end}"
    assert encoded.input_ids.count(IMAGE) == 1
    assert not any(m and label != -100 for m, label in zip(encoded.question_mask, encoded.labels, strict=True))


@pytest.mark.parametrize("bos", [True, False])
def test_default_labels_never_drop_a_sample(bos: bool):
    tokenizer = byte_tokenizer(bos)
    turns = turns_from_record(record("<image>\nWhat?", "Red.", "Sure?", "Yes."))
    encoded = encode_conversation(tokenizer, turns, STYLES["llama3"], IMAGE)
    assert supervised(tokenizer, encoded) == "Red.<|eot_id|>Yes.<|eot_id|>"
    published = encode_conversation(tokenizer, turns, STYLES["llama3"], IMAGE, label_rule="published")
    # Without a bos the published count of the second round is off by one, and the sample is lost.
    assert supervised(tokenizer, published) == ("Red.<|eot_id|>Yes.<|eot_id|>" if bos else "")
    assert published.input_ids == encoded.input_ids


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (("<image>\nWhat?", "Red.", "Sure?", "Yes."), " Red.</s> Yes.</s>"),
        (("What?", "It says ASSISTANT: hello."), ""),
        (("What?", ""), ""),
        (("What?", "Red.", "And now?"), ""),
    ],
)
def test_published_v1_labels_lose_samples(values: tuple[str, ...], kept: str):
    tokenizer, turns = byte_tokenizer(), turns_from_record(record(*values))
    published = encode_conversation(tokenizer, turns, STYLES["v1"], IMAGE, label_rule="published")
    assert supervised(tokenizer, published) == kept
    default = encode_conversation(tokenizer, turns, STYLES["v1"], IMAGE)
    answers = values[1::2]
    assert supervised(tokenizer, default) == "".join(f" {answer}</s>" if answer else "</s>" for answer in answers)


def test_style_without_a_published_rule():
    with pytest.raises(InputError, match="'pages' has no published label rule"):
        encode_conversation(byte_tokenizer(), [Turn("user", "a")], STYLES["pages"], IMAGE, label_rule="published")


def test_unknown_label_rule():
    with pytest.raises(ConfigError, match="label_rule is 'all'"):
        encode_conversation(byte_tokenizer(), [Turn("user", "a")], STYLES["v1"], IMAGE, label_rule="all")


def test_bos_is_never_doubled_and_follows_the_tokenizer():
    for text in ("Hello", "<bos>Hello"):
        assert encode_segments(byte_tokenizer(), [Segment(text, "question")], IMAGE).input_ids.count(1) == 1
    without = encode_segments(byte_tokenizer(bos=False), [Segment("Hello", "question")], IMAGE)
    assert len(without.input_ids) == 5
    assert encode_segments(byte_tokenizer(), [Segment("", "template")], IMAGE).input_ids == [1]


def test_only_text_is_cut_at_the_maximal_length():
    tokenizer = byte_tokenizer()
    for value, length in (("word " * 50, 40), ("<image>\n" + "word " * 50, None)):
        turns = turns_from_record(record(value, "Yes."))
        encoded = encode_conversation(tokenizer, turns, STYLES["v1"], IMAGE, max_length=40)
        assert (len(encoded.input_ids) == length) if length else len(encoded.input_ids) > 250


def test_expanding_images_keeps_masks_and_offsets_in_step():
    tokenizer = byte_tokenizer()
    segments = [Segment("a<image>b<image>", "template"), Segment("cé", "question"), Segment("d", "answer")]
    encoded = encode_segments(tokenizer, segments, IMAGE).expand_images(IMAGE, [3, 2])
    text = "a" + "<image>" * 3 + "b" + "<image>" * 2 + "céd"
    assert len(encoded.input_ids) == len(encoded.labels) == len(encoded.question_mask) == len(encoded.offsets)
    assert encoded.input_ids.count(IMAGE) == 5
    for token, (start, end) in zip(encoded.input_ids[1:], encoded.offsets[1:], strict=True):
        assert token != IMAGE or text[start:end] == "<image>"
    assert asked(tokenizer, encoded) == "cé"
    assert supervised(tokenizer, encoded) == "d"


def test_own_style_as_fields():
    style = get_style({"name": "mine", "user_open": "Q: ", "assistant_open": "\nA:", "answer_lead": " "})
    assert isinstance(style, ConversationStyle)
    assert build_prompt([Turn("user", "x")], style) == "Q: x\nA:"
