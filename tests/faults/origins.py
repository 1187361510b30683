"""The far side of a campaign: a server, a static web server or a bucket, with a repository for each case."""

from __future__ import annotations

import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import shardfs
from shardfs.repository import Repository
from tests import nginx, swift
from tests.serving import serving

_BUCKET: Final = "faults"


class Origin(ABC):
    """Repositories by name.

    Attributes:
        upstream: URL of the server without a path, for proxies.
        takes_pushes: whether something can be sent to it through a proxy.
        trusted: faults that clients need not stand.
    """

    upstream: str
    takes_pushes = True
    trusted: frozenset[str] = frozenset()

    @abstractmethod
    def url(self, front: str, name: str) -> str:
        """What a user calls a repository who comes by way of `front`, the URL of a proxy, or `upstream` itself."""

    def environment(self, front: str) -> dict[str, str]:
        """Variables that such a user needs."""
        del front
        return {}

    @abstractmethod
    def copy(self, name: str, to: str) -> None:
        """Copy a repository."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a repository, if it is there."""

    @contextmanager
    def hidden(self, name: str) -> Iterator[None]:
        """A time in which a repository is not there."""
        aside = f"{name}-aside"
        self.copy(name, aside)
        self.remove(name)
        try:
            yield
        finally:
            self.copy(aside, name)
            self.remove(aside)

    @abstractmethod
    @contextmanager
    def opened(self, name: str) -> Iterator[Repository]:
        """What is in a repository, of which no copy of the case has a part."""

    @abstractmethod
    def peak_memory(self) -> int:
        """The most resident bytes that the server ever had; 0 when it is not ours."""


class Served(Origin):
    """`shardfs serve` over a folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self._stack = stack
        self._server = stack.enter_context(serving(self.root))
        self.upstream = self._server.url

    def url(self, front: str, name: str) -> str:
        return f"{front}/{name}"

    def copy(self, name: str, to: str) -> None:
        shutil.copytree(self.root / name, self.root / to)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.root / name, ignore_errors=True)

    @contextmanager
    def opened(self, name: str) -> Iterator[Repository]:
        with shardfs.open(self.root / name) as repo:
            yield repo

    def peak_memory(self) -> int:
        status = Path(f"/proc/{self._server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def kill(self) -> None:
        """kill -9, and another server in its place, with another `upstream`."""
        self._server.kill()
        self._server.process.wait()
        self._server = self._stack.enter_context(serving(self.root))
        self.upstream = self._server.url


class Static(Served):
    """nginx over the folder of a server, with the configuration of the manual."""

    takes_pushes = False

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        self._served = self.upstream
        port = nginx.free_port()
        changes = {
            "listen 127.0.0.1:8080;": f"listen 127.0.0.1:{port};",
            "root /srv/www/models;": f"root {self.root};",
            "pid /run/nginx-models.pid;": f"pid {folder}/nginx.pid;",
        }
        stack.enter_context(nginx.nginx(folder, nginx.replaced(nginx.manual("nginx-static"), changes), port))
        self.upstream = f"http://127.0.0.1:{port}"

    def url(self, front: str, name: str) -> str:
        return super().url(self._served if front == self.upstream else front, name)  # who makes templates must push


class Bucket(Origin):
    """A bucket of a real object store, which all processes of a campaign share.

    obstore reads the answer to a listing whole, of any size, before it looks at it.
    """

    trusted = frozenset({"endless"})

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._name = f"{_BUCKET}-{os.getpid()}"
        self._store = stack.enter_context(swift.shared(folder.parent / "swift"))
        self._store.make_bucket(self._name)
        self.upstream = self._store.environment["AWS_ENDPOINT_URL"]

    def url(self, front: str, name: str) -> str:
        del front
        return f"s3://{self._name}/{name}"

    def environment(self, front: str) -> dict[str, str]:
        return {**self._store.environment, "AWS_ENDPOINT_URL": front}

    def copy(self, name: str, to: str) -> None:
        for path in self._store.names(self._name, f"{name}/"):
            self._store.copy(self._name, path, to + path.removeprefix(name))

    def remove(self, name: str) -> None:
        for path in self._store.names(self._name, f"{name}/"):
            self._store.delete(self._name, path)

    @contextmanager
    def opened(self, name: str) -> Iterator[Repository]:
        with tempfile.TemporaryDirectory(prefix="look-") as folder:
            shardfs.clone(self.url("", name), Path(folder) / "clone").close()
            with shardfs.open(Path(folder) / "clone") as repo:
                yield repo

    def peak_memory(self) -> int:
        return 0
