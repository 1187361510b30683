"""Compiles the kernels of the float codecs when the package is built or installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "shardfs/codecs/kernels.c"
LIBRARY = "shardfs/codecs/libshardfs_kernels.so"
# Contraction would round predictions otherwise than other machines do; see the head of the source.
FLAGS = ("-O3", "-std=gnu99", "-ffp-contract=off", "-fPIC", "-shared")
DEADLINE_S = 300


class KernelsHook(BuildHookInterface[Any]):
    """Puts the library beside its source and into the wheel. Without a compiler the numpy kernels do its work."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; called by hatchling before it collects files."""
        del version
        if compile_kernels(Path(self.root)):
            build_data["pure_python"] = False
            # The library does not care which Python loads it.
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
            build_data["artifacts"].append(f"/{LIBRARY}")


def compile_kernels(root: Path) -> bool:
    """Make the library; False, with a line that says why, where that is not possible."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or shutil.which("gcc") or "cc"]
    library = root / LIBRARY
    # A running program may have the old library mapped: it keeps its file, the new one takes over the name.
    fresh = library.with_suffix(f".{os.getpid()}.new")
    try:
        subprocess.run(
            [*compiler, *FLAGS, "-o", str(fresh), str(root / SOURCE)],
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        fresh.replace(library)
        return True
    except (OSError, subprocess.SubprocessError) as error:
        fresh.unlink(missing_ok=True)
        library.unlink(missing_ok=True)
        detail = getattr(error, "stderr", None) or str(error)
        print(f"kernels not compiled, numpy will be used: {detail.strip().splitlines()[0]}", file=sys.stderr)
        return False
