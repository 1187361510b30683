"""Every fault of a network, in each run of the test suite with a few operations; `make faults` does all with all."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from shardfs.errors import RemoteProtocolError
from shardfs.formats.ids import CommitId, PackId
from shardfs.remotes.http import HttpRemote
from tests.faults import campaign
from tests.faults.operations import OPERATIONS
from tests.faults.proxy import FaultProxy
from tests.serving import serving

ROOT = Path(__file__).parents[2]
SEEDS = 1  # 40 cases, about 10 s

pytestmark = [pytest.mark.fuse, pytest.mark.network]


@pytest.mark.slow
def test_every_fault_ends_in_right_bytes_or_one_clear_line(tmp_path: Path) -> None:
    quick = [name for name, operation in OPERATIONS.items() if not operation.mounts]
    said = _campaign(tmp_path, "--spread", "--seeds", str(SEEDS), "--jobs", "4", "--operation", *quick)
    for fault in campaign.FOUND:
        assert f"\n| {fault} |" in said


@pytest.mark.slow
def test_a_mount_reads_on_when_the_faults_have_passed(tmp_path: Path) -> None:
    _campaign(tmp_path, "--seeds", "1", "--jobs", "1", "--operation", "mounted read", "--fault", "cut", "late", "500")


def _campaign(folder: Path, *options: str) -> str:
    """What a campaign printed in which nothing was wrong and nothing hung."""
    argv = [sys.executable, "-m", "tests.faults.campaign", *options]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True, env=_environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def test_the_same_seed_breaks_the_same_exchanges(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        seen = []
        for seed in (1, 1, 2):
            front = FaultProxy(server.url)
            front.change(seed, 0.5, ("500", "reset", "cut"))
            for number in range(40):
                _get(f"{front.url}/no-repository-{number}/info/refs")
            seen.append(front.change().met)
            front.close()
    assert seen[0] == seen[1] != seen[2]
    assert all(seen[0][fault] for fault in ("", "500", "reset", "cut"))


def test_a_page_of_somebody_else_is_no_receipt(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"a pack")
    pack, commit = PackId(bytes(32)), CommitId(bytes(32))
    with serving(tmp_path / "root") as server:
        front = FaultProxy(server.url)
        front.change(1, 1.0, ("page",))
        remote = HttpRemote(f"{front.url}/demo")
        changes: list[Callable[[], None]] = [
            lambda: remote.put_pack(tmp_path / "pack", pack),
            lambda: remote.update_ref("refs/heads/main", None, commit),
            lambda: remote.update_ref("refs/heads/main", commit, None),
        ]
        for change in changes:
            with pytest.raises(RemoteProtocolError, match="does not say that the change was made"):
                change()
        remote.close()
        front.close()


def _get(url: str) -> None:
    with suppress(OSError, http.client.HTTPException), urllib.request.urlopen(url, timeout=10):
        pass
