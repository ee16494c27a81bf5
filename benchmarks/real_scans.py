"""Write two real scans with questions as records for `slime eval ablation --records`.

    python benchmarks/real_scans.py --out runs/scans
    slime eval ablation --records runs/scans/records.jsonl --settings views,resized,ocr --out runs/scans/ablation

The scans are test files in the source archive of OCRmyPDF on PyPI: a page of a brochure (2550 x 3300) and a typewritten
recipe in Dutch (4000 x 2864). The archive's README names their sources and licences. They are downloaded, not shipped.
The questions were written for this project.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "ocrmypdf==17.13.0"

QUESTIONS: dict[str, list[tuple[str, str]]] = {
    "linn.png": [
        ("What is the telex?", "#298949"),
        ("What is the telephone number?", "(818) 708-8131"),
        ("What is the street?", "18720 Oxnard Street"),
        ("What is the zip code?", "91356"),
        ("How many tracks does each sequence contain?", "32"),
        ("How many MIDI channels are there?", "16"),
        ("How many notes does the disk hold?", "110,000"),
        ("Up to how many bars has a track?", "999"),
        ("How many characters has the LCD display?", "32"),
        ("How fast is the computer?", "8 MHz"),
        ("What is the city?", "Tarzana"),
    ],
    "typewriter.png": [
        ("liter water", "3"),
        ("ons linzen", "4"),
        ("uien", "3"),
        ("kopjes melk", "2"),
        ("What is the title?", "Linzensoep à la Waterman"),
    ],
}


def fetch(out: Path) -> None:
    """Download the archive and extract the scans."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["pip", "download", "--no-deps", "--no-binary", "ocrmypdf", "--dest", folder, PACKAGE]
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in QUESTIONS and "/resources/" in member.name:
                    content = tar.extractfile(member)
                    assert content is not None
                    (out / name).write_bytes(content.read())


def main() -> None:
    """Download missing scans, and write the records."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/scans"))
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    if not all((out / name).is_file() for name in QUESTIONS):
        fetch(out)
    records = []
    for name, asked in QUESTIONS.items():
        turns = []
        for number, (question, answer) in enumerate(asked):
            turns.append({"from": "human", "value": question if number else f"<image>\n{question}"})
            turns.append({"from": "gpt", "value": answer})
        records.append({"id": name, "image": name, "conversations": turns})
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (out / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out / 'records.jsonl'}: {len(records)} scans, {sum(map(len, QUESTIONS.values()))} questions")


if __name__ == "__main__":
    main()
