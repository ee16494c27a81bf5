"""`make fuzz`: try many damaged files, checkpoints, records, addresses and killed runs, and print the figures."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.robustness.fuzz_addresses import try_addresses
from tests.robustness.fuzz_checkpoints import try_checkpoints, try_settings
from tests.robustness.fuzz_images import try_images
from tests.robustness.fuzz_records import try_records
from tests.robustness.fuzz_resume import try_damages, try_kills, try_moments

_GOOD = {"tried", "opened", "refused", "write points", "killed", "damaged", "bit-equal", "one line"}


def _in_folder(function: Callable[..., Counter[str]], *arguments: int) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        return function(Path(folder), *arguments)


def main() -> int:
    """Print a line of figures for each kind, and every failure. Return 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--settings", type=int, default=20, help="odd values of every setting of a checkpoint")
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--addresses", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=200, help="write points of a tiny run")
    parser.add_argument("--moments", type=int, default=20, help="tiny runs that are killed at random moments")
    parser.add_argument("--damages", type=int, default=30, help="ways to damage a newest checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds: dict[str, Callable[[], Counter[str]]] = {
        "images": lambda: try_images(options.images, options.seed),
        "checkpoints": lambda: try_checkpoints(options.checkpoints, options.seed),
        "settings": lambda: try_settings(options.settings, options.seed),
        "records": lambda: try_records(options.records, options.seed),
        "addresses": lambda: try_addresses(options.addresses, options.seed),
        "kills": lambda: _in_folder(try_kills, options.kills, options.seed),
        "moments": lambda: _in_folder(try_moments, options.moments, options.seed),
        "damages": lambda: _in_folder(try_damages, options.damages),
    }
    failed = False
    for kind, run in kinds.items():
        if not getattr(options, kind):
            continue
        start = time.monotonic()
        counts = run()
        figures = ", ".join(f"{name} {count:,}" for name, count in counts.items() if ":" not in name)
        sys.stdout.write(f"{kind}: {figures} ({time.monotonic() - start:.0f} s)\n")
        sys.stdout.flush()
        for name, count in counts.items():
            if ":" in name and count:
                sys.stdout.write(f"  {name}\n")
        failed |= any(count for name, count in counts.items() if name not in _GOOD and name != "codec crashed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
