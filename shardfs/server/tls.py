"""The certificate of the server, read again when its files change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from shardfs.errors import UsageError

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...] | None


class Certificate:
    """A certificate with its key, as files in PEM form. Connections that are open keep the one that they began with.

    Args:
        chain: the certificate, then those that lead to an authority.
        key: its private key, without a password.

    Raises:
        UsageError: the files cannot be read, are no PEM, or do not belong together.

    Attributes:
        context: for the next connection; TLS 1.2 and later.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self._stamp = self._look()
        self.context = self._load()

    def refresh(self, *, force: bool = False) -> None:
        """Read the files again if they changed; one that is no good is logged, and the one in use stays."""
        stamp = self._look()
        if stamp == self._stamp and not force:
            return
        self._stamp = stamp
        try:
            self.context = self._load()
        except UsageError as error:
            _log.warning("%s; the certificate in use stays", error)
        else:
            _log.info("read the certificate %s again", self._chain)

    def _look(self) -> _Stamp:
        """Changes whenever one of the files does; None: one of them cannot be looked at."""
        try:
            found = (self._chain.stat(), self._key.stat())
        except OSError:
            return None
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            for path in (self._chain, self._key):  # OpenSSL does not say which one it cannot read
                path.open("rb").close()
            # Without a function OpenSSL would ask the terminal for a password.
            context.load_cert_chain(self._chain, self._key, password=lambda: "")
        except ssl.SSLError as error:
            reason = _REASONS.get(
                error.reason or "", "not a certificate and a private key in PEM form without a password"
            )
            msg = f"cannot use {self._chain} with {self._key}: {reason}"
            raise UsageError(msg) from error
        except OSError as error:
            msg = f"cannot read {error.filename}: {error.strerror}"
            raise UsageError(msg) from error
        return context


_REASONS = {"KEY_VALUES_MISMATCH": "the key is that of another certificate"}
