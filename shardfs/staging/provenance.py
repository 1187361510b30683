"""What a commit records by itself: the code that was checked out, the models that changed, named datasets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from shardfs.errors import PathNotFoundError, StoreError
from shardfs.formats.manifest import Media

GIT_TIMEOUT_S: Final = 10.0  # a work tree on a hung disk must not stop a commit
MAX_MODELS: Final = 1000  # recognised files listed in one commit; totals always count all


def code_version(directory: Path) -> dict[str, Any] | None:
    """The git commit that is checked out around `directory` and whether tracked files differ from it.

    Returns:
        {"git": hex, "dirty": bool}, without "dirty" when git could not tell in time; None when there is no git work
        tree with a commit, or no git.
    """
    head = _git(directory, "rev-parse", "--verify", "HEAD")
    if head is None:
        return None
    status = _git(directory, "status", "--porcelain", "--untracked-files=no")
    return {"git": head.strip()} | ({} if status is None else {"dirty": bool(status.strip())})


def _git(directory: Path, *arguments: str) -> str | None:
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def model_summary(models: Mapping[str, Media]) -> dict[str, Any]:
    """Totals over the recognised files that changed in a commit, and each of them by path.

    Bytes of a path that are not UTF-8 become backslash escapes: a commit is JSON, which has no place for them.
    """
    listed = dict(sorted(models.items())[:MAX_MODELS])
    return {
        "files": {os.fsencode(path).decode("utf-8", "backslashreplace"): m.to_json() for path, m in listed.items()},
        "count": len(models),
        "tensors": sum(media.tensors or 0 for media in models.values()),
        "parameters": sum(media.parameters or 0 for media in models.values()),
    }


def dataset_digest(path: Path) -> dict[str, Any]:
    """Digest and size of a dataset: a file, or all files below a directory in path order.

    A file's digest is its BLAKE3. A directory's is the BLAKE3 over the lines "<digest of file> <relative path>".

    Raises:
        PathNotFoundError: nothing there. StoreError: unreadable.
    """
    try:
        if not path.exists():
            msg = f"dataset {path} does not exist"
            raise PathNotFoundError(msg)
        if path.is_file():
            digest, size = _file_digest(path)
            return {"blake3": digest, "bytes": size, "files": 1}
        return _directory_digest(path)
    except OSError as error:
        msg = f"dataset {error.filename or path} cannot be read: {error.strerror}"
        raise StoreError(msg) from error


def _directory_digest(path: Path) -> dict[str, Any]:
    total, hasher = 0, blake3()
    files = _files_below(path)
    for file in files:
        digest, size = _file_digest(file)
        hasher.update(digest.encode() + b" " + os.fsencode(file.relative_to(path)) + b"\n")
        total += size
    return {"blake3": hasher.hexdigest(), "bytes": total, "files": len(files)}


def _files_below(path: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error

    def walk() -> Iterable[Path]:
        for folder, _, names in os.walk(path, onerror=refuse):
            for name in names:
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink():
                    yield file

    return sorted(walk(), key=os.fsencode)


def _file_digest(path: Path) -> tuple[str, int]:
    hasher, size = blake3(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
            size += len(block)
    return hasher.hexdigest(), size
