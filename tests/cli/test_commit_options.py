"""How the options of a commit become its message and metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shardfs.errors import PathNotFoundError, StoreError, UsageError
from shardfs_cli import commits

NONE: dict[str, Any] = {
    "messages": ("m",), "message_file": None, "meta": (), "meta_file": None, "datasets": (), "logs": (),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("5e-5", 5e-5),
        ("true", True),
        ("null", None),
        ('"1.10"', "1.10"),
        ("[1, 2]", [1, 2]),
        ("adamw", "adamw"),
        ("", ""),
        ("a=b", "a=b"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "1e999"),
        ("9007199254740993", "9007199254740993"),
        ("007", "007"),
        ("{", "{"),
    ],
)
def test_values_keep_their_type_when_nothing_is_lost(text: str, value: Any) -> None:
    assert commits.parse_meta(f"key={text}") == ("key", value)


@pytest.mark.parametrize("text", ["key", "=value", " =x", ""])
def test_meta_needs_a_key(text: str) -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        commits.parse_meta(text)


def test_paragraphs_of_repeated_messages() -> None:
    assert commits.request(**NONE | {"messages": ("subject", "body")})["message"] == "subject\n\nbody"


@pytest.mark.parametrize(
    "change",
    [
        {"messages": ()},
        {"messages": ("", " \n")},
        {"messages": ("m",), "message_file": "file"},
        {"datasets": ("=path",)},
        {"datasets": ("name=",)},
        {"datasets": ("",)},
        {"logs": ("",)},
    ],
)
def test_options_without_meaning_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        commits.request(**NONE | change)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"1", b"\xff", b'{"a": NaN}', b'{"a": 9007199254740993}', b'{"a": "\\ud800"}', b"[" * 100_000],
)
def test_metadata_files_that_cannot_be_stored_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "meta.json"
    file.write_bytes(content)
    with pytest.raises(UsageError):
        commits.request(**NONE | {"meta_file": str(file)})


def test_options_outweigh_the_metadata_file(tmp_path: Path) -> None:
    file = tmp_path / "meta.json"
    file.write_text(json.dumps({"lr": 1, "epoch": 2}))
    assert commits.request(**NONE | {"meta_file": str(file), "meta": ("lr=3",)})["meta"] == {"lr": 3, "epoch": 2}


def test_missing_directory_and_huge_files(tmp_path: Path) -> None:
    with pytest.raises(PathNotFoundError):
        commits.request(**NONE | {"messages": (), "message_file": str(tmp_path / "none")})
    with pytest.raises(StoreError):
        commits.request(**NONE | {"messages": (), "message_file": str(tmp_path)})
    (tmp_path / "huge").write_bytes(b"x" * (1 << 20) + b"x")
    with pytest.raises(UsageError, match="longer"):
        commits.request(**NONE | {"messages": (), "message_file": str(tmp_path / "huge")})


def test_dataset_names() -> None:
    found = commits.request(**NONE | {"datasets": ("train=a/b", "c/d")})["datasets"]
    assert found == {"train": Path("a/b"), "d": Path("c/d")}
