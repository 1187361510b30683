"""Encode and decode chunks of real checkpoints: how many bytes are left, at what speed, on one thread and on two.

    python -m tests.benchmarks.bench_codecs SERIES [--chunks 24] [--repeat 5]

SERIES is a folder with `fp32_v0.safetensors`, `fp32_v1.safetensors` ... and the same for bf16. Chunks of 1 MiB from all
over the newest version are encoded with no base, and as chains of deltas of some depth that begin with a chunk of an
older version; to decode one is to decode its whole chain. Speeds count bytes of the newest version only: on one core by
the time of the processor, which a busy machine does not change much, and on two threads by the clock on the wall. Every
plaintext is compared. ZipNN runs beside where it is installed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from shardfs.allocator import keep_freed_memory
from shardfs.codecs import kernels, registry
from shardfs.codecs.kernels import Kernels
from shardfs.codecs.kernels_numpy import NumpyKernels
from shardfs.codecs.registry import Base, Encoded
from tests.benchmarks.measuring import MB, invocation, machine, median, table

CHUNK = 1 << 20  # bytes
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
DEPTHS = (0, 1, 2, 4, 6, 8)
THREADS = 2
Chain = list[bytes]  # one chunk of every version, the newest first


class Result(NamedTuple):
    """What one way to encode came to: part left in %, and bytes per second on one core and on two threads."""

    left: float
    encoded: tuple[float, float]
    decoded: tuple[float, float]


def main() -> None:
    """Print a table per kind of kernels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path)
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    print(f"{invocation()}\n\n{machine()} of {options.repeat}; speeds are MB/s\n")
    compiled = kernels.active
    for prefix, dtype in DTYPES.items():
        chains = _chains(options.series, prefix, options.chunks)
        if not chains:
            print(f"no {prefix} series in {options.series}: skipped")
            continue
        rows = []
        for implementation in (compiled, NumpyKernels()):
            _use(implementation)
            repeat = options.repeat if implementation is compiled else 1
            for depth in DEPTHS:
                if depth < len(chains[0]):
                    result = _measure(_Ours(dtype, depth), [chain[: depth + 1] for chain in chains], repeat)
                    rows.append(_row(f"{implementation.name}, depth {depth}", result))
        _use(compiled)
        if (zipnn := _zipnn(dtype)) is not None:
            rows.append(_row("ZipNN", _measure(zipnn, [chain[:1] for chain in chains], options.repeat)))
        head = [f"{what}, {how}" for what in ("encode", "decode") for how in ("one core", f"{THREADS} threads")]
        print(table([prefix, "% left", *head], rows), end="\n\n", flush=True)


class _Ours:
    """Chains of one depth."""

    def __init__(self, dtype: str, depth: int) -> None:
        self._dtype = dtype
        self._depth = depth

    def prepare(self, chain: Chain) -> list[Encoded]:
        """The older links, oldest first."""
        return [self._link(chain, place) for place in range(len(chain) - 1, 0, -1)]

    def encode(self, chain: Chain) -> Encoded:
        """The newest link."""
        return self._link(chain, 0)

    def decode(self, older: list[Encoded], newest: Encoded) -> bytes:
        """The newest plaintext, from all links."""
        known: Chain = []
        for link in (*older, newest):
            known.insert(0, registry.decode(link.codec, link.payload, CHUNK, known[: len(link.bases)]))
        return known[0]

    def size(self, newest: Encoded) -> int:
        """Bytes of payload."""
        return len(newest.payload)

    def _link(self, chain: Chain, place: int) -> Encoded:
        bases = [Base(bytes([i]), data) for i, data in enumerate(chain[place + 1 : place + 3])]
        return registry.encode(chain[place], self._dtype, bases)


class _ZipNN:
    """The package of that name, which knows no bases."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def prepare(self, chain: Chain) -> list[Encoded]:
        """Nothing."""
        del chain
        return []

    def encode(self, chain: Chain) -> Encoded:
        """Of a copy: it rearranges the bytes that it is given, in place."""
        return Encoded(0, bytes(self._make().compress(bytearray(chain[0]))))  # type: ignore[attr-defined]

    def decode(self, older: list[Encoded], newest: Encoded) -> bytes:
        """The plaintext."""
        del older
        return bytes(self._make().decompress(newest.payload))  # type: ignore[attr-defined]

    def size(self, newest: Encoded) -> int:
        """Bytes of payload."""
        return len(newest.payload)


def _zipnn(dtype: str) -> _ZipNN | None:
    try:
        from zipnn import ZipNN
    except ImportError:
        print("ZipNN is not installed: skipped")
        return None
    return _ZipNN(lambda: ZipNN(input_format="byte", bytearray_dtype=dtype))


def _use(implementation: Kernels) -> None:
    setattr(kernels, "active", implementation)  # noqa: B010  a name that never changes anywhere else


def _chains(series: Path, prefix: str, chunks: int) -> list[Chain]:
    """Chunks of all versions from places all over the file."""
    paths = sorted(series.glob(f"{prefix}_v*.safetensors"), key=lambda path: int(path.stem.rpartition("v")[2]))
    versions = []
    for path in reversed(paths):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        json.loads(data[8:start])  # a safetensors file
        versions.append(memoryview(data)[start:])
    if not versions:
        return []
    whole = len(versions[0]) // CHUNK
    starts = [CHUNK * (whole * i // chunks) for i in range(chunks)]
    return [[bytes(version[start : start + CHUNK]) for version in versions] for start in starts]


def _measure(codec: _Ours | _ZipNN, chains: Sequence[Chain], repeat: int) -> Result:
    older = [codec.prepare(chain) for chain in chains]
    newest = [codec.encode(chain) for chain in chains]
    for chain, before, last in zip(chains, older, newest, strict=True):
        if codec.decode(before, last) != chain[0]:
            raise SystemExit("a chunk did not come back")
    left = 100 * sum(map(codec.size, newest)) / (CHUNK * len(chains))
    links = list(zip(older, newest, strict=True))
    encoded = _speeds(lambda i: codec.encode(chains[i]), len(chains), repeat)
    decoded = _speeds(lambda i: codec.decode(*links[i]), len(chains), repeat)
    return Result(left, encoded, decoded)


def _speeds(work: Callable[[int], object], chunks: int, repeat: int) -> tuple[float, float]:
    """Bytes per second of processor time on one thread, and by the wall clock on several."""
    alone, together = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(repeat):
            start = time.process_time()
            for chunk in range(chunks):
                work(chunk)
            alone.append(time.process_time() - start)
            start = time.perf_counter()
            list(pool.map(work, range(chunks)))
            together.append(time.perf_counter() - start)
    return CHUNK * chunks / median(alone), CHUNK * chunks / median(together)


def _row(name: str, result: Result) -> list[str]:
    return [name, f"{result.left:.1f}", *(f"{speed / MB:.0f}" for speed in (*result.encoded, *result.decoded))]


if __name__ == "__main__":
    main()
