"""A small archive for whoever is asked for help: versions, settings, findings, records and logs, without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Final

from shardfs import __version__, config, mountinfo
from shardfs.errors import MountError, StoreError
from shardfs.maintenance.findings import Finding
from shardfs.mount import probe, records
from shardfs.mount.checkup import tail

_TOP: Final = "shardfs-doctor"
_LOG_SIZE: Final = 256 << 10  # bytes of each log
_LOGS: Final = 20
_LIBRARIES: Final = ("aiohttp", "blake3", "click", "mfusepy", "numpy", "pyfastcdc", "sqlite-utils", "zstandard")
_KERNEL: Final = (
    "/proc/version",
    "/proc/self/cgroup",
    "/proc/self/limits",
    "/proc/sys/fs/fuse/max_pages_limit",
    "/proc/meminfo",
    "/etc/os-release",
    "/etc/fuse.conf",
)
_SECRETS: Final = frozenset({"SHARDFS_TOKEN"})
# User name and password of a URL, and what stands behind a question mark.
_LOGIN: Final = re.compile(rb"(://)[^/@\s\"']+@")
_QUERY: Final = re.compile(rb"(://[^\s\"'?]+\?)[^\s\"']+")


def write(path: Path, findings: Sequence[Finding], store_config: Path | None) -> int:
    """Write the archive, for the eyes of this user alone.

    Args:
        path: where; what is there is replaced.
        findings: of the doctor.
        store_config: settings file of the repository, None without one.

    Returns:
        Its bytes.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, data in _members(findings, store_config):
                member = tarfile.TarInfo(f"{_TOP}/{name}")
                member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
                archive.addfile(member, io.BytesIO(data))
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}"
        raise StoreError(msg) from error
    return path.stat().st_size


def _members(findings: Sequence[Finding], store_config: Path | None) -> Iterator[tuple[str, bytes]]:
    yield "versions.json", _json(_versions())
    yield "findings.json", _public(_json([asdict(finding) for finding in findings]))
    variables = {
        name: "***" if name in _SECRETS else value
        for name, value in os.environ.items()
        if name.startswith(("SHARDFS_", "XDG_"))
    }
    yield "environment.json", _public(_json(variables))
    for name, settings in (("user.toml", config.user_file()), ("repository.toml", store_config)):
        if settings is not None:
            yield f"settings/{name}", _public(tail(settings, _LOG_SIZE))
    for place in _KERNEL:
        with suppress(OSError):
            yield f"machine{place}", Path(place).read_bytes()
    yield "machine/mounts.json", _json(_rows())
    yield from _of_mounts()
    for log in _newest(records.state_home() / "log"):
        yield f"logs/{log.name}", _public(tail(log, _LOG_SIZE))


def _newest(folder: Path) -> list[Path]:
    """The logs that were written to last."""
    written: list[tuple[int, Path]] = []
    for log in folder.glob("*.log") if folder.is_dir() else []:
        with suppress(OSError):
            written.append((log.stat().st_mtime_ns, log))
    return [log for _, log in sorted(written)[-_LOGS:]]


def _of_mounts() -> Iterator[tuple[str, bytes]]:
    for number, record in enumerate(records.list_mounts()):
        yield f"mounts/{number}/record.json", _public(_json(record.to_json()))
        for name in ("stats.json", "errors"):
            with suppress(OSError):
                yield f"mounts/{number}/{name}", _public(probe.read(record.mountpoint / ".shardfs" / name))
        if record.log is not None and record.log.parent != records.state_home() / "log":
            yield f"mounts/{number}/log", _public(tail(record.log, _LOG_SIZE))


def _versions() -> dict[str, str]:
    found = {"shardfs": __version__, "python": sys.version, "platform": platform.platform()}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _rows() -> list[tuple[str, ...]]:
    with suppress(MountError):
        return [(str(row.mountpoint), row.device, row.type) for row in mountinfo.rows() if "fuse" in row.type]
    return []


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _public(data: bytes) -> bytes:
    """Without what opens a remote."""
    return _QUERY.sub(rb"\1***", _LOGIN.sub(rb"\1***@", data))
