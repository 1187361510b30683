"""Memory that the compiled kernels read and write: addresses, scratch, results without a second copy."""

from __future__ import annotations

import ctypes
import threading
from typing import ClassVar

from shardfs.codecs.base import Buffer

_local = threading.local()
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_new_bytes.restype = ctypes.py_object


class _View(ctypes.Structure):
    """`Py_buffer`, part of the stable interface since Python 3.11. ctypes itself has no address of read-only memory."""

    _fields_: ClassVar = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_View), ctypes.c_int]
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = [ctypes.POINTER(_View)]
_release.restype = None


def address_of(data: Buffer) -> int:
    """Where the bytes of a contiguous buffer lie, for as long as it lives and keeps its size.

    Raises:
        BufferError: the buffer is not contiguous.
    """
    view = _View()
    _get_buffer(data, view, 0)
    address = int(view.buf or 0)
    _release(view)
    return address


def unfilled_bytes(size: int) -> bytes:
    """Bytes of that size, with any content. To be filled through its address before anybody else sees it."""
    made: bytes = _new_bytes(None, size)
    return made


def scratch(name: str, size: int) -> memoryview:
    """The first `size` bytes of a buffer that this thread uses again and again; they hold what was left there."""
    found: bytearray | None = getattr(_local, name, None)
    if found is None or len(found) < size:
        found = bytearray(size)
        setattr(_local, name, found)
    return memoryview(found)[:size]
