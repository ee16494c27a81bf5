"""Damaged and hostile checkpoints: one clear line, exit code 2, nothing left where the result should be."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slime_vlm.checkpoints.loading import load
from slime_vlm.checkpoints.published.convert import convert
from slime_vlm.cli import main
from tests.checkpoints.lora.adapter_damage import ADAPTER_DAMAGE
from tests.checkpoints.published.checkpoint_damage import DAMAGE, weights_of
from tests.tiny_checkpoints import write_adapters, write_base, write_lora
from tests.tiny_published import write_published


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs `slime convert` and expects one line, exit code 2, and nothing written."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(source: Path, target: Path, message: str, *options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["slime", "convert", str(source), str(target), *options])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        output, errors = capfd.readouterr()
        assert caught.value.code == 2, errors
        assert output == ""
        assert errors.count("\n") == 1
        assert re.search(message, errors), errors
        assert len(errors) < 600
        assert not target.exists()
        assert not target.with_name(target.name + ".part").exists()

    return run


def test_there_are_enough_kinds() -> None:
    assert len(DAMAGE) >= 40
    assert len(ADAPTER_DAMAGE) >= 10


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_checkpoint(refused: Callable[..., None], tmp_path: Path, kind: str) -> None:
    source = write_published(tmp_path / "published")
    inflict, message = DAMAGE[kind]
    inflict(source)
    refused(source, tmp_path / "native", message)
    assert not (source / "ran").exists()


@pytest.mark.parametrize("kind", ADAPTER_DAMAGE)
def test_damaged_adapters(refused: Callable[..., None], tmp_path: Path, kind: str) -> None:
    write_base(tmp_path / "base")
    source = write_lora(tmp_path / "lora", base=tmp_path / "base")
    inflict, message = ADAPTER_DAMAGE[kind]
    inflict(source)
    refused(source, tmp_path / "native", message)
    assert not (source / "ran").exists()


def test_adapter_files_without_their_base(refused: Callable[..., None], tmp_path: Path) -> None:
    source = write_adapters(tmp_path / "stage2", "sampler.bin")
    refused(source, tmp_path / "native", "holds adapters alone")
    base = write_base(tmp_path / "base")
    refused(source, tmp_path / "native", r"lacks \d+ tensor\(s\).*model\.projector", "--base", str(base))
    refused(source, tmp_path / "native", "no such folder", "--base", str(tmp_path / "none"))
    whole = write_published(tmp_path / "published")
    refused(whole, tmp_path / "native", "is a whole checkpoint.*leave it out", "--base", str(base))


def test_damaged_native_checkpoint(refused: Callable[..., None], tmp_path: Path) -> None:
    convert(write_published(tmp_path / "published"), tmp_path / "native")
    refused(tmp_path / "native", tmp_path / "again", "leave it out", "--base", str(tmp_path / "published"))
    weights = load_file(weights_of(tmp_path / "native"))
    save_file(weights | {"more": torch.ones(1)}, weights_of(tmp_path / "native"))
    refused(tmp_path / "native", tmp_path / "again", "config.json and weights disagree about 1 tensor.*: more")
    save_file(weights | {"lm_head.weight": torch.ones(2, 2)}, weights_of(tmp_path / "native"))
    refused(tmp_path / "native", tmp_path / "again", r"lm_head.weight is torch.float32 \[2, 2\], expected")
    (tmp_path / "native" / "tokenizer.json").write_text("{")
    refused(tmp_path / "native", tmp_path / "again", "damaged or incomplete")


# The place to write to ---------------------------------------------------------------------------------------------


def test_target_that_cannot_be_written(refused: Callable[..., None], tmp_path: Path) -> None:
    source = write_published(tmp_path / "published")
    (tmp_path / "file").write_text("mine")
    refused(source, tmp_path / "file" / "native", "cannot be written .* check its permissions")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_target_without_permission(refused: Callable[..., None], tmp_path: Path) -> None:
    source = write_published(tmp_path / "published")
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(source, tmp_path / "locked" / "native", "cannot be written .* check its permissions")


def test_full_disk(refused: Callable[..., None], tmp_path: Path) -> None:
    source = write_published(tmp_path / "published")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        refused(source, tmp_path / "native", "cannot be written .* the free space")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    convert(source, tmp_path / "native")


def test_killed_conversion_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    """The kernel kills the child at the first byte beyond a limit, in the middle of the weights."""
    source = write_published(tmp_path / "published")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        convert(source, tmp_path / "native")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGXFSZ
    assert not (tmp_path / "native").exists()
    left = [path.name for path in (tmp_path / "native.part").iterdir()]
    assert left
    assert "config.json" not in left
    # The next attempt clears up.
    convert(source, tmp_path / "native")
    assert not (tmp_path / "native.part").exists()
    assert load(tmp_path / "native")[0] is not None
