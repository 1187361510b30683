from __future__ import annotations

from pathlib import Path

from shardfs import config
from shardfs.formats.ref import BRANCHES
from shardfs.store.store import Store
from shardfs.transfer import mirror
from tests.stores import commit
from tests.unit.transfer.conftest import Side, Watched


def test_a_branch_makes_room_for_branches_below_its_name(local: Side, server: Store, remote: Watched) -> None:
    first = commit(server, {"a": b"1"}, branch="side")
    mirror.mirror(local.store, remote)
    assert local.store.refs.list(BRANCHES) == {"refs/heads/side": first}
    server.refs.move("refs/heads/side", first, None)
    server.refs.move("refs/heads/side/two", None, first)
    mirror.mirror(local.store, remote)
    assert local.store.refs.list() == {"refs/heads/side/two": first, "refs/remotes/origin/side/two": first}


def test_a_view_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "view"
    mirror.create(path, "/srv/one", lambda _: mirror.create(path, "/srv/two"))
    assert config.load(path / "config.toml").remotes == {"origin": "/srv/two"}
    assert [found.name for found in path.parent.iterdir()] == ["view"]
