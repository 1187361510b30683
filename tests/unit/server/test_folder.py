"""The folder of a server, and whose it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shardfs.errors import StoreError
from shardfs.server.folder import ServerFolder, make_folder
from shardfs.server.tokens import Permission, TokenStore

NOBODY = 65534


superuser = pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser makes files for others")


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "a/b", "cannot serve", 0o700)
    make_folder(tmp_path / "a/b", "cannot serve")
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, reason in ((tmp_path / "file", "it is no directory"), (tmp_path / "file/new", "Not a directory")):
        with pytest.raises(StoreError) as caught:
            make_folder(path, "cannot serve")
        assert str(caught.value) == f"cannot serve {path}: {reason}"


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory of somebody else, who can enter it: those of pytest are closed to others."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "srv"
        root.mkdir()
        os.chown(root, NOBODY, NOBODY)
        yield root


@superuser
def test_superuser_makes_tokens_for_the_owner(root: Path) -> None:
    tokens = TokenStore(ServerFolder(root))
    tokens.create("a", ("*",), Permission.READ)
    files = [root / ".server", *(root / ".server").iterdir()]
    assert len(files) >= 4
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(NOBODY, NOBODY)}
    assert os.geteuid() == 0
    assert os.getegid() == 0


@superuser
def test_superuser_follows_no_link_of_the_owner(root: Path) -> None:
    """The owner of a root may not have the superuser write where only the superuser can."""
    secret = root.parent / "secret"
    secret.write_text("untouched")
    secret.chmod(0o600)
    (root / ".server").mkdir()
    for name in ("lock", "audit.log", "tokens.json"):
        (root / ".server" / name).symlink_to(secret)
    os.chown(root / ".server", NOBODY, NOBODY)
    with pytest.raises(StoreError, match="Permission denied"):
        TokenStore(ServerFolder(root)).create("a", ("*",), Permission.READ)
    assert secret.read_text() == "untouched"
    assert os.geteuid() == 0
