"""Where to cut a file into chunks. Pure: offsets come out, no file is touched.

A **cutter** says how long the chunk at the front of a window is. A **cursor** walks one file with
cutters, segment by segment, so that the start of every large tensor is the start of a chunk.
"""

from shardfs.chunking.aligned import LARGE_TENSOR, Cursor, Segment, segments
from shardfs.chunking.contentdefined import COMPILED, ContentDefinedCutter
from shardfs.chunking.cutter import Cutter
from shardfs.chunking.fixed import FixedCutter

__all__ = [
    "COMPILED",
    "LARGE_TENSOR",
    "ContentDefinedCutter",
    "Cursor",
    "Cutter",
    "FixedCutter",
    "Segment",
    "segments",
]
