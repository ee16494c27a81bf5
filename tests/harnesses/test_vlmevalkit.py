"""The launcher of VLMEvalKit: command line, names and messages; test_vlmevalkit_run.py runs VLMEvalKit itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from slime_vlm.errors import ConfigError, DataError
from slime_vlm.harnesses import vlmevalkit
from slime_vlm.harnesses.messages import read_message
from slime_vlm.harnesses.vlmevalkit import find_script, main, read_arguments, result_name


def test_own_options_are_taken_out() -> None:
    line = "--data MMStar POPE --model nano --max-tiles 9 --max-tokens 7 --mode infer --dtype float32 --verbose"
    options, passed_on = read_arguments(line.split())
    assert options == {"pretrained": "nano", "max_tiles": 9, "dtype": "float32", "max_new_tokens": 1024}
    assert passed_on == ["--data", "MMStar", "POPE", "--max-tokens", "7", "--mode", "infer", "--verbose"]


def test_options_fit_the_model() -> None:
    tree = ast.parse(Path(vlmevalkit.__file__).with_name("vlmevalkit_model.py").read_text())
    (model,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    (init,) = [node for node in model.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    options, _ = read_arguments(["--device", "cpu", "--dtype", "float32"])
    assert set(options) == {argument.arg for argument in init.args.args} - {"self"}


def test_names_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert result_name("nano") == "slime-nano"
    assert result_name("yifanzhang114/SliME-Llama3-8B") == "slime-SliME-Llama3-8B"
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert result_name(".") == "slime-mine"
    assert result_name(f"{tmp_path}/mine/") == "slime-mine"


def test_messages_come_apart() -> None:
    parts = [("image", "a.png"), ("text", "Compare them."), ("image", "b.png"), ("text", "Which is red?")]
    message = [{"type": kind, "value": value} for kind, value in parts]
    assert read_message(message) == ("Compare them.\nWhich is red?", ["a.png", "b.png"])
    assert read_message([{"type": "text", "value": "Why?"}]) == ("Why?", [])
    with pytest.raises(DataError, match="'video'"):
        read_message([{"type": "video", "value": "a.mp4"}])


def test_script_lies_beside_the_package_or_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vlmeval"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"run\.py"):
        find_script()
    (package / "run.py").touch()
    assert find_script() == package / "run.py"
    (tmp_path / "run.py").touch()
    assert find_script() == tmp_path / "run.py"


def test_missing_harness_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        main(["--data", "MMStar"])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
