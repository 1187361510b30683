from __future__ import annotations

import subprocess

import pytest

from shardfs.mount.kernel import interrupts
from shardfs.mount.kernel.interrupts import Pending
from shardfs.mount.kernel.messages import Opcode
from shardfs.mount.kernel.request import Request


@pytest.fixture
def pending() -> Pending:
    return Pending()


def test_whoever_takes_a_request_first_answers_it(pending: Pending) -> None:
    request = Request(Opcode.LOOKUP, 2, 1, 0, b"")
    pending.add(request)
    assert pending.take(request)
    assert not pending.take(request)


def test_a_signal_alone_gives_nothing_up(pending: Pending) -> None:
    """Programs that have handlers do not expect EINTR from open and stat."""
    with subprocess.Popen(["sleep", "60"]) as process:
        request = Request(Opcode.LOOKUP, 2, 1, process.pid, b"")
        pending.add(request)
        pending.interrupt(2)
        assert pending.has_interrupted
        assert pending.abandoned() == []
        process.kill()
    assert pending.take(request)
    assert not pending.has_interrupted


@pytest.mark.parametrize(("opcode", "harmless"), [(Opcode.GETATTR, True), (Opcode.WRITE, False), (Opcode.FLUSH, False)])
def test_requests_of_killed_threads_are_given_up_if_they_change_nothing(
    pending: Pending, monkeypatch: pytest.MonkeyPatch, opcode: Opcode, harmless: bool
) -> None:
    request = Request(opcode, 2, 1, 4711, b"")
    pending.add(request)
    pending.interrupt(2)
    monkeypatch.setattr(interrupts, "_is_killed", lambda thread: thread == 4711)
    assert pending.abandoned() == ([request] if harmless else [])
    assert pending.take(request) is not harmless
