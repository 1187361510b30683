"""Optimize a series of models, each time killed one durable step later; run as `tests.faults.killing`, same output."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import shardfs
from shardfs.history.objects import Objects
from shardfs.maintenance import optimize
from shardfs.store import packs as pack_files
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests import models
from tests.faults import killing


class Optimize(killing.Operation):
    """Chains of two branches to turn around, small packs to merge; a new pack holds the versions of one tensor."""

    def prepare(self, root: Path) -> None:
        project = root.with_name("project")
        with shardfs.init(project) as repo:
            versions = models.series(1, 3)
            for version in versions:
                models.commit(repo, {"model.safetensors": version})
            repo.create_branch("side", "HEAD~1")
            repo.switch("side")
            models.commit(repo, {"model.safetensors": models.trained(versions[1], 9)})
            repo.switch("main")
        shutil.move(project / ".shardfs", root / "local")

    def run(self, root: Path) -> None:
        pack_files.TARGET_SIZE = optimize._PACK_SIZE = 200 << 10  # type: ignore[misc]
        store = Store(root / "local")
        optimize.optimize(store, Objects(Reader(store)), max_depth=8, grace_s=0)
        store.close()


def main() -> None:
    """Argument: an empty folder. One JSON line for each round."""
    for line in killing.rounds(Optimize(), Path(sys.argv[1])):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
