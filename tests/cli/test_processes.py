"""What only real processes show: interrupts, closed pipes, two writers at once, terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Shell


def wait_until(condition: object, seconds: float = 30.0) -> None:
    """Poll until a condition holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_add_loses_nothing_and_can_be_repeated(project: Shell, number: int) -> None:
    kept = project.commit("one", a__txt="1")
    project.write("b.txt", "staged")
    project("add", "b.txt")
    project.write("big.bin", os.urandom(40_000_000))
    running = project.start("add", "big.bin")
    tmp = project.folder / ".shardfs/tmp"
    wait_until(lambda: running.poll() is not None or any(tmp.iterdir()))
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode in (0, 130 if number == signal.SIGINT else 143), err
    assert b"Traceback" not in err
    assert project("log", "--json").json[0]["commit"] == kept
    assert "b.txt" in [c["path"] for c in project("status", "--json").json["staged"]]
    project("add", "big.bin")
    project.commit("two")
    assert project("verify", "--json").json["ok"] is True


def test_interrupted_commit_with_json_says_so(project: Shell) -> None:
    """The status is 130 and the document is whole, however early the interrupt comes."""
    project.write("a.txt", "1")
    project("add", "a.txt")
    fifo = project.folder.parent / "fifo"
    os.mkfifo(fifo)
    running = project.start("commit", "-F", str(fifo), "--json")  # blocks until somebody writes the message
    time.sleep(0.6)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert b"Traceback" not in err
    assert b'"exit": 130' in out or out == b""


def test_reader_that_leaves_early_is_no_failure(project: Shell) -> None:
    project.commit("one", big__bin=os.urandom(5_000_000))
    for line in ("cat HEAD:big.bin", "log", "ls", "--help", "log --json", "completion bash"):
        read, write = os.pipe()
        os.close(read)
        running = project.start(*line.split(), stdout=write)
        os.close(write)
        err = running.communicate(timeout=30)[1]
        assert (running.returncode, err) == (0, b""), line


def test_full_disk_behind_the_output_is_one_line(project: Shell) -> None:
    project.commit("one", a__txt="1")
    with Path("/dev/full").open("wb") as full:
        running = project.start("log", stdout=full)
        err = running.communicate(timeout=30)[1]
    assert running.returncode == 1
    assert b"No space left" in err
    assert len(err.splitlines()) == 1


def test_closed_streams_are_no_failure(project: Shell) -> None:
    program = " ".join(PROGRAM)
    for line, status in ((f"{program} status >&-", 0), (f"{program} show nope 2>&-", 1), (f"{program} log <&-", 0)):
        done = subprocess.run(["sh", "-c", line], cwd=project.folder, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (status, b""), line


def test_two_commits_at_once_are_both_in_the_history(project: Shell) -> None:
    project.commit("base", base__txt="0")
    project("branch", "other")
    for name in ("a", "b"):
        project.write(f"{name}.txt", name)
    project("add", "a.txt", "b.txt")
    lines = [["commit", "-m", "mine", "--allow-empty"], ["commit", "-m", "yours", "--allow-empty"]]
    running = [project.start(*line) for line in lines]
    results = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    log = project("log", "--json").json
    assert {commit["message"] for commit in log} == {"base", "mine", "yours"}
    assert [len(commit["parents"]) for commit in log] == [1, 1, 0]
    assert project("ls").out.split() == ["a.txt", "b.txt", "base.txt"]


def test_many_adds_at_once_lose_no_file(project: Shell) -> None:
    names = [f"{number}.txt" for number in range(6)]
    for name in names:
        project.write(name, name)
    running = [project.start("add", name) for name in names]
    for process in running:
        err = process.communicate(timeout=60)[1]
        assert process.returncode == 0, err
    assert [c["path"] for c in project("status", "--json").json["staged"]] == names


def on_a_terminal(argv: list[str], cwd: Path, **environment: str) -> tuple[int, bytes]:
    """Run with all three streams on a pseudo terminal; returns status and everything shown."""
    main, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    running = subprocess.Popen(argv, cwd=cwd, stdin=child, stdout=child, stderr=child, env=env)
    os.close(child)
    shown = b""
    while True:
        ready, _, _ = select.select([main], [], [], 60)
        try:
            block = os.read(main, 65536) if ready else b""
        except OSError:  # the other end is closed
            block = b""
        if not block:
            break
        shown += block
    os.close(main)
    return running.wait(30), shown


def test_colors_and_progress_on_a_terminal_only(project: Shell) -> None:
    project.write("big.bin", os.urandom(20_000_000))
    status, shown = on_a_terminal([*PROGRAM, "add", "big.bin"], project.folder)
    assert status == 0, shown
    assert "━".encode() in shown
    project.commit("one")
    assert b"\x1b[33m" in on_a_terminal([*PROGRAM, "log"], project.folder)[1]
    assert b"\x1b[" not in on_a_terminal([*PROGRAM, "log"], project.folder, NO_COLOR="1")[1]
    assert "\x1b[" not in project.process("log").out
    project.write("big.bin", os.urandom(20_000_000))
    _, shown = on_a_terminal([*PROGRAM, "add", "big.bin", "--json"], project.folder)
    assert "━".encode() not in shown


def test_verbose_says_more_and_quiet_says_nothing(project: Shell) -> None:
    project.write("a.txt", "1")
    assert project("add", "a.txt", "-q").out == ""
    assert project("commit", "-m", "x", "--quiet").out == ""
    project.process("-vv", "log")
