"""Runs a headless Chromium, and prints HTML to PDF with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from slime_vlm.errors import ConfigError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str | None:
    """Return the path of an installed Chromium, None without one."""
    return next((path for path in map(shutil.which, _NAMES) if path), None)


def browser_command(profile: Path) -> list[str]:
    """Return the command of a headless Chromium with the flags that every run of it needs.

    Only HTML made here may be opened: as root, Chromium runs without its sandbox.

    Args:
        profile: Folder of its profile, which should be empty.

    Raises:
        ConfigError: No Chromium is installed.
    """
    browser = find_browser()
    if browser is None:
        raise ConfigError("chromium: not found, expected a Chromium for browser-laid pages; apt-get install chromium")
    return [
        browser,
        "--headless",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={profile}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]


def print_pdf(html: str, target: Path, timeout: float = 300.0) -> None:
    """Lay HTML out and write it as a PDF; page sizes are those of the style sheet.

    Only HTML made here may be printed: it may read local fonts. See `browser_command`, too.

    Raises:
        ConfigError: No Chromium is installed, or it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "documents.html", Path(folder) / "documents.pdf"
        source.write_text(html, encoding="utf-8")
        command = browser_command(Path(folder) / "profile")
        browser = command[0]
        command += ["--no-pdf-header-footer", "--allow-file-access-from-files", "--font-render-hinting=none"]
        command += [f"--print-to-pdf={made}", source.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ConfigError(f"{browser}: no PDF after {timeout:.0f} seconds; print fewer documents at once") from None
        if not made.exists():
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ConfigError(f"{browser}: no PDF was written ({last[0]})")
        partial = target.with_name(target.name + ".partial")
        shutil.copyfile(made, partial)
        partial.replace(target)
