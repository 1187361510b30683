"""What commands print: text for people or one JSON document, always UTF-8, never broken by a name.

Names of files are bytes. In text they are written as they are, except that control characters are escaped, so that
a name can neither end a line nor steer a terminal. In JSON every byte that is not UTF-8 becomes a lone surrogate
(U+DC80 to U+DCFF), which `os.fsencode` turns back.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_LAYOUT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_COLORS: Final = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "dim": 2, "bold": 1}
UNITS: Final = ("B", "KB", "MB", "GB", "TB")


class Output:
    """Where one command prints to.

    Attributes:
        json: print one JSON document instead of text.
        quiet: leave out what only informs.
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False

    def document(self, value: object) -> None:
        """Print the JSON document of a command."""
        self.line(json.dumps(value, indent=2, ensure_ascii=True))

    def line(self, text: str = "") -> None:
        """Print one line of the result."""
        _write(sys.stdout, text + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Print the lines of the result."""
        for text in texts:
            self.line(text)

    def note(self, text: str) -> None:
        """Print a line that only informs; nothing with --quiet or --json."""
        if not (self.quiet or self.json):
            self.line(text)

    def warn(self, text: str) -> None:
        """Print a line to standard error."""
        _write(sys.stderr, f"shardfs: {text}\n")

    def help(self, text: str) -> None:
        """Print a help text that answers a mistake, to standard error."""
        _write(sys.stderr, text + "\n")

    def style(self, text: str, color: str) -> str:
        """`text` in a color when standard output is a terminal and NO_COLOR is not set."""
        if self.json or os.environ.get("NO_COLOR") or not _is_terminal(sys.stdout):
            return text
        return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


def write_bytes(data: bytes | memoryview) -> None:
    """Print bytes as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def flush() -> None:
    """Bring out everything that was printed; here a closed pipe shows."""
    sys.stdout.flush()


def name(text: str) -> str:
    r"""A file name or any other one-line text for people: control characters as `\xNN`."""
    return _CONTROL.sub(_escape, text)


def paragraph(text: str) -> str:
    """A text of several lines for people: control characters other than newline and tab are escaped."""
    return _CONTROL_BUT_LAYOUT.sub(_escape, text)


def time(time_us: int) -> str:
    """RFC 3339 in UTC, with microseconds only when there are any."""
    try:
        moment = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    except (OverflowError, OSError, ValueError):
        return "9999-12-31T23:59:59Z" if time_us > 0 else "0001-01-01T00:00:00Z"  # a foreign commit may say anything
    return moment.isoformat().replace("+00:00", "Z")


def local_time(time_us: int) -> str:
    """A time for people, in their time zone."""
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    except (OverflowError, OSError, ValueError):
        return time(time_us)


def size(count: int) -> str:
    """Bytes for people, in powers of 1000: "91 B", "90.9 MB"."""
    value, unit = float(count), 0
    while value >= 999.95 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """A time span for people: "12 s", "5 min", "3 h", "12 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds)} s"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 file", "2 files"."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith(("ch", "s")) else f"{noun}s"
    return f"{number} {plural}"


def table(rows: Iterable[Iterable[str]], right: Iterable[int] = (), indent: str = "") -> list[str]:
    """Rows as lines with columns padded to the widest cell; columns in `right` end flush."""
    cells = [list(row) for row in rows]
    flush_right = set(right)
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    lines = []
    for row in cells:
        padded = [
            text.rjust(width) if i in flush_right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(padded)).rstrip())
    return lines


def _write(stream: TextIO, text: str) -> None:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "backslashreplace")
    buffer: Any = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(data.decode("utf-8", "replace"))
        return
    stream.flush()
    buffer.write(data)
    if stream is sys.stderr or _is_terminal(stream):
        buffer.flush()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


def _escape(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"
