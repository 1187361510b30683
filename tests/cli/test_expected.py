"""Dry runs that say how long it will take."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli import schema
from tests.cli.conftest import Shell
from tests.serving import serving

pytestmark = pytest.mark.network

SIZE = 2 << 20  # bytes that nothing makes smaller
SPEED = r", about \d+ s at \d+\.\d [KMG]B/s, the speed of the last "


def test_dry_runs_go_by_the_last_transfer_and_the_limit(project: Shell, tmp_path: Path) -> None:
    documents = schema.load()
    project.commit("one", a__bin=os.urandom(SIZE))
    with serving(tmp_path / "srv") as server:
        url = f"{server.url}/demo"
        project("remote", "add", "origin", url)
        assert "about" not in project("push", "--dry-run").out
        unknown = project("push", "--dry-run", "--json").json
        assert (unknown["eta_s"], unknown["bytes_per_s"]) == (None, None)
        project("push")
        project.commit("two", b__bin=os.urandom(SIZE))
        assert re.search(SPEED + "push\n", project("push", "--dry-run").out)
        known = project("push", "--dry-run", "--json").json
        assert schema.problems(documents["push"], known) == []
        assert known["eta_s"] == pytest.approx(known["bytes"] / known["bytes_per_s"], abs=0.1)
        slow = project.process("push", "--dry-run", "--bwlimit", "64K")
        assert ", about 33 s at 65.5 KB/s, the limit\n" in slow.out
        project("push")

        slow = project.process("clone", url, "copy", "--full", "--dry-run", "--json", "--bwlimit", "64K")
        assert schema.problems(documents["fetch --dry-run"], slow.json) == []
        assert slow.json["bytes_per_s"] == 64 << 10
        assert "about" not in project("clone", url, "copy", "--full", "--dry-run").out
        project("clone", url, "copy")
        copy = Shell(project.folder / "copy", project._monkeypatch)
        assert "about" not in copy("prefetch", "HEAD", "--dry-run").out
        done = copy("prefetch", "HEAD:a.bin", "--json").json
        assert (done["eta_s"], done["bytes_per_s"]) == (None, None)
        assert re.search(SPEED + "fetch\n", copy("prefetch", "HEAD", "--dry-run").out)
        plan = copy("prefetch", "HEAD", "--dry-run", "--json").json
        assert schema.problems(documents["prefetch"], plan) == []
        assert plan["bytes_per_s"] > 0
        assert re.search(SPEED + "fetch\n", copy("fetch", "--full", "--dry-run").out)
        assert copy("pull", "--dry-run", "--json").json["bytes_per_s"] == plan["bytes_per_s"]

        copy("remote", "set-url", "origin", f"{url}/")
        assert "about" not in copy("fetch", "--full", "--dry-run").out
