"""Lines for fstab and units for systemd: systemd itself says whether they are right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from shardfs.mount import units

PROGRAM = shutil.which("true") or "/bin/true"


def test_fields_of_fstab_survive_blanks_and_backslashes() -> None:
    line = units.fstab_line("/srv/a b", Path("/mnt/c\\d#\te"), ["ro", "branch=x"], remote=False)
    assert line.split("  ") == [
        "/srv/a\\040b",
        "/mnt/c\\134d\\043\\011e",
        "fuse.shardfs",
        "ro,branch=x,nofail,x-systemd.automount",
        "0",
        "0",
    ]
    assert "_netdev" in units.fstab_line("http://h/x", Path("/mnt"), [], remote=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("remote", [True, False])
def test_systemd_accepts_the_unit_of_odd_names(tmp_path: Path, remote: bool) -> None:
    point = tmp_path / 'with blank, % $HOME "quotes" and \\'
    command = [PROGRAM, "mount", "-f", "--", str(point)]
    text = units.service(command, point, "/srv/100%", user="root", remote=remote)
    unit = tmp_path / "shardfs-test.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])
    [start] = [line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart=")]
    assert start == f'{PROGRAM} mount -f -- "{tmp_path}/with blank, %% $$HOME \\"quotes\\" and \\\\"'
