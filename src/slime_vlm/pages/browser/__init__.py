"""Documents laid out by a browser: HTML templates with marked keys and values, printed by Chromium."""

from slime_vlm.pages.browser.source import BrowserPages

__all__ = ["BrowserPages"]
