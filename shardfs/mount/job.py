"""What a daemon is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from shardfs.mount.operating import Operating
from shardfs.mount.options import MountOptions


@dataclass(frozen=True, slots=True)
class Job:
    """One mount to serve.

    Attributes:
        mountpoint: an existing directory, absolute.
        source: absolute directory of a repository, or a URL.
        remote: whether `source` is a URL.
        options: what the user chose.
        made_mountpoint: the directory was made for this mount.
        operating: log and metrics.
    """

    mountpoint: Path
    source: str
    remote: bool
    options: MountOptions
    made_mountpoint: bool
    operating: Operating

    @property
    def public_source(self) -> str:
        """The source as everybody may see it, in /proc/mounts and command lines."""
        return public_url(self.source) if self.remote else self.source

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "mountpoint": str(self.mountpoint), "operating": self.operating.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """The job of plain values."""
        return cls(
            Path(value["mountpoint"]),
            value["source"],
            value["remote"],
            MountOptions(**value["options"]),
            value["made_mountpoint"],
            Operating.from_json(value["operating"]),
        )


def public_url(url: str) -> str:
    """A URL without user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
