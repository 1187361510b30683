"""OpenStack Swift with its S3 interface: a real object store, on ports and in a folder of the tests' own.

Swift wants packages of versions of its own, so it lives in `build/swift`, an environment that `.ci/setup` makes.
"""

from __future__ import annotations

import getpass
import http.client
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.nginx import free_port

_BIN: Final = Path(__file__).parents[1] / "build/swift/bin"
_MEMCACHED: Final = shutil.which("memcached")
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
"""
_PROXY: Final = """
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth bulk slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache}
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

    def make_bucket(self, name: str, *, public: bool = False) -> str:
        """Make a bucket; `public`: anybody may read what is in it, at the URL that comes back."""
        headers = {"X-Auth-Token": self._token()}
        if public:
            headers["X-Container-Read"] = ".r:*"
        self._ask("PUT", f"/v1/AUTH_test/{name}", headers)
        return f"http://{self.host}:{self.port}/v1/AUTH_test/{name}"

    def _token(self) -> str:
        headers = {"X-Auth-User": _ACCESS_KEY, "X-Auth-Key": _SECRET_KEY}
        return self._ask("GET", "/auth/v1.0", headers).headers["X-Auth-Token"]

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status < 300, (method, path, answer.status, body)
            return answer
        finally:
            connection.close()


def why_not() -> str | None:
    """Why Swift cannot run here; None when it can."""
    if not (_BIN / "swift-proxy-server").exists():
        return "swift is not installed in build/swift; .ci/setup does that"
    if _MEMCACHED is None:
        return "memcached is not installed"
    return None if _keeps_attributes() else "the file system of temporary files keeps no extended attributes"


@contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    """The processes of a store with one disk; `folder` holds all that they write."""
    ports = {kind: free_port() for kind in ("account", "container", "object", "proxy", "cache")}
    assert len(set(ports.values())) == len(ports)
    _write_configuration(folder, ports)
    with ExitStack() as stack:
        stack.enter_context(_running([str(_MEMCACHED), *_cache_arguments(ports["cache"])], folder / "cache.log"))
        for kind in ("account", "container", "object", "proxy"):
            command = [
                str(_BIN / "python"),
                str(_BIN / f"swift-{kind}-server"),
                str(folder / f"etc/{kind}-server.conf"),
            ]
            stack.enter_context(_running(command, folder / f"{kind}.log"))
        _wait_for("127.0.0.1", ports["proxy"])
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
    known = {"folder": folder, "user": getpass.getuser(), "cache": ports["cache"], "secret": _SECRET_KEY}
    for kind in ("account", "container", "object"):
        text = (_COMMON + _STORAGE).format(kind=kind, port=ports[kind], **known)
        (etc / f"{kind}-server.conf").write_text(text)
        builder = etc / f"{kind}.builder"
        device = f"r1z1-127.0.0.1:{ports[kind]}/sdb1"
        for step in (["create", "6", "1", "0"], ["add", device, "1"], ["rebalance"]):
            command = [str(_BIN / "python"), str(_BIN / "swift-ring-builder"), str(builder), *step]
            subprocess.run(command, check=True, capture_output=True)
    (etc / "proxy-server.conf").write_text((_COMMON + _PROXY).format(port=ports["proxy"], **known))


def _cache_arguments(port: int) -> list[str]:
    user = ["-u", "root"] if os.geteuid() == 0 else []
    return ["-l", "127.0.0.1", "-p", str(port), "-m", "16", *user]


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(host: str, port: int) -> None:
    for _ in range(600):
        connection = http.client.HTTPConnection(host, port, timeout=2)
        try:
            connection.request("GET", "/auth/v1.0")
            if connection.getresponse().status == 401:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        threading.Event().wait(0.05)
    raise AssertionError("Swift did not start")


def _keeps_attributes() -> bool:
    with tempfile.NamedTemporaryFile() as probe:
        try:
            os.setxattr(probe.name, "user.probe", b"1")
        except OSError:
            return False
    return True
