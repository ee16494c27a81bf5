"""`slime doctor` reports what is installed and what is missing, and never fails."""

from __future__ import annotations

import json
import sys
import tomllib
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from slime_vlm.cli import main
from slime_vlm.diagnostics import doctor

REQUIREMENTS = [
    Requirement("torch>=2"),
    Requirement("pytest>=1; extra == 'test'"),
    Requirement("pytest>=9999; extra == 'future'"),
    Requirement("no-such-distribution; extra == 'future'"),
    Requirement("slime-vlm[future]; extra == 'all'"),
    Requirement("slime-vlm[all]; extra == 'future'"),
]


def test_what_an_extra_lacks():
    assert doctor.missing_of("test", REQUIREMENTS) == ([], [])
    absent, outdated = doctor.missing_of("future", REQUIREMENTS)
    assert absent == ["no-such-distribution"]
    (pytest_found,) = outdated
    assert pytest_found.startswith("pytest ")
    assert pytest_found.endswith("(needs >=9999)")
    # Extras that name each other end nowhere else.
    assert doctor.missing_of("all", REQUIREMENTS) == (absent, outdated)


def test_an_extra_that_is_not_installed_is_optional_and_an_old_one_is_wrong(monkeypatch):
    requires = ["pytest>=1; extra == 'dev'", "no-such-pdf; extra == 'pdf'", "pytest>=9999; extra == 'tiff'"]
    metadata = Message()
    for extra in ("dev", "pdf", "tiff"):
        metadata["Provides-Extra"] = extra
    monkeypatch.setattr(doctor.importlib.metadata, "metadata", lambda name: metadata)
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: requires)
    found = {finding.topic: finding for finding in doctor._extras()}
    assert {topic: finding.state for topic, finding in found.items()} == {
        "extra dev": "ok",
        "extra pdf": "optional",
        "extra tiff": "wrong",
    }
    assert found["extra pdf"].text == "adds pages of PDF files (no-such-pdf): pip install 'slime-vlm[pdf]'"
    assert "found pytest " in found["extra tiff"].text


def test_every_extra_has_its_purpose():
    project = Path(__file__).parents[2] / "pyproject.toml"
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(declared) == set(doctor.PURPOSES)


def test_every_extra_is_told():
    topics = {finding.topic for finding in doctor.examine()}
    assert {"python", "torch", "cpu", "bf16 on cpu", "model nano"} <= topics
    assert any(topic.startswith("extra") for topic in topics)


def test_a_broken_part_is_a_line_and_not_the_end(monkeypatch):
    def broken() -> list[doctor.Finding]:
        raise OSError("libfoo.so: cannot open\nshared object")

    monkeypatch.setattr(doctor, "_devices", broken)
    found = {finding.topic: finding for finding in doctor.examine()}
    assert found["devices"].state == "wrong"
    assert "\n" not in found["devices"].text
    assert "model nano" in found


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command(monkeypatch, capsys, as_json):
    monkeypatch.setattr(sys, "argv", ["slime", "doctor", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    out = capsys.readouterr().out
    if as_json:
        assert all(list(finding) == ["topic", "state", "text"] for finding in json.loads(out))
    else:
        *lines, summary = out.splitlines()
        assert all(line.startswith(("ok", "note", "wrong", "optional")) for line in lines)
        assert " wrong; " in summary
