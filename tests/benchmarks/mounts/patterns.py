"""Read patterns of programs, without an interpreter in the way: `patterns.c`, compiled when it is needed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measuring import READ_DEADLINE_S

COMPILER = shutil.which("cc") or shutil.which("gcc")
_SOURCE = Path(__file__).with_name("patterns.c")


@dataclass(frozen=True)
class Patterns:
    """The compiled program."""

    program: Path

    @classmethod
    def build(cls, folder: Path) -> Patterns:
        """Compile into `folder`.

        Raises:
            SystemExit: there is no compiler.
        """
        if COMPILER is None:
            raise SystemExit("no C compiler was found, which the read patterns need; install the package 'gcc'")
        program = folder / "patterns"
        subprocess.run([COMPILER, "-O2", "-pthread", str(_SOURCE), "-o", str(program)], check=True)
        return cls(program)

    def seconds(self, pattern: str, path: Path, *numbers: int) -> float:
        """Seconds of one pattern over a file, open included and the start of the program not."""
        return self.run(pattern, path, *numbers)[0]

    def run(self, pattern: str, path: Path, *numbers: int) -> tuple[float, int]:
        """Seconds and bytes read."""
        argv = [str(self.program), pattern, str(path), *map(str, numbers)]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=READ_DEADLINE_S)
        seconds, size, _ = done.stdout.split()
        return float(seconds), int(size)
