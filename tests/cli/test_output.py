"""What is printed: sizes, times, tables, hostile and broken names."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable

import pytest

from shardfs_cli import output
from shardfs_cli.output import Output


def printed(monkeypatch: pytest.MonkeyPatch, print_it: Callable[[], None]) -> bytes:
    """What comes out where the locale says that standard output is ASCII."""
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        print_it()
    stream.detach()
    return buffer.getvalue()


def test_text_is_utf8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, lambda: Output().line("modèle → 模型")) == "modèle → 模型\n".encode()


def test_names_that_are_not_utf8_come_out_as_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, lambda: Output().line(os.fsdecode(b"caf\xe9.pt"))) == b"caf\xe9.pt\n"


def test_lone_surrogates_do_not_stop_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, lambda: Output().line("a\ud800b")) == b"a\\ud800b\n"


def test_json_gives_back_names_that_are_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, lambda: Output().document({"path": os.fsdecode(b"\xff\xfe")}))
    assert os.fsencode(json.loads(text)["path"]) == b"\xff\xfe"


def test_control_characters_cannot_steer_the_terminal() -> None:
    assert output.name("a\x1b[31m\nb\x7f") == "a\\x1b[31m\\x0ab\\x7f"
    assert output.paragraph("a\n\tb\x1b") == "a\n\tb\\x1b"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (999_949, "999.9 KB"), (999_951, "1.0 MB"), (90_868_376, "90.9 MB"),
     (10**15, "1000.0 TB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (2**53 - 1, "2255-06-05T23:47:34.740991Z"),
        (-(2**53) + 1, "1684-07-28T00:12:25.259009Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(time_us: int, text: str) -> None:
    assert output.time(time_us) == text
    assert output.local_time(time_us)


def test_counts() -> None:
    assert [output.count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [output.count(2, noun) for noun in ("entry", "branch", "pack")] == ["2 entries", "2 branches", "2 packs"]


def test_tables_are_aligned_and_have_no_blanks_at_the_end() -> None:
    assert output.table([["a", "1"], ["bb", ""], ["c", "22"]], right=(1,)) == ["a    1", "bb", "c   22"]
    assert output.table([]) == []


def test_colors_only_on_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Output()
    assert out.style("x", "red") == "x"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert out.style("x", "red") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert out.style("x", "red") == "x"


def test_quiet_leaves_out_notes_but_not_results(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Output()
    out.quiet = True
    assert printed(monkeypatch, lambda: out.note("a note")) == b""
    assert printed(monkeypatch, lambda: out.line("a result")) == b"a result\n"
