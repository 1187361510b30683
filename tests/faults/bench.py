"""An operation on copies of its own, through a proxy: what each case of a campaign needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.certificates import OPENSSL, Pair, make_certificate
from tests.faults.children import Child, checking
from tests.faults.operations import Case, Operation, Templates
from tests.faults.origins import Origin

DEADLINE_S: Final = 1.0
PATIENT_S: Final = 30.0  # the deadline where nothing is broken, only slow
LIMIT_S: Final = 100.0  # of a command that asks some twenty things, each within the deadline


class Proxy:
    """A proxy in a process of its own; `url`: where clients ask."""

    url: str

    def __init__(self, upstream: str, tls: Pair | None) -> None:
        options = ["--tls", *map(str, tls)] if tls else []
        self._argv = [sys.executable, "-m", "tests.faults.proxy", upstream, *options]
        self._start()

    def change(self, **weather: Any) -> dict[str, Any]:
        """As `FaultProxy.change`.

        Raises:
            RuntimeError: the process had ended. Another one is there now, at another `url`.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(weather) + "\n")
            self._process.stdin.flush()
            return self._heard()
        except (BrokenPipeError, json.JSONDecodeError) as error:
            status = self._process.wait(20)
            self._start()
            msg = f"the proxy had ended with exit status {status}"
            raise RuntimeError(msg) from error

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)

    def _start(self) -> None:
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._heard()["url"]

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        heard: dict[str, Any] = json.loads(self._process.stdout.readline())
        return heard


class Bench:
    """The far side, its proxies and the repositories that cases are copies of; one in each process of a campaign."""

    def __init__(self, folder: Path, stack: ExitStack, origin: Origin) -> None:
        self.folder = folder
        self.origin = origin
        self.authority = make_certificate(folder, "authority") if OPENSSL else None
        certified = make_certificate(folder, signed_by=self.authority) if OPENSSL else None
        self.templates = Templates.make(folder / "templates", origin)
        self.plain = Proxy(origin.upstream, None)
        stack.callback(self.plain.close)
        self.tls = Proxy(origin.upstream, certified)
        stack.callback(self.tls.close)
        self._count = 0

    @contextmanager
    def case(self, operation: Operation, front: str, **environment: str) -> Iterator[Running]:
        """Fresh copies for an operation by way of `front`, a proxy's URL; all is removed in the end."""
        self._count += 1
        name = f"case-{self._count}"
        folder = self.folder / name
        folder.mkdir()
        case = Case(self.templates, folder, self.origin, name, self.origin.url(front, name))
        running = Running(operation, case, {**self._environment(folder, front), **environment})
        operation.prepare(case)
        try:
            wrong = running.check(lambda: operation.mount(case), DEADLINE_S) if operation.mounts else []
            assert not wrong, wrong
            yield running
        finally:
            if operation.mounts:
                running.check(lambda: operation.end(case))
            shutil.rmtree(folder, ignore_errors=True)
            self.origin.remove(name)

    def _environment(self, folder: Path, front: str) -> dict[str, str]:
        places = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("CACHE", "CONFIG", "STATE")}
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        return {
            **places,
            **self.origin.environment(front),
            "XDG_RUNTIME_DIR": str(runtime),
            "SHARDFS_DEADLINE": str(DEADLINE_S),
            **({"SHARDFS_CA_FILE": str(self.authority.certificate)} if self.authority else {}),
        }


@dataclass
class Running:
    """An operation on copies of its own, step by step, each in a child."""

    operation: Operation
    case: Case
    environment: dict[str, str]

    def start(self) -> Child:
        """Begin the operation."""
        return Child(lambda: self.operation.run(self.case), self._log, self.environment)

    def finish(self, *, is_done: bool) -> list[str]:
        """Do it once more, without faults; what is wrong then, or was already after it said that it is done."""

        def check() -> list[str]:
            before = self.operation.done(self.case) if is_done else []
            status = self.operation.again(self.case)
            if status:
                return [*before, f"without faults: exit status {status}"]
            return [*before, *self.operation.done(self.case), *self.operation.sound(self.case)]

        return self.check(check)

    def check(self, check: Callable[[], Sequence[str]], deadline_s: float = PATIENT_S) -> list[str]:
        """What a check finds, in a child."""
        child = Child(checking(check), self._log, {**self.environment, "SHARDFS_DEADLINE": str(deadline_s)})
        ended = child.wait(LIMIT_S)
        return [] if ended.status == 0 else [ended.said.strip() or f"a check ended with {ended.status}"]

    @property
    def _log(self) -> Path:
        return self.case.folder / "said"
