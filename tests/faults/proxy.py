"""A proxy in front of any HTTP remote that breaks a share of the exchanges, the same ones for the same seed.

    python -m tests.faults.proxy http://127.0.0.1:8750 [--tls CERTIFICATE KEY]

As a program it prints its URL as a line of JSON, then reads lines of JSON: {"seed": 7, "share": 0.3, "faults": ["cut"]}
changes the weather, {"upstream": URL} the server. Each is answered with what happened until then. It ends with its
standard input.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.certificates import Pair
from tests.faults.breaking import FAULTS, GREETING_FAULTS, UPLOAD_FAULTS
from tests.faults.exchange import Answer, ClosedError, Exchange, Request, Wire

REFUSE: Final = "refuse"  # connections are refused for a while
ALL: Final = (REFUSE, *FAULTS, *UPLOAD_FAULTS, *GREETING_FAULTS)
_REFUSED_S: Final = 0.3


@dataclass
class Weather:
    """What happens to exchanges until the next change.

    Attributes:
        seed: decides which exchanges break, together with what they ask and how often that was asked before.
        share: of the exchanges that break, 0 to 1.
        faults: names of those that can happen; one of them, by chance.
        met: how often each happened.
        asked: how often each thing was asked.
        sent: bytes of uploads that came from clients, by target.
        ended: set by the next change: nobody waits in this weather any more.
    """

    seed: int = 0
    share: float = 0.0
    faults: Sequence[str] = ()
    met: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)


class FaultProxy:
    """Forwards exchanges to a server, or breaks them.

    Args:
        upstream: URL of the server, without a path; plain HTTP.
        tls: certificate and key, for clients that shall come by TLS.

    Attributes:
        url: where clients ask.
        weather: what happens now.
    """

    def __init__(self, upstream: str, *, tls: Pair | None = None) -> None:
        self.weather = Weather()
        self._guard = threading.Lock()
        self._refusing = threading.Lock()
        self._answers: dict[str, Answer] = {}
        self._tls = None
        if tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*tls)
        self.aim(upstream)
        self._listener, port = _listener()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def aim(self, upstream: str) -> None:
        """Forward to another server from now on."""
        parts = urlsplit(upstream)
        assert parts.hostname
        self._upstream = parts.hostname, parts.port or 80

    def change(self, seed: int = 0, share: float = 0.0, faults: Sequence[str] = ()) -> Weather:
        """Begin other weather, good weather without arguments; returns what was until now."""
        assert set(faults) <= set(ALL), faults
        with self._guard:
            before, self.weather = self.weather, Weather(seed, share, tuple(faults))
            self._answers.clear()
        before.ended.set()
        return before

    def close(self) -> None:
        """End all that is under way."""
        self._closed = True
        self.change()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                if not self._closed:
                    time.sleep(0.01)  # closed for a while by `_refuse`
                continue
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        weather = self.weather
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(raw)
        try:
            if self._tls is not None:
                fault, _ = self._draw(weather, "connection", tuple(GREETING_FAULTS))
                if fault:
                    GREETING_FAULTS[fault](wire, raw, weather.ended.wait)
                if not wire.open:
                    return
                raw = self._tls.wrap_socket(raw, server_side=True)
                wire = Wire(raw)
            while wire.open and (request := wire.request()) is not None:
                self._exchange(wire, request)
        except (ClosedError, OSError):
            pass
        finally:
            wire.close()

    def _exchange(self, wire: Wire, request: Request) -> None:
        weather = self.weather
        key = f"{request.method} {request.target} {request.header('range')}"
        possible = (REFUSE, *FAULTS, *(UPLOAD_FAULTS if request.length else ()))
        fault, chance = self._draw(weather, key, possible)

        def note(count: int) -> None:
            with self._guard:
                weather.sent[request.target] += count

        with self._guard:
            before = self._answers.get(request.method)
        exchange = Exchange(request, wire, chance, self._upstream, weather.ended, note, before)
        if fault == REFUSE:
            wire.reset()
            self._refuse(weather)
        elif fault:
            (FAULTS.get(fault) or UPLOAD_FAULTS[fault])(exchange)
        else:
            answer = exchange.ask()
            with self._guard:
                self._answers[request.method] = answer
            wire.send(answer.head() + answer.body)

    def _draw(self, weather: Weather, key: str, possible: Sequence[str]) -> tuple[str, random.Random]:
        """The fault of an exchange, "" for none, and its chance: both depend on nothing else than seed and key."""
        with self._guard:
            weather.asked[key] += 1
            seed = f"{weather.seed} {key} {weather.asked[key]}".encode()
            chance = random.Random(hashlib.sha256(seed).digest())
            faults = [name for name in weather.faults if name in possible]
            fault = chance.choice(faults) if faults and chance.random() < weather.share else ""
            weather.met[fault] += 1
        return fault, chance

    def _refuse(self, weather: Weather) -> None:
        """Listen to nobody for a while. The socket stays bound, so that the port stays ours.

        One at a time: connections to a socket that was shut down twice count as shut down themselves.
        """
        if self._refusing.acquire(blocking=False):
            with suppress(OSError):  # closed meanwhile
                self._listener.shutdown(socket.SHUT_RD)
                weather.ended.wait(_REFUSED_S)
                self._listener.listen(128)
            self._refusing.release()


def _listener() -> tuple[socket.socket, int]:
    """A listening socket and its port, which was asked for by number: else Linux gives it up in `_refuse`."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", port), backlog=128), port


def _report(weather: Weather) -> dict[str, Any]:
    return {name: dict(getattr(weather, name)) for name in ("met", "asked", "sent")}


def main() -> None:
    """Run the proxy until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream")
    parser.add_argument("--tls", type=Path, nargs=2)
    given = parser.parse_args()
    proxy = FaultProxy(given.upstream, tls=Pair(*given.tls) if given.tls else None)
    print(json.dumps({"url": proxy.url}), flush=True)
    for line in sys.stdin:
        said = json.loads(line)
        if "upstream" in said:
            proxy.aim(said.pop("upstream"))
        print(json.dumps(_report(proxy.change(**said))), flush=True)


if __name__ == "__main__":
    main()
