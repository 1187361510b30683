"""Whether remotes can be reached, within a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from shardfs.config import Settings
from shardfs.errors import ShardfsError
from shardfs.maintenance.findings import Finding
from shardfs.remotes import registry

_DEADLINE_S: Final = 5.0
_NAMES_S: Final = 5.0  # the system's search for the address of a host keeps no deadline of ours


def diagnose(settings: Settings) -> list[Finding]:
    """Ask every remote for its refs, all at the same time; at most 10 s."""
    impatient = replace(settings, deadline_s=min(_DEADLINE_S, settings.deadline_s))
    answers: dict[str, Finding] = {}

    def ask(name: str, url: str) -> None:
        answers[name] = _ask(name, url, impatient)

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in settings.remotes.items()]
    end = time.monotonic() + impatient.deadline_s + _NAMES_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return list(_told(settings, answers))


def _told(settings: Settings, answers: dict[str, Finding]) -> Iterator[Finding]:
    for name in sorted(settings.remotes):
        yield answers.get(name) or Finding("warning", f"remote {name} did not answer in time", f"shardfs fetch {name}")
    if not settings.remotes:
        yield Finding("ok", "there are no remotes")


def _ask(name: str, url: str, settings: Settings) -> Finding:
    begin = time.monotonic()
    try:
        remote = registry.open_remote(url, name=name, settings=settings)
        try:
            refs = remote.refs()
        finally:
            remote.close()
    except ShardfsError as error:
        return Finding("warning", f"remote {name} cannot be used: {error}", "shardfs remote list shows its URL")
    took_ms = (time.monotonic() - begin) * 1000
    return Finding("ok", f"remote {name} answered in {took_ms:.0f} ms, {len(refs.refs)} refs")
