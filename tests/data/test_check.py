"""`slime data check` finds every kind of damage, and `--fix` writes a copy without any."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from slime_vlm.cli import main
from slime_vlm.data import open_source
from slime_vlm.data.check import KINDS, check_source, write_repaired
from tests.data.writing import make_image, make_records, turns, write_lines, write_tar
from tests.tiny_reader import save_tiny_reader


@pytest.fixture
def slime(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line in this process and return exit code, standard output and standard error."""
    monkeypatch.delenv("SLIME_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slime", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def damaged(folder: Path) -> tuple[Path, dict[str, list[str]]]:
    """Write 50 records, some with damaged images of three kinds, and return the ids by kind of finding."""
    records = make_records(folder, 50)
    with_image = [record for record in records if "image" in record]
    missing, cut, empty = with_image[3:5], with_image[10:13], with_image[20:21]
    for record in missing:
        (folder / record["image"]).unlink()
    for record in cut:
        path = folder / record["image"]
        path.write_bytes(path.read_bytes()[:-25])
    for record in empty:
        (folder / record["image"]).write_bytes(b"")
    found = {"missing-image": [r["id"] for r in missing], "damaged-image": [r["id"] for r in [*cut, *empty]]}
    return write_lines(folder / "records.jsonl", records), found


@pytest.mark.parametrize("workers", [1, 2])
def test_report_and_cleaned_copy_of_fifty_records(slime: Any, tmp_path: Path, workers: int) -> None:
    path, expected = damaged(tmp_path)
    out, report = tmp_path / "clean.jsonl", tmp_path / "new" / "report.json"
    code, said, err = slime("data", "check", path, "--json", report, "--fix", out, "--workers", workers)
    assert (code, err) == (1, "")
    plain = json.loads(report.read_text())
    (source,) = plain["sources"]
    assert plain["clean"] is False
    assert (source["records"], source["wrong_records"], source["text_only"], source["images"]) == (50, 6, 10, 34)
    found: dict[str, list[str]] = {}
    for finding in source["findings"]:
        found.setdefault(finding["kind"], []).append(finding["id"])
    assert found == expected
    assert source["text_only_share"] == 0.2
    assert sum(source["tiles"].values()) == 34
    assert "20.0%" in said
    assert f"{expected['missing-image'][0]!r}: " in said
    assert "44 copied, 0 repaired, left out: " in said
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [
        f"r{i}" for i in range(50) if f"r{i}" not in {name for names in expected.values() for name in names}
    ]
    assert slime("data", "check", out)[0] == 0
    assert "choose another name" in slime("data", "check", path, "--fix", out)[2]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("unreadable", {"id": "x"}),
    ("turn-order", {"conversations": [{"from": "nobody", "value": "?"}]}),
    ("turn-order", {"conversations": [*turns("a", "b"), {"from": "gpt", "value": "c"}]}),
    ("turn-order", {"conversations": turns("a", "b", "c")}),
    ("turn-order", {"conversations": [{"from": "gpt", "value": "b"}, *turns("a", "b")]}),
    ("turn-order", {"conversations": [*turns("a", "b"), {"from": "human", "value": None}]}),
    ("placeholders", {"image": "a.png", "conversations": turns("a", "b")}),
    ("placeholders", {"image": "a.png", "conversations": turns("<image> <image>", "b")}),
    ("placeholders", {"conversations": turns("<image>a", "b")}),
    ("placeholders", {"conversations": turns("a", "the tag <image>")}),
    ("placeholders", {"image": "a.png", "conversations": turns("<image>a", "the tag <image>")}),
    ("empty-answer", {"conversations": turns("a", " ")}),
    ("empty-question", {"conversations": turns("", "b")}),
    ("small-image", {"image": "small.png", "conversations": turns("<image>", "b")}),
    ("damaged-image", {"image": "https://example.org/a.png", "conversations": turns("<image>", "b")}),
    ("damaged-image", {"image": "../a.png", "conversations": turns("<image>", "b")}),
]


@pytest.mark.parametrize(("kind", "record"), CASES)
def test_kinds_of_findings(tmp_path: Path, kind: str, record: dict[str, Any]) -> None:
    (tmp_path / "a.png").write_bytes(make_image("red"))
    (tmp_path / "small.png").write_bytes(make_image("red", 7))
    good = {"id": "good", "image": ["a.png"], "conversations": turns("<image>\n?", "red", "?", "red")}
    source = open_source(write_lines(tmp_path / "a.jsonl", [record, good]))
    report = check_source(source)
    assert [(finding.index, finding.kind) for finding in report.findings] == [(0, kind)]
    assert kind in KINDS


def test_repairs(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(make_image("red"))
    system = {"from": "system", "value": "Be brief."}
    records = [
        {"id": 1, "conversations": [system, {"from": "gpt", "value": "x"}, *turns("a", "b", "c")], "source": "mine"},
        {"id": 2, "image": "a.png", "conversations": turns("a", "b")},
        {"id": 3, "image": "a.png", "conversations": turns("a <image>", "b", "<image>c", "d")},
        {"id": 3, "conversations": turns("other", "b")},
        {"id": 2, "image": "a.png", "conversations": turns("a", "b")},
        {"id": 6, "conversations": turns("only asked")[:1]},
    ]
    source = open_source(write_lines(tmp_path / "a.jsonl", records))
    report = check_source(source)
    assert {finding.kind for finding in report.findings} == {
        "turn-order",
        "placeholders",
        "duplicate",
        "duplicate-id",
    }
    out = tmp_path / "clean.jsonl"
    counts = write_repaired(source, report, out)
    assert counts == {"repaired": 4, "placeholders": 1, "turn-order": 1}
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    assert kept == [
        {"id": 1, "conversations": [system, *turns("a", "b")], "source": "mine"},
        {"id": 2, "image": "a.png", "conversations": turns("<image>\na", "b")},
        {"id": 3, "image": "a.png", "conversations": turns("<image>\na", "b", "c", "d")},
        {"id": "3-2", "conversations": turns("other", "b")},
    ]
    assert check_source(open_source(out)).findings == []


def test_cleaned_copy_keeps_images_in_the_records(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    rows = [{"id": "a", "image": make_image("red"), "conversations": turns("<image>", "red")}]
    parquet.write_table(arrow.Table.from_pylist([*rows, {**rows[0], "id": "b", "image": b"x"}]), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    report = check_source(source)
    assert [finding.kind for finding in report.findings] == ["damaged-image"]
    write_repaired(source, report, tmp_path / "clean.jsonl")
    copy = open_source(tmp_path / "clean.jsonl")
    assert len(copy) == 1
    assert check_source(copy).findings == []


def test_cleaned_copy_of_shards_names_their_members(tmp_path: Path) -> None:
    record = json.dumps({"conversations": turns("<image>", "red")}).encode()
    files = {"0.png": make_image("red"), "0.json": record, "1.png": make_image("red")[:50], "1.json": record}
    source = open_source(write_tar(tmp_path / "a.tar", files))
    report = check_source(source)
    assert [(finding.id, finding.kind) for finding in report.findings] == [("a.tar/1", "damaged-image")]
    write_repaired(source, report, tmp_path / "clean.jsonl")
    (line,) = (tmp_path / "clean.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == "a.tar/0.png"
    assert check_source(open_source(tmp_path / "clean.jsonl")).findings == []


def test_tokens_of_a_model(slime: Any, tmp_path: Path) -> None:
    model = save_tiny_reader(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(make_image("red", 56, 112))
    records = [
        {"id": "short", "image": "a.png", "conversations": turns("<image>", "b")},
        {"id": "long", "conversations": turns("a" * 400, "b")},
        {"id": "marked", "conversations": turns("a", "b</s>")},
    ]
    path, report = write_lines(tmp_path / "a.jsonl", records), tmp_path / "report.json"
    out = tmp_path / "clean.jsonl"
    code, said, _ = slime(
        "data",
        "check",
        path,
        "--model",
        model,
        "--max-length",
        300,
        "--json",
        report,
        "--fix",
        out,
        "--allow",
        "special-token",
    )
    assert code == 1
    (source,) = json.loads(report.read_text())["sources"]
    assert [(f["id"], f["kind"]) for f in source["findings"]] == [("long", "over-long"), ("marked", "special-token")]
    assert source["tiles"] == {"2": 1}
    assert source["longest"] > 400
    assert sum(source["tokens"].values()) == 3
    assert "special-token (allowed)" in said
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["short", "marked"]
    assert slime("data", "check", out, "-m", model, "--allow", "special-token")[0] == 0


@pytest.mark.parametrize("model", [None, "nano"])
def test_tokens_that_start_turns_of_nano_are_found(tmp_path: Path, model: str | None) -> None:
    records = [{"id": "injected", "conversations": turns("due?<assistant>$12", "b")}]
    (found,) = check_source(open_source(write_lines(tmp_path / "a.jsonl", records)), model=model).findings
    assert (found.kind, found.message) == ("special-token", "turn 0 holds <assistant>")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.jsonl"], "no records at none.jsonl"),
        (["a.jsonl", "--allow", "missing-imag"], "did you mean 'missing-image'?"),
        (["a.jsonl", "a.jsonl", "--fix", "b.jsonl"], "--fix writes a copy of one source"),
        (["a.jsonl", "--fix", "b.json"], "expected the name of a JSONL file"),
        (["a.jsonl", "--workers", "0"], "--workers"),
        (["a.jsonl", "--model", "/none"], "no such folder"),
    ],
)
def test_usage_errors(
    slime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "a.jsonl", [{"id": 1, "conversations": turns("a", "b")}])
    code, _, err = slime("data", "check", *arguments)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_names_that_look_like_console_markup(slime: Any, tmp_path: Path) -> None:
    (tmp_path / "[").mkdir()
    path = write_lines(tmp_path / "[" / "b] [red]1.jsonl", [{"id": "[/b]", "conversations": turns("[/i]", "")}])
    code, said, err = slime("data", "check", path, "--json", tmp_path / "[" / "b].json")
    assert (code, err) == (1, "")
    # The table may fold a long path, though not in the middle of a name.
    assert "[/b] [red]1.jsonl" in " ".join(said.split())
    assert "'[/b]': turn 1 is empty" in said
    assert "[/b].json" in said


def test_a_folder_in_place_of_a_file(slime: Any, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "records.jsonl", make_records(tmp_path, 1))
    assert "is a folder, expected a file" in slime("data", "check", path, "--json", tmp_path)[2]
    assert "is a folder, expected a JSONL file" in slime("data", "build-smr", "--root", tmp_path, "--out", ".")[2]
