"""Read untrusted pickles: only plain data and NumPy arrays are created, so their code never runs."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from slime_vlm.errors import DataError

_ALLOWED = {
    (module, name)
    for core in ("numpy.core.multiarray", "numpy._core.multiarray")
    for module, name in ((core, "_reconstruct"), (core, "scalar"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not plain data")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain data.

    Raises:
        DataError: The pickle is damaged, or holds more than plain data.
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    # Damaged pickles raise many kinds of errors (EOFError, IndexError, UnicodeDecodeError, ...).
    except Exception as error:
        raise DataError(f"{path} cannot be read as a pickle of plain data ({error}); download it again") from error
