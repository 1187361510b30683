"""Store files by one scheme and print what it takes.

python -m tests.benchmarks.schemes xet-like|zipllm-like|zipnn FILE ...
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from tests.benchmarks.schemes import SCHEMES


def main() -> None:
    """Print one JSON object; see `schemes.Summary`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scheme", choices=SCHEMES)
    parser.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    result = import_module(SCHEMES[given.scheme].module).store(given.files)
    summary = {
        "stored": result.stored,
        "references": result.references,
        "distinct": result.distinct,
        "encode_seconds": result.encode_seconds,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
