"""Records of mounts: who serves which mount point, in a file of the user that outlives a killed daemon."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Literal

from shardfs import mountinfo
from shardfs.errors import MountError

Status = Literal["alive", "dead"]

_TURN_S: Final = 5.0  # mounting takes milliseconds: who needs longer is stopped


@dataclass(frozen=True, slots=True)
class MountRecord:
    """One mount.

    Attributes:
        mountpoint: absolute path.
        source: the repository's store directory, or a URL without credentials.
        branch: short name of the branch that it shows.
        read_only: whether it has no staging.
        pid: the daemon.
        process_start: start time of the daemon in clock ticks since boot: tells a re-used pid.
        started: seconds since 1970.
        engine: what speaks to the kernel.
        connection: number in /sys/fs/fuse/connections, where a hanging mount can be aborted.
        log: the daemon's log file.
        made_mountpoint: the mount point was made for this mount and goes with it.
        metrics: "HOST:PORT" where its metrics are; None without.
    """

    mountpoint: Path
    source: str
    branch: str | None
    read_only: bool
    pid: int
    process_start: int
    started: float
    engine: str
    connection: int | None
    log: Path | None
    made_mountpoint: bool
    metrics: str | None = None

    @property
    def status(self) -> Status:
        """Whether the daemon still runs. Does not touch the mount."""
        return "alive" if process_start(self.pid) == self.process_start else "dead"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        log = None if self.log is None else str(self.log)
        return {**asdict(self), "mountpoint": str(self.mountpoint), "log": log}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MountRecord:
        """The record of plain values (KeyError, TypeError for others)."""
        log = None if value["log"] is None else Path(value["log"])
        return cls(**{**value, "mountpoint": Path(value["mountpoint"]), "log": log})


def process_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def state_home() -> Path:
    """Directory of this user for logs, and for records where there is no runtime directory."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "shardfs"


def log_path(mountpoint: Path) -> Path:
    """The log file of the daemon of a mount point."""
    return state_home() / "log" / f"{_name(mountpoint)}.log"


def write(record: MountRecord) -> None:
    """Remember a mount.

    Raises:
        MountError: the user's directory is not writable.
    """
    folder = _folders()[0]
    path = folder / f"{_name(record.mountpoint)}.json"
    temp = path.with_suffix(f".{secrets.token_hex(4)}")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temp.write_text(json.dumps(record.to_json(), indent=2), "utf-8", "surrogateescape")
        temp.replace(path)
    except OSError as error:
        msg = f"cannot record the mount in {folder}: {error.strerror}"
        raise MountError(msg) from error


def read(mountpoint: Path) -> MountRecord | None:
    """The record of a mount point, None when there is none."""
    found = (_load(folder / f"{_name(mountpoint)}.json") for folder in _folders())
    return next((record for record in found if record is not None and record.mountpoint == mountpoint), None)


@contextmanager
def turn() -> Iterator[None]:
    """Nobody else of this user is between looking for a mount and recording his own meanwhile.

    Without a directory to record mounts in, and after 5 s behind somebody who is stuck, there is no waiting.
    """
    fd = _open_folder()
    try:
        until = time.monotonic() + _TURN_S
        while fd is not None and not _locked(fd) and time.monotonic() < until:
            time.sleep(0.01)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def taken(mountpoint: Path) -> MountError:
    """What to tell who wants to mount where a live mount is."""
    record = read(mountpoint)
    who = f" by process {record.pid}" if record is not None else ""
    return MountError(f"{mountpoint} is already mounted{who}; `shardfs umount {mountpoint}` first")


def forget(record: MountRecord) -> None:
    """Remove a record, unless the mount point has a newer one."""
    for folder in _folders():
        path = folder / f"{_name(record.mountpoint)}.json"
        found = _load(path)
        if found is not None and (found.pid, found.process_start) == (record.pid, record.process_start):
            with suppress(OSError):
                path.unlink()


def list_mounts() -> list[MountRecord]:
    """The mounts of this user, oldest first; ask each for its `status`. Never touches a mount.

    Records of mounts that have ended are removed on the way.
    """
    present = {row.mountpoint for row in mountinfo.rows() if row.type == mountinfo.TYPE}
    found: dict[Path, MountRecord] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            record = _load(path)
            if record is None:
                continue
            if record.status == "dead" and record.mountpoint not in present:
                forget(record)
            else:
                found.setdefault(record.mountpoint, record)
    return sorted(found.values(), key=lambda record: record.started)


def _folders() -> list[Path]:
    """Where records are; the first is written to. A process without XDG_RUNTIME_DIR looks in the second alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folders = [Path(runtime) / "shardfs" / "mounts"] if runtime else []
    return [*folders, state_home() / "mounts"]


def _open_folder() -> int | None:
    folder = _folders()[0]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _load(path: Path) -> MountRecord | None:
    try:
        return MountRecord.from_json(json.loads(path.read_text("utf-8", "surrogateescape")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name(mountpoint: Path) -> str:
    digest = blake2b(os.fsencode(mountpoint), digest_size=6).hexdigest()
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in mountpoint.name[:40])
    return f"{plain or 'root'}-{digest}"
