"""Payloads of every codec and element, frozen; read by the program and by a decoder written from the specification."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3

from shardfs.codecs import registry
from shardfs.codecs.elements import ELEMENTS
from shardfs.codecs.registry import DELTA1, DELTA2, PATCH, PLANES
from tests.golden import spec_codecs

FILE = Path(__file__).with_name("codecs.json")
VECTORS: list[dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else []
NAMES = [vector["name"] for vector in VECTORS]


def _bytes(vector: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(vector[key])


def _versions(width: int, exact: int, count: int) -> list[bytes]:
    """Three versions, the newest first: `exact` values that never moved, then ones that did, then any bits."""
    random = Random(width * 1000 + exact)
    limit = 1 << 8 * width
    values = [0x3C << 8 * width - 8 | random.randrange(1 << max(8 * width - 8, 1)) for _ in range(count)]
    made = []
    for version in range(3):
        made.append(b"".join((v % limit).to_bytes(width, "little") for v in values) + b"tail"[: width - 1])
        for i in range(exact, count):
            values[i] += random.randint(3, 9) if i % 8 else random.randrange(limit) * (version + 1)
    return made[::-1]


def make() -> list[dict[str, Any]]:
    """The vectors as they would be written today: another zstd may make other frames."""
    vectors = []
    for element in ELEMENTS.values():
        for exact, count in ((0, 24), (500, 700)):
            new, last, before = _versions(element.width, exact, count)
            payloads = [
                (PLANES.code, PLANES.encode(new, element), []),
                (DELTA1.code, DELTA1.encode(new, element, last), [last]),
            ]
            if element.predictable:
                payloads.append((DELTA2.code, DELTA2.encode(new, element, (last, before)), [last, before]))
            vectors += [_vector(element.name, *payload, new) for payload in payloads]
    text = b"".join(b"layer.%d.weight\n" % i for i in range(40))
    edited = text[:200] + b"new\n" + text[220:]
    return [*vectors, _vector("text", PATCH.code, PATCH.encode(edited, text), [text], edited)]


def _vector(name: str, code: int, payload: bytes, bases: list[bytes], plaintext: bytes) -> dict[str, Any]:
    return {
        "name": f"{registry.codec_by_code(code).name}-{name}-{len(plaintext)}",
        "codec": code,
        "raw_size": len(plaintext),
        "payload": base64.b64encode(payload).decode(),
        "bases": [base64.b64encode(base).decode() for base in bases],
        "blake3": blake3(plaintext).hexdigest(),
    }


def test_every_codec_and_element_is_frozen() -> None:
    assert [vector["name"] for vector in make()] == NAMES
    assert {kind for vector in VECTORS for kind in _kinds(vector)} == {0, 1, 2}


def _kinds(vector: dict[str, Any]) -> list[int]:
    """The kinds of its planes."""
    payload = _bytes(vector, "payload")
    start = {PLANES.code: 2, DELTA1.code: 2, DELTA2.code: 4}.get(vector["codec"])
    return [] if start is None else [payload[start + 5 * plane] for plane in range(ELEMENTS[payload[0]].width)]


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_frozen_payloads(vector: dict[str, Any]) -> None:
    payload, bases = _bytes(vector, "payload"), [base64.b64decode(base) for base in vector["bases"]]
    for decode in (registry.decode, spec_codecs.decode):
        plaintext = decode(vector["codec"], payload, vector["raw_size"], bases)
        assert blake3(plaintext).hexdigest() == vector["blake3"]


@pytest.mark.parametrize("vector", make(), ids=NAMES)
def test_payloads_written_now(vector: dict[str, Any]) -> None:
    payload, bases = _bytes(vector, "payload"), [base64.b64decode(base) for base in vector["bases"]]
    plaintext = spec_codecs.decode(vector["codec"], payload, vector["raw_size"], bases)
    assert blake3(plaintext).hexdigest() == vector["blake3"]


if __name__ == "__main__":
    FILE.write_text("[\n" + ",\n".join(json.dumps(vector) for vector in make()) + "\n]\n")
