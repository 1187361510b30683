"""The connection to the kernel: how a mount gets its descriptor, and messages to and fro."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from shardfs.errors import MountError
from shardfs.mount.kernel.messages import (
    BACKING_CLOSE,
    BACKING_ID,
    BACKING_MAP,
    BACKING_OPEN,
    IN_HEADER,
    OUT_HEADER,
    Notice,
)
from shardfs.mount.options import EngineOptions
from shardfs.mountinfo import TYPE

_log = logging.getLogger(__name__)

DEVICE: Final = "/dev/fuse"
HELPER: Final = "fusermount3"
_HELPER_FD: Final = "_FUSE_COMMFD"  # environment variable that tells the helper where to send the descriptor
_HELPER_S: Final = 20.0
# By words of the helper: what to do.
_ADVICE: Final = {
    "user_allow_other": "root can add the line user_allow_other to /etc/fuse.conf; or mount without --allow-other",
    f"failed to open {DEVICE}: Permission denied": f"root can allow it: chmod 0666 {DEVICE}",
    "mount failed: Operation not permitted": (
        f"{HELPER} needs its set-user-id bit (chmod u+s, as root); a container needs --device {DEVICE} "
        "--cap-add SYS_ADMIN"
    ),
}
_SUBTYPE: Final = TYPE.partition(".")[2]
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_ROOT_MODE: Final = "40000"  # octal: a directory
_JOINED_ABOVE: Final = 64  # buffers of one writev; the kernel's limit is 1024
_OVER: Final = (errno.ENODEV, errno.ECONNABORTED, errno.EBADF)
_AGAIN: Final = (errno.EINTR, errno.EAGAIN, errno.ENOENT)  # ENOENT: the request was taken back


class Channel:
    """Messages over one mount's descriptor. Replies and notices may come from any thread."""

    def __init__(self, fd: int) -> None:
        """Take over a descriptor of /dev/fuse."""
        self.fd = fd

    def receive(self, buffer: bytearray) -> int:
        """Wait for a request and put it into `buffer`; its size, 0 when the mount has ended.

        Raises:
            OSError: the buffer is smaller than a request of the agreed size.
        """
        while True:
            try:
                return os.readv(self.fd, [buffer])
            except OSError as error:
                if error.errno in _OVER:
                    return 0
                if error.errno not in _AGAIN:
                    raise

    def reply(self, unique: int, parts: Sequence[bytes | memoryview] = ()) -> bool:
        """Answer a request; False when nobody waits for it any more."""
        if len(parts) > _JOINED_ABOVE:
            parts = (b"".join(parts),)
        size = OUT_HEADER.size + sum(map(len, parts))
        return self._send([OUT_HEADER.pack(size, 0, unique), *parts])

    def fail(self, unique: int, code: int) -> bool:
        """Answer a request with an errno; False when nobody waits for it any more."""
        return self._send([OUT_HEADER.pack(OUT_HEADER.size, -code, unique)])

    def notify(self, notice: Notice, body: bytes) -> bool:
        """Tell the kernel something; False when it knows nothing of the subject.

        May wait until requests are answered: never call it from a thread that answers some.
        """
        return self._send([OUT_HEADER.pack(OUT_HEADER.size + len(body), notice, 0), body])

    def open_backing(self, fd: int) -> int:
        """Have the kernel know a plain file; the number to open files with.

        Raises:
            OSError: EPERM without CAP_SYS_ADMIN, ELOOP when the file lies on a file system that lies on another.
        """
        return int(fcntl.ioctl(self.fd, BACKING_OPEN, bytearray(BACKING_MAP.pack(fd, 0))))

    def close_backing(self, number: int) -> None:
        """The kernel may let go of a plain file when its last open file is gone."""
        with suppress(OSError):
            fcntl.ioctl(self.fd, BACKING_CLOSE, bytearray(BACKING_ID.pack(number)))

    def close(self) -> None:
        """Give the descriptor back; whatever still waits fails."""
        os.close(self.fd)

    def _send(self, parts: list[bytes | memoryview]) -> bool:
        try:
            os.writev(self.fd, parts)
        except OSError as error:
            if error.errno not in (*_OVER, errno.ENOENT):
                _log.exception("the kernel refused a message")
            return False
        return True


def connect(mountpoint: str, options: EngineOptions) -> Channel:
    """Mount: the kernel's first request can be received then.

    Root mounts with the system call. Others, and root without the capability, ask the setuid helper of FUSE.

    Raises:
        MountError: neither way worked.
    """
    if os.geteuid() == 0:
        fd = _mount(mountpoint, options)
        if fd is not None:
            return Channel(fd)
    return Channel(_ask_helper(mountpoint, options))


def header(buffer: bytearray | bytes) -> tuple[int, int, int, int]:
    """Opcode, unique, nodeid and the thread id of who asks (0 where this process cannot see it)."""
    _, opcode, unique, nodeid, _, _, pid, _ = IN_HEADER.unpack_from(buffer)
    return opcode, unique, nodeid, pid


def _mount(mountpoint: str, options: EngineOptions) -> int | None:
    """A descriptor by mount(2); None when this process may not."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        msg = f"{DEVICE} cannot be opened: {error.strerror}; load the module fuse"
        raise MountError(msg) from error
    words = [f"fd={fd}", f"rootmode={_ROOT_MODE}", f"user_id={os.getuid()}", f"group_id={os.getgid()}"]
    words += ["default_permissions", *(["allow_other"] if options.allow_other else [])]
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if options.read_only else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    given = (os.fsencode(options.fsname), os.fsencode(mountpoint), TYPE.encode(), ctypes.c_ulong(flags))
    if libc.mount(*given, ",".join(words).encode()) == 0:
        return fd
    os.close(fd)
    code = ctypes.get_errno()
    if code == errno.EPERM:
        return None
    msg = f"cannot mount on {mountpoint}: {os.strerror(code)}"
    raise MountError(msg)


def _ask_helper(mountpoint: str, options: EngineOptions) -> int:
    """A descriptor by fusermount3, which sends it through a socket."""
    if shutil.which(HELPER) is None:
        msg = f"{HELPER} is not in PATH; install it, for example: apt install fuse3"
        raise MountError(msg)
    words = [f"fsname={options.fsname}", f"subtype={_SUBTYPE}", "nosuid", "nodev", "default_permissions"]
    words += ["allow_other"] if options.allow_other else []
    words += ["ro"] if options.read_only else []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        try:
            done = subprocess.run(
                [HELPER, "-o", ",".join(words), "--", mountpoint],
                env={**os.environ, _HELPER_FD: str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_HELPER_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            msg = f"{HELPER} did not end in {_HELPER_S:.0f} s"
            raise MountError(msg) from error
        finally:
            theirs.close()
        if done.returncode:
            said = " ".join(done.stderr.decode("utf-8", "replace").split())
            msg = f"cannot mount on {mountpoint}: {said or f'{HELPER} ended with status {done.returncode}'}"
            raise MountError("; ".join([msg, *(advice for words, advice in _ADVICE.items() if words in said)]))
        _, received, _, _ = socket.recv_fds(ours, 1, 1)
    if not received:
        msg = f"{HELPER} sent no descriptor"
        raise MountError(msg)
    os.set_inheritable(received[0], False)
    return received[0]
