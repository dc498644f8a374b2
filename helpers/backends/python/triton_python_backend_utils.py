"""The module that every Python model imports: it gives the model's process UTF-8, and is then Triton's own module of this name.

Triton's program for Python models starts Python without reading the locale. Then ``print``, ``open()`` and paths know ASCII alone.
"""

from __future__ import annotations

import codecs
import importlib
import io
import locale
import sys

_escape = codecs.lookup_error("surrogateescape")


def _path_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    # How paths are encoded is fixed when Python starts: as ASCII, with this handler for what does not fit.
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii":
        return error.object[error.start : error.end].encode("utf-8", "surrogateescape"), error.end
    return _escape(error)


codecs.register_error("surrogateescape", _path_bytes)
locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # part of the C library that the server's wheel needs
for stream in (sys.stdout, sys.stderr):
    assert isinstance(stream, io.TextIOWrapper)
    # A name that was read from a folder is written as it is.
    stream.reconfigure(encoding="utf-8", errors="surrogateescape")

# Triton's own program sets attributes on the module that it imports, for the functions of the module to find.
sys.modules[__name__] = importlib.import_module("triton_python_backend_utils_original")
