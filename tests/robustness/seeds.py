"""A small good file of every format, which the mutator starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pillow_heif
import pydicom
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tests.media.test_pdf import pdf_of
from tests.media.test_video import write_clip


def write_seeds(folder: Path) -> list[Path]:
    """Write the files, and return them in a fixed order."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    grey = rgb.convert("L")
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[0x0112] = 6
    images: dict[str, tuple[Image.Image, dict]] = {
        "rgb.png": (rgb, {}),
        "palette.png": (rgb.convert("P"), {"transparency": 3}),
        "deep.png": (deep, {}),
        "rgba.png": (rgb.convert("RGBA"), {}),
        "frames.png": (rgb, {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}),
        "rgb.jpg": (rgb, {"exif": turned}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "frames.gif": (rgb, {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)], "disposal": 2}),
        "rgb.webp": (rgb, {}),
        "frames.webp": (rgb.convert("RGBA"), {"save_all": True, "append_images": [rgb.rotate(90).convert("RGBA")]}),
        "rgb.bmp": (rgb, {}),
        "rgb.ppm": (rgb, {}),
        "rgb.ico": (rgb, {}),
        "rgb.jp2": (rgb, {}),
        "rgb.avif": (rgb, {}),
        "lzw.tif": (rgb, {"compression": "tiff_lzw"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "pages.tif": (rgb, {"save_all": True, "append_images": [grey, rgb]}),
        "fax.tif": (grey.convert("1"), {"compression": "group4"}),
    }
    paths = []
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
        paths.append(folder / name)
    tifffile.imwrite(folder / "deep.tif", pixels.astype(np.uint16) * 257, photometric="rgb", compression="deflate")
    tifffile.imwrite(folder / "tiles.tif", pixels, photometric="rgb", tile=(16, 16), bigtiff=True)
    tifffile.imwrite(folder / "bands.tif", np.zeros((6, 20, 20), np.float32), photometric="minisblack", planarconfig=2)
    pillow_heif.from_pillow(rgb).save(folder / "rgb.heic")
    (folder / "two.pdf").write_bytes(pdf_of([(40, 56, "1 0 0 rg 0 0 20 20 re f"), (40, 40, "")]))
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["0"])
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 40, 56, 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.WindowCenter, data.WindowWidth = 20_000, 30_000
    data.PixelData = (pixels[..., 0].astype(np.uint16) * 257).tobytes()
    pydicom.dcmwrite(folder / "grey.dcm", data, enforce_file_format=True)
    write_clip(folder / "clip.mp4", 6)
    write_clip(folder / "clip.mkv", 6)
    rest = ("deep.tif", "tiles.tif", "bands.tif", "rgb.heic", "two.pdf", "grey.dcm", "clip.mp4", "clip.mkv")
    return paths + [folder / name for name in rest]
