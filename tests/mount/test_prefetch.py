"""Reading ahead, with the requests that a kernel really sends."""

from __future__ import annotations

import json
import mmap
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardfs import mountinfo
from tests.mount.conftest import Mounted, eventually, make_project, mounting
from tests.stores import noise

pytestmark = pytest.mark.fuse

MB = 1 << 20
SIZE = 24 * MB
NAMES = ("in-order", "in-parts", "at-random")
CONTENTS = {name: noise(seed, SIZE) for seed, name in enumerate(NAMES)}  # chunks of about 1 MiB
READ_AHEAD_KB = 128  # what a mount has unless root made it


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, home: Path, engine: str) -> Iterator[Mounted]:
    del engine
    folder = tmp_path_factory.mktemp("prefetch")
    make_project(folder / "project", CONTENTS)
    with mounting(folder / "project", folder / "models", home) as found:
        small_requests(found.point)
        yield found


def small_requests(point: Path) -> None:
    """Have the kernel ask for 128 KiB at a time. The daemon of root asks for more, once it has started."""
    row = mountinfo.top_row(point)
    assert row is not None
    setting = Path(f"/sys/class/bdi/{row.device}/read_ahead_kb")
    if not os.access(setting, os.W_OK):
        return
    assert eventually(lambda: int(setting.read_text()) > READ_AHEAD_KB, within_s=10)
    time.sleep(0.7)  # it says so three times, the last time 0.62 s after the start
    setting.write_text(str(READ_AHEAD_KB))


def prefetched(mounted: Mounted) -> dict[str, int]:
    found: dict[str, int] = stats(mounted)["prefetch"]
    return found


def stats(mounted: Mounted) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((mounted.point / ".shardfs" / "stats.json").read_text())
    return found


def read_in_order(path: Path, offset: int = 0, end: int = SIZE, size: int = 64 << 10) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return b"".join(file.read(min(size, end - at)) for at in range(offset, end, size))


def in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_reader_from_front_to_back_finds_chunks_decoded(mounted: Mounted) -> None:
    before = prefetched(mounted)
    assert read_in_order(mounted.latest / "in-order") == CONTENTS["in-order"]
    after = prefetched(mounted)
    assert after["used_bytes"] - before["used_bytes"] > SIZE // 3
    assert after["wasted_bytes"] == before["wasted_bytes"]


def test_threads_with_a_part_each_are_followed(mounted: Mounted) -> None:
    part = SIZE // 2
    got = [b""] * 2
    before = prefetched(mounted)

    def work(number: int) -> None:
        got[number] = read_in_order(mounted.latest / "in-parts", number * part, (number + 1) * part)

    in_threads(work, 2)
    assert b"".join(got) == CONTENTS["in-parts"]
    assert prefetched(mounted)["used_bytes"] - before["used_bytes"] > SIZE // 4


def test_faults_at_random_cost_a_chunk_each(mounted: Mounted) -> None:
    before = stats(mounted)
    faults, content = 4, CONTENTS["at-random"]

    def work(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(faults):
            place = choice.randrange(SIZE)
            assert mapping[place] == content[place]

    with (
        (mounted.latest / "at-random").open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping,
    ):
        mapping.madvise(mmap.MADV_RANDOM)
        in_threads(work, 8)
    after = stats(mounted)
    assert after["reader"]["local_reads"] - before["reader"]["local_reads"] <= 8 * faults + 2  # and the manifest
    assert after["prefetch"]["loaded_bytes"] - before["prefetch"]["loaded_bytes"] <= 2 * MB


def test_the_order_of_a_load_is_followed_in_the_next_mount(tmp_path: Path, home: Path) -> None:
    content = CONTENTS["in-order"]
    make_project(tmp_path / "project", {"models/model.bin": content})

    def load(mounted: Mounted, is_known: Callable[[], bool]) -> None:
        with (mounted.latest / "models" / "model.bin").open("rb", buffering=0) as file:
            assert file.read(1) == content[:1]
            assert eventually(is_known, within_s=10)
            for start in (16 * MB, 0, 8 * MB):
                for at in range(start, start + 8 * MB, MB):
                    assert os.pread(file.fileno(), MB, at) == content[at : at + MB]

    with mounting(tmp_path / "project", tmp_path / "models", home) as mounted:
        load(mounted, lambda: True)
        assert eventually(lambda: prefetched(mounted)["orders_kept"] == 1, within_s=10)
    with mounting(tmp_path / "project", tmp_path / "models", home) as mounted:
        load(mounted, lambda: prefetched(mounted)["orders_found"] == 1)
        assert eventually(lambda: prefetched(mounted)["replayed_used_bytes"] > SIZE // 2, within_s=10)
