"""Who is measured: shardfs in its variants, and tools that mount archives, images and web servers.

Tools with versions are in `tools.py`; those here mount a single one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from tests import nginx
from tests.benchmarks.measuring import drop_page_cache
from tests.benchmarks.tools import Borg, Casync, Copy, Restic, Shardfs, Squashfs, Tool

CHECK_DEADLINE_S = 60

_SITE = """
events {}
pid FOLDER/nginx.pid;
http {
    access_log off;
    server {
        listen 127.0.0.1:PORT;
        root FOLDER;
        autoindex on;
    }
}
"""


class Cold(Shardfs):
    """Chunks are read from packs, decoded and verified; nothing is left from an earlier mount."""

    def reset(self) -> None:
        self._run("shardfs -C project evict --all")


class Optimized(Cold):
    """After `shardfs optimize`: the newest version is no longer stored as differences."""

    name = "shardfs, optimized"
    finish = ("shardfs -C project optimize",)


class Libfuse(Cold):
    """The portable engine."""

    name = "shardfs, libfuse"
    mount = "shardfs -C project mount --engine libfuse ../mnt"


class Warm(Shardfs):
    """A plain file beside the chunks, which the kernel reads by itself once the daemon has checked it."""

    name = "shardfs, warm"
    finish = ("shardfs -C project warm HEAD",)

    def settle(self, folder: Path) -> None:
        """Open each file until it is served: the first open begins the check."""
        deadline = time.monotonic() + CHECK_DEADLINE_S
        for path in filter(Path.is_file, folder.iterdir()):
            before = self._served()
            while self._served() == before:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{self.name}: plain files were not checked in {CHECK_DEADLINE_S} s")
                path.open("rb").close()
                time.sleep(0.05)
        drop_page_cache(self.scratch / "home")  # not below the mount

    def _served(self) -> int:
        stats = json.loads((self.mountpoint / ".shardfs" / "stats.json").read_text())
        return int(stats["plain_files"]["served"])


class WarmServed(Warm):
    """The same plain file, served by the daemon: what users other than root get."""

    name = "shardfs, warm, served"
    mount = "shardfs -C project mount --no-passthrough ../mnt"


class Plain(Copy):
    """The file itself."""

    name = "plain file"

    def do_mount(self, number: int) -> Path:
        return self.scratch / "store" / f"v{number}"


class KernelImage(Tool):
    """An image that the kernel mounts, which takes root."""

    programs: ClassVar[tuple[str, ...]] = ("mount", "umount")
    create = ("mkdir store",)
    file_system: ClassVar[str]

    @classmethod
    def missing(cls, *, to_mount: bool = False) -> list[str]:
        if absent := super().missing(to_mount=to_mount):
            return absent
        known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
        if cls.file_system not in known:
            return [f"{cls.file_system} in this kernel"]
        return [] if os.geteuid() == 0 else ["root"]

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.mountpoint)], check=True)


class Erofs(KernelImage):
    """EROFS with lz4 in clusters of 64 KiB.

    The only other codec that mkfs.erofs of Debian 12 knows is lz4hc: 23 s instead of 1.3 s for 91 MB of fp32 weights,
    for an image that is 0.3 % smaller.
    """

    name = "EROFS lz4 (kernel)"
    programs = ("mkfs.erofs", *KernelImage.programs)
    file_system = "erofs"
    version_of = "mkfs.erofs none /nonexistent"  # it has no option for that, and says it before it fails
    commit = ("mkfs.erofs --quiet -zlz4 -C65536 store/image project",)
    mount = "mount -t erofs -o ro,loop store/image mnt"


class SquashfsKernel(KernelImage):
    """The image of squashfuse, mounted by the kernel."""

    name = "squashfs zstd (kernel)"
    programs = ("mksquashfs", *KernelImage.programs)
    file_system = "squashfs"
    version_of = Squashfs.version_of
    commit = Squashfs.commit
    mount = "mount -t squashfs -o ro,loop store/image mnt"


class Ratarmount(Tool):
    """A tar archive without compression, which ratarmount reads fastest."""

    name = "ratarmount (plain tar)"
    programs = ("ratarmount", "tar")
    version_of = "sh -c 'ratarmount --version | head -n 1'"
    create = ("mkdir store",)
    commit = ("tar -cf store/v$N.tar -C project .",)
    mount = "ratarmount store/v$N.tar mnt"


class Rclone(Tool):
    """Files of a web server on the loopback interface, with a cache of whole files."""

    name = "rclone (HTTP, full cache)"
    programs = ("rclone",)
    version_of = "rclone version"
    create = ("mkdir store",)
    commit = ("cp -r project store/v$N",)
    mount = "rclone mount :http: mnt --http-url http://127.0.0.1:$PORT/v$N/ --vfs-cache-mode full --read-only"
    stays = True

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._server = ExitStack()

    @classmethod
    def missing(cls, *, to_mount: bool = False) -> list[str]:
        return super().missing(to_mount=to_mount) or ([] if nginx.NGINX else ["nginx"])

    def reset(self) -> None:
        shutil.rmtree(self.scratch / "home" / "cache", ignore_errors=True)

    def do_mount(self, number: int) -> Path:
        port = nginx.free_port()
        store = self.scratch / "store"
        site = nginx.replaced(_SITE, {"FOLDER": str(store), "PORT": str(port)})
        self._server.enter_context(nginx.nginx(store, site, port))
        self.variables["PORT"] = str(port)
        return super().do_mount(number)

    def do_unmount(self) -> None:
        super().do_unmount()
        self._server.close()


KERNELS = (Plain, Erofs, SquashfsKernel)
FUSE = (Squashfs, Casync, Borg, Restic, Ratarmount, Rclone)
COMPRESSED_FUSE = (Squashfs, Casync, Borg, Restic)
VARIANTS = (Cold, Optimized, Warm, WarmServed, Libfuse)
ALL: tuple[type[Tool], ...] = (*VARIANTS, *KERNELS, *FUSE)
