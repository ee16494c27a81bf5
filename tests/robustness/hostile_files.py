"""Small files that cost a reader without limits gigabytes, minutes or its process."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, generate_uid

from tests.media.test_pdf import pdf_of


def pdf_of_objects(objects: list[bytes]) -> bytes:
    """Return a PDF of numbered objects, the first of which is its catalog."""
    written, offsets = b"%PDF-1.5\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, len(written))
    return written + b"xref\n0 %d\n0000000000 65535 f \n%b" % (len(offsets) + 1, table) + trailer


def stream(content: bytes, keys: bytes = b"") -> bytes:
    """Return a stream object of a PDF."""
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(content), keys, content)


def nested_forms_pdf(path: Path, depth: int = 22) -> None:
    """Write a PDF whose page draws a form ten times, which draws the next one ten times, and so on."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 4 0 R "
        b"/Resources << /XObject << /F 5 0 R >> >> >>",
        stream(b"/F Do"),
    ]
    for number in range(depth):
        following = b"/Resources << /XObject << /F %d 0 R >> >>" % (6 + number) if number < depth - 1 else b""
        drawn = b"/F Do " * 10 if following else b"0 0 9 9 re f"
        objects.append(stream(drawn, b"/Type /XObject /Subtype /Form /BBox [0 0 99 99] " + following))
    path.write_bytes(pdf_of_objects(objects))


def double_flate_pdf(path: Path, size: int = 150_000_000) -> None:
    """Write a PDF of a few kilobytes whose content is compressed twice and inflates to `size` bytes."""
    packer = zlib.compressobj(9)
    block = b" " * 10_000_000
    once = b"".join(packer.compress(block) for _ in range(size // len(block))) + packer.flush()
    content = zlib.compress(once, 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] /Contents 4 0 R >>",
        stream(content, b"/Filter [/FlateDecode /FlateDecode]"),
    ]
    path.write_bytes(pdf_of_objects(objects))


def page_tree_loop_pdf(path: Path) -> None:
    """Write a PDF whose tree of pages contains itself."""
    path.write_bytes(pdf_of([(72, 72, "")]).replace(b"/Kids [3 0 R]", b"/Kids [2 0 R]"))


def deflated_dicom(path: Path, size: int = 100_000_000) -> None:
    """Write a DICOM file of 10 x 10 pixels whose deflated data inflate to `size` bytes."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows = data.Columns = 10
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = bytes(size)
    data.save_as(path, enforce_file_format=True)


def dicom_fragments(path: Path) -> None:
    """Write a DICOM file with a JPEG 2000 image in 200,000 empty fragments."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Rows = data.Columns = 10
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    data.PixelData = item * 200_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)


def large_screen_gif(path: Path, side: int = 14_000, frames: int = 40) -> None:
    """Write a GIF of under a kilobyte whose frames of 8 x 8 pixels lie on a screen of `side` x `side`."""
    stripes = (Image.fromarray(np.full((8, 8), number, np.uint8), "L") for number in range(frames))
    first, *others = (stripe.convert("P") for stripe in stripes)
    first.save(path, save_all=True, append_images=others, disposal=2)
    content = bytearray(path.read_bytes())
    content[6:10] = side.to_bytes(2, "little") * 2
    path.write_bytes(content)


def many_scans_jpeg(path: Path, side: int = 8000, scans: int = 3000) -> None:
    """Write a progressive JPEG whose last scan is repeated, without data."""
    Image.new("L", (side, side)).save(path, progressive=True)
    content = path.read_bytes()
    start = content.rindex(b"\xff\xda")
    header = content[start : start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")]
    path.write_bytes(content[:-2] + header * scans + content[-2:])


def mp4_boxes(path: Path) -> None:
    """Write an MP4 of boxes within boxes, 5,000 deep."""
    inner = b""
    for _ in range(5000):
        inner = struct.pack(">I", len(inner) + 8) + b"moov" + inner
    path.write_bytes(struct.pack(">I", 16) + b"ftypisom\0\0\2\0" + inner)


def inflating_tiff(path: Path, size: int = 200_000_000) -> None:
    """Write a TIFF of 16 x 16 deep colours whose only strip inflates to `size` bytes."""
    import tifffile

    tifffile.imwrite(path, np.zeros((16, 16, 3), np.uint16), photometric="rgb", compression="deflate")
    strip = zlib.compress(bytes(size), 9)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        file.filehandle.seek(0, 2)
        end = file.filehandle.tell()
        file.filehandle.write(strip)
        tags["StripOffsets"].overwrite([end])
        tags["StripByteCounts"].overwrite([len(strip)])


HOSTILE_FILES = {
    "forms.pdf": nested_forms_pdf,
    "flate.pdf": double_flate_pdf,
    "tree.pdf": page_tree_loop_pdf,
    "deflated.dcm": deflated_dicom,
    "fragments.dcm": dicom_fragments,
    "screen.gif": large_screen_gif,
    "scans.jpg": many_scans_jpeg,
    "boxes.mp4": mp4_boxes,
    "strip.tif": inflating_tiff,
}
"""Writers of the files by name."""
