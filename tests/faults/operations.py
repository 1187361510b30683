"""What a user does with a remote, each on a fresh copy of the same small repositories: done under faults, then without.

Made once: a server's repository when it had two versions and when it had all, the author's project between the two, and
lazy clones of both.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import shardfs
from shardfs.errors import FormatError, ShardfsError
from shardfs.mount import session
from shardfs.repository import Repository
from tests.faults.children import Child, command
from tests.faults.killing_deltas import version
from tests.faults.origins import Origin
from tests.mount.conftest import add_commit, eventually
from tests.stores import noise

VERSIONS, OLD = 4, 2
REMOTE_FAILED: Final = 14
_MAKING_S: Final = 120.0
PATIENCE_S: Final = 80.0  # until a mount asks a remote again that asked to be left alone for a minute or more
_BIG: Final = 900_000  # bytes of the largest file: several requests


def files_of(number: int) -> dict[str, bytes]:
    """All files of a version; the model moves a little with each."""
    return {
        "model.safetensors": version(number),
        "data/blob.bin": noise(number // 2, _BIG),
        "notes.txt": b"version %d\n" % number,
    }


class Templates(NamedTuple):
    """The repositories that operations are done with copies of: "server-old" and "server-new" at the origin.

    Attributes:
        folder: where the others are.
        digests: SHA-256 of each file by "commit:path", of all versions.
        tips: the newest commit when the server had `OLD` versions, and when it had all.
        url: that the clones have.
    """

    folder: Path
    digests: dict[str, str]
    tips: list[str]
    url: str

    @classmethod
    def make(cls, folder: Path, origin: Origin) -> Templates:
        """Make them, in a child: object storage cannot be used in children of who used it."""
        folder.mkdir()
        url = origin.url(origin.upstream, "template")
        child = Child(lambda: _make(folder, origin, url), folder / "said", origin.environment(origin.upstream))
        ended = child.wait(_MAKING_S)
        assert ended.status == 0, ended.said
        return cls(folder, **json.loads((folder / "made.json").read_text()), url=url)


def _make(folder: Path, origin: Origin, url: str) -> int:
    digests: dict[str, str] = {}
    tips = []
    with shardfs.init(folder / "author") as author:
        author.add_remote("origin", url)
        for number in range(VERSIONS):
            files = files_of(number)
            id_ = add_commit(author, files, f"version {number}")
            digests |= {f"{id_}:{path}": hashlib.sha256(data).hexdigest() for path, data in files.items()}
            if number + 1 in (OLD, VERSIONS):
                age = "old" if number + 1 == OLD else "new"
                if age == "new":
                    shutil.copytree(folder / "author", folder / "ahead")
                author.push()
                origin.copy("template", f"server-{age}")
                shardfs.clone(url, folder / f"clone-{age}").close()
                tips.append(id_)
    (folder / "made.json").write_text(json.dumps({"digests": digests, "tips": tips}))
    return 0


class Case(NamedTuple):
    """One operation on copies of its own.

    Attributes:
        folder: all that it makes.
        origin: where the other side is.
        name: of the repository there.
        url: of that, through the proxy.
    """

    templates: Templates
    folder: Path
    origin: Origin
    name: str
    url: str

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def copy(self, server: str, project: str | None) -> None:
        """Make the copies."""
        self.origin.copy(server, self.name)
        if project is not None:
            shutil.copytree(self.templates.folder / project, self.project)
            settings = self.project / ".shardfs" / "config.toml"
            text = settings.read_text()
            assert self.templates.url in text
            settings.write_text(text.replace(self.templates.url, self.url))

    def wrong_content(self, repo: Repository) -> Iterator[str]:
        """Files of all versions that a repository shows with other bytes than were committed."""
        for where, digest in self.templates.digests.items():
            with repo.read(where) as file:
                if hashlib.sha256(file.read()).hexdigest() != digest:
                    yield f"{where} has other bytes"


def _problems(repo: Repository, *, remote: bool = False) -> Iterator[str]:
    """What verification finds."""
    for p in repo.verify(remote=remote).problems:
        yield f"{p.kind} {p.object[:12]} {p.file}: {p.problem}"


def _content(folder: Path, case: Case) -> list[str]:
    """What is wrong in the contents that a repository shows."""
    with shardfs.open(folder) as repo:
        return list(case.wrong_content(repo))


class Operation(ABC):
    """What is done; `name` is how tables call it."""

    name: str
    sends = False  # whether requests have bodies
    mounts = False  # whether a daemon of its own serves it

    @abstractmethod
    def prepare(self, case: Case) -> None:
        """Make the copies, before there are faults."""

    @abstractmethod
    def run(self, case: Case) -> int:
        """Do it; the exit status as of a command. Runs in a child of its own."""

    @abstractmethod
    def done(self, case: Case) -> list[str]:
        """What is wrong after `run` said that all went well."""

    def again(self, case: Case) -> int:
        """Do it once more, without faults."""
        return self.run(case)

    def sound(self, case: Case) -> list[str]:
        """What verification finds in the end, on both sides."""
        with case.origin.opened(case.name) as there, shardfs.open(case.project) as here:
            return [*_problems(there), *_problems(here), *_problems(here, remote=True)]

    def mount(self, case: Case) -> list[str]:
        """Make what lives longer than `run`, if the operation `mounts`. Runs in a child of its own."""
        raise NotImplementedError

    def end(self, case: Case) -> list[str]:
        """End that; what is wrong with it."""
        raise NotImplementedError


class Push(Operation):
    name, sends = "push", True

    def prepare(self, case: Case) -> None:
        case.copy("server-old", "ahead")

    def run(self, case: Case) -> int:
        return command("-C", str(case.project), "push")

    def done(self, case: Case) -> list[str]:
        with case.origin.opened(case.name) as repo:
            tip = repo.tip("main")
            if tip is None or tip.hex() != case.templates.tips[1]:
                return [f"pushed, but the server is at {tip.hex()[:12] if tip else 'nothing'}"]
            return list(case.wrong_content(repo))


class Pull(Operation):
    name = "pull"

    def prepare(self, case: Case) -> None:
        case.copy("server-new", "clone-old")

    def run(self, case: Case) -> int:
        return command("-C", str(case.project), "pull")

    def done(self, case: Case) -> list[str]:
        with shardfs.open(case.project) as repo:
            tip = repo.head_commit()
        if tip is None or tip.hex() != case.templates.tips[1]:
            return [f"pulled, but the branch is at {tip.hex()[:12] if tip else 'nothing'}"]
        return []

    def sound(self, case: Case) -> list[str]:
        return [*super().sound(case), *_content(case.project, case)]


class Clone(Operation):
    name = "clone --full"

    def prepare(self, case: Case) -> None:
        case.copy("server-new", None)

    def run(self, case: Case) -> int:
        return command("clone", "--full", case.url, str(case.project))

    def again(self, case: Case) -> int:
        store = case.project / ".shardfs"
        finished = store.exists() and not (store / "unfinished").exists()
        return 0 if finished else self.run(case)

    def done(self, case: Case) -> list[str]:
        with case.origin.hidden(case.name):
            return [*Pull().done(case), *_content(case.project, case)]


class Fetch(Operation):
    name = "fetch --full"

    def prepare(self, case: Case) -> None:
        case.copy("server-new", "clone-old")

    def run(self, case: Case) -> int:
        return command("-C", str(case.project), "fetch", "--full")

    def done(self, case: Case) -> list[str]:
        with shardfs.open(case.project) as repo:
            tip = repo.resolve("origin/main")
        if tip.hex() != case.templates.tips[1]:
            return [f"fetched, but origin/main is at {tip.hex()[:12]}"]
        return _content(case.project, case)


class Read(Operation):
    """Every file of every version of a lazy clone, through the library."""

    name = "lazy read"

    def prepare(self, case: Case) -> None:
        case.copy("server-new", "clone-new")

    def run(self, case: Case) -> int:
        failed = ""

        def read(where: str) -> bytes:
            nonlocal failed
            try:
                with repo.read(where) as file:
                    return file.read()
            except (ShardfsError, FormatError) as error:
                failed = str(error)
            except OSError as error:
                failed = str(error) if error.errno == errno.EIO else ""
                if not failed:
                    raise
            raise _SkippedError

        wrong: list[str] = []
        with shardfs.open(case.project) as repo:
            for where, digest in case.templates.digests.items():
                try:
                    if hashlib.sha256(read(where)).hexdigest() != digest:
                        wrong.append(f"internal error: {where} has other bytes")
                except _SkippedError:
                    pass
        if wrong:
            print("\n".join(wrong))
            return 1
        if failed:
            print(failed)
            return REMOTE_FAILED
        return 0

    def done(self, case: Case) -> list[str]:
        del case
        return []


class _SkippedError(Exception):
    """A file could not be read, and said why."""


class Mount(Operation):
    """The same through a mount, which lives on when the faults have passed."""

    name, mounts = "mounted read", True

    def prepare(self, case: Case) -> None:
        case.copy("server-new", "clone-new")

    def mount(self, case: Case) -> list[str]:
        session.mount(case.folder / "mnt", case.project)
        return []

    def run(self, case: Case) -> int:
        failed = 0
        for where, digest in case.templates.digests.items():
            try:
                if self._digest(case, where) != digest:
                    print(f"internal error: {where} has other bytes")
                    return 1
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                failed += 1
        if not failed:
            return 0
        lines = (case.folder / "mnt" / ".shardfs" / "errors").read_text().splitlines()
        if not any("EIO" in line and len(line) > 40 for line in lines):
            print("internal error: no cause in .shardfs/errors")
            return 1
        print(lines[-1])
        return REMOTE_FAILED

    def again(self, case: Case) -> int:
        del case
        return 0  # `done` waits until all can be read

    def done(self, case: Case) -> list[str]:
        def reads() -> bool:
            try:
                return all(self._digest(case, where) == digest for where, digest in case.templates.digests.items())
            except OSError:
                return False

        return [] if eventually(reads, PATIENCE_S) else ["the mount does not read what can be read again"]

    def end(self, case: Case) -> list[str]:
        found = [record for record in session.list_mounts() if record.mountpoint == case.folder / "mnt"]
        wrong = []
        for record in found:
            status = Path(f"/proc/{record.pid}/status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) << 10
            session.unmount(record.mountpoint, force=True)
            wrong += [f"the daemon held {peak >> 20} MiB"] if peak > 400 << 20 else []
        return wrong

    def _digest(self, case: Case, where: str) -> str:
        commit, _, path = where.partition(":")
        data = (case.folder / "mnt" / "commits" / commit / path).read_bytes()
        return hashlib.sha256(data).hexdigest()


OPERATIONS: Final[dict[str, Operation]] = {
    operation.name: operation for operation in (Push(), Pull(), Clone(), Read(), Mount(), Fetch())
}
