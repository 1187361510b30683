"""Mounting: checks, the daemon, and the wait until it is ready. Light to import: the daemon loads the rest."""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import shardfs
from shardfs import errors, mountinfo
from shardfs.errors import MountError, ShardfsError
from shardfs.mount import probe, records, umount
from shardfs.mount.job import Job
from shardfs.mount.operating import Operating
from shardfs.mount.options import AUTO, MountOptions
from shardfs.mount.records import MountRecord, list_mounts
from shardfs.mount.umount import unmount

__all__ = ["MountOptions", "MountRecord", "list_mounts", "mount", "unmount"]

_log = logging.getLogger(__name__)

READY_S: Final = 60.0  # a view of a remote reads the history first
DAEMON: Final[tuple[str, ...]] = (sys.executable, "-m", "shardfs.mount")


def mount(
    mountpoint: str | Path,
    source: str | Path,
    options: MountOptions | None = None,
    *,
    remote: bool = False,
    foreground: bool = False,
    ready_s: float = READY_S,
    operating: Operating | None = None,
) -> MountRecord:
    """Mount a repository.

    Args:
        mountpoint: a directory; made when missing, and then removed at the end of the mount.
        source: a directory of the repository, or with `remote` its URL.
        options: how; None for the defaults.
        remote: `source` is a URL that is shown without a clone, read-only.
        foreground: serve in this process and return when the mount has ended, by `unmount`, SIGINT or SIGTERM.
            Otherwise a daemon serves, and the return means that the mount can be used.
        ready_s: seconds to wait for the daemon.
        operating: log and metrics; None for a log in the usual place and no metrics.

    Returns:
        The record of the mount.

    Raises:
        MountError: the mount point is unfit or taken, FUSE is missing, or the daemon failed; and what opening the
            repository raises. Nothing stays mounted.
    """
    options = options or MountOptions()
    if options.engine == "auto":
        options = replace(options, engine=AUTO)
    point, made = _prepare(Path(mountpoint), options)
    place = str(source) if remote else str(Path(source).absolute())
    operating = operating or Operating()
    if operating.log is None and not foreground:
        operating = replace(operating, log=records.log_path(point))
    job = Job(point, place, remote, options, made, operating)
    try:
        _check_device()
        if foreground:
            from shardfs.mount import daemon

            return daemon.run(job)
        return _start_daemon(job, ready_s)
    except BaseException:
        if mountinfo.top_row(point) is not None and probe.is_dead(point):
            umount.detach(point)
        if made and mountinfo.top_row(point) is None:
            with suppress(OSError):
                point.rmdir()
        raise


def _prepare(mountpoint: Path, options: MountOptions) -> tuple[Path, bool]:
    """The absolute mount point, free to be mounted on, and whether it was made."""
    point = Path(os.path.abspath(mountpoint))  # noqa: PTH100 - Path.resolve would look at what is mounted there
    _free(point)
    try:
        point = point.parent.resolve() / point.name if not point.is_symlink() else point.resolve()
        _free(point)
        _refuse_store(point)
        made = not point.exists()
        point.mkdir(parents=True, exist_ok=True)
        if not options.nonempty and any(point.iterdir()):
            msg = f"{point} is not empty; choose another directory, or hide its content with --nonempty"
            raise MountError(msg)
    except FileExistsError:
        msg = f"{point} is not a directory"
        raise MountError(msg) from None
    except OSError as error:
        msg = f"cannot mount on {point}: {error.strerror}"
        raise MountError(msg) from error
    return point, made


def _free(point: Path) -> None:
    """Replace a dead mount of ours; refuse a live one."""
    row = mountinfo.top_row(point)
    if row is None or row.type != mountinfo.TYPE:
        return
    record = records.read(point)
    alive = record.status == "alive" if record is not None else not probe.is_dead(point)
    if alive:
        raise records.taken(point)
    _log.warning("%s: the daemon of an earlier mount is gone, the mount is replaced", point)
    umount.detach(point)
    if record is not None:
        umount.clear(record)


def _refuse_store(point: Path) -> None:
    for folder in (point, *point.parents):
        if (folder / "config.toml").is_file() and (folder / "HEAD").is_file():
            msg = f"{point} is inside the repository's store {folder}; mount somewhere else"
            raise MountError(msg)
        if folder.name == ".shardfs":
            msg = f"{point} is inside {folder}, which belongs to shardfs; mount somewhere else"
            raise MountError(msg)


def _check_device() -> None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        if error.errno == errno.EACCES:
            return  # the helper fusermount3 may open it for this user, and says so if not
        msg = (
            f"/dev/fuse cannot be opened ({error.strerror}): load the module fuse, or start the container with "
            "--device /dev/fuse --cap-add SYS_ADMIN; `shardfs checkout` works without it"
        )
        raise MountError(msg) from error


def _start_daemon(job: Job, ready_s: float) -> MountRecord:
    """Start a daemon: the job goes to its standard input, its first line of output says how it went."""
    log = job.operating.log
    assert log is not None
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("ab") as output:
            begin = output.tell()
            process = subprocess.Popen(
                [*DAEMON, str(job.mountpoint), job.public_source],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
    except OSError as error:
        msg = f"cannot start the daemon: {error.strerror}: {error.filename}"
        raise MountError(msg) from error
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018 - pipes were asked for
    with process.stdout:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(json.dumps(job.to_json()).encode("utf-8", "surrogateescape"))
        answer = _first_line(process.stdout.fileno(), time.monotonic() + ready_s)
    if answer is None:
        _give_up(process, job)
    process.wait()  # the daemon is a child of this process, which ends at once
    if answer is None:
        msg = f"the daemon was not ready after {ready_s:.0f} s; its log is {log}"
        raise MountError(msg)
    return _result(answer, log, begin)


def _environment() -> dict[str, str]:
    """The daemon finds this very package, also when it runs from a source tree."""
    root = str(Path(shardfs.__file__).parents[1])
    if root.endswith(("site-packages", "dist-packages")):
        return dict(os.environ)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _first_line(fd: int, deadline: float) -> bytes | None:
    """What comes from `fd` up to the first newline or the end; None when the deadline passes first."""
    data = b""
    while not data.endswith(b"\n"):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        piece = os.read(fd, 65536)
        if not piece:
            break
        data += piece
    return data


def _give_up(process: subprocess.Popen[bytes], job: Job) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if mountinfo.top_row(job.mountpoint) is not None:
        umount.detach(job.mountpoint)


def _result(answer: bytes, log_file: Path, begin: int) -> MountRecord:
    value: dict[str, Any] = json.loads(answer) if answer else {}
    if "ready" in value:
        return MountRecord.from_json(value["ready"])
    kind = getattr(errors, str(value.get("kind")), MountError)
    if not (isinstance(kind, type) and issubclass(kind, ShardfsError)) or issubclass(kind, OSError):
        kind = MountError
    told, said = value.get("error", ""), _last_line(log_file, begin)
    if told and said.startswith("fuse"):  # libfuse and its helper explain themselves on standard error only
        told = f"{told}: {said}"
    raise kind(told or said or f"the daemon ended; its log is {log_file}")


def _last_line(log_file: Path, begin: int) -> str:
    with suppress(OSError), log_file.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""
    return ""
