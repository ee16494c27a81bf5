"""More patterns of questions, so that the words people ask with are known in many combinations: `more_wordings.txt`."""

from __future__ import annotations

from pathlib import Path


def read_wordings(path: Path) -> dict[str, tuple[str, ...]]:
    """Read patterns: the name of a family in brackets, then its patterns, one on a line. "#" begins a remark."""
    found: dict[str, list[str]] = {}
    patterns: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            patterns = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            patterns.append(line)
    return {family: tuple(members) for family, members in found.items()}


MORE_WORDINGS = read_wordings(Path(__file__).with_name("more_wordings.txt"))
"""Patterns by family."""
