"""Writes the fixtures: records that we made up, in the format of each benchmark's own records.

python -m tests.evaluation.make_fixtures
"""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image, ImageDraw

FIXTURES = Path(__file__).parent / "fixtures"
SIZES = ((48, 64), (64, 48), (200, 300), (420, 360), (700, 500))
COLOURS = ("red", "blue", "green", "orange", "purple")


def make_image(number: int) -> bytes:
    """A coloured square with a number on it, a few hundred bytes of PNG; sizes are (height, width)."""
    height, width = SIZES[number % len(SIZES)]
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 4, height // 4, width // 2, height // 2), fill=COLOURS[number % len(COLOURS)])
    draw.text((2, 2), str(number), fill="black")
    file = io.BytesIO()
    image.quantize(8).save(file, "PNG", optimize=True)
    return file.getvalue()


def text_image(number: int) -> str:
    return base64.b64encode(make_image(number)).decode()


def hub_image(number: int) -> dict[str, Any]:
    """As `datasets` writes an image into Parquet."""
    return {"bytes": make_image(number), "path": f"{number}.png"}


def ten(*answers: str) -> list[str]:
    """Ten annotators who gave these answers in turn."""
    return [answers[index % len(answers)] for index in range(10)]


VQAV2 = [
    {
        "question_id": 262148000 + n,
        "question": question,
        "question_type": "what",
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": index + 1}
            for index, answer in enumerate(ten(*answers))
        ],
        "image_id": 262148,
        "answer_type": "other",
        "image": hub_image(n),
    }
    for n, (question, answers) in enumerate(
        [
            ("What color is the square?", ("red", "red", "dark red")),
            ("How many squares are there?", ("1", "one")),
            ("Is it green?", ("yes",)),
        ]
    )
]
GQA_QUESTIONS = [
    {"id": "201307251", "imageId": "n1", "question": "What color is the square?", "answer": "red", "isBalanced": True},
    {"id": "201307252", "imageId": "n1", "question": "Is there a circle?", "answer": "no", "isBalanced": True},
    {
        "id": "201307253",
        "imageId": "n2",
        "question": "Which kind of shape is it?",
        "answer": "square",
        "isBalanced": True,
    },
]
GQA_IMAGES = [{"id": f"n{n}", "image": hub_image(n)} for n in (1, 2)]
VIZWIZ = [
    {
        "question_id": f"VizWiz_val_0000000{n}.jpg",
        "image": f"images/{n}.png",
        "question": question,
        "answers": ten(*answers),
        "category": "other",
    }
    for n, (question, answers) in enumerate(
        [
            ("what number is this?", ("0", "zero", "unanswerable")),
            ("which colour is the square?", ("blue",)),
            ("what is behind the wall?", ("unanswerable", "unsuitable")),
        ]
    )
]
TEXTVQA = [
    {
        "image_id": f"003a8ae2ef43b90{n}",
        "question_id": 34602 + n,
        "question": question,
        "question_tokens": question.split(),
        "image": f"images/{n}.png",
        "image_width": SIZES[n][1],
        "image_height": SIZES[n][0],
        "ocr_tokens": [str(n), "ACME"],
        "answers": ten(*answers),
        "set_name": "val",
    }
    for n, (question, answers) in enumerate(
        [
            ("what number is written?", ("0", "zero")),
            ("what number is in the corner?", ("1", "1.", "no 1")),
            ("which digit is there?", ("2", "two", "answering does not require reading text in the image")),
        ]
    )
]
SCIENCEQA = [
    {
        "question": "Which of these is red?",
        "choices": ["the sky", "the square"],
        "answer": 1,
        "hint": "Look at the picture.",
        "image": text_image(0),
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
        "lecture": "",
        "solution": "",
    },
    {
        "question": "Which is a number?",
        "choices": ["1", "dog", "cat"],
        "answer": 0,
        "hint": "",
        "image": text_image(1),
    },
    {"question": "Which is larger?", "choices": ["2", "3"], "answer": 1, "hint": "", "image": None},
]
POPE = [
    {
        "id": str(n),
        "question_id": str(n % 2 + 1),
        "question": f"Is there a {thing} in the image?",
        "answer": answer,
        "image_source": "COCO_val2014_000000310196",
        "image": f"images/{n % 3}.png",
        "category": category,
    }
    for n, (thing, answer, category) in enumerate(
        [
            ("square", "yes", "adversarial"),
            ("snowboard", "no", "adversarial"),
            ("square", "yes", "popular"),
            ("person", "no", "popular"),
            ("square", "yes", "random"),
            ("banana", "no", "random"),
        ]
    )
]
MME = [
    {
        "question_id": f"{category}/{number}.jpg",
        "image": hub_image(number),
        "question": f"{question} Please answer yes or no.",
        "answer": answer,
        "category": category,
    }
    for number, category, pairs in (
        (0, "existence", (("Is there a square in this image?", "Yes"), ("Is there a cat in this image?", "No"))),
        (1, "OCR", (("Is the number in the picture 1?", "Yes"), ("Is the number in the picture 7?", "No"))),
        (2, "code_reasoning", (("Does it print 2?", "Yes"), ("Does it print 5?", "No"))),
    )
    for question, answer in pairs
]


def mmbench(question: str, options: list[str], split: str = "dev") -> list[dict[str, Any]]:
    """A question, its rotation, and one that is not rotated; the right option of the first is the first."""
    rows = []
    for index, rotation, image_number, asked, texts in (
        (241, 0, 0, question, options),
        (1_000_241, 1, 0, question, options),
        (252, 0, 1, f"{question} (2)", options[:2]),
    ):
        turned = texts[-rotation:] + texts[:-rotation] if rotation else texts
        row: dict[str, Any] = {"index": index, "question": asked, "hint": "nan" if index == 252 else "A hint."}
        row |= {letter: text for letter, text in zip("ABCD", [*turned, "nan", "nan"], strict=False)}
        row |= {"answer": "ABCD"[rotation], "category": "identity_reasoning", "image": text_image(image_number)}
        row |= {"source": "made up", "l2-category": "attribute_reasoning", "comment": "nan", "split": split}
        rows.append(row)
    return rows


SEED = [
    {
        "answer": "A",
        "choice_a": "Red",
        "choice_b": "Blue",
        "choice_c": "Green",
        "choice_d": "None",
        "data_id": "1454426_2591111986",
        "data_type": kind,
        "question": "What is the color of the square?",
        "question_id": str(101669 + n),
        "question_type_id": 4,
        "image": [text_image(number) for number in numbers],
    }
    for n, (kind, numbers) in enumerate([("image", (0,)), ("image", (1,)), ("video", (0, 1))])
]
MMMU = [
    {
        "id": "validation_Accounting_1",
        "question": "<image 1> What does the chart show?",
        "options": "['$6', '$7', 'red', \"it's blue\"]",
        "explanation": "",
        "image_1": text_image(0),
        "image_2": None,
        "answer": "C",
        "question_type": "multiple-choice",
        "subfield": "Managerial Accounting",
    },
    {
        "id": "validation_Physics_2",
        "question": "Compare <image 1> with <image 2>.",
        "options": "['alike', 'different']",
        "explanation": "",
        "image_1": text_image(0),
        "image_2": text_image(1),
        "answer": "B",
        "question_type": "multiple-choice",
        "subfield": "Optics",
    },
    {
        "id": "validation_Art_3",
        "question": "Which number is in <image 1>?",
        "options": "[]",
        "explanation": "",
        "image_1": text_image(3),
        "image_2": None,
        "answer": "['3', 'three']",
        "question_type": "open",
        "subfield": "Drawing",
    },
]
MATHVISTA = [
    {
        "pid": str(n + 1),
        "question": question,
        "image": f"images/{n}.png",
        "decoded_image": text_image(n),
        "choices": choices,
        "unit": None,
        "precision": precision,
        "answer": answer,
        "question_type": question_type,
        "answer_type": answer_type,
        "query": f"Hint: {hint}\nQuestion: {question}",
        "metadata": {
            "split": "testmini",
            "task": task,
            "skills": ["numeric commonsense"],
            "context": "synthetic scene",
            "grade": "daily life",
            "language": "english",
            "source": "made up",
            "category": "math-targeted-vqa",
        },
    }
    for n, (question, choices, precision, answer, question_type, answer_type, task, hint) in enumerate(
        [
            ("Colour?", ["red", "blue"], None, "red", "multi_choice", "text", "figure QA", "Answer by a letter."),
            ("How many?", None, None, "1", "free_form", "integer", "figure QA", "Answer by an integer."),
            ("Mean?", None, 1.0, "2.5", "free_form", "float", "math word problem", "Answer by one decimal."),
        ]
    )
]
MATHVERSE = [
    {
        "sample_index": str(n + 1),
        "problem_index": "1",
        "problem_version": version,
        "question": "What is the side?" if version == "Text Dominant" else "",
        "image": image,
        "answer": answer,
        "question_type": question_type,
        "metadata": {"split": "testmini", "source": "made up", "subject": "Plane Geometry", "subfield": "Length"},
        "query_wo": "Answer directly. What is the side?",
        "query_cot": "Think first. What is the side?",
        "question_for_eval": "What is the side?\nChoices:\nA:3\nB:4",
    }
    for n, (version, image, answer, question_type) in enumerate(
        [
            ("Text Dominant", text_image(0), "A", "multi-choice"),
            ("Vision Only", text_image(1), "A", "multi-choice"),
            ("Text Only", "", "5/2", "free-form"),
        ]
    )
]
MATHVISION = [
    {
        "id": str(n + 4),
        "question": f"<image1> {question}",
        "options": options,
        "image": f"images/{n}.jpg",
        "decoded_image": text_image(n),
        "answer": answer,
        "solution": None,
        "level": n + 1,
        "subject": subject,
    }
    for n, (question, options, answer, subject) in enumerate(
        [
            ("How many squares?", ["1", "2", "3", "4", "5"], "A", "counting"),
            ("What part is coloured?", [], "\\frac{1}{16}", "metric geometry - area"),
            ("Where is its corner?", [], "(75,50)", "analytic geometry"),
        ]
    )
]
CHARTQA = [
    {"type": kind, "question": question, "answer": answer, "image": text_image(n)}
    for n, (kind, question, answer) in enumerate(
        [
            ("human_test", "What is the value of the bar?", "14"),
            ("human_test", "Is it larger than 3?", "Yes"),
            ("augmented_test", "What was the share in 2019?", "22.5"),
        ]
    )
]
AMBER_QUERIES = [
    {"id": 1005, "image": "AMBER_1.png", "query": "Is the square red in this image?"},
    {"id": 1006, "image": "AMBER_1.png", "query": "Is there a dog in this image?"},
    {"id": 1007, "image": "AMBER_2.png", "query": "Does the square touch the number in this image?"},
]
AMBER_DESCRIPTIONS = [
    {"id": n, "image": f"AMBER_{image}.png", "query": "Describe this image."} for n, image in ((1, 1), (2, 2), (3, 1))
]
AMBER_ANNOTATIONS = [
    {"id": 1, "type": "generative", "truth": ["square"], "hallu": ["circle"]},
    {"id": 2, "type": "generative", "truth": ["square", "square", "sky"], "hallu": ["sky", "bird"]},
    {"id": 3, "type": "generative", "truth": ["person", "traffic light"], "hallu": []},
    {"id": 1005, "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": 1006, "type": "discriminative-hallucination", "truth": "no"},
    {"id": 1007, "type": "relation", "truth": "no"},
]
DOCVQA = [
    {
        "questionId": str(49153 + n),
        "question": question,
        "question_types": ["layout"],
        "image": text_image(n),
        "docId": 14465,
        "ucsf_document_id": "pybv0228",
        "ucsf_document_page_no": "81",
        "answers": answers,
        "data_split": "val",
    }
    for n, (question, answers) in enumerate(
        [
            ("What is the number?", ["0", "zero"]),
            ("What is the title?", ["Annual Report 2019"]),
            ("What is the amount due?", ["$ 1,250.00", "1,250.00"]),
        ]
    )
]
OCRBENCH = [
    {"dataset": dataset, "question": question, "question_type": kind, "answer": answer, "image": text_image(n)}
    for n, (dataset, question, kind, answer) in enumerate(
        [
            ("IIIT5K", "what is written in the image?", "Regular Text Recognition", ["CENTRE"]),
            ("docVQA", "What is the total?", "Doc-oriented VQA", ["12.50", "$12.50"]),
            (
                "HME100k",
                "Write the formula in LaTeX.",
                "Handwritten Mathematical Expression Recognition",
                ["\\frac { 1 } { 2 }"],
            ),
        ]
    )
]
OCRBENCH_V2 = [
    {
        "id": n,
        "dataset_name": "made up",
        "type": kind,
        "question": question,
        "answers": [answer],
        "eval": method,
        "bbox": None,
        "image": text_image(n),
    }
    for n, (kind, question, answer, method) in enumerate(
        [
            ("cognition VQA en", "What is written?", "ACME", None),
            ("math QA en", "Which option?", "B", "multiple choice"),
            ("key information extraction en", "What is the total?", '{"total": "12.50"}', None),
            ("text counting en", "How often is it written?", "7", "regression"),
        ]
    )
]
HR_BENCH = [
    {
        "index": index,
        "question": "What colour is the square?",
        "answer": answer,
        "category": category,
        "A": "red" if answer == "A" else "blue",
        "B": "blue" if answer == "A" else "red",
        "C": "green",
        "D": "black",
        "cycle_category": str(cycle),
        "image": text_image(4),
    }
    for index, category in ((0, "single"), (1, "cross"))
    for cycle, answer in ((0, "A"), (1, "B"))
]
VSTAR = [
    {
        "question_id": str(n),
        "image": text_image(n + 2),
        "text": f"{question}\n(A) {options[0]}\n(B) {options[1]}\nAnswer with the option's letter from the given choices directly.",  # noqa: E501
        "category": category,
        "label": label,
    }
    for n, (question, options, category, label) in enumerate(
        [
            ("What is the color of the square?", ("green", "white"), "direct_attributes", "A"),
            ("What is the color of the square?", ("white", "orange"), "direct_attributes", "B"),
            ("Is the square left of the number?", ("right", "left"), "relative_position", "A"),
        ]
    )
]
REALWORLD = [
    {
        "index": n,
        "bytes": text_image(n),
        "path": f"{n}.png",
        "question": question,
        "answer": answer,
        "category": category,
        "l2-category": second,
        "multi-choice options": ["(A) red", "(B) blue", "(C) green", "(D) white", "(E) The image does not show it."],
    }
    for n, (question, answer, category, second) in enumerate(
        [
            ("What colour is the sign?", "A", "Perception/OCR with Complex Context", "signage"),
            ("What colour is the roof?", "B", "Perception/Remote Sensing", "color"),
            ("Which lamp is on?", "E", "Reasoning/Autonomous_Driving", "attention"),
        ]
    )
]
REALWORLD_CN = [
    {
        "index": n,
        "bytes": text_image(n),
        "path": f"{n}.png",
        "question": question,
        "answer": answer,
        "category": category,
        "l2-category": second,
        "multi-choice options": ["（A）红色", "（B）蓝色", "（C）绿色", "（D）白色", "（E）图片中没有。"],
    }
    for n, (question, answer, category, second) in enumerate(
        [
            ("招牌是什么颜色？", "A", "Perception/OCR with Complex Context", "signage"),
            ("屋顶是什么颜色？", "B", "Perception/Remote Sensing", "color"),
            ("哪盏灯亮着？", "E", "Reasoning/Autonomous_Driving", "attention"),
        ]
    )
]
VIDEO_MME = [
    {
        "video_id": f"{n // 2 + 1:03d}",
        "duration": duration,
        "domain": domain,
        "sub_category": "Astronomy",
        "url": f"https://www.youtube.com/watch?v=made_up_{n // 2}",
        "videoID": f"made_up_{n // 2}",
        "question_id": f"{n // 2 + 1:03d}-{n % 2 + 1}",
        "task_type": "Counting Problem",
        "question": question,
        "options": ["A. It grows.", "B. It fades.", "C. It turns red.", "D. It stays."],
        "answer": answer,
    }
    for n, (duration, domain, question, answer) in enumerate(
        [
            ("short", "Knowledge", "What does the square do?", "B"),
            ("short", "Knowledge", "What does the paper do?", "D"),
            ("long", "Artistic Performance", "What does the square do?", "B"),
        ]
    )
]
MM_VET = [
    {
        "question_id": f"v1_{n}",
        "image": text_image(n),
        "question": question,
        "answer": answer,
        "image_source": "made up",
        "capability": capability,
    }
    for n, (question, answer, capability) in enumerate(
        [
            ("What is x?", "-1<AND>-5", "ocr,math"),
            ("What colour is it?", "blue<OR>navy", "rec"),
            ("What is the sum?", "2", "math,ocr"),
        ]
    )
]
LLAVA_BENCH = [
    {
        "question_id": n,
        "question": question,
        "image": text_image(n),
        "image_id": f"{n:03d}.jpg",
        "category": category,
        "caption": "A red square on white.",
        "gpt_answer": "There is one square.",
    }
    for n, (question, category) in enumerate(
        [("What is shown?", "conv"), ("Describe the picture in detail.", "detail"), ("Why is it red?", "complex")]
    )
]
MMHAL = [
    {
        "question_type": kind,
        "question_topic": "indoor",
        "image_id": f"{n}",
        "image_src": "none",
        "image_path": f"images/{n}.png",
        "image_content": ["square", "number"],
        "question": question,
        "gt_answer": answer,
    }
    for n, (kind, question, answer) in enumerate(
        [
            ("attribute", "What colour is the square?", "It is red."),
            ("adversarial", "What does the dog do?", "There is no dog."),
            ("counting", "How many squares are there?", "One."),
        ]
    )
]

MMMU_PRO = [
    {
        "id": f"test_{subject}_{n}",
        "question": question,
        "options": str([f"answer {letter}" for letter in "abcdefghij"]),
        "answer": answer,
        "subject": subject,
        "image_1": text_image(0),
        "image_2": text_image(1) if n == 2 else None,
    }
    for n, (subject, question, answer) in enumerate(
        [
            ("Accounting", "<image 1> What does the chart show?", "J"),
            ("Accounting", "Which is it in <image 1>?", "B"),
            ("Music", "Does <image 2> follow <image 1>?", "C"),
        ]
    )
]
MMMU_PRO_VISION = [
    {"image": text_image(n), **{name: one[name] for name in ("id", "options", "answer", "subject")}}
    for n, one in enumerate(MMMU_PRO)
]
MMSTAR = [
    {
        "index": n,
        "question": f"{question}\nOptions: A: red, B: blue, C: green, D: white",
        "image": text_image(n),
        "answer": answer,
        "category": category,
        "l2_category": second,
        "meta_info": "{}",
    }
    for n, (question, answer, category, second) in enumerate(
        [
            ("Which colour is the square?", "A", "coarse perception", "image scene and topic"),
            ("Which colour is the square?", "B", "coarse perception", "image emotion"),
            ("Which colour is the paper?", "D", "math", "geometry"),
        ]
    )
]
REALWORLDQA = [
    {"question": question, "answer": answer, "image": text_image(n)}
    for n, (question, answer) in enumerate(
        [
            ("Where is the square?\n\nA. Left\nB. Right\nPlease answer directly with only the letter.", "A"),
            ("How many squares are there? Please answer directly with a single word or number.", "1"),
            ("Which way does it slope?", "Downhill"),
        ]
    )
]
HALLUSION = [
    {
        "category": category,
        "subcategory": subcategory,
        "visual_input": "1" if image else "0",
        "set_id": "0",
        "figure_id": figure,
        "question_id": question,
        "question": text,
        "gt_answer": answer,
        "gt_answer_details": f"The answer is {'yes' if answer == '1' else 'no'}.",
        "filename": None,
        "image": image,
    }
    for category, subcategory, figure, question, text, answer, image in [
        ("VD", "illusion", "0", "0", "Is the square larger than the number?", "1", text_image(0)),
        ("VD", "illusion", "0", "1", "Is the number larger than the square?", "0", text_image(0)),
        ("VD", "illusion", "1", "0", "Is the square larger than the number?", "0", text_image(1)),
        ("VS", "chart", "0", "0", "Was it red in 2018?", "1", ""),
        ("VS", "chart", "1", "0", "Was it red in 2018?", "0", text_image(2)),
    ]
]
CHARXIV = [
    {
        "image": text_image(n),
        "figure_path": f"{n}.jpg",
        "reasoning_q": question,
        "reasoning_a": answer,
        "reasoning_a_type": kind,
        "reasoning_q_source": 2,
        "category": "cs",
        "year": "20",
        "num_subplots": 1 + 2 * n,
        "subplot_row": n,
        "subplot_col": n,
        "subplot_loc": "the red panel" if n == 2 else None,
        **{f"descriptive_q{number}": 1 + (5 * n + 6 * number) % 19 for number in range(1, 5)},
        **{f"descriptive_a{number}": f"answer {number}" for number in range(1, 5)},
    }
    for n, (question, answer, kind) in enumerate(
        [("Which label is highest?", "red", 1), ("How high is it?", "14", 3), ("What is the difference?", "0.25", 4)]
    )
]


def main() -> None:
    """Write all fixtures again."""
    shutil.rmtree(FIXTURES, ignore_errors=True)
    _parquet("vqav2/data/validation-00000-of-00001.parquet", VQAV2)
    _parquet("gqa/testdev_balanced_instructions/testdev-00000-of-00001.parquet", GQA_QUESTIONS)
    _parquet("gqa/testdev_balanced_images/testdev-00000-of-00001.parquet", GQA_IMAGES)
    _parquet("mme/data/test-00000-of-00001.parquet", MME)
    for name, split, records in (
        ("vizwiz", "val", VIZWIZ),
        ("textvqa", "validation", TEXTVQA),
        ("textvqa_ocr", "validation", TEXTVQA),
        ("pope", "test", POPE),
        ("mmhal", "test", MMHAL),
        ("scienceqa", "test", SCIENCEQA),
        ("seed_bench", "test", SEED),
        ("mmmu", "validation", MMMU),
        ("mathvista", "testmini", MATHVISTA),
        ("mathverse", "testmini", MATHVERSE),
        ("mathvision", "testmini", MATHVISION),
        ("mathvision_test", "test", MATHVISION),
        ("chartqa", "test", CHARTQA),
        ("docvqa", "validation", DOCVQA),
        ("infovqa", "validation", DOCVQA),
        ("ocrbench", "test", OCRBENCH),
        ("ocrbench_v2", "test", OCRBENCH_V2),
        ("vstar", "test", VSTAR),
        ("mme_realworld", "train", REALWORLD),
        ("mme_realworld_cn", "train", REALWORLD_CN),
        ("video_mme", "test", VIDEO_MME),
        ("mm_vet", "test", MM_VET),
        ("mmmu_pro_standard", "test", MMMU_PRO),
        ("mmmu_pro_vision", "test", MMMU_PRO_VISION),
        ("mmstar", "val", MMSTAR),
        ("realworldqa", "test", REALWORLDQA),
        ("hallusion_bench", "image", HALLUSION),
        ("charxiv_reasoning", "validation", CHARXIV),
        ("charxiv_descriptive", "validation", CHARXIV),
        ("llava_bench", "train", LLAVA_BENCH),
    ):
        _jsonl(f"{name}/{split}.jsonl", records)
    for name in ("vizwiz", "textvqa", "textvqa_ocr", "pope", "mmhal"):
        for number in range(3):
            _bytes(f"{name}/images/{number}.png", make_image(number))
    _table("mmbench/mmbench_dev_20230712.tsv", mmbench("What colour is the square?", ["red", "blue", "green", "black"]))
    _table("mmbench_cn/mmbench_dev_cn_20231003.tsv", mmbench("方块是什么颜色？", ["红色", "蓝色", "绿色", "黑色"]))
    _table("hr_bench_4k/hr_bench_4k.tsv", HR_BENCH)
    _table("hr_bench_8k/hr_bench_8k.tsv", HR_BENCH)
    _bytes("amber/query_discriminative.json", json.dumps(AMBER_QUERIES, indent=1).encode())
    _bytes("amber_generative/query_generative.json", json.dumps(AMBER_DESCRIPTIONS, indent=1).encode())
    _bytes("amber_short/query_discriminative.json", json.dumps(AMBER_QUERIES, indent=1).encode())
    for name in ("amber", "amber_short", "amber_generative"):
        _bytes(f"{name}/annotations.json", json.dumps(AMBER_ANNOTATIONS, indent=1).encode())
    for name in sorted({record["videoID"] for record in VIDEO_MME}):
        _video(f"video_mme/videos/{name}.mp4")
    for number in (1, 2):
        for name in ("amber", "amber_short", "amber_generative"):
            _bytes(f"{name}/image/AMBER_{number}.png", make_image(number - 1))


def _bytes(name: str, content: bytes) -> None:
    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _video(name: str) -> None:
    """Twelve frames of a square that fades, 48 pixels high and 64 wide."""
    import av

    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(12):
            frame = Image.new("RGB", (64, 48), "white")
            ImageDraw.Draw(frame).rectangle((16, 12, 48, 36), fill=(20 * number, 20 * number, 255))
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def _jsonl(name: str, records: list[dict[str, Any]]) -> None:
    _bytes(name, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())


def _table(name: str, records: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    _bytes(name, text.getvalue().encode())


def _parquet(name: str, records: list[dict[str, Any]]) -> None:
    path = FIXTURES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


if __name__ == "__main__":
    main()
