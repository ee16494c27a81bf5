"""DICOM images, one frame at a time, with the rescale and window that the file describes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from PIL import Image

from slime_vlm.errors import MediaError
from slime_vlm.extras import import_extra
from slime_vlm.media.colours import eight_bit
from slime_vlm.media.file_type import FileType
from slime_vlm.media.request import RESULT_BYTES, Request

_IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"


def recognizes_dicom(head: bytes) -> bool:
    """Tell whether a file has the DICOM signature, which old files lack."""
    return head[128:132] == b"DICM"


def read_dicom(request: Request) -> Image.Image:
    """Read a frame.

    Grey values are converted by the modality table, or by rescale slope and intercept. The requested window then maps
    them to 8 bits. Without one the file's own table or window does, and without those their range. MONOCHROME1 is
    inverted, and padding is black.

    Raises:
        MediaError: pydicom or a decoder is not installed, the file has no image or no such frame, or the frame is
            larger than the limit.
    """
    pydicom = import_extra("pydicom", request.name, "a DICOM file needs pydicom", "dicom")
    with warnings.catch_warnings():
        # pydicom warns about every deviation from the standard. Here a file is read, or the error says why not.
        warnings.simplefilter("ignore")
        # Forced, because files without the preamble of the standard are read as well.
        header = pydicom.dcmread(request.path, stop_before_pixels=True, force=True)
        if "Rows" not in header or "Columns" not in header:
            kind = header.get("Modality")
            raise MediaError(f"{request.name}: a DICOM file without an image{f' ({kind})' if kind else ''}")
        index = request.index(int(header.get("NumberOfFrames") or 1), "frames")
        samples = int(header.get("SamplesPerPixel", 1))
        stored = samples * int(header.get("BitsAllocated", 8)) // 8
        request.check_size(header.Rows, header.Columns, pixel_bytes=stored + RESULT_BYTES)
        meta = getattr(header, "file_meta", {})
        syntax = pydicom.uid.UID(meta.get("TransferSyntaxUID") or _IMPLICIT_LITTLE_ENDIAN)
        _check_decoder(syntax, request)
        # Pixels of a deflated file are found in the inflated data only, which are read already but for them.
        source = pydicom.dcmread(request.path, force=True) if syntax.is_deflated else request.path
        values = pydicom.pixels.pixel_array(source, index=index, transfer_syntax_uid=syntax)
        return Image.fromarray(_shown(values, header, index, request)).convert("RGB")


def _check_decoder(syntax: Any, request: Request) -> None:
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise MediaError(f"{request.name}: its pixels are {syntax.name}, which pydicom does not decode") from None
    if not decoder.is_available:
        wanted = " or ".join(text.split(" - requires ")[-1] for text in decoder.missing_dependencies)
        # The module gdcm comes from the package python-gdcm. The package gdcm is something else.
        wanted = wanted.replace("gdcm", "python-gdcm")
        raise MediaError(f"{request.name}: compressed as {syntax.name}; install a decoder with pip: {wanted}")


def _shown(values: np.ndarray, header: Any, index: int, request: Request) -> np.ndarray:
    """Return the frame as it is shown: uint8, grey [H, W] or colours [H, W, 3]."""
    from pydicom.pixels import apply_color_lut

    kind = str(header.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(values, header)[..., :3]
        return _from_bits(colours, int(header.RedPaletteColorLookupTableDescriptor[2]))
    if values.ndim == 3:
        return _from_bits(values, int(header.get("BitsStored", 8)))
    empty = _padding(values, header)
    grey = _grey(values, ~empty, header, index, request)
    if kind == "MONOCHROME1":
        grey = 255 - grey
    grey[empty] = 0
    return grey


def _grey(values: np.ndarray, valid: np.ndarray, header: Any, index: int, request: Request) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = apply_modality_lut(values, _of_frame(header, index, "PixelValueTransformationSequence"))
    if request.window is not None:
        return request.window.apply(values)
    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return _from_bits(apply_voi(np.rint(values).astype(np.int64), header), bits)
    described = _of_frame(header, index, "FrameVOILUTSequence")
    if "WindowCenter" in described and "WindowWidth" in described:
        return _own_window(values, described)
    return eight_bit(values, valid=valid)


def _own_window(values: np.ndarray, described: Any) -> np.ndarray:
    """Apply the first window that a file describes, with the function that it names."""
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    # pydicom scales to the range of the stored values. For 8 unsigned bits that is 0 to 255.
    window = Dataset()
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction"):
        if keyword in described:
            window[keyword] = described[keyword]
    return np.rint(apply_windowing(values, window)).clip(0, 255).astype(np.uint8)


def _of_frame(header: Any, index: int, keyword: str) -> Any:
    """Return what describes a frame's rescale or window: its own functional group, the shared one, or the header."""
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    for group in [*groups[index : index + 1], *(header.get("SharedFunctionalGroupsSequence") or [])]:
        if group.get(keyword):
            return group[keyword].value[0]
    return header


def _padding(values: np.ndarray, header: Any) -> np.ndarray:
    """Return which pixels lie outside the scanned area, bool of the same shape."""
    first = header.get("PixelPaddingValue")
    if first is None:
        return np.zeros(values.shape, dtype=bool)
    last = header.get("PixelPaddingRangeLimit", first)
    return (values >= min(first, last)) & (values <= max(first, last))


def _from_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Scale values of a known depth to 8 bits."""
    if bits == 8:
        return values.astype(np.uint8)
    return np.rint(values * np.float32(255.0 / (2**bits - 1))).clip(0, 255).astype(np.uint8)


DICOM = FileType(recognizes_dicom, read_dicom, suffixes=(".dcm", ".dicom"))
