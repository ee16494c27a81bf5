"""Fetch the fonts and the word list behind browser-laid documents: Debian packages, by name, with their licences.

    python scripts/fetch_fonts.py CACHE

The list is src/slime_vlm/pages/browser/fonts.tsv: foundry, split and licence of every package. Files go to
CACHE/PACKAGE/ with the package's copyright file; CACHE/manifest.json lists them with versions, CACHE/families.json the
families that cover ASCII with their faces. CACHE/wamerican holds the word list. About 190 MB download. Needs a Debian
system with package lists (`apt-get update`) and fontconfig; nothing is installed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from slime_vlm.pages.browser.fonts import PACKAGES, list_families
from slime_vlm.pages.debian_packages import fetch_packages, read_package_list


def main() -> None:
    """Fetch what is not in the cache yet, and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder that keeps the files")
    arguments = parser.parse_args()
    fetch_packages(["wamerican"], arguments.cache, ("american-english",))
    files = fetch_packages([p.name for p in read_package_list(PACKAGES)], arguments.cache, (".ttf", ".otf"))
    families = list_families(arguments.cache, [file for file in files if file.path.endswith((".ttf", ".otf"))])
    counts = Counter((family.split, family.use) for family in families)
    for (split, use), count in sorted(counts.items()):
        print(f"{split}, {use}: {count} families")  # noqa: T201


if __name__ == "__main__":
    main()
