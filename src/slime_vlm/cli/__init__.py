"""The command `slime`: thin functions over library calls. Nothing heavy is imported before a command runs."""

from slime_vlm.cli.app import app, main

__all__ = ["app", "main"]
