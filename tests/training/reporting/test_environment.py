"""What a run depends on (training/reporting/environment.py); nothing here needs a model."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from slime_vlm.training.reporting.environment import commit_of, describe_environment, fingerprint


def git(folder: Path, *words: str) -> None:
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *words], cwd=folder, check=True, capture_output=True, env={**os.environ, **own})


def test_commit_and_changes(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert commit_of(recipe) is None
    git(tmp_path, "init", "-q")
    recipe.write_text("a: 1\n")
    assert commit_of(recipe) is None, "there is no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    found = describe_environment(recipe, 2)
    assert found["processes"] == 2
    assert len(found["commit"]["commit"]) == 40
    assert found["commit"]["dirty"] is False
    assert {"python", "torch", "transformers", "slime-vlm"} <= found["versions"].keys()
    assert found["machine"]["processor"]
    recipe.write_text("a: 2\n")
    assert (commit_of(recipe) or {})["dirty"] is True
    git(tmp_path, "commit", "-q", "-a", "-m", "two")
    (tmp_path / "other.yaml").write_text("a: 3\n")
    assert (commit_of(recipe) or {})["dirty"] is False
    assert (commit_of(tmp_path / "other.yaml") or {})["dirty"] is True
    json.dumps(found)


def test_fingerprints(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text('{"id": 1}\n')
    first = fingerprint(str(records))
    assert first.keys() == {"content"}
    records.write_text('{"id": 2}\n')
    assert fingerprint(str(records)) != first, "as long as before, and not the same"

    folder = tmp_path / "folder" / "below"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    before = fingerprint(str(tmp_path / "folder"))
    assert before["files"] == 1
    (folder / "a.txt").write_text("four")
    assert fingerprint(str(tmp_path / "folder")) != before
    (folder / "1.tar").write_bytes(b"1")
    (folder / "2.tar").write_bytes(b"2")
    assert fingerprint(f"{folder}/*.tar")["files"] == 2
    assert fingerprint("owner/name") == {}
