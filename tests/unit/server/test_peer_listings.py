"""What a cache remembers of repositories that it cannot ask about."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardfs.config import Settings
from shardfs.errors import RemoteUnavailableError
from shardfs.remotes.registry import open_remote
from shardfs.server.peer_listings import Listings


@pytest.mark.network
def test_names_that_clients_make_up_take_no_memory_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfs.server.peer_listings._MAX_FAILURES", 5)
    settings = Settings("A <a@b>", tmp_path, deadline_s=0.1)
    remote = open_remote("http://127.0.0.1:9/name", settings=settings)  # nobody listens there
    listings = Listings(tmp_path, lambda _: remote)
    errors = set()
    for name in [*map(str, range(9)), "again", "again"]:
        with pytest.raises(RemoteUnavailableError) as caught:
            listings.get(name)
        errors.add(caught.value)
    assert len(errors) == 10  # nobody was asked again so soon
    assert len(listings._failures) <= 5
    assert not listings._checked
    remote.close()
