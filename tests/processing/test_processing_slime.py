from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, pipeline

from slime_vlm.errors import ConfigError, InputError, MediaError
from slime_vlm.model.modeling_slime import SlimeForConditionalGeneration
from slime_vlm.processing.chat_markers import mark_messages, without_marks
from slime_vlm.processing.image_processing_slime import SlimeImageProcessor
from slime_vlm.processing.processing_slime import SlimeProcessor
from tests.conftest import tiny_config, tiny_model
from tests.tiny_reader import tiny_reader
from tests.tiny_text import byte_tokenizer, tiny_processor

GENERIC_TEMPLATE = (
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] | trim }}"
    "{% endif %}{% endfor %}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
)


def make_image(height: int = 40, width: int = 60, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(text: str, *images: Image.Image) -> dict[str, object]:
    return {
        "role": "user",
        "content": [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}],
    }


def assistant(text: str) -> dict[str, object]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def marked(processor: SlimeProcessor, inputs, row: int = 0) -> str:
    return processor.decode(inputs["input_ids"][row][inputs["question_mask"][row].bool()])


def supervised(processor: SlimeProcessor, inputs, row: int = 0) -> str:
    labels = inputs["labels"][row]
    return processor.decode(labels[labels != -100])


def process(processor: SlimeProcessor, messages, **processor_kwargs):
    return processor.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        add_generation_prompt="return_labels" not in processor_kwargs,
        processor_kwargs=processor_kwargs,
    )


def test_from_images_to_logits_a_batch_is_one_by_one():
    """Eight images of mixed sizes and a row of text alone, through processor and model."""
    model, processor = tiny_reader(selector_text="question")
    sizes = [(40, 60), (56, 56), (300, 90), (90, 300), (150, 150), (1, 1), (500, 40), (200, 330)]
    batch = [[user(f"Question {'?' * i}", make_image(*size, seed=i))] for i, size in enumerate(sizes)]
    batch.insert(3, [user("No image?")])
    inputs = process(processor, batch, padding=True)
    assert len({tuple(grid) for grid in inputs["image_grids"].tolist()}) > 3
    with torch.no_grad():
        together = model(**inputs)
        for row, messages in enumerate(batch):
            alone = model(**process(processor, messages)).logits[0]
            logits = together.logits[row][together.attention_mask[row].bool()]
            torch.testing.assert_close(logits, alone, atol=1e-4, rtol=0)
    assert any((~kept).any() for kept in together.kept_local_tokens)


def test_batch_of_any_sizes_and_text_only_rows():
    processor = tiny_processor()
    sizes = [(40, 60), (30, 300), (28, 28), (500, 60)]
    batch = [[user(f"Question {i}?", make_image(*size))] for i, size in enumerate(sizes)] + [[user("No image?")]]
    inputs = process(processor, batch, padding=True)
    grids = [processor.image_processor.grid(*size) for size in sizes]
    assert inputs["image_grids"].tolist() == [[grid.rows, grid.cols] for grid in grids]
    assert inputs["pixel_values"].shape == (sum(grid.num_views for grid in grids), 3, 28, 28)
    shape = inputs["input_ids"].shape
    assert all(inputs[name].shape == shape for name in ("attention_mask", "question_mask"))
    images = (inputs["input_ids"] == processor.image_token_id).sum(dim=1).tolist()
    assert images == [4 + 1 + grid.num_tiles for grid in grids] + [0]
    for row in range(len(batch)):
        alone = process(processor, batch[row])
        real = inputs["attention_mask"][row].bool()
        assert torch.equal(inputs["input_ids"][row][real], alone["input_ids"][0])
        assert torch.equal(inputs["question_mask"][row][real], alone["question_mask"][0])


def test_text_only_batch_has_no_pixels():
    inputs = process(tiny_processor(), [[user("a?")], [user("longer?")]])
    assert set(inputs) == {"input_ids", "attention_mask", "question_mask"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side(side: str):
    inputs = process(tiny_processor(), [[user("a?")], [user("much longer?")]], padding_side=side)
    column = 0 if side == "left" else -1
    assert inputs["attention_mask"][:, column].tolist() == [0, 1]
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == 0).all()


def test_padding_defaults_to_left_for_answering_and_right_for_training():
    processor = tiny_processor()
    rows = [[user("a?"), assistant("b")], [user("much longer?"), assistant("c")]]
    assert process(processor, rows)["attention_mask"][0, 0] == 0
    assert process(processor, rows, return_labels=True)["attention_mask"][0, -1] == 0


def test_padding_to_a_length_and_without():
    processor = tiny_processor()
    assert process(processor, [user("a?")], padding="max_length", max_length=300)["input_ids"].shape == (1, 300)
    rows = process(processor, [[user("a?")], [user("bb?")]], padding=False, return_tensors=None)["input_ids"]
    assert [len(row) for row in rows][1] == len(rows[0]) + 1
    with pytest.raises(InputError, match="pass padding=True"):
        process(processor, [[user("a?")], [user("bb?")]], padding=False)
    with pytest.raises(InputError, match="padding is 'lots'"):
        processor.encode_conversations([[user("a?")]], padding="lots")


@pytest.mark.parametrize("style", ["llama3", "v1", "pages"])
def test_question_mask_is_the_last_question_alone(style: str):
    processor = tiny_processor(style)
    messages = [
        {"role": "system", "content": "Never say Why."},
        user("What?", make_image()),
        assistant("USER: no idea ASSISTANT: none"),
        user("  Why not, USER: me?\n"),
    ]
    inputs = process(processor, messages)
    assert marked(processor, inputs) == "Why not, USER: me?"
    assert not inputs["question_mask"][inputs["input_ids"] == processor.image_token_id].any()


@pytest.mark.parametrize("style", ["llama3", "v1", "pages"])
def test_with_labels_every_question_is_marked_and_answers_never(style: str):
    processor = tiny_processor(style)
    messages = [user("What?", make_image()), assistant("A cat."), user("Sure?"), assistant("Yes.")]
    inputs = process(processor, messages, return_labels=True)
    end, lead = processor.style.assistant_close, processor.style.answer_lead
    assert marked(processor, inputs) == "What?Sure?"
    assert supervised(processor, inputs) == f"{lead}A cat.{end}{lead}Yes.{end}"
    assert not (inputs["question_mask"].bool() & (inputs["labels"] != -100)).any()


def test_several_texts_in_a_turn_are_one_question():
    processor = tiny_processor()
    content = [
        {"type": "text", "text": "Look: "},
        {"type": "image", "image": make_image()},
        {"type": "text", "text": "what?"},
    ]
    assert marked(processor, process(processor, [{"role": "user", "content": content}])) == "Look:what?"


@pytest.mark.parametrize("style", ["llama3", "v1", "pages"])
def test_written_prompts_mark_the_same_question(style: str):
    processor = tiny_processor(style)
    messages = [user("What?", make_image()), assistant("A cat."), user("Why so?")]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs, direct = process(processor, messages), processor(text=prompt, images=make_image())
    assert all(torch.equal(inputs[name], direct[name]) for name in inputs)
    free = processor(text="<image>\nJust ask?", images=make_image())
    assert marked(processor, free) == "Just ask?"


def test_conversations_and_messages_give_the_same():
    for style in ("llama3", "v1", "pages"):
        processor = tiny_processor(style)
        image = make_image()
        rows = [
            [user("What?", image), assistant("A cat.")],
            [user("Sure?"), assistant("Yes."), user("Why?"), assistant("So.")],
        ]
        by_template = process(processor, rows, return_labels=True)
        by_turns = processor.encode_conversations(rows, images=[image])
        records = [
            [
                {"from": "human" if message["role"] == "user" else "gpt", "value": text}
                for message, text in zip(row, texts, strict=True)
            ]
            for row, texts in zip(rows, [["<image>\nWhat?", "A cat."], ["Sure?", "Yes.", "Why?", "So."]], strict=True)
        ]
        by_records = processor.encode_conversations(records, images=[[image], []])
        assert by_template.keys() == by_turns.keys() == by_records.keys()
        for name in by_template:
            assert torch.equal(by_template[name], by_turns[name]), (style, name)
            assert torch.equal(by_template[name], by_records[name]), (style, name)


def test_plain_style_for_captions():
    processor = tiny_processor("llama3")
    rows = [[{"from": "human", "value": "Describe.\n<image>"}, {"from": "gpt", "value": "a cat"}]]
    inputs = processor.encode_conversations(rows, images=[make_image()], style="plain")
    assert supervised(processor, inputs) == "a cat\n"
    assert not inputs["question_mask"].any()
    assert inputs["input_ids"].shape[1] == 1 + (4 + 1 + 4) + 6


def test_model_described_by_its_chat_template_alone():
    processor = tiny_processor(None, chat_template=GENERIC_TEMPLATE)
    messages = [user(" What? ", make_image()), assistant("A cat."), user("Why?")]
    assert marked(processor, process(processor, messages)) == "Why?"
    rows = [[user("What?", make_image()), assistant("A cat.")]]
    inputs = processor.encode_conversations(rows, images=[make_image()])
    assert (marked(processor, inputs), supervised(processor, inputs)) == ("What?", "A cat.</s>")
    assert marked(processor, processor(text="<bos>Anything?")) == "Anything?"


def test_assistant_masks_of_transformers():
    processor = tiny_processor("v1")
    inputs = processor.apply_chat_template(
        [user("What?", make_image()), assistant("A cat.")],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    mask = torch.tensor(inputs["assistant_masks"][0]).bool()
    assert processor.decode(inputs["input_ids"][0][mask]) == " A cat.</s>"


def test_continuing_an_answer():
    processor = tiny_processor("v1")
    inputs = processor.apply_chat_template(
        [user("What?", make_image()), assistant("A c")], tokenize=True, return_dict=True, continue_final_message=True
    )
    assert processor.decode(inputs["input_ids"][0]).endswith("What? ASSISTANT: A c")
    assert marked(processor, inputs) == "What?"


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("What?", [make_image()], r"the text has 0 <image> placeholder\(s\) and there are 1 image"),
        ("<image>\nWhat?", None, r"has 1 <image> placeholder\(s\) and there are 0 image"),
        (["<image> a?", "b?"], [[], [make_image()]], r"row 0 has 1 <image> placeholder\(s\) and 0 image"),
        (["<image> a?", "<image> b?"], [[make_image()]], "expected as many of each"),
        ("", None, "prompt 0 is empty"),
        (["a?", " \n"], None, "prompt 1 is empty"),
        (None, [make_image()], "there is no text"),
        ([3], None, "prompt 0 is of type int"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(text, images, message: str):
    with pytest.raises(InputError, match=message) as caught:
        tiny_processor()(text=text, images=images)
    assert "\n" not in str(caught.value).strip()


def test_truncation_never_cuts_an_image():
    processor = tiny_processor()
    text = "a <image>" + "b" * 50
    inputs = processor(text=text, images=make_image(), truncation=True, max_length=20)
    assert inputs["input_ids"].shape[1] == 20
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 4 + 1 + 4
    with pytest.raises(InputError, match="would cut through its images"):
        processor(text=text, images=make_image(), truncation=True, max_length=6)


def test_images_as_files_arrays_and_nested_lists(tmp_path: Path):
    processor, image = tiny_processor(), make_image()
    image.save(tmp_path / "image.png")
    text = "<image> a?"
    expected = processor(text=text, images=image)["pixel_values"]
    for same in ([image], [[image]], str(tmp_path / "image.png"), [tmp_path / "image.png"], [np.asarray(image)]):
        assert torch.equal(processor(text=text, images=same)["pixel_values"], expected)
    (tmp_path / "empty.png").touch()
    with pytest.raises(MediaError, match="the file is empty"):
        processor(text=text, images=tmp_path / "empty.png")


def test_two_images_in_one_prompt():
    processor = tiny_processor()
    images = [make_image(), make_image(30, 300, seed=1)]
    inputs = process(processor, [user("Compare?", *images)])
    counts = processor._get_num_multimodal_tokens([(40, 60), (30, 300)])
    assert (inputs["input_ids"] == processor.image_token_id).sum() == sum(counts["num_image_tokens"])
    assert inputs["pixel_values"].shape[0] == sum(counts["num_image_patches"])


def test_record_of_two_images():
    processor, images = tiny_processor(), [make_image(), make_image(30, 300, seed=1)]
    record = [{"from": "human", "value": "<image><image>\nCompare."}, {"from": "gpt", "value": "Equal."}]
    inputs = processor.encode_conversations([record], images=[images])
    assert inputs["image_grids"].shape == (2, 2)
    assert supervised(processor, inputs) == "Equal.<|eot_id|>"
    with pytest.raises(InputError, match="1 <image> placeholder"):
        # A flat list does not say whose the images are, so the published rule holds: several become one.
        processor.encode_conversations([record], images=images)


def test_no_message_and_no_label_rule():
    with pytest.raises(InputError, match="there is no message"):
        tiny_processor().apply_chat_template([], tokenize=True)
    with pytest.raises(ConfigError, match="needs a conversation style"):
        tiny_processor(None, chat_template=GENERIC_TEMPLATE).encode_conversations([], label_rule="published")


def test_counts_without_pixels_equal_counts_with_pixels():
    processor = tiny_processor()
    rng = np.random.default_rng(0)
    sizes = [tuple(int(side) for side in rng.integers(1, 200, 2)) for _ in range(100)]
    counts = processor._get_num_multimodal_tokens(sizes)["num_image_tokens"]
    for size, count in zip(sizes, counts, strict=True):
        inputs = processor(text="<image>a", images=Image.new("RGB", size[::-1]))
        assert (inputs["input_ids"] == processor.image_token_id).sum() == count
    assert processor._get_num_multimodal_tokens()["num_image_tokens"] is None


@pytest.mark.parametrize("style", ["llama3", "v1"])
def test_a_prompt_for_engines_has_one_placeholder_an_image(style: str):
    processor = tiny_processor(style)
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What </s> is it?"}]}]
    text = processor.apply_chat_template(mark_messages(turns, answers=False), add_generation_prompt=True)
    encoded = processor.encode_prompt(text)
    # As in a call with the image, whose placeholder is repeated there.
    whole = processor(text=text, image_grids=[[1, 1]])
    image = processor.image_token_id
    assert encoded.input_ids.count(image) == 1
    assert [i for i in encoded.input_ids if i != image] == [i for i in whole["input_ids"][0].tolist() if i != image]
    assert sum(encoded.question_mask) == int(whole["question_mask"].sum()) == len("What </s> is it?")
    assert without_marks(text) == processor.apply_chat_template(turns, add_generation_prompt=True)
    with pytest.raises(InputError, match="the prompt is empty"):
        processor.encode_prompt(" ")


def test_known_grids_stand_in_for_pixels():
    processor = tiny_processor()
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    full = process(processor, [user("What?", make_image())])
    known = process(processor, messages, image_grids=full["image_grids"].tolist())
    assert set(known) == {"input_ids", "attention_mask", "question_mask"}
    assert all(torch.equal(known[name], full[name]) for name in known)
    with pytest.raises(InputError, match=r"1 <image> placeholder\(s\) and there are 2 image"):
        process(processor, messages, image_grids=[[1, 2], [2, 2]])


def test_image_token_is_added_once_and_kept():
    tokenizer = byte_tokenizer()
    size = len(tokenizer)
    processor = SlimeProcessor(SlimeImageProcessor(), tokenizer, conversation_style="v1")
    assert processor.image_token_id == size
    assert SlimeProcessor(SlimeImageProcessor(), tokenizer).image_token_id == size
    assert len(tokenizer) == size + 1


@pytest.mark.parametrize("style", ["llama3", {"name": "own", "user_open": "Q:", "assistant_open": "A:"}, None])
def test_saved_equals_loaded(tmp_path: Path, style):
    processor = tiny_processor(style, chat_template=None if style else GENERIC_TEMPLATE)
    processor.save_pretrained(tmp_path)
    for loaded in (SlimeProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, SlimeProcessor)
        assert loaded.conversation_style == style
        assert loaded.chat_template == processor.chat_template
        assert loaded.token_layout == processor.token_layout
        messages = [user("What?", make_image()), assistant("A cat."), user("Why so?")]
        before, after = process(processor, messages), process(loaded, messages)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_processor_follows_a_config():
    config = tiny_config(views="global", max_tiles=3)
    processor = SlimeProcessor.from_config(config, byte_tokenizer(), "llama3")
    assert config.image_token_id == processor.image_token_id
    assert processor.token_layout == config.token_layout
    assert (processor.image_processor.view_size, processor.image_processor.max_tiles) == (56, 3)
    config.image_token_id += 1
    with pytest.raises(ConfigError, match="use the tokenizer that belongs to the model"):
        processor.follow(config)
    with pytest.raises(ConfigError, match="style 'cuneiform' is unknown"):
        SlimeProcessor(SlimeImageProcessor(), byte_tokenizer(), conversation_style="cuneiform")


@pytest.fixture(scope="module")
def answering() -> tuple[SlimeForConditionalGeneration, SlimeProcessor]:
    config = tiny_config()
    processor = SlimeProcessor.from_config(config, byte_tokenizer(), "llama3")
    text_config = config.text_config
    text_config.vocab_size = len(processor.tokenizer)
    return tiny_model(text_config=text_config, image_token_id=processor.image_token_id), processor


@pytest.mark.parametrize("views", ["both", "global", "local"])
def test_placeholders_are_as_many_as_the_model_expects(answering, views: str):
    model, processor = answering
    model.config.views = views
    processor.follow(model.config)
    batch = [[user("a?", make_image(40, 60))], [user("b?", make_image(300, 90))], [user("No image?")]]
    with torch.no_grad():
        outputs = model(**process(processor, batch))
    assert torch.isfinite(outputs.logits).all()
    model.config.views = "both"
    processor.follow(model.config)


def test_question_selector_reads_the_processors_mask(answering):
    model, processor = answering
    inputs = process(processor, [user("What colour?", make_image(120, 90))])
    model.config.selector_text = "question"
    with torch.no_grad():
        asked = model(**inputs).selection_scores[0]
        mask = torch.zeros_like(inputs["question_mask"])
        mask[0] = (inputs["question_mask"][0].cumsum(0) <= 4) & inputs["question_mask"][0].bool()
        part = model(**{**inputs, "question_mask": mask}).selection_scores[0]
    model.config.selector_text = "prompt"
    with torch.no_grad():
        prompt = model(**inputs).selection_scores[0]
    assert not torch.allclose(asked, part)
    assert not torch.allclose(asked, prompt)


def test_pipeline(answering):
    model, processor = answering
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    messages = [user("What?", make_image())]
    direct = process(processor, messages)
    new = model.generate(**direct, max_new_tokens=4, do_sample=False)[0, direct["input_ids"].shape[1] :]
    answer = pipe(text=messages, max_new_tokens=4, do_sample=False, return_full_text=False)[0]["generated_text"]
    assert answer == processor.decode(new, skip_special_tokens=True)


def test_prompt_and_image_in_the_order_of_llava_is_one_clear_line() -> None:
    _, processor = tiny_reader()
    image = Image.new("RGB", (30, 30))
    for first, second in (("<image>?", image), (["<image>?"], [image]), ("<image>?", np.zeros((30, 30, 3), np.uint8))):
        with pytest.raises(InputError, match=r"the order is processor\(images, text\); name the arguments") as caught:
            processor(first, second)
        assert "\n" not in str(caught.value)
    assert "pixel_values" in processor(image, "<image>?")
