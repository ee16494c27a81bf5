"""Small raw sets in the layout of the real ones. Each has three or more records, all of them invented."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.writing import make_image, turns, write_lines


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make_image("blue"))


def arxivqa(folder: Path) -> None:
    names = [f"images/1810.0000{i}_0.jpg" for i in range(3)]
    _images(folder, *names)
    labels = ["B", "A. because it rises", "D) none"]
    rows = [
        {
            "id": f"physics-{i}",
            "image": name,
            "question": f"What does curve {i} show?",
            "options": ["A. a rise", "B. a fall", "C. noise", "D. none of these"],
            "label": labels[i],
            "rationale": "The curve bends.",
        }
        for i, name in enumerate(names)
    ]
    write_lines(folder / "arxivqa.jsonl", [*rows, {**rows[0], "id": "physics-3", "label": "-"}])


def dvqa(folder: Path) -> None:
    rows = []
    for i in range(4):
        name = f"bar_train_0000000{i}.png"
        # The last image is missing.
        if i < 3:
            _images(folder, f"images/{name}")
        rows += [
            {
                "image": name,
                "question": "How many bars are there?",
                "answer": "three",
                "question_type": kind,
                "bbox_answer": [],
                "question_id": 10 * i + number,
            }
            for number, kind in enumerate(("structure", "reasoning"))
        ]
    _json(folder / "train_qa.json", rows)


def chartqa(folder: Path) -> None:
    for kind, count in (("human", 2), ("augmented", 1)):
        names = [f"{kind}{i}.png" for i in range(count)]
        _images(folder, *(f"train/png/{name}" for name in names))
        rows = [{"imgname": name, "query": "Which year is highest?", "label": "2014"} for name in names]
        _json(folder / "train" / f"train_{kind}.json", rows)


def geometry3k(folder: Path) -> None:
    for number in (0, 1, 2400, 2401):
        _images(folder, f"{number}/img_diagram.png")
        content = {
            "problem_text": "Find x.",
            "choices": ["10", "20", "30", "40"],
            "answer": "C",
            "problem_type_graph": ["Triangle"],
            "problem_type_goal": ["Length"],
            "data_type": "train",
            "id": number,
        }
        _json(folder / str(number) / "data.json", content)


def geoqa3(folder: Path) -> None:
    rows = [
        {
            "id": number,
            "image": np.zeros((4, 5), dtype=np.uint8),
            "subject": "如图求∠A的度数",
            "choices": ["30°", "40°", "50°", "60°"],
            "label": number % 4,
            "answer": "由题意得",
        }
        for number in range(3)
    ]
    _images(folder, *(f"image/{row['id']}.png" for row in rows))
    (folder / "train.pk").write_bytes(pickle.dumps(rows))


def geoqa_plus(folder: Path) -> None:
    _images(folder, "images/0.png", "images/1.png", "images/2.png")
    write_lines(
        folder / "geoqa+.jsonl",
        [
            {"id": i, "image": f"data/geoqa+/images/{i}.png", "conversations": turns("<image>\n∠A?", "A")}
            for i in range(3)
        ],
    )


def mathvision(folder: Path) -> None:
    rows = [
        {
            "id": str(i),
            "question": "How many cubes? <image1>",
            "options": ["1", "2"] if i % 2 else [],
            "image": f"images/{i}.jpg",
            "answer": "B",
            "solution": "Count them." if i else None,
            "level": 1,
            "subject": "counting",
        }
        for i in range(5)
    ]
    _images(folder, *(row["image"] for row in rows))
    # In test-mini the last row has another id and the same image.
    write_lines(folder / "test.jsonl", rows)
    write_lines(folder / "testmini.jsonl", [rows[0], {**rows[4], "id": "other"}])


def scienceqa(folder: Path) -> None:
    rows = {
        str(i): {
            "question": "Which is a mammal?",
            "choices": ["dog", "ant"],
            "answer": 0,
            "hint": "Look at the picture." if i == 1 else "",
            "image": "image.png" if i % 2 else None,
            "lecture": "Mammals have hair.",
            "solution": "",
            "split": "train" if i < 3 else "test",
        }
        for i in range(1, 5)
    }
    _images(folder, "train/1/image.png", "test/3/image.png")
    _json(folder / "problems.json", rows)
    _json(folder / "pid_splits.json", {"train": ["1", "2"], "val": [], "test": ["3", "4"]})


def tabmwp(folder: Path) -> None:
    for split, numbers in (("train", (1, 2)), ("dev", (3,)), ("test", (4,))):
        rows = {
            str(number): {
                "question": "How much is a pen?",
                "choices": ["$1", "$2"] if number == 2 else None,
                "answer": "$2",
                "table": "pen | $2",
                "solution": "Find the pen in the table.",
            }
            for number in numbers
        }
        _images(folder, *(f"tables/{number}.png" for number in numbers))
        _json(folder / f"problems_{split}.json", rows)


def textbookqa(folder: Path) -> None:
    def question(right: str, number: int) -> dict[str, Any]:
        return {
            "questionType": "Diagram Multiple Choice",
            "beingAsked": {"rawText": "1. Which is A?", "processedText": "Which is A?"},
            "answerChoices": {
                letter: {"rawText": f"{letter}. {text}", "processedText": text}
                for letter, text in (("a", "leaf"), ("b", "root"))
            },
            "correctAnswer": {"rawText": f"{right}.", "processedText": right},
            "imagePath": f"question_images/{number}.png",
            "globalID": f"DQ_{number}",
        }

    diagrams = {
        f"DD_{i}": {"imagePath": f"teaching_images/{i}.png", "processedText": text}
        for i, text in enumerate(("A plant has roots.", ""))
    }
    questions = {f"DQ_{i}": question(right, i) for i, right in enumerate(("b", "a", "all of these"))}
    lesson = {
        "globalID": "L_1",
        "lessonName": "plants",
        "topics": {},
        "questions": {"diagramQuestions": questions, "nonDiagramQuestions": {}},
        "instructionalDiagrams": diagrams,
    }
    _images(folder / "train", *(f"question_images/{i}.png" for i in range(3)), "teaching_images/0.png")
    _json(folder / "train" / "tqa_v1_train.json", [lesson])


def ai2d(folder: Path) -> None:
    for number in range(3):
        _images(folder, f"images/{number}.png", f"abc_images/{number}.png")
        questions = {
            f"What is {letter}?": {
                "abcLabel": letter == "A",
                "answerTexts": ["leaf", "root", "stem", "seed"],
                "correctAnswer": 1,
                "questionId": f"{number}.png-{letter}",
            }
            for letter in ("A", "the root")
        }
        _json(folder / "questions" / f"{number}.png.json", {"imageName": f"{number}.png", "questions": questions})
    (folder / "ai2d_test_ids.csv").write_text("2\n")


MAKERS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker
    for maker in (
        arxivqa,
        dvqa,
        chartqa,
        geometry3k,
        geoqa3,
        geoqa_plus,
        mathvision,
        scienceqa,
        tabmwp,
        textbookqa,
        ai2d,
    )
}
