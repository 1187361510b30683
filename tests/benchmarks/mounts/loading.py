"""Load checkpoints as training programs do, in one process that has its imports behind it.

As a program it takes one line of JSON per load, `[how, path]`, and answers each with the seconds that it took.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.benchmarks.measuring import READ_DEADLINE_S

PAGE = 4096


class Loader:
    """The process that loads; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def seconds(self, how: str, path: Path) -> float:
        """Seconds of one load; nothing of the file is open or mapped any more afterwards.

        Raises:
            SystemExit: the load failed, or did not end before READ_DEADLINE_S.
        """
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None  # noqa: PT018 - pipes were asked for
        to.write(json.dumps([how, str(path)]) + "\n")
        to.flush()
        if not select.select([back], [], [], READ_DEADLINE_S)[0] or not (answer := back.readline()):
            raise SystemExit(f"{how} of {path} failed or did not end in {READ_DEADLINE_S} s")
        return float(answer)


def _torch(path: str) -> Iterable[Any]:
    import torch

    return list(torch.load(path, weights_only=True).values())


def _torch_mapped(path: str) -> Iterable[Any]:
    import torch

    return list(torch.load(path, weights_only=True, mmap=True).values())


def _safetensors(path: str) -> Iterable[Any]:
    from safetensors.torch import load_file

    return list(load_file(path).values())


def _one_tensor(path: str) -> Iterable[Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = list(file.keys())
        return [file.get_tensor(names[len(names) // 2])]


LOADS = {
    "torch.load": _torch,
    "torch.load, mmap": _torch_mapped,
    "load_file": _safetensors,
    "safe_open, one tensor": _one_tensor,
}


def load_and_touch(how: str, path: str) -> float:
    """Seconds to load tensors and to read from every page of each."""
    import torch

    start = time.perf_counter()
    tensors = LOADS[how](path)
    for tensor in tensors:
        tensor.flatten().view(torch.uint8)[::PAGE].sum()
    return time.perf_counter() - start


def main() -> None:
    """Answer until the end of the input."""
    import safetensors.torch  # noqa: F401 - imports are not part of a load
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        how, path = json.loads(line)
        print(load_and_touch(how, path), flush=True)


if __name__ == "__main__":
    main()
