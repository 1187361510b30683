"""What every remote can do. Blocking; safe to share between threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from shardfs.errors import FormatError, RemoteProtocolError
from shardfs.formats import pack as pack_format
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.pack import TRAILER_SIZE, Entry
from shardfs.formats.ref import PackSize


class RemoteRefs(NamedTuple):
    """Names that a remote publishes.

    Attributes:
        head: full name of the branch that a clone checks out; None when the remote has no opinion.
        refs: commits by full name, below refs/heads/ and refs/tags/.
    """

    head: str | None
    refs: Mapping[str, CommitId]


class PackTail(NamedTuple):
    """The end of a pack.

    Attributes:
        entries: all payloads of the pack.
        offset: bytes from the start of the pack to `data`.
        data: the pack from `offset` to its end; payloads of entries at or after `offset` need no further request.
    """

    entries: list[Entry]
    offset: int
    data: bytes


class Remote(Protocol):
    """A place that holds a store.

    What comes back is well-formed and of the length that was asked for; payloads are not verified against their ids,
    which is the reader's part. Every method ends in bounded time, with one of the errors below or:

    Raises:
        RemoteUnavailableError, RemoteTimeoutError: trying again may help.
        RemoteDeniedError: the remote understood and refuses (read-only, no permission, bad request, full).
        RemoteProtocolError: the remote does not speak the protocol or breaks its promises.

    Attributes:
        name: how the user calls it ("origin").
        url: where it is, without credentials; for messages.
        knows_ids: whether `has` is answered by the other side. Where there are only files, the caller learns the tables
            of the packs and asks its own index.
        resumes: whether `put_pack` goes on where one of the same pack broke, a killed one too. Where not, so much at
            most is sent at once as may be sent twice.
    """

    name: str
    url: str
    knows_ids: bool
    resumes: bool

    def refs(self) -> RemoteRefs:
        """The branches and tags now.

        Raises:
            RepositoryNotFoundError: the place can be reached and holds no repository; `put_pack` may make one.
        """
        ...

    def list_packs(self) -> list[PackSize]:
        """The packs now, in any order.

        Raises:
            RepositoryNotFoundError: as for `refs`.
        """
        ...

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of a pack from `offset`.

        Raises:
            PackNotFoundError: the remote has no such pack (any more).
        """
        ...

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """For each id whether some pack of the remote holds it. Any number of ids.

        Raises:
            RepositoryNotFoundError: as for `refs`.
            RemoteDeniedError: the remote does not know; see `knows_ids`.
        """
        ...

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """Store a pack file durably. Idempotent: a pack that is there is not sent again."""
        ...

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """Move a branch or tag from `old` to `new`; None stands for "does not exist".

        Raises:
            RefChangedError: the ref is not at `old`; `current` says where it is.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


def read_pack_tail(remote: Remote, pack: PackSize, size_hint: int) -> PackTail:
    """The table of a pack and whatever lies in its last `size_hint` bytes: one request, two for a large table.

    Raises:
        RemoteProtocolError: the bytes are not the end of a pack.
        PackNotFoundError and other errors: as `Remote.read_pack`.
    """
    offset = max(0, pack.size - max(size_hint, TRAILER_SIZE))
    data = remote.read_pack(pack.id, offset, pack.size - offset)
    try:
        trailer = pack_format.parse_trailer(data[-TRAILER_SIZE:], pack.size)
        if trailer.table_offset < offset:
            more = remote.read_pack(pack.id, trailer.table_offset, offset - trailer.table_offset)
            data, offset = more + data, trailer.table_offset
        start = trailer.table_offset - offset
        entries = pack_format.parse_table(data[start : start + trailer.table_size], trailer)
    except FormatError as error:
        msg = f"pack {pack.id.hex()[:12]} of {remote.url} is damaged: {error}"
        raise RemoteProtocolError(msg) from error
    return PackTail(entries, offset, data)
