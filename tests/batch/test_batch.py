"""Offline jobs: the answers of `slime ask`, every record once after any kill, and bad records that end nothing."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from slime_vlm import ask, load, open_image
from slime_vlm.batch.job import JobResult, run_job
from slime_vlm.batch.options import JobOptions
from slime_vlm.errors import ConfigError, DataError
from slime_vlm.media import open_input
from slime_vlm.serving.settings import Settings
from tests.media.test_video import write_clip
from tests.serving.conftest import drawn
from tests.tiny_reader import save_tiny_reader

NEW = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, pictures, and records that ask about them."""
    found = tmp_path_factory.mktemp("batch")
    save_tiny_reader(found / "model", max_tiles=4)
    for name in ("a", "b", "c"):
        drawn(name, 90, 60 + 30 * ord(name) % 90).save(found / f"{name}.png")
    write(found / "records.jsonl", RECORDS)
    return found


RECORDS = [
    {"id": f"r{number}", "image": f"{'abc'[number % 3]}.png", "question": f"question {number}?"} for number in range(10)
]


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def job(folder: Path, out: Path, records: str = "records.jsonl", slots: int = 3, **fields: Any) -> JobResult:
    options = {
        "records": str(folder / records),
        "out": out,
        "model": str(folder / "model"),
        "limits": Settings(slots=slots, max_tokens=NEW),
        "open_image": open_input,
        "device": "cpu",
        **fields,
    }
    return run_job(JobOptions(**options), Console(file=io.StringIO()))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def answers(out: Path) -> list[dict[str, Any]]:
    """What does not depend on time."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows(out / "answers.jsonl")]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The folder of a job that nothing interrupted."""
    out = folder / "whole"
    assert job(folder, out) == JobResult(10, 10, 0, False)
    return out


def test_answers_are_those_of_ask_in_the_order_of_the_records(folder: Path, whole: Path) -> None:
    model, processor = load(folder / "model", device="cpu")
    found = answers(whole)
    for record, row in zip(RECORDS, found, strict=True):
        image = open_image(folder / record["image"])
        (alone,) = ask(model, processor, image, record["question"], max_new_tokens=NEW)
        assert (row["id"], row["answer"]) == (record["id"], alone.text)
        assert row["grids"] == [[alone.grid.rows, alone.grid.cols]]
        tokens = row["tokens"]
        assert (tokens["global"], tokens["local"], tokens["kept"]) == (
            alone.num_global,
            alone.num_local,
            alone.num_kept,
        )
    assert len({row["answer"] for row in found}) > 5
    assert not (whole / "errors.jsonl").exists()


def test_a_file_that_ends_anywhere_is_continued(folder: Path, whole: Path, tmp_path: Path) -> None:
    """A kill leaves the first bytes of the answers, however many."""
    content, expected = (whole / "answers.jsonl").read_bytes(), answers(whole)
    lines = content.splitlines(keepends=True)
    first = len(lines[0])
    for cut in (0, 1, first - 1, first, first + 1, len(content) // 2, len(content) - 1, len(content)):
        out = tmp_path / str(cut)
        shutil.copytree(whole, out)
        (out / "answers.jsonl").write_bytes(content[:cut])
        # What a kill while files are replaced leaves.
        (out / "answers.jsonl.part").write_bytes(b"half")
        (out / "errors.jsonl").write_bytes(b'{"id": "r9", "err')
        assert job(folder, out) == JobResult(10, 10, 0, False)
        assert answers(out) == expected
        # The lines that were whole are the very same, times included.
        kept = content[:cut].count(b"\n")
        assert (out / "answers.jsonl").read_bytes().splitlines(keepends=True)[:kept] == lines[:kept]
        assert not (out / "errors.jsonl").exists()


def test_killed_again_and_again_it_answers_every_record_once(folder: Path, whole: Path, tmp_path: Path) -> None:
    """Signals to the real command as soon as so many answers are there."""
    out = tmp_path / "out"
    names = ["--model", str(folder / "model"), "--max-new-tokens", str(NEW), "--slots", "2", "--device", "cpu"]
    command = [sys.executable, "-m", "slime_vlm", "batch", str(folder / "records.jsonl"), "--out", str(out), *names]
    for wanted, number, expected in ((1, signal.SIGKILL, -9), (3, signal.SIGINT, 130), (5, signal.SIGKILL, -9)):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while len(rows_so_far(out)) < wanted and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(number)
            _, errors = process.communicate()
        # On a busy machine the signal may come after the end.
        assert process.returncode in (expected, 0), errors
        if process.returncode == 130:
            line = errors.splitlines()[-1]
            assert re.fullmatch(r"slime: interrupted, \d+ of 10 records answered; run the same command .*", line)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"10 of 10 records answered: {out / 'answers.jsonl'}" in done.stdout
    assert answers(out) == answers(whole)


def rows_so_far(out: Path) -> list[bytes]:
    path = out / "answers.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def test_an_interrupt_ends_the_job_cleanly(folder: Path, whole: Path, tmp_path: Path) -> None:
    out, given = tmp_path / "out", 0

    class Interrupting:
        def __call__(self, spec: str) -> Image.Image:
            nonlocal given
            given += 1
            if given == 3:
                signal.raise_signal(signal.SIGINT)
            return open_image(spec)

    # Processes that run tests for another one ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # Python delivers it to the main thread, in whatever it does then.
        result = job(folder, out, open_image=Interrupting(), slots=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.is_interrupted
    assert result.num_answers < 10
    assert job(folder, out) == JobResult(10, 10, 0, False)
    assert answers(out) == answers(whole)


def test_bad_records_are_listed_and_tried_again(folder: Path, tmp_path: Path) -> None:
    records: list[Any] = [
        {"image": "a.png", "question": "no id?"},
        "this is not JSON",
        {"id": 7, "image": "later.png", "question": "missing?"},
        {"id": 7, "question": "the same id"},
        {"id": "empty", "question": "  "},
        {"id": "out", "image": "../a.png", "question": "?"},
        {"id": "web", "image": "https://example.com/a.png", "question": "?"},
        {"id": "list", "question": ["?"]},
        {"id": "none", "image": "a.png"},
        {"id": "long", "question": "x" * 900},
        {"id": "last", "question": "text alone?"},
    ]
    folder = shutil.copytree(folder, tmp_path / "copy")
    write(folder / "bad.jsonl", records)
    out = tmp_path / "out"
    fields = {"limits": Settings(slots=3, max_tokens=NEW, max_length=800)}
    assert job(folder, out, "bad.jsonl", **fields) == JobResult(11, 2, 9, False)
    assert [row["id"] for row in answers(out)] == [0, "last"]
    assert answers(out)[1]["grids"] == []
    errors = {row["record"]: row for row in rows(out / "errors.jsonl")}
    said = {
        1: "not JSON",
        2: "later.png: no such file",
        3: "record 2 has the same id",
        4: "the question is empty",
        5: "leads out of",
        6: "nothing is downloaded without --allow-url",
        7: "'question' is ['?'], expected text",
        8: "expected one",
        9: "passes the limit of 800; lower --max-local-tokens",
    }
    assert sorted(errors) == sorted(said)
    for index, text in said.items():
        assert text in errors[index]["error"]
        assert "\n" not in errors[index]["error"]
    drawn("later").save(folder / "later.png")
    assert job(folder, out, "bad.jsonl", **fields) == JobResult(11, 3, 8, False)
    assert [row["id"] for row in answers(out)] == [0, 7, "last"]


def test_errors_that_nobody_foresaw_end_nothing(folder: Path, tmp_path: Path) -> None:
    def opened(spec: str) -> Any:
        if spec.endswith("b.png"):
            raise RuntimeError("decoder\nfailed")
        return open_input(spec)

    folder = shutil.copytree(folder, tmp_path / "copy")
    write(folder / "deep.jsonl", [*RECORDS[:3], "[" * 200_000])
    out = tmp_path / "out"
    assert job(folder, out, "deep.jsonl", open_image=opened) == JobResult(4, 2, 2, False)
    errors = {row["record"]: row["error"] for row in rows(out / "errors.jsonl")}
    assert errors[1] == "RuntimeError: decoder failed"
    assert "\n" not in errors[3]


def test_other_kinds_of_records_and_images(folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folder, tmp_path / "copy")
    write_clip(folder / "film.mp4", 8)
    first, second = Image.open(folder / "a.png"), Image.open(folder / "b.png")
    first.save(folder / "two.tif", save_all=True, append_images=[second])
    turns = [("human", "<image>\nWhat?"), ("gpt", "This."), ("human", "And now?"), ("gpt", "The answer.")]
    records = [
        {"id": "several", "images": ["a.png", "b.png"], "question": "both?"},
        {"id": "page", "image": "two.tif#2", "question": "page?"},
        {"id": "same", "image": "b.png", "question": "page?"},
        {"id": "film", "image": "film.mp4", "question": "film?"},
        {"id": "turns", "image": "a.png", "conversations": [{"from": who, "value": text} for who, text in turns]},
        {"id": "cut", "image": "a.png", "conversations": [{"from": who, "value": text} for who, text in turns[:3]]},
    ]
    write(folder / "kinds.jsonl", records)
    assert job(folder, tmp_path / "out", "kinds.jsonl") == JobResult(6, 6, 0, False)
    found = {row.pop("id"): row for row in answers(tmp_path / "out")}
    assert len(found["several"]["grids"]) == 2
    assert found["page"] == found["same"]
    assert found["film"]["grids"] == [[4, 2]]
    # The last answer is not shown to the model.
    assert found["turns"] == found["cut"]


def test_another_job_is_refused(folder: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    out = tmp_path / "out"
    before = (out / "answers.jsonl").read_bytes()
    write(folder / "more.jsonl", [*RECORDS, RECORDS[0]])
    write(folder / "other.jsonl", [*RECORDS[1:], RECORDS[0]])
    with pytest.raises(ConfigError, match="there were 10 records and are 11; use another --out"):
        job(folder, out, "more.jsonl")
    with pytest.raises(ConfigError, match="the records have another content or order"):
        job(folder, out, "other.jsonl")
    with pytest.raises(ConfigError, match="--dpi was None and is 100"):
        job(folder, out, settings={"--dpi": 100})
    save_tiny_reader(folder / "other", max_tiles=5)
    with pytest.raises(ConfigError, match="the fingerprint of the model was"):
        job(folder, out, model=str(folder / "other"))
    with pytest.raises(DataError, match="no records at"):
        job(folder, out, "none.jsonl")
    (out / "answers.jsonl").write_bytes(before + before.splitlines(keepends=True)[3])
    with pytest.raises(ConfigError, match="line 11 answers record 'r3' a second time"):
        job(folder, out)
    (out / "answers.jsonl").write_bytes(b'{"id": "stranger"}\n')
    with pytest.raises(ConfigError, match="line 1 is not an answer to one of these records"):
        job(folder, out)
    (out / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"has answers.jsonl and no run.json that fits"):
        job(folder, out)


def test_one_process_works_on_a_folder(folder: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    holder = (
        "import sys, fcntl; file = open(sys.argv[1], 'a+'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / "out" / "answers.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ConfigError, match="another run is at work"):
            job(folder, tmp_path / "out")
        process.communicate()
    assert job(folder, tmp_path / "out") == JobResult(10, 10, 0, False)
