"""The areas of a repository follow the tips of their branches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import shardfs


def test_who_holds_the_lock_gets_the_area_while_others_wait_to_look(tmp_path: Path) -> None:
    """A tip that moved elsewhere is followed with the store's lock, which a commit has when it asks for the area."""
    (tmp_path / "new").write_bytes(b"new")
    with shardfs.init(tmp_path) as repo, ThreadPoolExecutor(1) as pool:
        area = repo.area()
        with shardfs.open(tmp_path) as other:
            other.add([tmp_path / "new"])
            other.commit("elsewhere")
        area.rebase(None, 0)  # as it is before anybody has looked
        with repo.store.lock.hold("commit"):
            looking = pool.submit(repo.area)
            wait([looking], timeout=0.3)
            assert repo.area() is area
        assert looking.result() is area
        assert area.base == repo.commit_of("HEAD")[1].tree
