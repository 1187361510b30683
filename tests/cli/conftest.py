"""The command line as tests run it: in this process where that says the same, in a process of its own else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shardfs_cli.main import cli

PROGRAM = [sys.executable, "-m", "shardfs_cli"]


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


class Shell:
    """Runs commands in one directory."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def __call__(
        self, *args: str | Path, status: int | None = 0, stdin: bytes = b"", cwd: Path | None = None
    ) -> Result:
        """Run a command in this process; fails when it ends with another status (None: any)."""
        self._monkeypatch.chdir(cwd or self.folder)
        done = CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin)
        result = Result(done.exit_code, _text(done.stdout_bytes), _text(done.stderr_bytes))
        return _checked(args, result, status)

    def process(
        self, *args: str | Path, status: int | None = 0, stdin: bytes = b"", cwd: Path | None = None, **environment: str
    ) -> Result:
        """Run a command as a process of its own."""
        done = subprocess.run(
            [*PROGRAM, *map(str, args)],
            cwd=cwd or self.folder,
            input=stdin,
            capture_output=True,
            check=False,
            env=os.environ | environment,
            timeout=60,
        )
        return _checked(args, Result(done.returncode, _text(done.stdout), _text(done.stderr)), status)

    def start(self, *args: str | Path, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a command as a process of its own."""
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([*PROGRAM, *map(str, args)], cwd=self.folder, **popen)

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file of the work tree."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def commit(self, message: str, *options: str, **files: bytes | str) -> str:
        """Write files (`name__ext` is `name.ext`), add and commit them; returns the commit's id."""
        for name, data in files.items():
            self.write(name.replace("__", "."), data)
        if files:
            self("add", *[name.replace("__", ".") for name in files])
        id_ = self("commit", "-m", message, "--json", *options).json["commit"]
        assert isinstance(id_, str)
        return id_


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _checked(args: tuple[object, ...], result: Result, status: int | None) -> Result:
    told = f"shardfs {' '.join(map(str, args))}\n{result.out}\n{result.err}"
    assert "Traceback" not in result.out + result.err, told
    assert "internal error" not in result.err, told
    if status is not None:
        assert result.status == status, told
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty directory that no repository is above of."""
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.fixture
def shell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell outside any repository."""
    return Shell(folder, monkeypatch)


@pytest.fixture
def project(shell: Shell) -> Shell:
    """A shell in a fresh repository."""
    shell("init", "-q")
    return shell


@pytest.fixture(scope="session")
def safetensors_bytes() -> Callable[[int], bytes]:
    """Makes small real safetensors files: by epoch, one of eight tensors of 64 KiB differs."""
    import numpy as np
    from safetensors.numpy import save

    def make(epoch: int) -> bytes:
        chance = np.random.default_rng(7)
        tensors = {f"layer.{i}.weight": chance.standard_normal((128, 128), dtype=np.float32) for i in range(8)}
        tensors["layer.7.weight"] += np.float32(epoch)
        data = save(tensors, metadata={"format": "pt"})
        assert isinstance(data, bytes)
        return data

    return make


@pytest.fixture(scope="session")
def trained() -> Callable[[int], bytes]:
    """Makes real safetensors files of a training: by epoch most values of `embeddings` move a little."""
    import numpy as np
    from safetensors.numpy import save

    def make(epoch: int) -> bytes:
        chance = np.random.default_rng(7)
        shape = (512, 128)
        tensors = {
            "embeddings": chance.standard_normal(shape, dtype=np.float32),
            "frozen": chance.standard_normal((256, 128), dtype=np.float32),
            "bias": chance.standard_normal(128, dtype=np.float32),
        }
        for _ in range(epoch):
            tensors["embeddings"] *= 1 + np.float32(1e-4) * chance.standard_normal(shape, dtype=np.float32)
        data = save(tensors, metadata={"format": "pt"})
        assert isinstance(data, bytes)
        return data

    return make
