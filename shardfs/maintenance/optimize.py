"""Store what is read most in the quickest way: heads shallow, older versions as differences to newer ones, few packs.

Like gc it leaves a whole store behind at every step: payloads are durable in a new pack, with all that they depend
on, before an old pack goes. No id changes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.errors import FormatError, IntegrityError
from shardfs.formats.ids import ChunkId, CommitId, Kind
from shardfs.formats.ref import BRANCHES, TAGS
from shardfs.history import paths
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.maintenance import roots
from shardfs.maintenance.arranging import Arrangement, Step
from shardfs.maintenance.gc import GRACE_S, young_packs
from shardfs.maintenance.lineages import lineages
from shardfs.maintenance.reencoding import Outcome, Payload, carry_out
from shardfs.maintenance.repacking import Repacking, Stock
from shardfs.progress import Progress, no_progress
from shardfs.store import chains, packs
from shardfs.store.index import LOCAL, Location
from shardfs.store.plaintext import PlaintextSource, stored_copies
from shardfs.store.store import Store

WORKERS: Final = 2  # the codecs release the GIL
_PACK_SIZE: Final = packs.TARGET_SIZE - 1  # bytes of payloads that make one pack, and no second, almost empty one


@dataclass
class OptimizeReport:
    """What optimize did, or would do.

    Attributes:
        packs_before, packs_after: packs here; as many after a dry run.
        bytes_before, bytes_after: their bytes.
        rewritten: packs that were deleted, after what is needed of them was stored in new ones.
        encoded: chunks whose encoding changed; in a dry run those that are to be tried.
        moved: chunks and objects that were copied as they are.
        tip_depth_before, tip_depth_after: most chunks that must be decoded before one of the current branch's tip; in a
            dry run the latter is what is aimed at.
        heads_depth_before, heads_depth_after: the same for all branches and tags.
        elsewhere: chunks that were left alone because they are at a remote, or depend on one that is.
        kept_young: packs that stay because something that nothing needs is younger than the grace period: in them, or
            in a pack that depends on them.
        problems: what was left alone because it could not be read.
        seconds: how long it took.
        dry_run: whether nothing was changed.
    """

    packs_before: int = 0
    packs_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rewritten: int = 0
    encoded: int = 0
    moved: int = 0
    tip_depth_before: int = 0
    tip_depth_after: int = 0
    heads_depth_before: int = 0
    heads_depth_after: int = 0
    elsewhere: int = 0
    kept_young: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    dry_run: bool = False


def optimize(  # noqa: PLR0913 - options by keyword
    store: Store,
    objects: Objects,
    *,
    keep: Iterable[tuple[Kind, bytes]] = (),
    max_depth: int,
    budget_bytes: int = 256 << 20,
    grace_s: float = GRACE_S,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> OptimizeReport:
    """Encode chunks anew so that heads are read quickly, and merge small packs. Holds the writer lock.

    What is needed is as in gc. A chunk that is not here, or cannot be read, is left alone. Memory: about twice
    `budget_bytes`, and the payloads of the largest tree of versions.

    Args:
        store: what to optimize.
        objects: reads history.
        keep: further roots of any kind: what staging areas refer to.
        max_depth: most chunks that must be decoded before another, 0 to `MAX_BASE_DEPTH`.
        budget_bytes: most bytes of plaintext in memory.
        grace_s: packs younger than this many seconds stay if they hold something that nothing needs.
        dry_run: change nothing.
        progress: told the bytes of plaintext done.

    Raises:
        RefCorruptedError: a name cannot be read. ObjectNotFoundError, ObjectCorruptedError, RemoteError: an object
            that is needed cannot be read. Nothing was changed.
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk; nothing was lost.
    """
    started = time.monotonic()
    with store.lock.hold("optimize"):
        if not dry_run:
            store.reconcile()
        report = OptimizeReport(dry_run=dry_run)
        work = _Work(store, objects, list(keep), max_depth, grace_s, report)
        work.plan()
        if not dry_run:
            work.run(budget_bytes, progress or no_progress)
        report.seconds = time.monotonic() - started
    return report


class _Heads:
    """Commits that names hold, and their chunks."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._objects = objects
        self.current = store.refs.head_commit()
        refs = store.refs.list()
        named = {commit for name, commit in refs.items() if name.startswith((BRANCHES, TAGS))}
        first = [] if self.current is None else [self.current]
        self.others = self._newest_first(named - {self.current})
        rest = self._newest_first((set(refs.values()) | roots.recent_commits(store, time.time())) - named)
        self.all = [*first, *self.others, *rest]
        self.tip_chunks = self._chunks(first)
        self.other_chunks = self._chunks(self.others)

    def _newest_first(self, commits: Iterable[CommitId]) -> list[CommitId]:
        return sorted(commits, key=lambda id_: (-self._objects.commit(id_).time_us, id_))

    def _chunks(self, commits: Iterable[CommitId]) -> set[bytes]:
        return {
            chunk.id
            for id_ in commits
            for _, entry in paths.files(self._objects, self._objects.commit(id_).tree)
            for chunk in manifest_of(entry, self._objects).chunks
        }


class _LocalChunks:
    """Chunks of this store alone: what a remote has is not worth the wait."""

    def __init__(self, store: Store) -> None:
        self._source = PlaintextSource(partial(stored_copies, store))

    def chunk(self, id_: ChunkId, raw_size: int) -> bytes:
        """See `ChunkSource`."""
        del raw_size
        return self._source.read(id_, Kind.CHUNK)


class _Work:
    def __init__(
        self,
        store: Store,
        objects: Objects,
        keep: list[tuple[Kind, bytes]],
        max_depth: int,
        grace_s: float,
        report: OptimizeReport,
    ) -> None:
        self._store = store
        self._objects = objects
        self._max_depth = max_depth
        self._report = report
        tables, unreadable = packs.read_tables(store.layout)
        report.problems += [f"{error}; left alone" for error in unreadable.values()]
        report.packs_before = report.packs_after = len(tables)
        report.bytes_before = report.bytes_after = sum(table.size for table in tables.values())
        self._stock = Stock(tables, roots.needed(store, objects, keep), young_packs(store, tables, grace_s))
        report.elsewhere = self._stock.elsewhere
        self._heads = _Heads(store, objects)
        self._waiting: list[Payload] = []
        self._waiting_bytes = 0  # of encoded payloads

    def plan(self) -> None:
        """Decide what to do."""
        report, heads = self._report, self._heads
        report.tip_depth_before = self._depth(heads.tip_chunks)
        report.heads_depth_before = self._depth(heads.tip_chunks | heads.other_chunks)
        known = lineages(self._objects, _LocalChunks(self._store), heads.all)
        arrangement = Arrangement(self._stock.copies, known, heads.other_chunks, self._max_depth)
        self._trees = list(arrangement.trees())
        self._repacking = Repacking(self._stock, self._trees)
        report.kept_young = self._repacking.kept_young
        report.rewritten = len(self._repacking.leaving)
        report.encoded = sum(step.keep is None for tree in self._trees for step in tree)
        depths = {step.id: step.depth for tree in self._trees for step in tree}
        report.tip_depth_after = _deepest(depths, heads.tip_chunks)
        report.heads_depth_after = _deepest(depths, heads.tip_chunks | heads.other_chunks)

    def run(self, budget_bytes: int, progress: Progress) -> None:
        """Do it."""
        report, repacking = self._report, self._repacking
        report.encoded = report.rewritten = 0
        todo = [tree for tree in self._trees if any(repacking.concerns(step) for step in tree)]
        total = sum(self._stock.raw_size(step.id) for tree in todo for step in tree)
        done = 0
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="optimize") as pool:
            for tree, outcome in self._outcomes(pool, todo, budget_bytes // WORKERS):
                self._note(outcome)
                repacking.settle(outcome.sound)
                self._put(outcome.payloads)
                done += sum(self._stock.raw_size(step.id) for step in tree)
                progress(done, total, "encoding")
        for payload in self._objects_to_move():
            self._put([payload])
        self._flush()
        self._drop(with_bases=not report.problems and not self._stock.pinned)
        left = packs.list_packs(self._store.layout)
        report.packs_after, report.bytes_after = len(left), sum(left.values())
        report.tip_depth_after = self._depth(self._heads.tip_chunks)
        report.heads_depth_after = self._depth(self._heads.tip_chunks | self._heads.other_chunks)

    def _outcomes(
        self, pool: ThreadPoolExecutor, trees: Sequence[list[Step]], budget_bytes: int
    ) -> Iterable[tuple[list[Step], Outcome]]:
        """Outcomes in the order of the trees; not more in flight than fit into a pack, but at least one."""
        running: deque[tuple[list[Step], int, Future[Outcome]]] = deque()
        in_flight = 0
        for tree in trees:
            size = self._repacking.size(tree)
            while running and in_flight + size > _PACK_SIZE:
                steps, gone, future = running.popleft()
                in_flight -= gone
                yield steps, future.result()
            job = pool.submit(carry_out, self._store, tree, self._repacking.leaving, self._repacking.held, budget_bytes)
            running.append((tree, size, job))
            in_flight += size
        for steps, _, future in running:
            yield steps, future.result()

    def _note(self, outcome: Outcome) -> None:
        self._report.encoded += len(outcome.encoded)
        self._report.moved += len(outcome.payloads) - len(outcome.encoded)
        self._report.problems += [
            f"chunk {id_.hex()[:12]} is left alone: {problem}" for id_, problem in outcome.problems.items()
        ]

    def _objects_to_move(self) -> Iterable[Payload]:
        source = PlaintextSource(partial(stored_copies, self._store))
        for rank, found in enumerate(self._repacking.objects(), start=len(self._stock.copies)):
            for pack_id, entry in found:
                try:
                    encoded = self._store.read(Location(LOCAL, pack_id, 0, entry))
                    source.decode(entry, encoded)
                except (FormatError, IntegrityError) as error:
                    self._report.problems.append(
                        f"{entry.kind.name.lower()} {entry.id.hex()[:12]} in pack {pack_id.hex()[:12]}: {error}"
                    )
                else:
                    self._report.moved += 1
                    yield Payload(rank, entry.kind, entry.id, encoded, entry.raw_size)
                    break

    def _put(self, payloads: Sequence[Payload]) -> None:
        """Have payloads written, one pack at a time; those of one call stay together."""
        size = sum(len(payload.encoded.payload) for payload in payloads)
        if self._waiting and self._waiting_bytes + size > _PACK_SIZE:
            self._flush()
        self._waiting += payloads
        self._waiting_bytes += size

    def _flush(self) -> None:
        """Make what waits durable in new packs, then delete the packs that are not needed any more.

        Bases come first: a part of the new packs is whole as well.
        """
        payloads, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if payloads:
            with self._store.batch("optimize") as batch:
                for payload in sorted(payloads, key=lambda payload: payload.rank):
                    batch.put_encoded(payload.kind, payload.id, payload.encoded, payload.raw_size)
                self._repacking.made(pack.id for pack in batch.publish())
            self._repacking.settle(payload.id for payload in payloads)
        self._drop()

    def _drop(self, *, with_bases: bool = False) -> None:
        if gone := self._repacking.finish(with_bases=with_bases):
            self._store.drop_packs(gone)
            self._report.rewritten += len(gone)

    def _depth(self, ids: Iterable[bytes]) -> int:
        """The longest chain below some chunks, as far as it is known here."""
        wanted = set(ids)
        known = chains.of_index(self._store.index)
        known.learn(wanted)
        return _deepest({id_: depth for id_ in wanted if (depth := known.depth(id_)) <= MAX_BASE_DEPTH}, wanted)


def _deepest(depths: Mapping[bytes, int], ids: Iterable[bytes]) -> int:
    return max((depths[id_] for id_ in ids if id_ in depths), default=0)
