"""The serving process of one mount: from the opened repository to a clean end, in bounded time."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from shardfs import __version__, mountinfo
from shardfs.errors import MountError, ShardfsError
from shardfs.formats.tree import MAX_NAME_SIZE
from shardfs.mount import logs, metrics, notify, operating, probe, records, umount
from shardfs.mount.ending import SIGNALS, Ending
from shardfs.mount.exporter import Exporter
from shardfs.mount.job import Job
from shardfs.mount.options import Engine, EngineOptions
from shardfs.mount.records import MountRecord
from shardfs.mount.vfs import Vfs
from shardfs.repository import Repository

Serve = Callable[[Vfs, str, EngineOptions, Callable[[], None]], None]

_log = logging.getLogger(__name__)

_CLOSE_S: Final = 5.0  # for closing the repository
_HURRY_S: Final = 0.5  # for that when requests are blocked: what closing waits for may be what blocks them
_READ_AHEAD_KB: Final = 1024  # the kernel's default of 128 makes eight times as many requests
# Half of it is read before and behind what a program touches of a mapped file: of a remote, chunks and their bases.
_READ_AHEAD_FAR_KB: Final = 256


def run(job: Job, announce: Callable[[MountRecord], None] = lambda _record: None) -> MountRecord:
    """Serve until the mount ends, by unmounting or by SIGTERM, SIGINT or SIGHUP.

    Args:
        job: what to serve; its mount point exists and is free.
        announce: called once when the mount can be used.

    Raises:
        MountError: the mount could not be made. ShardfsError: the repository cannot be opened.
    """
    logs.begin(job.operating, job.mountpoint)
    # Before any thread is made; see Ending.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        repo = _open(job)
        try:
            vfs = Vfs(repo, _branch(repo, job), read_only=job.options.read_only, who=f"the mount at {job.mountpoint}")
            repo.when_damaged(vfs.causes.note)
        except BaseException:
            repo.close()
            raise
        return _Daemon(job, repo, vfs, announce).serve()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Daemon:
    """One mount being served."""

    def __init__(self, job: Job, repo: Repository, vfs: Vfs, announce: Callable[[MountRecord], None]) -> None:
        self._job = job
        self._repo = repo
        self._vfs = vfs
        self._announce = announce
        self._ending = Ending(job.mountpoint, lambda: self._clear(_HURRY_S))
        self._clearing = threading.Lock()
        self._over = threading.Event()
        self._turn = ExitStack()  # closed when others can see the mount
        self._record = MountRecord(
            mountpoint=job.mountpoint,
            source=job.public_source,
            branch=vfs.branch,
            read_only=job.options.read_only or repo.read_only,
            pid=os.getpid(),
            process_start=records.process_start(os.getpid()) or 0,
            started=time.time(),
            engine=job.options.engine,
            connection=None,
            log=job.operating.log,
            made_mountpoint=job.made_mountpoint,
        )

    def serve(self) -> MountRecord:
        options = EngineOptions(
            fsname=_fsname(self._job.public_source),
            allow_other=self._job.options.allow_other,
            read_only=self._record.read_only,
            safe=self._job.options.safe,
            passthrough=self._job.options.passthrough,
            stacked=any(mountinfo.is_stacked(path) for path in (self._repo.store_path, self._repo.settings.cache_dir)),
        )
        exporter = None
        try:
            exporter = self._export()
            serve = _engine(self._job.options.engine)
            self._turn.enter_context(records.turn())
            self._check_free()
            serve(self._vfs, os.fsdecode(self._job.mountpoint), options, self._started)
        finally:
            self._turn.close()
            if exporter is not None:
                exporter.close()
            self._ending.serving_ended()
            self._clear(_CLOSE_S)
        _log.info("mount at %s ended", self._job.mountpoint)
        return self._record

    def _check_free(self) -> None:
        """See that nobody was faster: a second mount would hide the first one."""
        row = mountinfo.top_row(self._job.mountpoint)
        if row is not None and row.type == mountinfo.TYPE:
            raise records.taken(self._job.mountpoint)

    def _export(self) -> Exporter | None:
        """Serve metrics, if somebody asked for them."""
        if self._job.operating.metrics is None:
            return None
        info = {
            "mountpoint": str(self._record.mountpoint),
            "source": self._record.source,
            "branch": self._record.branch or "",
            "engine": self._record.engine,
            "version": __version__,
        }
        address = operating.address(self._job.operating.metrics)
        exporter = Exporter(address, lambda: metrics.text(self._vfs.stats.snapshot(), info), self._answers)
        host, port = exporter.address
        self._record = replace(self._record, metrics=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        _log.info("metrics at %s", self._record.metrics)
        return exporter

    def _answers(self, timeout_s: float = probe.WAIT_S) -> bool:
        return probe.answers(self._job.mountpoint, timeout_s)

    def _started(self) -> None:
        """The kernel is connected. On a thread of its own: this one answers requests."""
        threading.Thread(target=self._settle, name="shardfs-start", daemon=True).start()

    def _settle(self) -> None:
        row = mountinfo.top_row(self._job.mountpoint)
        if row is not None:
            self._ending.mounted(row.device)
            self._record = record = replace(self._record, connection=row.connection)
            try:
                records.write(record)
            except MountError as error:
                _log.warning("%s", error)  # the mount works without; `umount` finds it in the kernel's table
        self._turn.close()
        what = (self._record.source, self._record.mountpoint, self._record.branch, self._job.options.engine)
        _log.info("%s mounted at %s, branch %s, engine %s", *what)
        self._announce(self._record)
        notify.send("READY=1", f"STATUS=serving {self._record.source} at {self._record.mountpoint}")
        notify.keep_alive(self._answers, self._over)
        if row is not None:
            _raise_read_ahead(row.device, _READ_AHEAD_KB if self._repo.url is None else _READ_AHEAD_FAR_KB)

    def _clear(self, close_s: float) -> None:
        with self._clearing:
            if self._over.is_set():
                return
            self._over.set()
            notify.send("STOPPING=1", "STATUS=ending")
            worker = threading.Thread(target=self._close, name="shardfs-close", daemon=True)
            worker.start()
            worker.join(close_s)
            if worker.is_alive():
                _log.warning("the repository did not close in %g s", close_s)
            umount.clear(self._record)

    def _close(self) -> None:
        self._vfs.close()
        with suppress(ShardfsError, OSError):
            self._repo.close()


def _open(job: Job) -> Repository:
    from shardfs import opening

    repo = opening.open_remote(job.source) if job.remote else opening.open_at(Path(job.source))
    if job.mountpoint.is_relative_to(repo.store_path):
        repo.close()
        msg = f"{job.mountpoint} is inside the repository's store; mount somewhere else"
        raise MountError(msg)
    return repo


def _branch(repo: Repository, job: Job) -> str | None:
    """The branch to show. A branch that does not exist is a mistake, unless it is the unborn current one."""
    wanted = job.options.branch
    if wanted is not None and wanted != repo.current_branch() and repo.tip(wanted) is None:
        msg = f"no branch {wanted!r}; `shardfs branch {wanted}` makes it"
        raise MountError(msg)
    return wanted


def _engine(name: Engine) -> Serve:
    """The engine that the user chose. Importing one loads what it needs, so only that one is imported."""
    if name == "kernel":
        from shardfs.mount.kernel import engine

        return engine.serve
    from shardfs.mount import libfuse

    return libfuse.serve


def _fsname(source: str) -> str:
    """The source as a mount option: commas and backslashes have a meaning there."""
    return "".join("_" if c in ',\\"' or not c.isprintable() else c for c in source)[: 4 * MAX_NAME_SIZE]


def _raise_read_ahead(device: str, size_kb: int) -> None:
    """Larger requests, where the user may ask for them (root).

    The kernel sets its own value when it takes the answer to its first message, some time after that was answered.
    """
    setting = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    for pause_s in (0.02, 0.1, 0.5):
        time.sleep(pause_s)
        try:
            setting.write_text(str(size_kb))
        except OSError:
            return
