"""nginx with the configurations of the manual, on ports and in folders of the tests' own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

MANUAL = Path(__file__).parents[1] / "docs/how-to/serve.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def manual(mark: str) -> str:
    """The configuration that the manual marks as tested under this name."""
    found = re.search(rf"<!-- tested: {mark} -->\n```nginx\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """`text` with each key, which must occur, replaced by its value."""
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def nginx(folder: Path, configuration: str, port: int) -> Iterator[None]:
    """A process of nginx that listens on `port`; `folder` holds all that it writes."""
    assert NGINX is not None
    # Started by root, nginx would work as another user, who cannot enter the folders of tests.
    user = "user root;\n" if os.geteuid() == 0 else ""
    paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in _TEMPORARY)
    text = user + "daemon off;\n" + configuration.replace("http {\n", "http {\n" + paths, 1)
    (folder / "nginx.conf").write_text(text)
    command = [NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_for(port, process)
            yield
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            threading.Event().wait(0.02)
        else:
            return
    raise AssertionError("nginx did not start")
