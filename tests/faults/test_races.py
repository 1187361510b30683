"""Many push to one branch at once: each commit is in the history or was rejected, whatever else the server does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import shardfs
from tests import spaces, stores
from tests.faults import racing
from tests.faults.racing import Told
from tests.serving import serving

ROOT = Path(__file__).parents[2]
PUSHES = int(os.environ.get("PUSHES", "24"))  # in all; `make faults` does 200
RACER = (sys.executable, "-m", "tests.faults.racing")

pytestmark = [pytest.mark.network, pytest.mark.slow]


def begin(folder: Path) -> list[str]:
    """A repository to serve as `root/demo`, with one commit; its history."""
    store = folder / "root" / "demo"
    with shardfs.init(store, bare=True) as repo:
        stores.commit(repo.store, {"first": b"first"})
    return racing.history(store)


def clones(folder: Path, urls: Sequence[str]) -> list[Path]:
    """One clone for each URL of the repository."""
    made = []
    for number, url in enumerate(urls):
        project = folder / f"clone-{number}"
        shardfs.clone(str(folder / "root" / "demo"), project, full=True).close()
        settings = project / ".shardfs" / "config.toml"
        settings.write_text(settings.read_text().replace(str(folder / "root" / "demo"), url))
        made.append(project)
    return made


def run(projects: Sequence[Path], prefixes: Sequence[Sequence[str]]) -> list[Told]:
    """Let all racers go at the same time; what they were told."""
    each = PUSHES // len(projects)
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [*prefix, *RACER, str(project), project.name, str(each)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for project, prefix in zip(projects, prefixes, strict=True)
        ]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        answers: list[tuple[str, str]] = [("", "")] * len(racers)

        def finish(number: int) -> None:
            answers[number] = racers[number].communicate("go\n", timeout=1000)

        threads = [threading.Thread(target=finish, args=(number,)) for number in range(len(racers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = []
    for said, errors in answers:
        assert not errors, errors
        told += [Told(*json.loads(line)) for line in said.splitlines()]
    assert sum(one.outcome == "accepted" for one in told) == each * len(projects)
    return told


@pytest.mark.skipif(bool(spaces.missing()), reason=spaces.missing())
def test_two_machines(tmp_path: Path) -> None:
    first = begin(tmp_path)
    with spaces.star(2) as (hub, machines), serving_at(hub, tmp_path / "root"):
        projects = clones(tmp_path, [f"http://{machine.address}:8750/demo" for machine in machines])
        told = run(projects, [machine.run for machine in machines])
    assert racing.wrong(racing.history(tmp_path / "root/demo"), first, told) == []
    assert any(one.outcome == "rejected" for one in told), "nobody raced"


@contextmanager
def serving_at(machine: spaces.Machine, root: Path) -> Iterator[None]:
    """A server in a namespace, on all its addresses."""
    argv = [sys.executable, "-m", "shardfs_cli", "serve", "--root", str(root), "--listen", f"{machine.address}:8750"]
    command = [*machine.run, *argv, "--anonymous", "write"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Serving ")
            yield
        finally:
            process.terminate()
            process.wait(20)


def test_eight_processes(tmp_path: Path) -> None:
    first = begin(tmp_path)
    with serving(tmp_path / "root") as server:
        told = run(clones(tmp_path, [f"{server.url}/demo"] * 8), [()] * 8)
    assert racing.wrong(racing.history(tmp_path / "root/demo"), first, told) == []
    assert any(one.outcome == "rejected" for one in told), "nobody raced"


def test_while_the_repository_is_packed_anew(tmp_path: Path) -> None:
    first = begin(tmp_path)
    store = tmp_path / "root" / "demo"
    with serving(tmp_path / "root") as server, upkeep(store) as rounds:
        told = run(clones(tmp_path, [f"{server.url}/demo"] * 2), [()] * 2)
    assert racing.wrong(racing.history(store), first, told) == []
    assert rounds
    with shardfs.open(store) as repo:
        assert repo.verify().ok


@contextmanager
def upkeep(store: Path) -> Iterator[list[str]]:
    """Another process collects garbage and optimizes a store, over and over; the commands that ended well."""
    done: list[str] = []
    failed: list[str] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for name in ("gc", "optimize"):
                argv = [sys.executable, "-m", "shardfs_cli", "-C", str(store), name]
                ended = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
                (failed if ended.returncode else done).append(f"{name}: {ended.stderr}")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


def test_the_checker_finds_what_is_wrong() -> None:
    told = [Told("aa", "accepted"), Told("bb", "accepted"), Told("cc", "rejected")]
    assert racing.wrong(["bb", "aa", "00"], ["00"], told) == []
    assert "not in the history" in racing.wrong(["bb", "00"], ["00"], told)[0]
    assert "was rejected" in racing.wrong(["cc", "bb", "aa", "00"], ["00"], told)[-1]
    assert "nobody pushed" in racing.wrong(["dd", "bb", "aa", "00"], ["00"], told)[0]
