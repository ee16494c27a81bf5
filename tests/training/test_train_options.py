"""Options of `slime train` that only a plan takes are refused by a run: silence would look like consent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from slime_vlm.cli import main


@pytest.mark.parametrize("option", [["--gpus", "8"], ["--utilisation", "0.5"], ["--gpus", "1"]])
def test_a_run_takes_no_option_of_a_plan(
    option: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["slime", "train", str(tmp_path / "none.yaml"), "--out", str(out), *option])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert f"{option[0]} is only for the plan of --dry-run" in said
    assert not out.exists()
    # A plan takes it, and then finds no recipe.
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--dry-run"])
    with pytest.raises(SystemExit):
        main()
    assert "none.yaml" in capsys.readouterr().err
