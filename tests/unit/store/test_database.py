"""Connections: closing them while other threads use them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# What an interrupted command does: it closes the repository while daemon threads read on. A program of its own,
# because the process that gets this wrong does not live to tell.
_PROGRAM = """
import sys, threading
from pathlib import Path
from shardfs.store.cache import Cache
from shardfs.store.index import Index

folder, ended = Path(sys.argv[1]), threading.Event()
index = Index(folder / "index.sqlite", folder, lambda: [])
cache = Cache(folder / "cache", limit_bytes=1 << 24, free_floor_bytes=0)
counts, errors = [0] * 4, []

def read(number):
    while not ended.is_set():
        try:
            index.find_many([bytes([n]) * 32 for n in range(200)])
            cache.contains(bytes(32))
            cache.put(bytes([number]) * 32, 0, 1, (), b"x")
            counts[number] += 1
        except Exception as error:
            errors.append(error)

threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for _ in range(300):
    index.close()
    cache.close()
ended.set()
for thread in threads:
    thread.join()
assert not errors, errors[0]
assert all(counts), counts
print("alive")
"""


def test_closing_leaves_the_statements_of_other_threads_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
