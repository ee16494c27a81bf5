"""`slime doctor` reports what is installed and what is missing, and never fails."""

from __future__ import annotations

import json
import sys

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
    assert doctor.missing_of("test", REQUIREMENTS) == []
    pytest_found, absent = doctor.missing_of("future", REQUIREMENTS)
    assert "(needs >=9999)" in pytest_found
    assert absent == "no-such-distribution"
    # Extras that name each other end nowhere else.
    assert doctor.missing_of("all", REQUIREMENTS) == [pytest_found, absent]


def test_every_extra_is_told():
    topics = {finding.topic for finding in doctor.examine()}
    assert {"python", "torch", "cpu", "bf16 on cpu", "model nano"} <= topics
    assert any(topic.startswith("extra") for topic in topics)


def test_a_broken_part_is_a_line_and_not_the_end(monkeypatch):
    def broken() -> list[doctor.Finding]:
        raise OSError("libfoo.so: cannot open\nshared object")

    monkeypatch.setattr(doctor, "_devices", broken)
    found = {finding.topic: finding for finding in doctor.examine()}
    assert found["devices"].state == "missing"
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
        assert all(line.startswith(("ok", "note", "missing")) for line in out.splitlines())
