from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardfs import config
from shardfs.errors import RemoteOfflineError
from shardfs.formats.ids import CommitId, PackId
from shardfs.remotes.registry import open_remote
from shardfs.store.store import Store

ID = bytes(32)


def test_offline_nothing_is_asked_not_even_a_directory(tmp_path: Path) -> None:
    Store.create(tmp_path / "store").close()
    settings = replace(config.load(None), offline=True)
    remote = open_remote(str(tmp_path / "store"), name="backup", settings=settings)
    assert (remote.name, remote.knows_ids) == ("backup", False)
    calls = (
        remote.refs,
        remote.list_packs,
        lambda: remote.read_pack(PackId(ID), 0, 1),
        lambda: remote.has([ID]),
        lambda: remote.put_pack(tmp_path / "pack", PackId(ID)),
        lambda: remote.update_ref("refs/heads/main", None, CommitId(ID)),
    )
    for call in calls:
        with pytest.raises(RemoteOfflineError, match="backup is not asked"):
            call()
    remote.close()
