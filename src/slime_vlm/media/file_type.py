"""What a file is, by its first bytes: names and endings are only asked where the bytes tell nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Kind = Literal["dicom", "tiff", "pdf", "heic", "video", "other"]

_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
# AVIF is Pillow's; Canon's raw files nobody reads here, but they are no videos.
_OTHER_BRANDS = {b"avif", b"avis", b"crx "}
# Matroska and WebM, Flash, MPEG programs and bare MPEG video, Windows Media, Ogg.
_VIDEO_MARKS = (
    b"\x1a\x45\xdf\xa3",
    b"FLV\x01",
    b"\0\0\x01\xba",
    b"\0\0\x01\xb3",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"OggS",
)
# First boxes of QuickTime files from before the brands.
_QUICKTIME_BOXES = {b"moov", b"mdat", b"wide", b"free", b"skip"}
# Every packet of a transport stream begins with a G, on discs and camcorders after four bytes of time.
_TRANSPORT_PACKETS = ((0, 188), (4, 192))
_SEARCHED = 1024  # PDF files may begin with other bytes, readers look so far


def kind_of(path: Path) -> Kind:
    """Tells which reader a file is for; `other` is everything that Pillow may know."""
    with path.open("rb") as file:
        head = file.read(_SEARCHED)
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(_TIFF_MARKS):
        return "tiff"
    if head[4:8] == b"ftyp":
        return _kind_of_boxes(head)
    if head.startswith(_VIDEO_MARKS) or (head.startswith(b"RIFF") and head[8:12] == b"AVI "):
        return "video"
    if head[4:8] in _QUICKTIME_BOXES or any(head[start::size][:4] == b"GGGG" for start, size in _TRANSPORT_PACKETS):
        return "video"
    # Before a PDF there may be anything but another image.
    if b"%PDF-" in head and not head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")):
        return "pdf"
    # Old DICOM files have no mark at all.
    if path.suffix.lower() in {".dcm", ".dicom"}:
        return "dicom"
    return "other"


def _kind_of_boxes(head: bytes) -> Kind:
    """HEIC, AVIF and MP4 are the same container; the brands in its first box tell them apart."""
    brands = {head[start : start + 4] for start in range(8, min(int.from_bytes(head[:4], "big"), len(head)), 4)}
    if brands & _OTHER_BRANDS:
        return "other"
    return "heic" if brands & _HEIC_BRANDS else "video"
