"""What a URL with the wrong scheme looks like: http:// to a server that speaks TLS, https:// to one that does not."""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Final

from shardfs.remotes import deadline, dialing

_WAIT_S: Final = 2.0  # for a handshake: three round trips, a second of them with the usual deadlines of satellites
_RECORDS: Final = ("\x15\x03", "\x16\x03")  # how an alert and a handshake of SSL 3 to TLS 1.3 begin; RFC 8446, 5.1
_NO_RECORD: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)
IS_HTTPS: Final = "it speaks TLS; its URL begins with https://"
IS_HTTP: Final = "it does not speak TLS; for plain HTTP the URL begins with http://"


def is_tls(host: str, port: int, failure: Exception | None = None) -> bool:
    """Whether a server that gave no HTTP answer to a first plain request speaks TLS.

    Args:
        host: of the server.
        port: of the server.
        failure: what became of the request; None: the answer was 400.
    """
    if isinstance(failure, http.client.BadStatusLine) and str(failure).startswith(_RECORDS):
        return True
    closed = failure is None or isinstance(failure, ConnectionError)  # RemoteDisconnected is one
    return closed and _answers_handshake(host, port)


def is_plain(failure: ssl.SSLError) -> bool:
    """Whether a handshake failed because the server answered something that is not TLS."""
    return failure.reason in _NO_RECORD


def _answers_handshake(host: str, port: int) -> bool:
    """Whether a server answers a handshake; nothing is sent after it, so whose certificate that is does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    until = time.monotonic() + min(_WAIT_S, deadline.remaining())
    try:
        with dialing.connect(host, port, until, lambda _: None) as raw:
            raw.settimeout(dialing.left(until))
            with context.wrap_socket(raw, server_hostname=host):
                return True
    except ssl.SSLError as error:
        return "_ALERT_" in (error.reason or "")
    except (OSError, ValueError):
        return False
