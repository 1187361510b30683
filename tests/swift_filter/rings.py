"""Say which disk holds what: all of it, the one there is. Runs in the environment of Swift.

python rings.py FOLDER "KIND PORT"...: in one process, where `swift-ring-builder` would be started nine times.
"""

from __future__ import annotations

import sys
from pathlib import Path

from swift.common.ring import RingBuilder


def main(folder: Path, rings: list[str]) -> None:
    """Write KIND.ring.gz for each."""
    for ring in rings:
        kind, port = ring.split()
        place = {"ip": "127.0.0.1", "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port)}
        builder = RingBuilder(6, 1, 0)
        builder.add_dev({"id": 0, "region": 1, "zone": 1, "device": "sdb1", "weight": 1, "meta": "", **place})
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{kind}.ring.gz"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
