"""Memory of the processes that serve a mount."""

from __future__ import annotations

from pathlib import Path


def of_home(home: Path) -> list[int]:
    """Processes whose environment says that `home` is their home: each tool of the benchmarks has its own."""
    wanted = f"HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it ended, or belongs to somebody else
            continue
    return found


def resident(pids: list[int], field: str = "VmRSS") -> int:
    """Resident bytes of processes together, now or with "VmHWM" at most; 0 for those that ended."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field + ":"))
    return total
