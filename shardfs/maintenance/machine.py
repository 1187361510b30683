"""A look at the machine: what mounts need of kernel and packages, and limits that they will meet.

Reads /proc, /sys and settings alone: ends at once, and touches no mount.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs import budget
from shardfs.codecs import kernels
from shardfs.config import Settings
from shardfs.maintenance.findings import FIX, Finding
from shardfs.store import cache_check
from shardfs.store.pins import Pins

_DEVICE: Final = Path("/dev/fuse")
_HELPER: Final = "fusermount3"
_HELPER_SETTINGS: Final = Path("/etc/fuse.conf")
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
_MAX_PAGES: Final = Path("/proc/sys/fs/fuse/max_pages_limit")
_OLDEST: Final = (5, 4)
_PASSTHROUGH: Final = (6, 9)
_CAP_SYS_ADMIN: Final = 1 << 21
_PAGES: Final = 256  # of 4 KiB: requests of 1 MiB
_DESCRIPTORS: Final = 1024  # packs, segments, connections and files of programs
_SLACK: Final = 1.05  # an index and its log beside the segments


def diagnose(settings: Settings) -> list[Finding]:
    """What there is to say, good and bad. Changes nothing."""
    return [*_fuse(), *_kernel(), *_limits(settings), *_cache(settings), *_pins(settings), *_codecs()]


def fix(settings: Settings) -> Iterator[Finding]:
    """Throw away a cache that cannot be used, or is larger than it may be: nothing is lost by that."""
    folder = settings.cache_dir
    if not _spoiled(settings):
        return
    try:
        cache_check.throw_away(folder)
    except OSError as error:
        yield Finding("warning", f"the cache {folder} could not be emptied: {error.strerror}", f"rm -r {folder}")
        return
    yield Finding("ok", f"the cache {folder} was emptied; what it held is fetched again when it is read")


# What mounts need


def _fuse() -> Iterator[Finding]:
    missing = list(_missing())
    yield from missing
    if not missing:
        yield Finding("ok", f"mounts can be made; Linux {os.uname().release}")
    if os.geteuid() and not _others_allowed():
        yield Finding(
            "note",
            "--allow-other is for root alone on this machine",
            f"as root: echo user_allow_other >> {_HELPER_SETTINGS}",
        )


def _missing() -> Iterator[Finding]:
    cannot = "mounts will not work"
    if not _DEVICE.exists():
        remedy = "modprobe fuse; in a container: docker run --device /dev/fuse --cap-add SYS_ADMIN"
        yield Finding("warning", f"{cannot}: {_DEVICE} does not exist", remedy)
    elif not _opens(_DEVICE):
        remedy = "chmod 666 /dev/fuse as root; in a container: docker run --device /dev/fuse --cap-add SYS_ADMIN"
        yield Finding("warning", f"{cannot}: {_DEVICE} cannot be opened", remedy)
    if shutil.which(_HELPER) is None and os.geteuid():
        yield Finding("warning", f"{cannot}: {_HELPER} is not installed", "apt install fuse3")
    if _version() < _OLDEST:
        yield Finding("warning", f"{cannot} well: Linux {os.uname().release} is older than 5.4", "use a newer kernel")


def _opens(device: Path) -> bool:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _others_allowed() -> bool:
    with suppress(OSError, UnicodeDecodeError):
        lines = _HELPER_SETTINGS.read_text("utf-8").splitlines()
        return any(line.split("#")[0].strip() == "user_allow_other" for line in lines)
    return False


def _kernel() -> Iterator[Finding]:
    if _version() < _PASSTHROUGH:
        yield Finding(
            "note", "plain files are not read by the kernel itself: that takes Linux 6.9", "use a newer kernel"
        )
    elif not _is_admin():
        yield Finding("note", "plain files are not read by the kernel itself: that takes root (CAP_SYS_ADMIN)")
    else:
        yield Finding("ok", "plain files can be read by the kernel itself (FUSE passthrough)")
    pages = _number(_MAX_PAGES)
    if pages is not None and pages < _PAGES:
        yield Finding(
            "note",
            f"requests to mounts are at most {pages * 4} KiB, 1 MiB is faster",
            f"as root: sysctl fs.fuse.max_pages_limit={_PAGES}",
        )
    if not os.geteuid() and _CONNECTIONS.is_dir() and not any(_CONNECTIONS.iterdir()) and _are_fuse_mounts():
        yield Finding(
            "note",
            f"{_CONNECTIONS} is empty: mounts that hang cannot be aborted there",
            f"mount -t fusectl fusectl {_CONNECTIONS}",
        )


def _version() -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _is_admin() -> bool:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & _CAP_SYS_ADMIN)
    return False


def _are_fuse_mounts() -> bool:
    with suppress(OSError):
        return b" - fuse" in Path("/proc/self/mountinfo").read_bytes()
    return False


# Limits


def _limits(settings: Settings) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _DESCRIPTORS:
        yield Finding("warning", f"a process may open only {soft} files", f"ulimit -n {_DESCRIPTORS} before mounting")
    limit, kept = budget.memory_limit(), settings.memory_budget
    if limit is not None and kept > limit // 2:
        yield Finding(
            "warning",
            f"memory.budget is {_mib(kept)}, this control group may use {_mib(limit)} in all",
            f"shardfs config set memory.budget {limit // 4 >> 20}M",
        )
    else:
        room = "" if limit is None else f" of {_mib(limit)} that this control group may use"
        yield Finding("ok", f"memory.budget is {_mib(kept)}{room}")


def _cache(settings: Settings) -> Iterator[Finding]:
    folder = settings.cache_dir
    place = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("warning", f"the cache {folder} cannot be written", "set SHARDFS_CACHE_DIR")
        return
    if (problem := cache_check.problem(folder)) is not None:
        yield Finding("warning", f"the index of the cache {folder} is damaged: {problem}", FIX)
        return
    used, limit = cache_check.disk_bytes(folder), settings.cache_size
    if used > limit * _SLACK:
        yield Finding("warning", f"the cache {folder} takes {_gib(used)}, it may take {_gib(limit)}", FIX)
        return
    yield Finding("ok", f"cache {folder}: {_gib(used)} of at most {_gib(limit)}")
    free, floor = shutil.disk_usage(place).free, settings.cache_min_free
    if free < floor:
        yield Finding(
            "warning",
            f"the cache keeps nothing new: {_gib(free)} free at {place}, cache.min_free is {_gib(floor)}",
            "free some space, or: shardfs config set cache.min_free SIZE",
        )
    elif free - floor < limit - used:
        yield Finding(
            "note",
            f"the cache can grow by {_gib(free - floor)} only: the disk is smaller than cache.size allows",
            "shardfs config set cache.size SIZE",
        )


def _pins(settings: Settings) -> Iterator[Finding]:
    try:
        pins = Pins(settings.cache_dir).all()
    except OSError as error:
        yield Finding(
            "warning", f"pins cannot be read, so nothing new is kept in the cache: {error}", "mend or delete it"
        )
        return
    here = cache_check.plain_files(settings.cache_dir)
    for pin in pins:
        lost = sum(size for id_, size in pin.files.items() if id_ not in here)
        if not Path(pin.repository).exists() and "://" not in pin.repository:
            what = f"{pin.name} is pinned for {pin.repository}, which is gone"
            yield Finding("note", what, "shardfs evict --all --force takes back all pins")
        elif lost:
            what = f"{pin.name} of {pin.repository} is pinned and {_mib(lost)} of it are not here"
            yield Finding("note", what, f"shardfs pin {pin.name}")
    if pins:
        size = sum({id_: size for pin in pins for id_, size in pin.files.items()}.values())
        yield Finding("ok", f"{_mib(size)} of plain files are pinned")


def _spoiled(settings: Settings) -> bool:
    folder = settings.cache_dir
    over = cache_check.disk_bytes(folder) > settings.cache_size * _SLACK
    return over or cache_check.problem(folder) is not None


def _codecs() -> Iterator[Finding]:
    name = kernels.active.name
    remedy = "" if name == "compiled" else "install a C compiler and then shardfs again"
    yield Finding("note" if remedy else "ok", f"float codecs use the {name} kernels", remedy)


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text("ascii"))
    return None


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
