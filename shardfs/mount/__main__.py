"""The daemon's program: `python -m shardfs.mount MOUNTPOINT SOURCE`, started by session.py.

The arguments are for people who look at a process list. The job comes as JSON on standard input; the answer is one
line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys

from shardfs.allocator import keep_freed_memory
from shardfs.errors import ShardfsError
from shardfs.mount.job import Job
from shardfs.mount.records import MountRecord


def main() -> int:
    """Serve one mount; the exit status."""
    job = Job.from_json(json.loads(sys.stdin.buffer.read()))
    if os.fork():
        os._exit(0)  # the caller reaps this process; the daemon belongs to nobody
    from shardfs.mount import daemon  # loads libfuse: after the fork

    keep_freed_memory(heaps=1, kept_bytes=16 << 20)  # a daemon stays: it takes 30 to 50 MB less, and is no slower

    def answer(value: dict[str, object]) -> None:
        os.write(1, json.dumps(value).encode() + b"\n")
        os.dup2(2, 1)  # the pipe's end tells the parent that nothing more comes

    def announce(record: MountRecord) -> None:
        answer({"ready": record.to_json()})

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        daemon.run(job, announce)
    except ShardfsError as error:
        answer({"kind": type(error).__name__, "error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
