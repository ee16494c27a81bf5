"""DICOM files made by the tests: rescale, windows, frames and colours computed by hand, and the errors of bad files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from slime_vlm.media import Window, open_image
from tests.media.failing import failure, failure_here, without


def described(values: np.ndarray, **elements: object) -> Dataset:
    """Return a dataset of grey [H, W], frames [F, H, W] or colours [H, W, 3]."""
    colour = values.ndim == 3 and values.shape[-1] == 3
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality = "CT"
    data.Rows, data.Columns = values.shape[:2] if colour else values.shape[-2:]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    elif values.ndim == 3:
        data.NumberOfFrames = len(values)
    data.BitsAllocated = data.BitsStored = 8 * values.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


@pytest.fixture
def written(tmp_path):
    def write(values: np.ndarray, name: str = "ct.dcm", **elements: object) -> Path:
        described(values, **elements).save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return write


def grey(spec, **options) -> list:
    return np.asarray(open_image(spec, **options))[..., 0].tolist()


STORED = np.array([[0, 864, 964], [1064, 1164, 1264]], np.uint16)
CT = {"RescaleSlope": 1, "RescaleIntercept": -1024}  # the values in Hounsfield units: -1024, -160, -60, 40, 140, 240


def test_window_of_the_file_computed_by_hand(written):
    # Standard, C.11.2.1.2.1: ((value - (40 - 0.5)) / (400 - 1) + 0.5) * 255, black up to -160, white above 239.
    expected = [[0, 0, 64], [128, 192, 255]]
    assert grey(written(STORED, WindowCenter=40, WindowWidth=400, **CT)) == expected
    assert grey(written(STORED, WindowCenter=[40, 5], WindowWidth=[400, 1], **CT)) == expected
    exact = written(STORED, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT", **CT)
    assert grey(exact) == [[0, 0, 64], [128, 191, 255]]
    # 255 / (1 + exp(-4 * (value - 40) / 400)).
    sigmoid = written(STORED, WindowCenter=40, WindowWidth=400, VOILUTFunction="SIGMOID", **CT)
    assert grey(sigmoid) == [[0, 30, 69], [128, 186, 225]]


def test_a_deflated_file(tmp_path):
    data = described(STORED, **CT, WindowCenter=40, WindowWidth=400)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "deflated.dcm", enforce_file_format=True)
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    assert grey(tmp_path / "deflated.dcm") == grey(tmp_path / "plain.dcm")


def test_requested_window_takes_precedence(written):
    path = written(STORED, WindowCenter=1000, WindowWidth=3, **CT)
    assert grey(path, window=Window(40, 400)) == [[0, 0, 64], [128, 191, 255]]


def test_monochrome1_is_inverted(written):
    path = written(STORED, PhotometricInterpretation="MONOCHROME1", WindowCenter=40, WindowWidth=400, **CT)
    assert grey(path) == [[255, 255, 191], [127, 63, 0]]


def test_without_a_window_the_range_is_shown(written):
    # From -1024 to 240.
    assert grey(written(STORED, **CT)) == [[0, 174, 194], [215, 235, 255]]
    twelve = np.array([[0, 1024, 4095]], np.uint16)
    assert grey(written(twelve)) == [[0, 64, 255]]


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_affect_the_range(written, kind):
    values = np.array([[-2000, -100, 0, 100, -1999]], np.int16)
    padding = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1999, "PhotometricInterpretation": kind}
    assert grey(written(values, **padding)) == [[0, *([0, 128, 255] if kind == "MONOCHROME2" else [255, 127, 0]), 0]]


def test_voi_lookup_table(written):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 10, 8], [0, 100, 200, 255]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    assert grey(written(np.array([[0, 10, 11, 12, 13, 99]], np.uint8), VOILUTSequence=[table])) == [
        [0, 0, 100, 200, 255, 255]
    ]


def test_frames_are_counted_from_one(written):
    frames = np.stack([np.full((2, 4), value, np.uint8) for value in (5, 6, 200)])
    path = written(frames)
    assert [grey(f"{path}#{number}")[0][0] for number in (1, 2, 3)] == [5, 6, 200]
    assert grey(path)[0][0] == 5
    assert failure(f"{path}#4") == f"{path}: there is no #4, it has 3 frames; ask for #1 to #3"


def test_rescale_and_window_per_frame(written):
    groups = []
    for slope, center in [(1, 50), (2, 100)]:
        rescale, window, group = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = slope, 0, "US"
        window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, 100, "LINEAR_EXACT"
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [rescale], [window]
        groups.append(group)
    frames = np.array([[[20, 70]], [[20, 70]]], np.uint16)
    path = written(frames, PerFrameFunctionalGroupsSequence=groups)
    assert grey(f"{path}#1") == [[51, 178]]
    # 40 and 140 in a window from 50 to 150.
    assert grey(f"{path}#2") == [[0, 230]]
    shared = written(frames, SharedFunctionalGroupsSequence=groups[:1])
    assert grey(f"{shared}#2") == [[51, 178]]


def test_colours(written):
    colours = np.array([[[255, 0, 0], [0, 128, 255]]], np.uint8)
    assert np.array_equal(np.asarray(open_image(written(colours))), colours)
    deep = written(colours.astype(np.uint16) * 16, BitsStored=12, HighBit=11)
    assert np.abs(np.asarray(open_image(deep)).astype(int) - colours).max() <= 1


def test_palette_colours(written):
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in {"Red": [9, 200], "Green": [8, 100], "Blue": [7, 50]}.items():
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        palette[f"{name}PaletteColorLookupTableData"] = bytes(entries)
    assert np.asarray(open_image(written(np.array([[0, 1]], np.uint8), **palette))).tolist() == [
        [[9, 8, 7], [200, 100, 50]]
    ]


def test_jpeg_2000_needs_only_pillow(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    coded = io.BytesIO()
    Image.fromarray(values).save(coded, "JPEG2000", irreversible=False, no_jp2=True)
    data = described(values)
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([coded.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "j2k", enforce_file_format=True)
    assert grey(tmp_path / "j2k") == values.tolist()


def test_run_length_encoding_needs_only_pydicom(tmp_path):
    data = described(STORED, WindowCenter=40, WindowWidth=400, **CT)
    data.compress(RLELossless)
    data.save_as(tmp_path / "rle", enforce_file_format=True)
    assert grey(tmp_path / "rle") == [[0, 0, 64], [128, 192, 255]]


def test_file_without_preamble(tmp_path):
    data = described(np.array([[1, 2]], np.uint8))
    del data.file_meta
    data.save_as(tmp_path / "old.dcm", implicit_vr=True, little_endian=True)
    assert grey(tmp_path / "old.dcm") == [[1, 2]]


def test_missing_decoder_is_named(written, monkeypatch):
    path = written(STORED)
    for syntax, words in [
        (JPEGLosslessSV1, "install a decoder with pip: python-gdcm"),
        (MPEG2MPML, "pydicom does not decode"),
    ]:
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = syntax
        data["PixelData"].is_undefined_length = True
        data.PixelData = pydicom.encaps.encapsulate([b"\0" * 10])
        data.save_as(path, enforce_file_format=True)
        monkeypatch.setattr(type(pydicom.pixels.get_decoder(JPEGLosslessSV1)), "is_available", False)
        line = failure_here(path)
        assert syntax.name in line
        assert words in line


def test_pixel_limit_and_missing_package(written, monkeypatch):
    path = written(STORED)
    assert "--max-pixels 6" in failure_here(path, max_pixels=5)
    without(monkeypatch, "pydicom")
    assert failure_here(path) == f'{path}: a DICOM file needs pydicom; install it with pip install "slime-vlm[dicom]"'


def test_files_without_an_image_and_damaged_files(written, tmp_path):
    path = written(STORED)
    report = described(STORED, Modality="SR")
    for keyword in ("Rows", "Columns", "PixelData"):
        del report[keyword]
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    assert failure(tmp_path / "report.dcm").endswith("a DICOM file without an image (SR)")
    (tmp_path / "words.dcm").write_text("these are words, not pixels\n" * 20)
    assert "words.dcm: " in failure(tmp_path / "words.dcm")
    whole = path.read_bytes()
    for keep in (140, 300, len(whole) - 5):
        path.write_bytes(whole[:keep])
        assert "ct.dcm: " in failure(path)
