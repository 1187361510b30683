"""How mounts are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardfs_cli import output

if TYPE_CHECKING:
    from shardfs.mount.records import MountRecord


def record_json(record: MountRecord) -> dict[str, Any]:
    """A mount."""
    return {
        "mountpoint": str(record.mountpoint),
        "source": record.source,
        "branch": record.branch,
        "read_only": record.read_only,
        "status": record.status,
        "pid": record.pid,
        "started": output.time(int(record.started * 1e6)),
        "log": None if record.log is None else str(record.log),
    }
