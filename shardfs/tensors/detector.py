"""Tells the files of one tree, also those that only a model beside them describes."""

from __future__ import annotations

from shardfs.tensors.layout import Layout, ReadAt
from shardfs.tensors.onnx import external_layout
from shardfs.tensors.sniff import detect


class Detector:
    """`detect` for one file after another; remembers models whose tensors lie in other files."""

    def __init__(self) -> None:
        self._models: dict[bytes, list[Layout]] = {}  # by folder

    def detect(self, read_at: ReadAt, size: int, path: bytes) -> Layout | None:
        """The layout of a file, or None when it is of no known format and no model that came before names it.

        Args:
            read_at: reads the file; the errors it raises pass through, no others are raised.
            size: of the file in bytes.
            path: of the file in its tree, with "/" between names.
        """
        folder, _, name = path.rpartition(b"/")
        found = detect(read_at, size, name)
        if found is None:
            layouts = (external_layout(model, name, size) for model in self._models.get(folder, ()))
            return next((layout for layout in layouts if layout is not None), None)
        if found.external:
            self._models.setdefault(folder, []).append(found)
        return found
