"""OpenStack Swift with its S3 interface: a real object store, on ports and in a folder of the tests' own.

Swift wants packages of versions of its own, so it lives in `build/swift`, an environment that `.ci/setup` makes.
All workers of a test session share one Swift. `python -m tests.swift FOLDER` runs it for as long as somebody holds a
shared lock of `FOLDER/users`, which the kernel drops when the last worker ends, however that ends.
"""

from __future__ import annotations

import fcntl
import getpass
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from tests.nginx import free_port

_BIN: Final = Path(__file__).parents[1] / "build/swift/bin"
_FILTERS: Final = Path(__file__).with_name("swift_filter")  # alone there: `tests` holds another `swift`
_ACCESS_KEY: Final = "test:tester"
_SECRET_KEY: Final = "testing-secret"

_COMMON: Final = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {folder}/etc
devices = {folder}/srv
mount_check = false
user = {user}
log_facility =
"""
_STORAGE: Final = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
conn_timeout = 20
node_timeout = 60
container_update_timeout = 60
"""
_PROXY: Final = """
[pipeline:main]
pipeline = catch_errors one_at_a_time cache listing_formats s3api tempauth bulk slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
conn_timeout = 20
node_timeout = 60
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:one_at_a_time]
paste.filter_factory = filters:one_at_a_time
[filter:cache]
paste.filter_factory = filters:cache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
min_segment_size = 1048576
check_bucket_owner = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
_HASHING: Final = """
[swift-hash]
swift_hash_path_suffix = shardfs
swift_hash_path_prefix = shardfs
[storage-policy:0]
name = Policy-0
default = yes
"""


@dataclass(frozen=True)
class Swift:
    """A running store; `environment`: what a client needs to find it."""

    host: str
    port: int
    environment: dict[str, str]

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Put what a client needs into the environment, and nothing else that it would look for."""
        for key in [key for key in os.environ if key.startswith("AWS_")]:
            patch.delenv(key)
        for key, value in self.environment.items():
            patch.setenv(key, value)

    def make_bucket(self, name: str, *, public: bool = False) -> str:
        """Make a bucket; `public`: anybody may read what is in it, at the URL that comes back."""
        headers = {"X-Auth-Token": self._token}
        if public:
            headers["X-Container-Read"] = ".r:*"
        self._ask("PUT", f"/v1/AUTH_test/{name}", headers)
        return f"http://{self.host}:{self.port}/v1/AUTH_test/{name}"

    def names(self, bucket: str, prefix: str) -> list[str]:
        """Names of all objects that begin with `prefix`."""
        asked = f"/v1/AUTH_test/{bucket}?prefix={quote(prefix, safe='')}"
        return self._ask("GET", asked, {"X-Auth-Token": self._token})[1].decode().split()

    def copy(self, bucket: str, name: str, to: str) -> None:
        """Copy an object within a bucket."""
        headers = {"X-Auth-Token": self._token, "Destination": f"{bucket}/{to}"}
        self._ask("COPY", f"/v1/AUTH_test/{bucket}/{name}", headers)

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object."""
        self._ask("DELETE", f"/v1/AUTH_test/{bucket}/{name}", {"X-Auth-Token": self._token})

    @cached_property
    def _token(self) -> str:
        headers = {"X-Auth-User": _ACCESS_KEY, "X-Auth-Key": _SECRET_KEY}
        return self._ask("GET", "/auth/v1.0", headers)[0].headers["X-Auth-Token"]

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status < 300, (method, path, answer.status, body)
            return answer, body
        finally:
            connection.close()


def why_not() -> str | None:
    """Why Swift cannot run here; None when it can."""
    if not (_BIN / "swift-proxy-server").exists():
        return "swift is not installed in build/swift; .ci/setup does that"
    return None if _keeps_attributes() else "the file system of temporary files keeps no extended attributes"


@contextmanager
def shared(folder: Path) -> Iterator[Swift]:
    """The store of all workers of a session; the first of them starts it."""
    folder.mkdir(exist_ok=True)
    with (folder / "users").open("a") as users, (folder / "start").open("a") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for the end of one that ends now
        found = folder / "store.json"
        if not found.exists():
            with (folder / "log").open("wb") as log:
                command = [sys.executable, "-m", "tests.swift", str(folder)]
                process = subprocess.Popen(
                    command, stdout=log, stderr=log, start_new_session=True, cwd=Path(__file__).parents[1]
                )
            while not found.exists():
                assert process.poll() is None, (folder / "log").read_text()
                threading.Event().wait(0.05)
            process.returncode = 0  # it outlives this worker: nobody waits for it
        fcntl.flock(start, fcntl.LOCK_UN)
        port, environment = json.loads(found.read_text())
        yield Swift("127.0.0.1", port, environment)


def _serve(folder: Path) -> None:
    work = folder / f"swift-{os.getpid()}"
    work.mkdir()
    found, temp = folder / "store.json", folder / "store.tmp"
    with swift(work) as store, (folder / "users").open("a") as users:
        temp.write_text(json.dumps([store.port, store.environment]))
        temp.rename(found)
        fcntl.flock(users, fcntl.LOCK_EX)
        found.unlink()
    shutil.rmtree(work)


@contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    """The processes of a store with one disk; `folder` holds all that they write."""
    ports = {kind: free_port() for kind in ("account", "container", "object", "proxy")}
    assert len(set(ports.values())) == len(ports)
    _write_configuration(folder, ports)
    with ExitStack() as stack:
        commands = {}
        for kind in ("account", "container", "object", "proxy"):
            program, configuration = _BIN / f"swift-{kind}-server", folder / f"etc/{kind}-server.conf"
            commands[kind] = [str(_BIN / "python"), str(program), str(configuration)]
        running = {kind: stack.enter_context(_running(c, folder / f"{kind}.log")) for kind, c in commands.items()}
        for kind, process in running.items():
            _wait_for(process, ports[kind], folder / f"{kind}.log")
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['proxy']}",
            "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }
        yield Swift("127.0.0.1", ports["proxy"], environment)


def _write_configuration(folder: Path, ports: dict[str, int]) -> None:
    (folder / "srv/sdb1").mkdir(parents=True)
    etc = folder / "etc"
    etc.mkdir()
    (etc / "swift.conf").write_text(_HASHING)
    known = {"folder": folder, "user": getpass.getuser(), "secret": _SECRET_KEY}
    rings = []
    for kind in ("account", "container", "object"):
        text = (_COMMON + _STORAGE).format(kind=kind, port=ports[kind], **known)
        (etc / f"{kind}-server.conf").write_text(text)
        rings.append(f"{kind} {ports[kind]}")
    subprocess.run([_BIN / "python", _FILTERS / "rings.py", etc, *rings], check=True, capture_output=True)
    (etc / "proxy-server.conf").write_text((_COMMON + _PROXY).format(port=ports["proxy"], **known))


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            threading.Event().wait(0.05)
        else:
            return
    raise AssertionError(f"{log.stem} does not listen")


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": str(_FILTERS)}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _keeps_attributes() -> bool:
    with tempfile.NamedTemporaryFile() as probe:
        try:
            os.setxattr(probe.name, "user.probe", b"1")
        except OSError:
            return False
    return True


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
