"""What programs ask of a mount, counted."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class Counts(NamedTuple):
    """What programs have asked of a mount. What the kernel answers from its page cache does not come here.

    Attributes:
        requests: requests, by operation.
        errors: requests that ended with an error, by errno.
        read_bytes: bytes of files that were given to the kernel.
        written_bytes: bytes that were written to staging.
        open_files: open files now.
    """

    requests: Mapping[str, int]
    errors: Mapping[str, int]
    read_bytes: int
    written_bytes: int
    open_files: int


class Traffic:
    """Counts. Safe to share between threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._errors: Counter[int] = Counter()
        self._read_bytes = self._written_bytes = self._open_files = 0

    def asked(self, operation: str) -> None:
        """A request came."""
        with self._guard:
            self._requests[operation] += 1

    def failed(self, code: int) -> None:
        """A request ended with errno `code`."""
        with self._guard:
            self._errors[code] += 1

    def read(self, size: int) -> None:
        """So many bytes were read."""
        with self._guard:
            self._read_bytes += size

    def written(self, size: int) -> None:
        """So many bytes were written."""
        with self._guard:
            self._written_bytes += size

    def opened(self) -> None:
        """A file was opened."""
        with self._guard:
            self._open_files += 1

    def closed(self) -> None:
        """The last descriptor and mapping of an open file is gone."""
        with self._guard:
            self._open_files -= 1

    def counts(self) -> Counts:
        """The counts of this moment."""
        with self._guard:
            requests, errors = dict(self._requests), dict(self._errors)
            return Counts(
                requests=dict(sorted(requests.items())),
                errors={errno.errorcode.get(code, str(code)): count for code, count in sorted(errors.items())},
                read_bytes=self._read_bytes,
                written_bytes=self._written_bytes,
                open_files=self._open_files,
            )
