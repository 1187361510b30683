"""Feed the decoders of all codecs what atheris makes of the frozen payloads: as long as promised, or refused.

python -m tests.fuzz.fuzz_codecs [SECONDS]
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

VECTORS = Path(__file__).parents[1] / "golden/codecs.json"
HEAD = 4  # bytes of an input before the payload: codec, raw size in two bytes, which bases
LARGEST = 1 << 20  # bytes; a decoder that made more than was promised would pass this


def corpus(folder: Path) -> None:
    """Write the frozen payloads as inputs, with bases of the right lengths."""
    for number, vector in enumerate(json.loads(VECTORS.read_text())):
        head = bytes((vector["codec"], *vector["raw_size"].to_bytes(2, "little"), len(vector["bases"])))
        (folder / str(number)).write_bytes(head + base64.b64decode(vector["payload"]))


def main() -> None:
    """Run for some seconds, 60 by default, and end with a stack trace and the input at the first failure."""
    try:
        import atheris
    except ImportError:
        print("atheris is not installed (pip install atheris): nothing fuzzed")
        return
    with atheris.instrument_imports(include=["shardfs"]):
        from shardfs.codecs import registry
        from shardfs.errors import FormatError

    def decode(data: bytes) -> None:
        if len(data) < HEAD:
            return
        raw_size = int.from_bytes(data[1:3], "little")
        base = (b"\x3c\x80\x01\xff" * (raw_size // 4 + 1))[:raw_size]
        with suppress(FormatError):
            plaintext = registry.decode(data[0] % 7, data[HEAD:], raw_size, [base, base[::-1]][: data[3] % 4])
            if len(plaintext) != raw_size:
                raise AssertionError(len(plaintext))

    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    with tempfile.TemporaryDirectory() as folder:
        corpus(Path(folder))
        arguments = [folder, f"-max_total_time={seconds}", f"-malloc_limit_mb={LARGEST >> 20}", "-max_len=20000"]
        atheris.Setup([sys.argv[0], *arguments], decode)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
