"""Ways to store a series of files that no installed program offers, each run in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Scheme(NamedTuple):
    """A scheme's module, and the packages that it needs beside those of the tests."""

    module: str
    packages: tuple[str, ...]


ABOUT = (
    "xet-like and zipllm-like are written anew from what is published about Xet and ZipLLM; they are not those "
    "programs. zipnn is the published library. These three are charged less than a store takes: the encoded bytes, "
    "and 48 bytes for each reference to a chunk, tensor or file. What they encoded was decoded again and compared."
)

SCHEMES = {
    "xet-like": Scheme("tests.benchmarks.schemes.xet_like", ("lz4",)),
    "zipnn": Scheme("tests.benchmarks.schemes.zipnn_files", ("zipnn",)),
    "zipllm-like": Scheme("tests.benchmarks.schemes.zipllm_like", ()),
}


class Summary(NamedTuple):
    """What a scheme took for a series.

    Attributes:
        stored: bytes.
        references: chunks, tensors or files, each time they occur.
        distinct: bytes of the distinct ones before encoding.
        encode_seconds: time of the encoder, 0.0 where it was not taken.
    """

    stored: int
    references: int
    distinct: int
    encode_seconds: float


def present(names: Sequence[str] | None = None) -> list[str]:
    """The schemes that can run here (of `names`, if given); says on stderr which are skipped and why."""
    found = []
    for name, scheme in SCHEMES.items():
        if names and name not in names:
            continue
        if absent := [package for package in scheme.packages if find_spec(package) is None]:
            print(f"skipped {name}: no Python package {', '.join(absent)}", file=sys.stderr)
        else:
            found.append(name)
    return found


def command(name: str) -> list[str]:
    """The command line of a scheme, but for the files."""
    return ["python", "-m", "tests.benchmarks.schemes", name]


def commands(names: Sequence[str]) -> str:
    """What was run, as a Markdown code block."""
    return "\n".join(["```", *(f"{' '.join(command(name))} FILE ..." for name in names), "```"])


def store(name: str, files: Sequence[Path]) -> Summary | None:
    """Store files by the named scheme; None when its library crashed, as that of zipnn does with some sizes.

    Raises:
        SystemExit: it failed otherwise, or gave other bytes back.
    """
    argv = [sys.executable, *command(name)[1:], *map(str, files)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode < 0:
        print(f"{name} was killed by signal {-done.returncode} at {', '.join(map(str, files))}", file=sys.stderr)
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stderr}")
    return Summary(**json.loads(done.stdout))
