"""`python -m tests.soak [--seed N] [--ops N]`: the whole soak, in a folder that is removed when all is well."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import soak


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--ops", type=int, default=10_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {given.seed}, {given.ops} operations, in {folder}", flush=True)
    report = soak(folder, given.seed, given.ops)
    for name, value in vars(report).items():
        print(f"{name}: {value}")
    if report.wrong():
        sys.exit(f"wrong: {', '.join(report.wrong())}; the logs are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
