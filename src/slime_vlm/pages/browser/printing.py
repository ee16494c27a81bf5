"""Prints HTML to PDF with a headless Chromium."""

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


def print_pdf(html: str, target: Path, timeout: float = 300.0) -> None:
    """Lay HTML out and write it as a PDF; page sizes are those of the style sheet.

    Only HTML made here may be printed: as root, Chromium runs without its sandbox, and it may read local fonts.

    Raises:
        ConfigError: No Chromium is installed, or it fails.
    """
    browser = find_browser()
    if browser is None:
        raise ConfigError("chromium: not found, expected a Chromium for browser-laid pages; apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "documents.html", Path(folder) / "documents.pdf"
        source.write_text(html, encoding="utf-8")
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--no-first-run",
            "--no-pdf-header-footer",
            "--allow-file-access-from-files",
            "--font-render-hinting=none",
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={made}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            source.as_uri(),
        ]
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
