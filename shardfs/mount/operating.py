"""How the process that serves a mount is operated: its log and its metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shardfs.errors import UsageError

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Operating:
    """What whoever operates a mount can choose.

    Attributes:
        log: the log file, absolute; None for the usual one of a daemon, and for standard error in the foreground.
        log_level: what is worth a line; None for "info", and in the foreground without a log file for what the
            program prints anyway.
        log_format: lines for people, or one JSON object a line.
        metrics: "HOST:PORT" to serve metrics at, or "PORT" on 127.0.0.1; None for no metrics.
    """

    log: Path | None = None
    log_level: LogLevel | None = None
    log_format: LogFormat = "text"
    metrics: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "log": None if self.log is None else str(self.log)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Operating:
        """The choice of plain values."""
        return cls(**{**value, "log": None if value["log"] is None else Path(value["log"])})


def address(text: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", "[IPV6]:PORT" or "PORT", which means 127.0.0.1; port 0 is any free one.

    Raises:
        UsageError: another form.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        msg = f"not an address: {text!r}; write PORT or HOST:PORT, such as 127.0.0.1:9750"
        raise UsageError(msg)
    return host.strip("[]") or "127.0.0.1", int(port)
