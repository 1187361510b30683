"""How mounts are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardfs_cli import output

if TYPE_CHECKING:
    from shardfs.mount.probe import State
    from shardfs.mount.records import MountRecord


def record_json(record: MountRecord, state: State) -> dict[str, Any]:
    """A mount."""
    return {
        "mountpoint": str(record.mountpoint),
        "source": record.source,
        "branch": record.branch,
        "read_only": record.read_only,
        "status": state,
        "pid": record.pid,
        "started": output.time(int(record.started * 1e6)),
        "engine": record.engine,
        "connection": record.connection,
        "metrics": record.metrics,
        "log": None if record.log is None else str(record.log),
    }
