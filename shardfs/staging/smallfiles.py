"""Small files, many at a time.

A file of 10 KB is read, hashed and compressed in 15 us; asking the index about it, changing to another thread and
checking what can be checked for all at once took three times as long when it was done file by file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from shardfs.codecs import registry
from shardfs.formats.ids import Kind, chunk_id
from shardfs.staging.ingest import SMALL, Ingested
from shardfs.staging.scan import Found
from shardfs.staging.source import Stamp
from shardfs.store.store import Batch
from shardfs.tensors import detect

MANY: Final = 128  # files; what they hold is in memory together: 32 MiB at most
# Not blocking: a file that was swapped for a pipe must not hold us up.
OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SmallFiles:
    """Puts small files that do not change meanwhile, and are of no known format, into a batch. For one thread."""

    def __init__(self, root: bytes, batch: Batch, progress: Callable[[int], None]) -> None:
        """Put files below `root` into `batch`; `progress` is told the bytes done since it was called last."""
        self._root = root
        self._batch = batch
        self._progress = progress

    def put(self, files: Sequence[Found]) -> list[Ingested | None]:
        """Put up to `MANY` regular files; None for those that need a closer look.

        Raises:
            StoreError: the batch cannot be written.
        """
        contents = [self._read(path, status) for path, status in files]
        ids = [chunk_id(content) if content else None for content in contents]
        stored = self._batch.has(id_ for id_ in ids if id_ is not None)
        answers: list[Ingested | None] = []
        for (_, status), content, id_ in zip(files, contents, ids, strict=True):
            if id_ is not None and content and id_ not in stored:
                self._batch.put_encoded(Kind.CHUNK, id_, registry.encode(content), len(content))
                stored.add(id_)
            known = content is not None
            answers.append(Ingested(status.st_size, id_, None, None, Stamp.of(status)) if known else None)
        self._progress(sum(map(len, filter(None, contents))))
        return answers

    def _read(self, path: bytes, status: os.stat_result) -> bytes | None:
        """All of a file that is as it was found, and has been for so long that a change would show in its times."""
        stamp = Stamp.of(status)
        if stamp.size > SMALL or stamp.is_racy(time.time_ns()):
            return None
        with suppress(OSError):
            fd = os.open(self._root + b"/" + path, OPEN_FILE)
            try:
                content = os.read(fd, stamp.size + 1)
                if len(content) != stamp.size or Stamp.of(os.fstat(fd)) != stamp:
                    return None
            finally:
                os.close(fd)
            known_format = detect(lambda offset, size: content[offset : offset + size], stamp.size, path)
            return None if known_format else content
        return None
