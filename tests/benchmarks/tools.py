"""shardfs and the tools it is compared with, each behind the same few steps.

A tool works in a scratch folder that holds `project/` (what is committed), `store/` (what the tool keeps,
unless it keeps it inside the project) and `mnt/`. Every command is run there, so the commands that a
benchmark prints are the ones it ran.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from tests.benchmarks.measuring import Cost, run, size_of

MOUNT_DEADLINE_S = 60

# The shardfs of the environment that runs the benchmark, whether that is activated or not, and the peers that are
# Python packages: those have an environment of their own, made by `.ci/setup bench`.
PEERS = Path(__file__).parents[2] / "build" / "peers" / "bin"
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}:{PEERS}"


class Tool:
    """One tool in one scratch folder. The commands are shell lines, run without a shell."""

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    mount_programs: ClassVar[tuple[str, ...]] = ()
    version_of: ClassVar[str]
    store: ClassVar[str] = "store"
    create: ClassVar[tuple[str, ...]]
    commit: ClassVar[tuple[str, ...]]
    finish: ClassVar[tuple[str, ...]] = ()  # after the last commit, before the first mount
    look: ClassVar[tuple[str, ...]] = ()  # tells that nothing changed; without it the tool commits again
    mount: ClassVar[str] = ""
    stays: ClassVar[bool] = False  # the mount command stays in front

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.project = scratch / "project"
        self.mountpoint = scratch / "mnt"
        self.variables: dict[str, str] = {}  # what else is replaced in commands, by name
        self._daemon: subprocess.Popen[bytes] | None = None
        for folder in (self.project, self.mountpoint, scratch / "home"):
            folder.mkdir(parents=True)

    @classmethod
    def missing(cls, *, to_mount: bool = False) -> list[str]:
        """Programs that this tool needs and this machine lacks."""
        needed = cls.programs + (cls.mount_programs if to_mount else ())
        return [name for name in needed if shutil.which(name) is None]

    @classmethod
    def version(cls) -> str:
        """What the tool says its version is, on one line."""
        done = subprocess.run(shlex.split(cls.version_of), check=False, capture_output=True, text=True)
        return (done.stdout or done.stderr).strip().splitlines()[0]

    def environment(self) -> dict[str, str]:
        """The environment of all its commands: a home of its own and the same search path."""
        home = str(self.scratch / "home")
        return {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "XDG_CACHE_HOME": f"{home}/cache",
            "XDG_RUNTIME_DIR": home,
            "LANG": "C.UTF-8",
            "BORG_BASE_DIR": home,
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "RESTIC_PASSWORD": "benchmark",
            "GIT_AUTHOR_NAME": "Bench",
            "GIT_AUTHOR_EMAIL": "bench@example.org",
            "GIT_COMMITTER_NAME": "Bench",
            "GIT_COMMITTER_EMAIL": "bench@example.org",
        }

    def do_create(self) -> None:
        """Make an empty store; not measured."""
        for line in self.create:
            self._run(line)

    def do_commit(self, number: int) -> Cost:
        """Store the project as version `number` and wait until it is on the disk."""
        return self._durably(self.commit, number)

    def do_finish(self) -> None:
        """Do what comes after the last commit."""
        for line in self.finish:
            self._run(line)

    def reset(self) -> None:
        """Take away what earlier mounts left to make later ones faster; not while it is mounted."""

    def settle(self, folder: Path) -> None:
        """Wait for what a ready mount that shows `folder` does by itself, where that makes a difference."""

    def do_look(self, number: int) -> Cost:
        """Notice that the project is still version `number - 1`."""
        return self._durably(self.look or self.commit, number)

    def _durably(self, lines: tuple[str, ...], number: int) -> Cost:
        cost = Cost()
        for line in lines:
            cost += self._run(line.replace("$N", str(number)))
        start = time.perf_counter()
        subprocess.run(["sync", "-f", str(self.scratch)], check=True)
        return cost + Cost(time.perf_counter() - start)

    def stored(self) -> int:
        """Bytes that the tool keeps for all versions."""
        return size_of(self.scratch / self.store)

    def do_mount(self, number: int) -> Path:
        """Mount version `number`; returns the folder that holds it."""
        line = self.mount
        for name, value in {"N": str(number), **self.variables}.items():
            line = line.replace(f"${name}", value)
        argv = shlex.split(line)
        folder = self.folder_of(number)
        if self.stays:
            self._daemon = subprocess.Popen(
                argv,
                cwd=self.scratch,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        else:
            run(argv, self.scratch, self.environment())
        deadline = time.monotonic() + MOUNT_DEADLINE_S
        while not (os.path.ismount(self.mountpoint) and folder.is_dir()):
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.name}: no mount after {MOUNT_DEADLINE_S} s")
            time.sleep(0.02)
        return folder

    def folder_of(self, number: int) -> Path:
        """Where the mount shows version `number`."""
        del number
        return self.mountpoint

    def do_unmount(self) -> None:
        """Unmount and wait for the daemon, if this object started it."""
        if os.path.ismount(self.mountpoint):
            self.unmount()
        if self._daemon is not None:
            try:
                self._daemon.wait(10)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            self._daemon = None

    def unmount(self) -> None:
        """Take the mount away, at once or as soon as nothing is open in it."""
        umount = shutil.which("fusermount3") or shutil.which("fusermount") or "fusermount"
        subprocess.run([umount, "-uz", str(self.mountpoint)], check=False, stderr=subprocess.DEVNULL)

    def _run(self, line: str) -> Cost:
        return run(shlex.split(line), self.scratch, self.environment())


class Shardfs(Tool):
    """This repository's command line, from the environment that runs the benchmark."""

    name = "shardfs"
    programs = ("shardfs",)
    version_of = "shardfs --version"
    store = "project/.shardfs"
    create = ("shardfs -C project init",)
    commit = ("shardfs -C project add .", "shardfs -C project commit -m v$N")
    look = ("shardfs -C project status",)
    mount = "shardfs -C project mount ../mnt"

    def folder_of(self, number: int) -> Path:
        del number
        return self.mountpoint / "latest"

    def unmount(self) -> None:
        subprocess.run(["shardfs", "umount", "-q", str(self.mountpoint)], check=True, env=self.environment())


class GitLfs(Tool):
    """git with its large file extension: whole files, no compression."""

    name = "git-lfs"
    programs = ("git", "git-lfs")
    version_of = "git lfs version"
    store = "project/.git"
    create = (
        "git -C project init -q",
        "git -C project lfs install --local",
        "git -C project lfs track *.safetensors *.pt",
    )
    commit = ("git -C project add .", "git -C project commit -q -m v$N")
    look = ("git -C project status",)


class Borg(Tool):
    """Borg with content-defined chunks and zstd, without encryption."""

    name = "borg"
    programs = ("borg",)
    version_of = "borg --version"
    create = ("borg init --encryption none store",)
    commit = ("borg create --compression zstd,3 store::v$N project",)
    mount = "borg mount store::v$N mnt"

    def folder_of(self, number: int) -> Path:
        del number
        return self.mountpoint / "project"


class Restic(Tool):
    """restic with content-defined chunks and zstd; it always encrypts."""

    name = "restic"
    programs = ("restic",)
    version_of = "restic version"
    create = ("restic -q -r store init --repository-version 2",)
    commit = ("restic -q -r store backup project",)
    mount = "restic -q -r store mount mnt"
    stays = True

    def folder_of(self, number: int) -> Path:
        del number
        return self.mountpoint / "snapshots" / "latest" / "project"


class Casync(Tool):
    """casync with content-defined chunks and its default compression."""

    name = "casync"
    programs = ("casync",)
    version_of = "casync --version"
    create = ("mkdir store",)
    commit = ("casync make --store=store/chunks store/v$N.caidx project",)
    mount = "casync mount --store=store/chunks store/v$N.caidx mnt"
    stays = True


class Copy(Tool):
    """A plain copy of every version: what the disk alone takes."""

    name = "cp"
    programs = ("cp",)
    version_of = "cp --version"
    create = ("mkdir store",)
    commit = ("cp -r project store/v$N",)


class Squashfs(Tool):
    """One compressed image of the last version, mounted with squashfuse; it keeps no versions."""

    name = "squashfuse zstd"
    programs = ("mksquashfs", "squashfuse")
    version_of = "mksquashfs -version"
    create = ("mkdir store",)
    commit = ("mksquashfs project store/image -quiet -no-progress -noappend -comp zstd -b 131072",)
    mount = "squashfuse store/image mnt"


VERSIONED = (Shardfs, GitLfs, Borg, Restic, Casync)
MOUNTABLE = (Shardfs, Borg, Restic, Casync, Squashfs)


def present(tools: tuple[type[Tool], ...], *, to_mount: bool = False) -> list[type[Tool]]:
    """The tools that can run here; says on stderr which are skipped and why."""
    found = []
    for tool in tools:
        if absent := tool.missing(to_mount=to_mount):
            print(f"skipped {tool.name}: {', '.join(absent)} not found", file=sys.stderr)
        else:
            found.append(tool)
    return found


def commands(tools: list[type[Tool]], *, to_mount: bool = False, to_look: bool = False) -> str:
    """What was run, as a Markdown code block."""
    lines = []
    for tool in tools:
        lines.append(f"# {tool.version()}")
        lines += tool.create + tool.commit + tool.finish
        if to_look:
            lines += tool.look
        if to_mount and tool.mount:
            lines.append(tool.mount)
    return "```\n" + "\n".join(lines) + "\n```"
