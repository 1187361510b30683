"""`shardfs serve --cache`: a cache of another place as a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from shardfs import config
from shardfs.errors import StoreError
from shardfs.exposition import Metric, Sample
from shardfs.server.access import Access
from shardfs.server.app import DEFAULT_HOST, DEFAULT_PORT, and_how_to_get_in, assemble
from shardfs.server.folder import make_folder
from shardfs.server.limits import Limits
from shardfs.server.peer_blocks import Blocks
from shardfs.server.peer_cache import PeerCache, PeerHandlers
from shardfs.server.process import MORE_METRICS, Edge, serve
from shardfs.store.cache import Cache

DEFAULT_SIZE: Final = 50 << 30  # bytes
_THREADS: Final = 64  # most wait for the other place, or for another thread that does
_DEADLINE_S: Final = 5.0  # for the other place to answer: clients try again themselves, or ask somebody else
SHOWN_URL: Final = web.AppKey("shown_url", str)  # of the other place, without credentials


@dataclass(frozen=True, slots=True)
class Upstream:
    """What is cached, and where.

    Attributes:
        url: of the other place: a server, or a bucket or directory with repositories below it.
        folder: keeps what came, and the tokens of this cache; made when missing, for this user alone.
        size: most bytes that blocks may take on disk.
        min_free: least bytes that stay free on that disk.
    """

    url: str
    folder: Path
    size: int = DEFAULT_SIZE
    min_free: int = field(default_factory=lambda: config.load(None).cache_min_free)


def default_folder() -> Path:
    """Where a cache keeps what came when nobody says."""
    return config.cache_home() / "served"


def make_cache_app(
    upstream: Upstream,
    *,
    access: Access | None = None,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> web.Application:
    """An application that serves the repositories of another place from this disk.

    Args:
        upstream: the other place; its folder must exist.
        access: who may read; by default only those with a token.
        limits: of clients.

    Raises:
        UsageError: the URL is none. MalformedError: a file of tokens, rules or settings is damaged.
    """
    settings = config.load(None)
    cache = Cache.open(upstream.folder / "blocks", limit_bytes=upstream.size, free_floor_bytes=upstream.min_free)
    deadline = replace(settings, deadline_s=min(settings.deadline_s, _DEADLINE_S))
    peer = PeerCache(upstream.url, cache, upstream.folder / "listings", deadline)
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="shardfs-cache")

    def close() -> None:
        peer.close()
        cache.close()

    app = assemble(PeerHandlers(peer, threads), threads, access or Access(upstream.folder), limits, close)
    app[SHOWN_URL] = peer.shown_url
    more: Callable[[], list[Metric]] = partial(_metrics, peer.blocks, cache)
    app[MORE_METRICS] = more
    return app


def _metrics(blocks: Blocks, cache: Cache) -> list[Metric]:
    stats = cache.stats()
    return [
        Metric(f"shardfs_server_cache_{name}", kind, text, [Sample(value)])
        for name, kind, text, value in (
            ("hit_bytes_total", "counter", "Bytes of blocks that were on this disk.", blocks.hits),
            ("fetched_bytes_total", "counter", "Bytes of blocks that came from the other place.", blocks.fetched),
            ("bytes", "gauge", "Bytes of blocks on this disk.", stats.stored_bytes),
            ("limit_bytes", "gauge", "Most bytes that they may take.", stats.limit_bytes),
        )
    ]


def run(
    upstream: Upstream,
    where: tuple[str, int] = (DEFAULT_HOST, DEFAULT_PORT),
    *,
    access: Access | None = None,
    edge: Edge = Edge(),  # noqa: B008 - immutable
    announce: Callable[[str], None] = print,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> None:
    """Serve until SIGTERM or SIGINT; see `process.serve`.

    Args:
        upstream: the other place.
        where: host and port to listen on; port 0 takes a free one.
        access: who may read; by default only those with a token.
        edge: TLS, limits, logs.
        announce: gets one line with the URL once the server listens.
        warn: gets lines that the user should see.

    Raises:
        UsageError: the URL or the certificate is no good.
        StoreError: the folder cannot be used, or the address cannot be listened on.
        MalformedError: a file of tokens, rules or settings is damaged.
    """
    make_folder(upstream.folder, "cannot keep anything in", 0o700)
    if not os.access(upstream.folder, os.W_OK | os.X_OK):
        msg = f"cannot keep anything in {upstream.folder}: it is not writable; --cache-dir names another place"
        raise StoreError(msg)
    rules = access or Access(upstream.folder)

    app = make_cache_app(upstream, access=rules, limits=edge.limits)
    said = and_how_to_get_in(announce, rules, upstream.folder, warn)
    serve(app, f"a cache of {app[SHOWN_URL]}", where, edge, announce=said, warn=warn)
