"""The description of the server for programs, held against the server by a program that makes requests from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shardfs.server import app
from shardfs.server.access import RULES
from shardfs.server.routes import parse_path
from tests.serving import serving
from tests.stores import make_store
from tests.unit.server.byhand import ask

pytestmark = pytest.mark.network

DOCUMENT = Path(app.__file__).with_name("openapi.yaml")
ID = "ab" * 32
EXAMPLES = {"repository": "demo", "folder": "ab", "id": ID, "name": "main"}
METHODS = {"get", "head", "put", "post", "delete"}


def operations() -> set[tuple[str, str]]:
    """Method and path of everything that the document describes, with examples for what varies."""
    paths = yaml.safe_load(DOCUMENT.read_text())["paths"]
    return {(method.upper(), path.format(**EXAMPLES)) for path, item in paths.items() for method in METHODS & set(item)}


def test_every_method_of_every_endpoint_is_described() -> None:
    described = set()
    for method, path in operations():
        target = parse_path(path)
        if target is None:
            assert path in ("/healthz", "/metrics", "/openapi.yaml")
        else:
            described.add((method, target.endpoint))
    answered = set(RULES) | {("HEAD", endpoint) for method, endpoint in RULES if method == "GET"}
    assert described == answered


def test_it_is_served(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        answer = ask(server.url, "GET", "/openapi.yaml")
        assert answer.body == DOCUMENT.read_bytes()
        assert answer.headers["Content-Type"] == "application/yaml"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server, and its description with what is there as examples."""
    root = tmp_path_factory.mktemp("root")
    store, commits = make_store(root / "demo")
    pack = next(iter(store.index.packs())).hex()
    store.close()
    document = yaml.safe_load(DOCUMENT.read_text())
    parameters = document["components"]["parameters"]
    for name, value in (("Repository", "demo"), ("Id", pack), ("Folder", pack[:2]), ("Name", "main")):
        parameters[name]["example"] = value
    parameters["IfMatch"]["example"] = f'"{commits[-1].hex()}"'
    path = root.parent / "openapi.json"
    path.write_text(json.dumps(document))
    with serving(root) as server:
        yield server.url, path


# Left out: that the server refuses everything the document does not allow. It takes names with slashes, ignores a
# Range that it does not understand, as HTTP wants it, and does not look at Content-Type.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


def test_requests_made_from_it(described: tuple[str, Path]) -> None:
    pytest.importorskip("schemathesis")
    url, document = described
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(document), "--url", url]
    options = ["--checks", ",".join(CHECKS), "--max-examples", os.environ.get("EXAMPLES", "2"), "--seed", "1"]
    bounds = [
        "--phases",
        "examples,coverage,fuzzing",
        "--request-timeout",
        "20",
        "--no-color",
        "--generation-deterministic",
    ]
    done = subprocess.run(
        [*command, *options, *bounds], check=False, capture_output=True, text=True, cwd=document.parent, timeout=3000
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert ask(url, "GET", "/healthz").status == 200
