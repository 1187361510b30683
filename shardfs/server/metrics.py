"""The counts of a server for Prometheus."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Final

from shardfs import __version__
from shardfs.exposition import Metric, Sample, page
from shardfs.server.limits import Gate
from shardfs.server.repositories import Repositories
from shardfs.server.slow import Watch
from shardfs.server.traffic import BUCKETS_S, Traffic

_PREFIX: Final = "shardfs_server"
_BEGAN: Final = time.time()


class Metrics:
    """What is told of one server.

    Args:
        traffic: requests.
        watch: bytes.
        gate: connections.
        repositories: what is served; None when it is no folder of repositories.
        more: tells what only this kind of server has.
    """

    def __init__(
        self,
        traffic: Traffic,
        watch: Watch,
        gate: Gate,
        repositories: Repositories | None,
        more: Callable[[], Iterable[Metric]] = tuple,
    ) -> None:
        self._traffic = traffic
        self._watch = watch
        self._gate = gate
        self._repositories = repositories
        self._more = more

    def page(self) -> str:
        """All of it."""
        self._watch.count()
        return page((*self._requests(), *self._connections(), *self._more(), *_process()))

    def _requests(self) -> Iterator[Metric]:
        traffic = self._traffic
        answered = [
            Sample(count, (("endpoint", endpoint), ("method", method), ("status", str(status))))
            for (endpoint, method, status), count in sorted(traffic.answered.items())
        ]
        yield Metric(f"{_PREFIX}_requests_total", "counter", "Requests; status 499: the client left.", answered)
        times = [sample for endpoint in sorted(traffic.latency) for sample in self._times(endpoint)]
        yield Metric(f"{_PREFIX}_request_seconds", "histogram", "From head to last byte of the answer.", times)
        yield _gauge("requests_in_progress", "Requests that are being answered.", traffic.in_progress)
        yield _gauge("uploads_in_progress", "Packs, chunks and manifests being received.", traffic.uploads.taken)
        yield _by_reason("refused_total", "limit", "Turned away, by the limit that was met.", traffic.refused)
        yield _by_reason("cut_off_total", "slow_with", "Cut off, by what was too slow.", traffic.cut_off)
        yield _gauge("stopping", "Whether the server takes no more requests.", int(traffic.stopping))

    def _times(self, endpoint: str) -> Iterator[Sample]:
        latency = self._traffic.latency[endpoint]
        labels = (("endpoint", endpoint),)
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), accumulate(latency.counts), strict=True):
            yield Sample(count, (*labels, ("le", bound)), "_bucket")
        yield Sample(latency.total_s, labels, "_sum")
        yield Sample(sum(latency.counts), labels, "_count")

    def _connections(self) -> Iterator[Metric]:
        yield _counter("received_bytes_total", "Bytes that came over connections.", self._watch.received)
        yield _counter("sent_bytes_total", "Bytes that clients confirmed.", self._watch.sent)
        yield _gauge("connections", "Open connections.", self._gate.count)
        if self._repositories is not None:
            yield _gauge("open_repositories", "Repositories whose stores are open.", self._repositories.open_count())


def _gauge(name: str, help_: str, value: float) -> Metric:
    return Metric(f"{_PREFIX}_{name}", "gauge", help_, [Sample(value)])


def _counter(name: str, help_: str, value: float) -> Metric:
    return Metric(f"{_PREFIX}_{name}", "counter", help_, [Sample(value)])


def _by_reason(name: str, label: str, help_: str, counts: Mapping[str, int]) -> Metric:
    samples = [Sample(count, ((label, reason),)) for reason, count in sorted(counts.items())]
    return Metric(f"{_PREFIX}_{name}", "counter", help_, samples)


def _process() -> Iterator[Metric]:
    """What Prometheus' own clients tell of a process, by the names that they use."""
    yield Metric(f"{_PREFIX}_info", "gauge", "What runs here.", [Sample(1, (("version", __version__),))])
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = [Sample(used.ru_utime + used.ru_stime)]
    yield Metric("process_cpu_seconds_total", "counter", "Time on processors.", cpu)
    yield Metric("process_start_time_seconds", "gauge", "Unix time of the start.", [Sample(_BEGAN)])
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        memory = [Sample(pages * resource.getpagesize())]
        yield Metric("process_resident_memory_bytes", "gauge", "Memory in use.", memory)
        opened = [Sample(len(os.listdir("/proc/self/fd")))]  # noqa: PTH208 - names are all that is wanted
        yield Metric("process_open_fds", "gauge", "Open descriptors.", opened)
        limit = [Sample(resource.getrlimit(resource.RLIMIT_NOFILE)[0])]
        yield Metric("process_max_fds", "gauge", "Descriptors that may be open.", limit)
