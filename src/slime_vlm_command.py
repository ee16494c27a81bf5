"""Entry point of the command `slime`.

A module beside the package, so that it is there before the package is: see the end of `slime_vlm/__init__.py`.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line, see `slime_vlm.cli.app.main`."""
    from slime_vlm.cli import main as run

    run()


if __name__ == "__main__":
    main()
