"""Commit: a full tree with its parents, author, time, message and metadata. Spec: docs/design/format/objects.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from shardfs.errors import MalformedError
from shardfs.formats import canonical
from shardfs.formats.ids import CommitId, Kind, TreeId, from_hex, object_id

MAX_PARENTS: Final = 64
MAX_MESSAGE_SIZE: Final = 1 << 20  # bytes
_FIRST_TIME_US: Final = -(2**53) + 1
_KEYS = frozenset(
    {
        "type",
        "version",
        "tree",
        "parents",
        "author",
        "time_us",
        "message",
        "meta",
        "auto",
        "attachments",
    }
)


@dataclass(frozen=True)
class Commit:
    """One version.

    Attributes:
        tree: the whole content, a snapshot.
        parents: ids of the commits before; the first is the one that this commit was made on.
        author: "Name <address>" or any one-line string.
        time_us: microseconds since 1970-01-01 UTC.
        message: any text.
        meta: what the user recorded, JSON values by key.
        auto: what shardfs recorded by itself: code version, models, datasets.
        attachments: a tree of files that belong to the commit but not to its content (training logs).
    """

    tree: TreeId
    parents: tuple[CommitId, ...]
    author: str
    time_us: int
    message: str
    meta: dict[str, Any] = field(default_factory=dict)
    auto: dict[str, Any] = field(default_factory=dict)
    attachments: TreeId | None = None

    def to_bytes(self) -> bytes:
        """Canonical bytes.

        The members are written out in the order of their names: the general writer takes ten times as long, and every
        commit that is read is written again to see that its bytes are canonical.

        Raises:
            MalformedError: metadata that JSON cannot express.
        """
        attachments = "" if self.attachments is None else f'"attachments":"{self.attachments.hex()}",'
        parents = ",".join(f'"{parent.hex()}"' for parent in self.parents)
        time_us = canonical.integer(self.time_us, "commit time", _FIRST_TIME_US)
        text = (
            f'{{{attachments}"author":{canonical.string(self.author)},"auto":{_record(self.auto)},'
            f'"message":{canonical.string(self.message)},"meta":{_record(self.meta)},"parents":[{parents}],'
            f'"time_us":{time_us},"tree":"{self.tree.hex()}","type":"commit","version":1}}'
        )
        return canonical.checked_size(canonical.encode(text))

    @cached_property
    def id(self) -> CommitId:
        """The id of the canonical bytes."""
        return CommitId(object_id(Kind.COMMIT, self.to_bytes()))

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.strip().split("\n", 1)[0]

    @classmethod
    def from_bytes(cls, data: bytes) -> Commit:
        """The commit in canonical bytes.

        Raises:
            MalformedError: any broken rule, also bytes that are not canonical.
        """
        value = canonical.loads(data, "commit")
        canonical.check_keys(value, "commit", _KEYS)
        parents = value.get("parents")
        if not isinstance(parents, list) or len(parents) > MAX_PARENTS:
            msg = f"commit needs a list of at most {MAX_PARENTS} parents"
            raise MalformedError(msg)
        for key, kind in (("author", str), ("message", str), ("meta", dict), ("auto", dict)):
            if not isinstance(value.get(key), kind):
                msg = f"commit {key} must be of type {kind.__name__}"
                raise MalformedError(msg)
        attachments = value.get("attachments")
        commit = cls(
            tree=TreeId(from_hex(value.get("tree"), "tree id")),
            parents=tuple(CommitId(from_hex(p, "parent id")) for p in parents),
            author=value["author"],
            time_us=canonical.integer(value.get("time_us"), "commit time", _FIRST_TIME_US),
            message=value["message"],
            meta=value["meta"],
            auto=value["auto"],
            attachments=None if attachments is None else TreeId(from_hex(attachments, "tree id")),
        )
        if commit.to_bytes() != data:
            msg = "commit is not in canonical form"
            raise MalformedError(msg)
        return commit


def _record(value: dict[str, Any]) -> str:
    """The canonical JSON of metadata, of which there mostly is none."""
    return canonical.dumps(value).decode() if value else "{}"
