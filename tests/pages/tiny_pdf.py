"""Writes small PDF files by hand, so that tests need neither a network nor a typesetter."""

from __future__ import annotations

from pathlib import Path


def write_pdf(
    path: Path, pages: list[list[tuple[float, float, float, str]]], meant: dict[str, str] | None = None
) -> None:
    """Write a PDF of A4 pages; a page is a list of (x, y from the bottom, size, text) in points, in Helvetica.

    `meant` says which characters the file means by some of those that are drawn, as its ToUnicode map.
    """
    objects: list[bytes] = [b"<</Type/Catalog/Pages 2 0 R>>", b""]
    objects.append(b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding/ToUnicode 4 0 R>>")
    lines = [f"<{ord(a):02X}> <{b.encode('utf-16-be').hex()}>" for a, b in (meant or {}).items()]
    names = f"1 begincodespacerange <00> <FF> endcodespacerange {len(lines)} beginbfchar {' '.join(lines)} endbfchar"
    cmap = f"/CIDInit /ProcSet findresource begin begincmap {names} endcmap end".encode()
    objects.append(b"<</Length %d>>\nstream\n%s\nendstream" % (len(cmap), cmap))
    kids = []
    for lines in pages:
        parts = []
        for x, y, size, text in lines:
            escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
            parts.append(f"BT /F1 {size} Tf {x} {y} Td ({escaped}) Tj ET")
        content = "\n".join(parts).encode("cp1252")
        objects.append(b"<</Length %d>>\nstream\n%s\nendstream" % (len(content), content))
        kids.append(len(objects) + 1)
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents %d 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
            % len(objects)
        )
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    path.write_bytes(out)
