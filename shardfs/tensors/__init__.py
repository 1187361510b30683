"""The layout of model files: which tensors lie where. Pure, and nothing is ever unpickled.

Readers take `read_at(offset, size) -> bytes`, which may return fewer bytes only at the end of the
file, and the file's size. Whatever the bytes are, they answer a `Layout` or `None`, with bounded work
and memory: a file that breaks its format's rules is a file of no known format.
"""

from shardfs.tensors.detector import Detector
from shardfs.tensors.layout import ExternalTensor, Layout, ReadAt, Stretch, Tensor
from shardfs.tensors.onnx import external_layout
from shardfs.tensors.runs import runs
from shardfs.tensors.sniff import detect

__all__ = ["Detector", "ExternalTensor", "Layout", "ReadAt", "Stretch", "Tensor", "detect", "external_layout", "runs"]
