"""Carries out the steps for one tree of chunks: reads, encodes, compares; writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from shardfs.codecs import registry
from shardfs.codecs.registry import Base, Encoded
from shardfs.codecs.zstd import ZstdCodec
from shardfs.errors import FormatError, IntegrityError, MalformedError, NotFoundError
from shardfs.formats.ids import Kind, PackId
from shardfs.maintenance.arranging import Copy, Step
from shardfs.store.index import LOCAL, Location
from shardfs.store.plaintext import PlaintextSource, stored_copies
from shardfs.store.store import Store

_log = logging.getLogger(__name__)

_UNREADABLE: Final = (FormatError, IntegrityError, NotFoundError)
# Level 19 takes 0.4 s for 1 MiB of text, level 9 a tenth of that and 10 % more bytes.
_SLOW, _SLOW_UP_TO, _FAST = ZstdCodec(19), 1 << 20, ZstdCodec(9)


class Payload(NamedTuple):
    """What goes into a new pack; `rank` orders payloads, bases first."""

    rank: int
    kind: Kind
    id: bytes
    encoded: Encoded
    raw_size: int


@dataclass
class Outcome:
    """What became of a tree.

    Attributes:
        payloads: to be stored in new packs.
        encoded: ids of those whose encoding changed.
        sound: ids whose copies stay where they are, which were read.
        problems: why chunks were left alone, by id.
    """

    payloads: list[Payload] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    sound: list[bytes] = field(default_factory=list)
    problems: dict[bytes, str] = field(default_factory=dict)


def carry_out(
    store: Store, steps: Sequence[Step], leaving: Set[PackId], held: Set[bytes], budget_bytes: int
) -> Outcome:
    """Do the steps for one tree. For any thread.

    Args:
        store: has the chunks.
        steps: ascending by rank.
        leaving: packs that will be deleted: what is kept of them is copied.
        held: chunks that one of those packs holds: a copy of them that is kept elsewhere is read before.
        budget_bytes: most bytes of plaintext in memory.
    """
    return _Run(store, leaving, held, budget_bytes).run(steps)


class _Run:
    def __init__(self, store: Store, leaving: Set[PackId], held: Set[bytes], budget_bytes: int) -> None:
        self._store = store
        self._leaving = leaving
        self._held = held
        self._source = PlaintextSource(partial(stored_copies, store), budget_bytes)
        self._bases: dict[bytes, tuple[bytes, ...]] = {}  # of each chunk as it will be stored
        self._planned: dict[bytes, bytes | None] = {}
        self._outcome = Outcome()

    def run(self, steps: Sequence[Step]) -> Outcome:
        for step in steps:
            self._planned[step.id] = step.base
            try:
                self._do(step)
            except _UNREADABLE as error:
                # Once more: what was looked up may have moved into a new pack meanwhile.
                _log.info("chunk %s: %s", step.id.hex()[:12], error)
                try:
                    self._do(step)
                except _UNREADABLE as last:
                    self._outcome.problems[step.id] = str(last)
        return self._outcome

    def _do(self, step: Step) -> None:
        if step.keep is not None and self._keep(step, step.keep):
            return
        plaintext = self._source.read(step.id, Kind.CHUNK)
        bases = self._base_data(step.base)
        encoded = _packed(registry.encode(plaintext, step.dtype or self._stored_dtype(step.id), bases), plaintext)
        data = {base.id: base.data for base in bases}
        if registry.decode(*encoded[:2], len(plaintext), [data[base] for base in encoded.bases]) != plaintext:
            msg = "it would not be read as it was written"
            raise MalformedError(msg)
        spare = step.spare
        is_smaller = encoded.bases or spare is None or len(encoded.payload) < spare.entry.stored_size
        if spare is None or is_smaller or not self._keep(step, spare):
            self._bases[step.id] = encoded.bases
            self._outcome.encoded.append(step.id)
            self._outcome.payloads.append(Payload(step.rank, Kind.CHUNK, step.id, encoded, len(plaintext)))
        elif spare.pack not in self._leaving:
            self._outcome.sound.append(step.id)

    def _keep(self, step: Step, copy: Copy) -> bool:
        """Keep one copy, and read it if others may go; returns whether it is sound."""
        entry = copy.entry
        if step.id in self._held:
            try:
                encoded = self._store.read(Location(LOCAL, copy.pack, 0, entry))
                plaintext = self._source.decode(entry, encoded)
            except _UNREADABLE:
                return False
            if copy.pack in self._leaving:
                self._move(step, encoded, plaintext)
            else:
                self._outcome.sound.append(step.id)
        self._bases[step.id] = entry.bases
        return True

    def _move(self, step: Step, encoded: Encoded, plaintext: bytes) -> None:
        packed = _packed(encoded, plaintext)
        if packed is not encoded:
            self._outcome.encoded.append(step.id)
        self._outcome.payloads.append(Payload(step.rank, Kind.CHUNK, step.id, packed, len(plaintext)))

    def _base_data(self, id_: bytes | None) -> list[Base]:
        """The base and its own base; the one that the base was to have if it cannot be read."""
        while id_ is not None:
            try:
                if id_ in self._bases:
                    chain = (id_, *self._bases[id_][:1])
                    return [Base(base, self._source.read(base, Kind.CHUNK)) for base in chain]
            except _UNREADABLE as error:
                _log.info("base %s: %s", id_.hex()[:12], error)
            id_ = self._planned[id_]
        return []

    def _stored_dtype(self, id_: bytes) -> str | None:
        """What the bytes of a chunk are, as a payload of it says."""
        found = (registry.dtype_of(payload()) for _, payload in stored_copies(self._store, id_, Kind.CHUNK))
        return next((dtype for dtype in found if dtype is not None), None)


def _packed(encoded: Encoded, plaintext: bytes) -> Encoded:
    """A payload of zstd compressed harder, if that makes it smaller; any other as it is."""
    if encoded.codec != registry.ZSTD.code:
        return encoded
    codec = _SLOW if len(plaintext) <= _SLOW_UP_TO else _FAST
    smaller = codec.encode(plaintext)
    return Encoded(codec.code, smaller) if len(smaller) < len(encoded.payload) else encoded
